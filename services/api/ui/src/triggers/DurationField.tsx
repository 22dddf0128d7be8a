import { useState } from "react";
import { Group } from "react-aria-components";

import { NumberField, Select } from "../controls/Field";

const units = [
  { id: "1", name: "seconds" },
  { id: "60", name: "minutes" },
  { id: "3600", name: "hours" },
  { id: "86400", name: "days" },
];

interface DurationFieldProps {
  label: string;
  description?: string;
  error?: string;
  /** In seconds; undefined: the default. */
  value: number | undefined;
  otherwise: number;
  onChange: (seconds: number | undefined) => void;
}

/** The largest unit of which the duration is a whole number. */
export function unitOf(seconds: number): number {
  return [86_400, 3_600, 60].find((unit) => seconds > 0 && seconds % unit === 0) ?? 1;
}

export function DurationField({ label, description, error, value, otherwise, onChange }: DurationFieldProps) {
  const shown = value ?? otherwise;
  const [unit, setUnit] = useState(() => (shown === 0 ? 60 : unitOf(shown)));
  return (
    <Group aria-label={label} className="grid grid-cols-[minmax(0,1fr)_7.5rem] items-start gap-2">
      <NumberField
        label={label}
        description={description}
        error={error}
        minValue={0}
        value={shown / unit}
        onChange={(amount) => onChange(Number.isNaN(amount) ? undefined : Math.round(amount * unit))}
      />
      <Select label="Unit" choices={units} value={String(unit)} onChange={(id) => setUnit(Number(id))} />
    </Group>
  );
}
