import { expect, test } from "vitest";

import type { TriggerStatus } from "../api/client";
import { episodesOf, pointsOf } from "./episodes";

const at = (minute: number) => new Date(Date.UTC(2026, 10, 23, 15, minute)).toISOString();
const run = (from: number, to: number, value: number | null, status: TriggerStatus) => ({ from: at(from), to: at(to), step_seconds: 60, value, threshold: 50, status });

const runs = [run(0, 3, 5, "ok"), run(4, 4, 60, "firing"), run(5, 6, 80, "firing"), run(7, 8, 10, "recovering"), run(9, 9, 90, "firing"), run(10, 12, 5, "ok"), run(30, 30, 70, "firing")];

test("an episode goes on while it recovers, and ends where it is quiet", () => {
  expect(episodesOf(runs)).toEqual([
    { from: at(4), to: at(9), highest: 90, lowest: 10 },
    { from: at(30), to: at(30), highest: 70, lowest: 70 },
  ]);
  expect(episodesOf([run(0, 1, 1, "recovering"), run(2, 3, null, "insufficient_data")])).toEqual([]);
  expect(episodesOf([run(0, 1, null, "firing")])).toEqual([{ from: at(0), to: at(1), highest: null, lowest: null }]);
});

test("a line has both ends of each run, and a gap where nothing was evaluated", () => {
  const points = pointsOf(runs);
  expect(points.slice(0, 3)).toEqual([
    { at: at(0), value: 5, threshold: 50 },
    { at: at(3), value: 5, threshold: 50 },
    { at: at(4), value: 60, threshold: 50 },
  ]);
  expect(points.filter(({ value }) => value === null)).toHaveLength(1);
  expect(points.map(({ at }) => at)).toEqual(points.map(({ at }) => at).toSorted());
});
