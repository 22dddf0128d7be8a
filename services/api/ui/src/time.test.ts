import { expect, test } from "vitest";

import { ago, clock, day, duration, fullTime, milliseconds, number, shortTime, withLocalTimes, zoneName } from "./time";

test("times are the site's, on both sides of a change of the clock", () => {
  expect(fullTime("2026-10-25T00:59:59Z", "Europe/Tallinn")).toBe("25 Oct 2026, 03:59:59");
  expect(fullTime("2026-10-25T01:00:00Z", "Europe/Tallinn")).toBe("25 Oct 2026, 03:00:00");
  expect([zoneName("2026-10-25T00:59:59Z", "Europe/Tallinn"), zoneName("2026-10-25T01:00:00Z", "Europe/Tallinn")]).toEqual(["EEST", "EET"]);
  expect(shortTime("2026-11-23T23:30:00Z", "Asia/Kolkata")).toBe("24 Nov, 05:00");
  expect([clock(0, "Etc/UTC"), day(0, "America/New_York")]).toEqual(["00:00", "31 Dec"]);
});

test("a zone that the browser does not know is UTC", () => expect(shortTime("2026-11-23T15:04:10Z", "Mars/Olympus")).toBe("23 Nov, 15:04"));

test("the times in a sentence become the site's", () => {
  expect(withLocalTimes("It ends at 2026-11-23T15:04:10Z, or at 2026-11-23T15:04:10.123Z.", "Europe/Tallinn")).toBe("It ends at 23 Nov, 17:04, or at 23 Nov, 17:04.");
  expect(withLocalTimes("10 visitors on 2026-11-23", "Europe/Tallinn")).toBe("10 visitors on 2026-11-23");
});

test.each([
  [0, "now"],
  [-5, "5 seconds ago"],
  [-90, "1 minute ago"],
  [7200, "in 2 hours"],
  [-86_400, "yesterday"],
  [-10 * 86_400, "10 days ago"],
])("%i s from now is %s", (seconds, text) => {
  const now = new Date("2026-11-23T15:00:00Z");
  expect(ago(new Date(now.getTime() + seconds * 1000), now)).toBe(text);
});

test.each([
  [0, "0 s"],
  [59, "59 s"],
  [300, "5 min"],
  [5400, "1 h 30 min"],
  [86_400, "1 d"],
  [90_061, "1 d 1 h"],
])("%i s are %s", (seconds, text) => expect(duration(seconds)).toBe(text));

test.each([
  [0.04, "0.0 ms"],
  [9.96, "10.0 ms"],
  [41.2, "41 ms"],
  [15_000, "15.0 s"],
])("%f ms are %s", (ms, text) => expect(milliseconds(ms)).toBe(text));

test("numbers have thousands", () => expect([number(1234.567), number(0.1)]).toEqual(["1,234.57", "0.1"]));
