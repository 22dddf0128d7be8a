import type { Delivery, DeliveryStatus } from "../api/client";

export interface Page {
  deliveries: Delivery[];
  meta: { after: string | null; before: string | null; limit: number };
}

export interface Filter {
  status?: DeliveryStatus;
  trigger_id?: string;
  type?: string;
  from?: string;
  to?: string;
}

/**
 * Brings the newest page, as read now, into the pages that are loaded: what changed is replaced, what is new comes
 * first. It is undefined where so much is new that pages are missing in between: then the list is to be read anew.
 */
export function mergeNewest(pages: Page[], newest: Page): Page[] | undefined {
  const [first, ...rest] = pages;
  if (first === undefined) return [newest];
  const known = new Set(pages.flatMap((page) => page.deliveries.map((delivery) => delivery.id)));
  const meets = newest.meta.after === null || newest.deliveries.some((delivery) => known.has(delivery.id));
  if (!meets) return undefined;
  const fresh = new Map(newest.deliveries.map((delivery) => [delivery.id, delivery]));
  const added = newest.deliveries.filter((delivery) => !known.has(delivery.id));
  const replaced = [first, ...rest].map((page) => ({ ...page, deliveries: page.deliveries.map((delivery) => fresh.get(delivery.id) ?? delivery) }));
  return replaced.map((page, i) => (i === 0 ? { ...page, deliveries: [...added, ...page.deliveries] } : page));
}

/** Brings single deliveries, as read now, into the pages: those that the filter does not let through any more go. */
export function mergeChanged(pages: Page[], changed: Delivery[], filter: Filter): Page[] {
  const fresh = new Map(changed.map((delivery) => [delivery.id, delivery]));
  return pages.map((page) => ({
    ...page,
    deliveries: page.deliveries.map((delivery) => fresh.get(delivery.id) ?? delivery).filter((delivery) => !fresh.has(delivery.id) || lets(filter, delivery)),
  }));
}

// The other parts of a filter are about what never changes.
function lets(filter: Filter, delivery: Delivery): boolean {
  return filter.status === undefined || filter.status === delivery.status;
}
