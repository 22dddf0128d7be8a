import { keepPreviousData, useQuery } from "@tanstack/react-query";

import { api, type TriggerType } from "../api/client";
import { Refusal } from "../api/refusal";
import { Code } from "../controls/Code";
import { Select, TextField } from "../controls/Field";
import { ErrorNotice } from "../controls/State";
import { useSite } from "../sites/useSite";
import { useDebounced } from "../useDebounced";
import type { Settings } from "./settings";

const formats = [
  { id: "standard", name: "Standard", detail: "The whole message as JSON, for programs." },
  { id: "slack", name: "Slack", detail: "For an incoming webhook of Slack, or of what understands the same." },
  { id: "discord", name: "Discord", detail: "For a channel's webhook." },
  { id: "teams", name: "Microsoft Teams", detail: "An adaptive card, for a workflow's webhook." },
  { id: "custom", name: "Custom", detail: "What a jq expression makes of the message." },
];

interface FormatFieldsProps {
  settings: Settings;
  onChange: (change: Partial<Settings>, field: string) => void;
  errorAt: (field: string) => string | undefined;
}

/** How messages are written, with an example as it would be sent. */
export function FormatFields({ settings, onChange, errorAt }: FormatFieldsProps) {
  const site = useSite();
  const type: TriggerType = settings.triggers[0]?.type ?? "visitor_spike";
  const asked = useDebounced({ format: settings.format, type, ...(settings.format === "custom" ? { template: settings.template } : {}) }, 350);
  const example = useQuery({
    queryKey: ["message", site.domain, asked],
    queryFn: async ({ signal }) => {
      const { data } = await api.POST("/api/sites/{site_id}/webhooks/preview", { params: { path: { site_id: site.domain } }, body: asked, signal });
      return data;
    },
    placeholderData: keepPreviousData,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const refused = example.error instanceof Refusal && example.error.status === 422 ? example.error : null;
  return (
    <div className="grid items-start gap-4 md:grid-cols-2">
      <div className="flex flex-col gap-4">
        <Select
          label="Format"
          description={formats.find(({ id }) => id === settings.format)?.detail}
          choices={formats}
          value={settings.format}
          error={errorAt("format")}
          onChange={(id) => onChange({ format: id as Settings["format"] }, "format")}
        />
        {settings.format === "custom" && (
          <TextField
            label="Template"
            description="A jq expression; its result is the body. .data has what happened."
            mono
            lines={6}
            spellCheck="false"
            error={refused?.problems[0]?.message ?? errorAt("template")}
            value={settings.template}
            onChange={(template) => onChange({ template }, "template")}
          />
        )}
      </div>
      <div className="flex min-w-0 flex-col gap-1.5">
        <p className="text-[13px] font-medium">
          Example of a message
        </p>
        {example.isError && refused === null && <ErrorNotice error={example.error} onRetry={() => example.refetch()} />}
        <Code label="Example of a message" height="h-64" text={refused !== null ? refused.message : example.data === undefined ? "…" : JSON.stringify(example.data?.body, null, 2)} />
      </div>
    </div>
  );
}
