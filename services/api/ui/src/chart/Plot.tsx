import "uplot/dist/uPlot.min.css";

import { useEffect, useLayoutEffect, useRef } from "react";
import uPlot from "uplot";

import { useDark } from "../theme";

/** Gives a colour of app.css as it is now: a canvas knows no variables. */
export type Paint = (token: string) => string;

interface PlotProps {
  /** What the picture shows, in words, for those who cannot see it. */
  label: string;
  /** Made anew only when `revision` changes: pictures are costly to make, and cheap to give other data. */
  options: (paint: Paint) => Omit<uPlot.Options, "width" | "height">;
  revision: string;
  data: uPlot.AlignedData;
  height: number;
  onReady?: (plot: uPlot | null) => void;
}

/** A chart as wide as its place. */
export function Plot({ label, options, revision, data, height, onReady }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef({ options, data, onReady });
  latest.current = { options, data, onReady };
  const dark = useDark();

  useLayoutEffect(() => {
    const element = place.current;
    if (element === null) return;
    const paint: Paint = (token) => {
      element.style.color = `var(--color-${token})`;
      return getComputedStyle(element).color;
    };
    const made = new uPlot({ ...latest.current.options(paint), width: element.clientWidth, height }, latest.current.data, element);
    plot.current = made;
    latest.current.onReady?.(made);
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      latest.current.onReady?.(null);
      plot.current = null;
      made.destroy();
    };
  }, [revision, dark, height]);

  useEffect(() => plot.current?.setData(data), [data]);

  return <div ref={place} role="img" aria-label={label} className="w-full min-w-0" />;
}
