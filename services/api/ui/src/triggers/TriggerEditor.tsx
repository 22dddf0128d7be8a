import { Trash2 } from "lucide-react";
import { Button as AriaButton, Disclosure, DisclosurePanel, Heading } from "react-aria-components";

import type { TriggerTypeDescription } from "../api/client";
import { IconButton } from "../controls/Button";
import { Switch, TextField } from "../controls/Field";
import { triggerTypes } from "../deliveries/words";
import { ConfigFields } from "./ConfigFields";
import { DurationField } from "./DurationField";
import type { Draft, FieldSchema } from "./draft";
import { FilterRows } from "./FilterRows";
import { Preview } from "./Preview";

interface TriggerEditorProps {
  draft: Draft;
  description: TriggerTypeDescription;
  onChange: (draft: Draft) => void;
  onRemove: () => void;
  /** By the field's path within the trigger, as `config.threshold`. */
  errorAt: (field: string) => string | undefined;
}

/** One trigger of a webhook's form. */
export function TriggerEditor({ draft, description, onChange, onRemove, errorAt }: TriggerEditorProps) {
  const words = triggerTypes[draft.type] ?? { name: draft.type, does: description.description };
  const schema = description.schema as FieldSchema;
  const set = (change: Partial<Draft>) => onChange({ ...draft, ...change });
  return (
    <article aria-label={draft.name || words.name} className="card flex flex-col gap-5 p-5">
      <header className="flex items-start justify-between gap-3">
        <div>
          <h3 className="font-semibold">{words.name}</h3>
          <p className="text-soft text-xs text-pretty">{words.does}</p>
        </div>
        <div className="flex items-center gap-1">
          <Switch aria-label={`${words.name} is enabled`} isSelected={draft.enabled} onChange={(enabled) => set({ enabled })} />
          <IconButton label={`Remove ${draft.name || words.name}`} onPress={onRemove}>
            <Trash2 size={16} aria-hidden />
          </IconButton>
        </div>
      </header>
      {(errorAt("") ?? errorAt("type")) !== undefined && (
        <p role="alert" className="text-bad">
          {errorAt("") ?? errorAt("type")}
        </p>
      )}
      <ConfigFields schema={schema} config={draft.config} onChange={(config) => set({ config })} errorAt={(field) => errorAt(field === "" ? "config" : `config.${field}`)} />
      <Preview draft={draft} schema={schema} onChange={onChange} />
      <Disclosure defaultExpanded={draft.filters.length > 0}>
        <Heading level={4}>
          <AriaButton slot="trigger" className="text-accent cursor-pointer text-[13px] font-medium hover:underline">
            {draft.filters.length === 0 ? "Only a part of the visitors" : draft.filters.length === 1 ? "1 condition" : `${draft.filters.length} conditions, which all must hold`}
          </AriaButton>
        </Heading>
        <DisclosurePanel className="data-expanded:pt-4">
          <FilterRows filters={draft.filters} onChange={(filters) => set({ filters })} errorAt={(field) => errorAt(`filters${field}`)} />
        </DisclosurePanel>
      </Disclosure>
      <div className="border-line grid items-start gap-4 border-t pt-5 sm:grid-cols-2">
        <TextField
          label="Name"
          description="Empty: one that says what it waits for."
          error={errorAt("name")}
          value={draft.name}
          onChange={(name) => set({ name })}
        />
        <DurationField
          label="Quiet after it fired"
          error={errorAt("cooldown_seconds")}
          value={draft.cooldown_seconds}
          otherwise={0}
          onChange={(seconds) => set({ cooldown_seconds: seconds ?? 0 })}
        />
        <Switch isSelected={draft.notify_resolved} onChange={(notify_resolved) => set({ notify_resolved })}>
          Also tell when it is over
        </Switch>
      </div>
    </article>
  );
}
