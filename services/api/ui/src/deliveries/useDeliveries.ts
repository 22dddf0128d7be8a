import { type InfiniteData, useInfiniteQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";

import { api, type Delivery, queryClient } from "../api/client";
import { type Changed, useChanges } from "../api/useChanges";
import { type Filter, mergeChanged, mergeNewest, type Page } from "./merge";

const pageSize = 100;
// Changes of older deliveries, as a retry or a recovery makes them, are read one by one: so many at a time.
const readSingly = 20;

// How often the list is read where nobody tells what changes, as when too many watch.
const withoutStream = 15_000; // ms

/** A webhook's deliveries, the newest first, as they change. */
export function useDeliveries(siteID: string, webhookID: string, filter: Filter) {
  const path = { site_id: siteID, id: webhookID };
  const queryKey = ["deliveries", path, filter];
  const readPage = async (after: string, signal?: AbortSignal): Promise<Page> => {
    const { data } = await api.GET("/api/sites/{site_id}/webhooks/{id}/deliveries", { params: { path, query: { ...filter, limit: pageSize, ...(after === "" ? {} : { after }) } }, signal });
    return data as Page; // anything else was thrown
  };
  const list = useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam, signal }) => readPage(pageParam, signal),
    initialPageParam: "",
    getNextPageParam: (last: Page) => last.meta.after ?? undefined,
    staleTime: Number.POSITIVE_INFINITY, // it is told what changes
  });

  const change = (merge: (pages: Page[]) => Page[] | undefined) => {
    const known = queryClient.getQueryData<InfiniteData<Page, string>>(queryKey);
    if (known === undefined) return;
    const pages = merge(known.pages);
    if (pages === undefined) void queryClient.resetQueries({ queryKey });
    else queryClient.setQueryData(queryKey, { ...known, pages });
  };

  // One reading at a time: what comes meanwhile is one more when it has ended.
  const reading = useRef<{ again: Changed | undefined } | null>(null);
  const read = async (changed: Changed): Promise<void> => {
    if (reading.current !== null) {
      const waiting = reading.current.again;
      reading.current.again = waiting === undefined ? changed : waiting === null || changed === null ? null : [...waiting, ...changed];
      return;
    }
    reading.current = { again: undefined };
    try {
      const newest = await readPage("");
      change((pages) => mergeNewest(pages, newest));
      const shown = new Set(newest.deliveries.map((delivery) => delivery.id));
      const known = new Set(queryClient.getQueryData<InfiniteData<Page, string>>(queryKey)?.pages.flatMap((page) => page.deliveries.map((delivery) => delivery.id)));
      const older = (changed ?? []).filter((id) => known.has(id) && !shown.has(id)).slice(0, readSingly);
      const read = await Promise.all(older.map((delivery_id) => api.GET("/api/sites/{site_id}/webhooks/{id}/deliveries/{delivery_id}", { params: { path: { ...path, delivery_id } } })));
      change((pages) => mergeChanged(pages, read.map(({ data }) => data as Delivery), filter));
    } catch {
      // The next change, or the next connection, reads again; the list that is there says nothing wrong, only old.
    }
    const { again } = reading.current;
    reading.current = null;
    if (again !== undefined) await read(again);
  };
  const live = useChanges(siteID, webhookID, (changed) => void read(changed));
  const latest = useRef(read);
  latest.current = read;
  useEffect(() => {
    if (live) return;
    const timer = setInterval(() => void latest.current(null), withoutStream);
    return () => clearInterval(timer);
  }, [live]);
  return { ...list, live };
}
