import { useMemo, useRef, useState } from "react";
import { Slider, SliderThumb, SliderTrack } from "react-aria-components";
import uPlot from "uplot";

import { clock, clockSeconds, day, fullTime, number } from "../time";
import { type Paint, Plot } from "./Plot";

export interface Point {
  at: string;
  value: number | null;
  threshold: number | null;
}

/** A limit that can be dragged in the picture. */
export interface Limit {
  label: string;
  value: number;
  lowest: number;
  step: number;
  onChange: (value: number) => void;
}

interface MetricChartProps {
  label: string;
  points: Point[];
  /** Moments to be marked. */
  marks: string[];
  /** Spans that are shaded, such as episodes; both ends included. */
  spans?: { from: string; to: string }[];
  zone: string;
  height?: number;
  limit?: Limit;
}

/** Where the plotting area lies within the picture, and what its height stands for. */
interface Area {
  left: number;
  top: number;
  width: number;
  height: number;
  min: number;
  max: number;
}

const seconds = (at: string) => new Date(at).getTime() / 1000;

/** A metric over time with its threshold, the moments at which a trigger fired, and its episodes. */
export function MetricChart({ label, points, marks, spans = [], zone, height = 240, limit }: MetricChartProps) {
  const [area, setArea] = useState<Area | null>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const painted = useRef({ marks, spans });
  painted.current = { marks, spans };
  const draggable = limit !== undefined;
  const limited = useRef<number | null>(null);
  limited.current = limit?.value ?? null;
  const data = useMemo<uPlot.AlignedData>(
    () => [points.map(({ at }) => seconds(at)), points.map(({ value }) => value), points.map(({ threshold }) => (draggable ? null : threshold))],
    [points, draggable],
  );

  const options = (paint: Paint): Omit<uPlot.Options, "width" | "height"> => {
    const line = paint("line");
    const soft = paint("soft");
    const axis: uPlot.Axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px ui-sans-serif, system-ui, sans-serif" };
    const [accent, shade, mark, bad] = [paint("accent"), paint("bad-tint"), paint("bad"), paint("bad")];
    return {
      legend: { show: false },
      padding: [12, 12, 0, 0],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone),
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { y: { range: (plot, low, high) => range(plot, low, high, limited.current) } },
      axes: [{ ...axis, size: 28, values: (_, splits, __, ___, step) => splits.map((at) => (step < 60 ? clockSeconds(at * 1000, zone) : step < 86_400 ? clock(at * 1000, zone) : day(at * 1000, zone))) }, { ...axis, size: 48, values: (_, values) => values.map((value) => number(value)) }],
      series: [
        {},
        { stroke: accent, width: 1.5, fill: `color-mix(in srgb, ${accent} 12%, transparent)`, points: { show: false }, spanGaps: false },
        { stroke: bad, width: 1.5, dash: [5, 4], points: { show: false } },
      ],
      hooks: {
        drawAxes: [(plot) => shadeSpans(plot, painted.current.spans, shade)],
        draw: [
          (plot) => markMoments(plot, painted.current.marks, mark),
          (plot) => {
            const { min = 0, max = 1 } = plot.scales.y ?? {};
            const ratio = devicePixelRatio;
            const next = { left: plot.bbox.left / ratio, top: plot.bbox.top / ratio, width: plot.bbox.width / ratio, height: plot.bbox.height / ratio, min, max };
            setArea((known) => (known !== null && JSON.stringify(known) === JSON.stringify(next) ? known : next));
          },
        ],
        setCursor: [(plot) => setHovered(plot.cursor.idx ?? null)],
      },
    };
  };

  const point = hovered === null ? undefined : points[hovered];
  const most = area === null || limit === undefined ? 0 : Math.max(area.max, limit.value);
  return (
    <figure className="flex flex-col gap-1">
      <div className="relative">
        <Plot label={label} revision={`${zone} ${draggable}`} options={options} data={data} height={height} />
        {area !== null && limit !== undefined && (
          <Slider
            aria-label={limit.label}
            orientation="vertical"
            minValue={Math.min(limit.lowest, limit.value)}
            maxValue={Math.ceil(most / limit.step) * limit.step}
            step={limit.step}
            value={limit.value}
            onChange={limit.onChange}
            className="pointer-events-none absolute"
            style={{ left: area.left, top: area.top, width: area.width, height: area.height }}
          >
            <SliderTrack className="h-full w-full">
              <SliderThumb className="group pointer-events-auto left-1/2! h-4 w-full cursor-ns-resize outline-none">
                <span className="border-bad absolute inset-x-0 top-1/2 border-t-2 border-dashed" />
                <span className="bg-bad-solid group-data-focus-visible:outline-accent absolute top-1/2 right-0 -translate-y-1/2 rounded-md px-1.5 py-0.5 text-[11px] font-medium text-white tabular-nums group-data-focus-visible:outline-2 group-data-focus-visible:outline-offset-2">
                  {number(limit.value)} ↕
                </span>
              </SliderThumb>
            </SliderTrack>
          </Slider>
        )}
      </div>
      <figcaption className="text-soft h-4 text-xs tabular-nums" aria-hidden>
        {point !== undefined &&
          `${fullTime(point.at, zone)}: ${point.value === null ? "no data" : number(point.value)}${point.threshold === null ? "" : `, threshold ${number(point.threshold)}`}`}
      </figcaption>
    </figure>
  );
}

/** From zero where that is near, to a little above the highest of values, thresholds and the limit. */
function range(plot: uPlot, low: number | null, high: number | null, limit: number | null): [number, number] {
  const threshold = Array.from(plot.data[2] ?? []).reduce<number>((most, value) => Math.max(most, value ?? 0), 0);
  const top = Math.max(high ?? 1, limit ?? 0, threshold, 1);
  return [Math.min(low ?? 0, 0), top * 1.15];
}

function shadeSpans(plot: uPlot, spans: { from: string; to: string }[], colour: string) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = colour;
  for (const span of spans) {
    const from = Math.max(plot.valToPos(seconds(span.from), "x", true), bbox.left);
    const to = Math.min(plot.valToPos(seconds(span.to), "x", true), bbox.left + bbox.width);
    if (to >= from) ctx.fillRect(from, bbox.top, Math.max(to - from, 2), bbox.height);
  }
  ctx.restore();
}

function markMoments(plot: uPlot, marks: string[], colour: string) {
  const { ctx, bbox } = plot;
  const size = 4 * devicePixelRatio;
  ctx.save();
  ctx.fillStyle = colour;
  for (const mark of marks) {
    const x = plot.valToPos(seconds(mark), "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath(); // a triangle that points at the moment from above
    ctx.moveTo(x - size, bbox.top - 2 * size);
    ctx.lineTo(x + size, bbox.top - 2 * size);
    ctx.lineTo(x, bbox.top);
    ctx.fill();
  }
  ctx.restore();
}
