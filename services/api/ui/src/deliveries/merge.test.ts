import { describe, expect, test } from "vitest";

import type { Delivery, DeliveryStatus } from "../api/client";
import { mergeChanged, mergeNewest, type Page } from "./merge";

const delivery = (n: number, status: DeliveryStatus = "delivered"): Delivery => ({
  id: `msg_${n}`,
  status,
  type: "visitor_spike.fired",
  trigger_id: null,
  firing_ids: [],
  attempts: 1,
  next_attempt_at: null,
  last_error: null,
  created_at: "2026-11-23T15:00:00Z",
  finished_at: null,
});
const page = (numbers: number[], after: string | null = "more"): Page => ({ deliveries: numbers.map((n) => delivery(n)), meta: { after, before: null, limit: 3 } });
const ids = (pages: Page[] | undefined) => pages?.map(({ deliveries }) => deliveries.map(({ id }) => Number(id.slice(4))));

describe("mergeNewest", () => {
  test.each([
    ["nothing new", [[9, 8, 7], [6, 5]], [9, 8, 7], [[9, 8, 7], [6, 5]]],
    ["one more", [[9, 8, 7], [6, 5]], [10, 9, 8], [[10, 9, 8, 7], [6, 5]]],
    ["as many as a page, less one", [[9, 8, 7]], [11, 10, 9], [[11, 10, 9, 8, 7]]],
    ["one that is known comes again at the top", [[9, 8, 7], [6, 5]], [6, 9, 8], [[9, 8, 7], [6, 5]]],
    ["so many that there is a gap", [[9, 8, 7]], [13, 12, 11], undefined],
    ["into an empty list", [[]], [2, 1], undefined],
  ])("%s", (_, known, newest, want) => {
    expect(ids(mergeNewest(known.map((numbers) => page(numbers)), page(newest)))).toEqual(want);
  });

  test("all that there is meets whatever was known", () => {
    expect(ids(mergeNewest([page([], null)], page([2, 1], null)))).toEqual([[2, 1]]);
  });

  test("what is known already is as it is now, on every page", () => {
    const newest = page([9, 6]);
    newest.deliveries[1] = delivery(6, "dead");
    const merged = mergeNewest([page([9, 8, 7]), page([6, 5])], newest);
    expect(merged?.[1]?.deliveries.map(({ status }) => status)).toEqual(["dead", "delivered"]);
    expect(merged?.map(({ meta }) => meta.after)).toEqual(["more", "more"]);
  });
});

describe("mergeChanged", () => {
  test("replaces what changed, wherever it is", () => {
    const merged = mergeChanged([page([9, 8]), page([6, 5])], [delivery(5, "waiting"), delivery(99)], {});
    expect(merged[1]?.deliveries.map(({ status }) => status)).toEqual(["delivered", "waiting"]);
    expect(ids(merged)).toEqual([[9, 8], [6, 5]]);
  });

  test("takes out what the filter does not let through any more", () => {
    expect(ids(mergeChanged([page([9, 8])], [delivery(9, "waiting"), delivery(8)], { status: "delivered" }))).toEqual([[8]]);
  });
});
