import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { WandSparkles } from "lucide-react";

import { api, type TriggerPreview } from "../api/client";
import { isPassing, Refusal } from "../api/refusal";
import { MetricChart } from "../chart/MetricChart";
import { Button } from "../controls/Button";
import { ErrorNotice } from "../controls/State";
import { useSite } from "../sites/useSite";
import { number, shortTime, withLocalTimes } from "../time";
import { useDebounced } from "../useDebounced";
import { type Draft, defaultOf, type FieldSchema, fieldName, limitField, withField } from "./draft";

// Rare enough to be read each time, and often enough to be worth having.
const wanted = 4; // firings a month

/** When a trigger would have fired in the last 30 days, with its threshold to drag. */
export function Preview({ draft, schema, onChange }: { draft: Draft; schema: FieldSchema; onChange: (draft: Draft) => void }) {
  const site = useSite();
  const asked = useDebounced({ type: draft.type, config: draft.config, filters: draft.filters as unknown[], cooldown_seconds: draft.cooldown_seconds, notify_resolved: draft.notify_resolved, firings_per_month: wanted }, 350);
  const preview = useQuery({
    queryKey: ["preview", site.domain, asked],
    queryFn: async ({ signal }) => {
      const { data } = await api.POST("/api/sites/{site_id}/triggers/preview", { params: { path: { site_id: site.domain } }, body: asked, signal });
      return data as TriggerPreview; // anything else was thrown
    },
    placeholderData: keepPreviousData,
    staleTime: 60_000,
    retry: (failures, error) => failures < 5 && isPassing(error),
  });
  const field = limitField(schema, draft.config);
  if (preview.error instanceof Refusal && preview.error.status === 422) {
    return <p className="text-soft rounded-lg border border-dashed p-4">The chart of the last 30 days comes when the fields above are complete.</p>;
  }
  if (preview.isError) return <ErrorNotice error={preview.error} onRetry={() => preview.refetch()} />;
  if (preview.data === undefined) return <div role="status" aria-label="Replaying the last 30 days" className="bg-hover h-64 animate-pulse rounded-lg" />;
  const { points, firings, count, suggestion, truncated, from, to } = preview.data;
  const fired = firings.filter(({ transition }) => transition === "fired");
  const settings = schema.properties ?? {};
  const limit = field === null ? undefined : Number(draft.config[field] ?? defaultOf(schema, field, draft.config) ?? Number.NaN);
  const set = (name: string, value: number) => onChange({ ...draft, config: withField(draft.config, name, value) });
  const sentence = `Would have fired ${count === 0 ? "not once" : count === 1 ? "once" : `${number(count)} times`} between ${shortTime(from, site.timezone)} and ${shortTime(to, site.timezone)}.`;
  return (
    <div className="flex flex-col gap-2">
      <div className="flex flex-wrap items-center justify-between gap-2">
        <p role="status" className="font-medium">
          {sentence}
          {truncated && ` The newest ${firings.length} are marked.`}
          {preview.isFetching && <span className="text-soft font-normal"> Replaying …</span>}
        </p>
        {suggestion !== null && (
          <Button small onPress={() => set(suggestion.field, suggestion.value)}>
            <WandSparkles size={14} aria-hidden />
            {`${fieldName(suggestion.field)} ${number(suggestion.value)}: about ${number(Math.round(suggestion.firings_per_month * 10) / 10)} a month`}
          </Button>
        )}
      </div>
      <MetricChart
        label={`The last 30 days. ${sentence}`}
        points={points}
        marks={fired.map(({ at }) => at)}
        zone={site.timezone}
        limit={
          field === null || limit === undefined || Number.isNaN(limit) || field === "percent"
            ? undefined
            : {
                label: `${fieldName(field)} in the chart`,
                value: limit,
                lowest: settings[field]?.minimum ?? 0,
                step: stepOf(settings[field] ?? {}, Math.max(...points.map(({ value }) => value ?? 0))),
                onChange: (value) => set(field, value),
              }
        }
      />
      {fired.length > 0 && (
        <details className="text-xs">
          <summary className="text-accent cursor-pointer font-medium">The moments, and why</summary>
          <ul className="mt-2 flex max-h-40 flex-col gap-1 overflow-auto">
            {fired.toReversed().map(({ at, explanation }) => (
              <li key={at}>
                <time dateTime={at} className="text-soft tabular-nums">
                  {shortTime(at, site.timezone)}
                </time>{" "}
                {withLocalTimes(explanation, site.timezone)}
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}

/** About a hundred steps from the bottom of the chart to its top, in round numbers; whole ones where the field wants them. */
export function stepOf(schema: FieldSchema, highest: number): number {
  const raw = highest / 100;
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1e-3)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw) ?? power;
  return schema.type === "integer" ? Math.max(1, Math.round(step)) : step;
}
