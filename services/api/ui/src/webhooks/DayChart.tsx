import { useMemo } from "react";
import uPlot from "uplot";

import type { Activity } from "../api/client";
import { Plot } from "../chart/Plot";

/** The deliveries of the last 24 hours, by the hour: those that failed stand on those delivered. */
export function DayChart({ activity }: { activity: Activity }) {
  const data = useMemo<uPlot.AlignedData>(() => {
    const hours = activity.hours;
    return [hours.map((_, i) => i), hours.map((hour) => hour.delivered + hour.failed), hours.map((hour) => hour.delivered)];
  }, [activity]);
  const { delivered, dead, retrying } = activity;
  const bars = uPlot.paths.bars?.({ size: [0.7, 12], gap: 1 });
  return (
    <Plot
      label={`In the last 24 hours ${delivered} delivered, ${retrying} being tried again, ${dead} given up`}
      revision="day"
      height={36}
      data={data}
      options={(paint) => ({
        padding: [2, 0, 0, 0],
        cursor: { show: false },
        legend: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false, range: [-0.5, 23.5] }, y: { range: (_, __, max) => [0, Math.max(max, 1)] } },
        series: [{}, { fill: paint("bad"), width: 0, paths: bars, points: { show: false } }, { fill: paint("good"), width: 0, paths: bars, points: { show: false } }],
      })}
    />
  );
}

/** `99.2 %` of what has ended; null where nothing has. */
export function successRate({ delivered, dead }: Activity): string | null {
  if (delivered + dead === 0) return null;
  const percent = (100 * delivered) / (delivered + dead);
  return `${percent === 100 || percent === 0 ? percent : Math.min(99.9, Math.max(0.1, percent)).toFixed(1)} %`;
}
