import { expect, test } from "vitest";

import type { Activity, Webhook } from "../api/client";
import { successRate } from "./DayChart";
import { healthOf, nameOf } from "./health";
import { blank, bodyOf, headerRow, settingsOf, shownProblems } from "./settings";

const webhook: Webhook = {
  id: "wh_1",
  url: "https://hooks.example.com/x",
  description: "",
  enabled: true,
  status: "active",
  disabled_reason: null,
  failing_since: null,
  headers: { "X-Token": "t" },
  format: "slack",
  template: null,
  batch: { max_size: 5, max_wait_seconds: 10 },
  rate_limit_per_second: 2.5,
  timeout_seconds: 7,
  triggers: [],
  created_at: "2026-11-23T15:00:00Z",
  updated_at: "2026-11-23T15:00:00Z",
};
const now = new Date("2026-11-23T16:00:00Z");

test("a webhook that was only opened is sent back as it was", () => {
  const { url, description, headers, format, template, batch, rate_limit_per_second, timeout_seconds } = webhook;
  expect(bodyOf(settingsOf(webhook))).toEqual({ url, description, headers, format, template, batch, rate_limit_per_second, timeout_seconds, triggers: [] });
});

test("a template goes with the custom format alone, headers without a name not at all", () => {
  expect(bodyOf({ ...blank, template: "{a: 1}" }).template).toBeNull();
  expect(bodyOf({ ...blank, format: "custom", template: "{a: 1}" }).template).toBe("{a: 1}");
  expect(bodyOf({ ...blank, headers: [headerRow("  ", "x"), headerRow(" X-A ", " v ")] }).headers).toEqual({ "X-A": " v " });
});

test("problems are shown where one was, and all of them once it was tried", () => {
  const problems = new Map([
    ["url", "is required"],
    ["triggers[0].config.threshold", "must be at least 1"],
    ["triggers[1].config.goal", "is required"],
    ["headers.X-A", "may not be set"],
  ]);
  expect([...shownProblems(problems, new Set(), false)]).toEqual([]);
  expect([...shownProblems(problems, new Set(["triggers[0]", "headers"]), false).keys()]).toEqual(["triggers[0].config.threshold", "headers.X-A"]);
  expect(shownProblems(problems, new Set(), true).size).toBe(4);
});

test.each([
  [{}, "Active", /succeeded/],
  [{ enabled: false }, "Off", /kept/],
  [{ status: "failing", failing_since: "2026-11-23T14:00:00Z" }, "Failing", /since 2 hours ago/],
  [{ status: "disabled", disabled_reason: "It answered 410 Gone.", failing_since: "2026-11-23T14:00:00Z" }, "Disabled", /410 Gone.*2 hours ago/],
] as const)("%j is %s", (part, name, sentence) => {
  const health = healthOf({ ...webhook, ...part } as Webhook, now);
  expect(health.name).toBe(name);
  expect(health.sentence).toMatch(sentence);
});

test("without a description it is called after its host", () => {
  expect([nameOf(webhook), nameOf({ ...webhook, description: " Chat " }), nameOf({ ...webhook, url: "not a URL" })]).toEqual(["hooks.example.com", "Chat", "not a URL"]);
});

test.each([
  [0, 0, null],
  [10, 0, "100 %"],
  [0, 3, "0 %"],
  [999_999, 1, "99.9 %"],
  [1, 999_999, "0.1 %"],
  [2, 1, "66.7 %"],
])("%i delivered and %i given up are %s", (delivered, dead, want) => expect(successRate({ delivered, dead } as Activity)).toBe(want));
