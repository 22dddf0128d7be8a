import type { Explanation } from "../api/client";
import type { Point } from "../chart/MetricChart";

type Run = Explanation["runs"][number];

/** The line of runs of equal results: both ends of each. Where nothing was evaluated for longer than a step, the line ends. */
export function pointsOf(runs: Run[]): Point[] {
  const points: Point[] = [];
  let until: number | null = null;
  for (const run of runs) {
    const from = Date.parse(run.from);
    if (until !== null && from - until > 2 * run.step_seconds * 1000) {
      points.push({ at: new Date(until + 1000).toISOString(), value: null, threshold: null });
    }
    points.push({ at: run.from, value: run.value, threshold: run.threshold });
    if (run.to !== run.from) points.push({ at: run.to, value: run.value, threshold: run.threshold });
    until = Date.parse(run.to);
  }
  return points;
}

export interface Episode {
  from: string;
  to: string;
  /** The farthest value from the threshold is not known here: the highest and the lowest are. */
  highest: number | null;
  lowest: number | null;
}

/** The episodes: from where it fires to where it does no more. Recovering is still part of one. */
export function episodesOf(runs: Run[]): Episode[] {
  const episodes: Episode[] = [];
  let open: Episode | null = null;
  for (const run of runs) {
    const fires: boolean = run.status === "firing" || (run.status === "recovering" && open !== null);
    if (!fires) {
      open = null;
      continue;
    }
    if (open === null) {
      open = { from: run.from, to: run.to, highest: run.value, lowest: run.value };
      episodes.push(open);
    }
    open.to = run.to;
    if (run.value !== null) {
      open.highest = Math.max(open.highest ?? run.value, run.value);
      open.lowest = Math.min(open.lowest ?? run.value, run.value);
    }
  }
  return episodes;
}
