import { Button, Disclosure, DisclosurePanel, Heading } from "react-aria-components";

import { NumberField, Select, TextField } from "../controls/Field";
import { DurationField } from "./DurationField";
import { choiceName, type Config, defaultOf, fieldName, type FieldSchema, fieldsOf, withField } from "./draft";
import { GoalField } from "./GoalField";

interface ConfigFieldsProps {
  schema: FieldSchema;
  config: Config;
  onChange: (config: Config) => void;
  /** By the field's path within the config, as `window_seconds`. */
  errorAt: (field: string) => string | undefined;
}

/** The fields of a type's config, made of its JSON Schema. */
export function ConfigFields({ schema, config, onChange, errorAt }: ConfigFieldsProps) {
  const { usual, finer } = fieldsOf(schema, config);
  const field = (name: string) => (
    <ConfigField key={name} name={name} schema={schema.properties?.[name] ?? {}} otherwise={defaultOf(schema, name, config)} value={config[name]} errorAt={errorAt} onChange={(value) => onChange(withField(config, name, value))} />
  );
  return (
    <>
      <div className="grid items-start gap-4 sm:grid-cols-2">{usual.map(field)}</div>
      {finer.length > 0 && (
        <Disclosure defaultExpanded={finer.some((name) => name in config)}>
          <Heading level={4}>
            <Button slot="trigger" className="text-accent cursor-pointer text-[13px] font-medium hover:underline">
              Finer points: how long it must hold, reminders
            </Button>
          </Heading>
          <DisclosurePanel className="data-expanded:pt-4">
            <div className="grid items-start gap-4 sm:grid-cols-2">{finer.map(field)}</div>
          </DisclosurePanel>
        </Disclosure>
      )}
    </>
  );
}

interface ConfigFieldProps {
  name: string;
  schema: FieldSchema;
  otherwise: unknown;
  value: unknown;
  onChange: (value: unknown) => void;
  errorAt: (field: string) => string | undefined;
}

function ConfigField({ name, schema, otherwise, value, onChange, errorAt }: ConfigFieldProps) {
  if (name === "goal") return <GoalField value={value as Parameters<typeof GoalField>[0]["value"]} onChange={onChange} errorAt={errorAt} />;
  const common = { label: fieldName(name), description: schema.description, error: errorAt(name) };
  if (schema.enum !== undefined) {
    return <Select {...common} choices={schema.enum.map((id) => ({ id, name: choiceName(id) }))} value={String(value ?? otherwise ?? "")} onChange={(id) => onChange(id === otherwise ? undefined : id)} />;
  }
  if (schema.anyOf !== undefined) return <AutoOrMinutes {...common} value={value ?? otherwise} onChange={onChange} />;
  if (schema.type === "array") return <Numbers {...common} value={value as number[] | undefined} onChange={onChange} />;
  if (name.endsWith("_seconds")) return <DurationField {...common} value={value as number | undefined} otherwise={Number(otherwise ?? 0)} onChange={onChange} />;
  if (schema.type === "integer" || schema.type === "number") {
    return (
      <NumberField
        {...common}
        value={(value as number | undefined) ?? (otherwise as number | undefined) ?? Number.NaN}
        formatOptions={{ maximumFractionDigits: schema.type === "integer" ? 0 : 3 }}
        onChange={onChange}
      />
    );
  }
  return <TextField {...common} value={String(value ?? otherwise ?? "")} onChange={onChange} />;
}

interface Common {
  label: string;
  description?: string;
  error?: string;
}

function AutoOrMinutes({ value, onChange, ...common }: Common & { value: unknown; onChange: (value: unknown) => void }) {
  const auto = value === "auto";
  return (
    <div className="flex flex-col gap-4">
      <Select
        {...common}
        choices={[
          { id: "auto", name: "So long that it is improbable" },
          { id: "minutes", name: "So many minutes" },
        ]}
        value={auto ? "auto" : "minutes"}
        onChange={(id) => onChange(id === "auto" ? "auto" : 15)}
      />
      {!auto && <NumberField label="Minutes" error={common.error} value={Number(value)} onChange={onChange} minValue={1} />}
    </div>
  );
}

function Numbers({ value, onChange, ...common }: Common & { value: number[] | undefined; onChange: (value: unknown) => void }) {
  return (
    <TextField
      {...common}
      placeholder="1000, 5000, 10000"
      inputMode="numeric"
      defaultValue={value?.join(", ") ?? ""}
      onChange={(text) => onChange(numbersOf(text))}
    />
  );
}

/** Reads `1000, 5000`; what is no number is passed on as it is, for the API to say so. Undefined without any. */
export function numbersOf(text: string): unknown[] | undefined {
  const parts = text
    .split(/[,;\s]+/)
    .filter((part) => part !== "")
    .map((part) => (Number.isNaN(Number(part)) ? part : Number(part)));
  return parts.length === 0 ? undefined : parts;
}
