import { describe, expect, test } from "vitest";

import type { Goal, Trigger } from "../api/client";
import { numbersOf } from "./ConfigFields";
import { type Condition, defaultOf, draftOf, fieldsOf, inputOf, limitField, newDraft, withField } from "./draft";
import { unitOf } from "./DurationField";
import { conditionOf, operatorsOf, rowOf, suggestions, withDimension, withSuggestion } from "./FilterRows";
import { stepOf } from "./Preview";

const spike = {
  properties: {
    sensitivity: { type: "string", default: "medium", enum: ["medium", "off"] },
    for_seconds: { type: "integer", default: 0 },
    window_seconds: { type: "integer", default: 300 },
    threshold: { type: "integer", default: 10 },
  },
} as const;
const goal = {
  properties: { goal: { type: "object" }, mode: { type: "string", default: "each", enum: ["each", "threshold"] }, threshold: { type: "integer" }, window_seconds: { type: "integer" }, renotify_seconds: { type: "integer" } },
} as const;
const metric = { properties: { metric: { type: "string", default: "visitors" }, goal: { type: "object" }, threshold: { type: "number" } } } as const;

describe("the fields of a type", () => {
  test("come in the order in which one thinks of them, the finer ones apart", () => {
    expect(fieldsOf(spike as never, {})).toEqual({ usual: ["threshold", "window_seconds", "sensitivity"], finer: ["for_seconds"] });
  });
  test("are those that matter", () => {
    expect(fieldsOf(goal as never, {})).toEqual({ usual: ["goal", "mode"], finer: [] });
    expect(fieldsOf(goal as never, { mode: "threshold" })).toEqual({ usual: ["goal", "mode", "threshold", "window_seconds"], finer: ["renotify_seconds"] });
    expect(fieldsOf(metric as never, {}).usual).toEqual(["metric", "threshold"]);
    expect(fieldsOf(metric as never, { metric: "conversion_rate" }).usual).toEqual(["goal", "metric", "threshold"]);
  });
  test("that were set are never hidden", () => expect(fieldsOf(goal as never, { threshold: 5 }).usual).toContain("threshold"));
  test("have a limit for the chart, or none", () => {
    expect([limitField(spike as never, {}), limitField(goal as never, {}), limitField(goal as never, { mode: "threshold" })]).toEqual(["threshold", null, "threshold"]);
  });
});

test("a threshold of one's own switches the sensitivity off", () => {
  expect([defaultOf(spike as never, "sensitivity", {}), defaultOf(spike as never, "sensitivity", { threshold: 5 }), defaultOf(spike as never, "threshold", {})]).toEqual(["medium", "off", 10]);
});

test.each([
  [5, { a: 1, b: 5 }],
  [0, { a: 1, b: 0 }],
  [false, { a: 1, b: false }],
  ["", { a: 1 }],
  [undefined, { a: 1 }],
  [Number.NaN, { a: 1 }],
])("a field set to %s", (value, want) => expect(withField({ a: 1, b: 2 }, "b", value)).toEqual(want));

test("a stored trigger is sent back as it was", () => {
  const stored = { id: "tr_1", type: "visitor_spike", name: "Front page", enabled: false, config: { threshold: 5 }, filters: [["is", "visit:country", ["EE"]]], cooldown_seconds: 60, notify_resolved: true } as unknown as Trigger;
  expect(inputOf(draftOf(stored))).toEqual(stored);
});

test("a new one has no name and no id to send", () => {
  expect(inputOf(newDraft("new_source"))).toEqual({ type: "new_source", enabled: true, config: {}, filters: [], cooldown_seconds: 0, notify_resolved: false });
  expect(newDraft("new_source").key).not.toBe(newDraft("new_source").key);
});

test("the site's goals suggest values, and one with wildcards an operator that knows them", () => {
  const goals: Goal[] = [
    { id: 1, display_name: "Blog", event_name: null, page_path: "/blog/*", scroll_threshold: null, custom_props: {} },
    { id: 2, display_name: "Buy", event_name: "Purchase", page_path: null, scroll_threshold: null, custom_props: { plan: "business" } },
    { id: 3, display_name: "Buy too", event_name: "Purchase", page_path: null, scroll_threshold: null, custom_props: {} },
    { id: 4, display_name: "Read it", event_name: null, page_path: "/blog/*", scroll_threshold: 75, custom_props: {} },
  ];
  expect(["event:page", "event:name", "event:goal", "event:props:plan", "visit:country"].map((dimension) => suggestions(goals, dimension))).toEqual([["/blog/*"], ["Purchase"], ["Blog", "Buy", "Buy too"], ["business"], []]);
  expect(suggestions(goals, "event:goal", true)).toEqual(["Blog", "Buy", "Buy too", "Read it"]);
  expect(suggestions(goals, "visit:entry_page")).toEqual(["/blog/*"]);
  expect(withSuggestion(["is", "event:goal", []], "Visit /blog/*")).toEqual(["is", "event:goal", ["Visit /blog/*"]]);
  expect(withSuggestion(["is", "event:page", []], "/blog/*")).toEqual(["matches_wildcard", "event:page", ["/blog/*"]]);
  expect(withSuggestion(["is_not", "event:page", [""]], "/blog/*")).toEqual(["is_not", "event:page", ["/blog/*"]]);
  expect(withSuggestion(["is", "event:page", ["/"]], "/pricing")).toEqual(["is", "event:page", ["/", "/pricing"]]);
});

test("what a visit has done is an operator of a row", () => {
  for (const condition of [["has_not_done", ["is", "event:goal", ["Buy", "Visit /a*"]]], ["has_done", ["matches_wildcard", "event:page", ["/", "/blog/*"]]], ["contains", "visit:entry_page", ["/a"]]] satisfies Condition[]) {
    expect(conditionOf(rowOf(condition)!)).toEqual(condition);
  }
  expect(rowOf(["has_done", ["is", "event:page", ["/"]]])).toEqual(["has_done", "event:page", ["/"]]);
  for (const condition of [["has_done", ["contains", "event:page", ["/"]]], ["has_done", ["is", "event:page", ["/a*"]]], ["has_done", ["is", "visit:os", ["Mac"]]], ["has_done", ["or", []]], ["not", ["is", "event:page", ["/"]]]] satisfies Condition[]) {
    expect(rowOf(condition)).toBeUndefined();
  }
  const ids = (dimension: string) => operatorsOf(dimension).map(({ id }) => id);
  expect(ids("event:goal")).toEqual(["is", "is_not", "contains", "contains_not", "has_done", "has_not_done"]);
  expect(ids("visit:exit_page")).not.toContain("has_done");
  expect(withDimension(["has_done", "event:page", ["/"]], "visit:os")).toEqual(["is", "visit:os", []]);
  expect(withDimension(["has_done", "event:page", ["/"]], "event:goal")).toEqual(["has_done", "event:goal", []]);
});

test.each([
  ["", undefined],
  [" , ", undefined],
  ["1000", [1000]],
  ["1000, 5000;10000 20000", [1000, 5000, 10_000, 20_000]],
  ["10, x", [10, "x"]],
])("numbers of %j", (text, want) => expect(numbersOf(text)).toEqual(want));

test.each([
  [0, 1],
  [59, 1],
  [300, 60],
  [5400, 60],
  [7200, 3600],
  [172_800, 86_400],
])("%i s are shown in units of %i s", (seconds, unit) => expect(unitOf(seconds)).toBe(unit));

test.each([
  ["integer", 0, 1],
  ["integer", 130, 2],
  ["integer", 4000, 50],
  ["number", 1, 0.01],
  ["number", 37, 0.5],
] as const)("a limit of type %s below %f goes by %f", (type, highest, want) => expect(stepOf({ type }, highest)).toBeCloseTo(want, 10));
