import { Plus, Trash2 } from "lucide-react";
import { useState } from "react";

import type { Goal } from "../api/client";
import { Button, IconButton } from "../controls/Button";
import { Select, TextField } from "../controls/Field";
import type { Condition } from "./draft";
import { useGoals } from "./GoalField";

const operators = [
  { id: "is", name: "is" },
  { id: "is_not", name: "is not" },
  { id: "contains", name: "contains" },
  { id: "contains_not", name: "does not contain" },
  { id: "matches_wildcard", name: "matches (* and **)" },
  { id: "matches_wildcard_not", name: "does not match (* and **)" },
  { id: "matches", name: "matches a regular expression" },
  { id: "matches_not", name: "does not match a regular expression" },
];

const dimensions = [
  { id: "event:page", name: "Page" },
  { id: "event:hostname", name: "Hostname" },
  { id: "event:name", name: "Event" },
  { id: "event:goal", name: "Goal" },
  { id: "visit:source", name: "Source" },
  { id: "visit:referrer", name: "Referrer" },
  { id: "visit:channel", name: "Channel" },
  { id: "visit:utm_medium", name: "UTM medium" },
  { id: "visit:utm_source", name: "UTM source" },
  { id: "visit:utm_campaign", name: "UTM campaign" },
  { id: "visit:utm_term", name: "UTM term" },
  { id: "visit:utm_content", name: "UTM content" },
  { id: "visit:country", name: "Country" },
  { id: "visit:region", name: "Region" },
  { id: "visit:city", name: "City" },
  { id: "visit:device", name: "Device" },
  { id: "visit:browser", name: "Browser" },
  { id: "visit:os", name: "Operating system" },
];

const isSimple = (condition: Condition): condition is [string, string, string[]] =>
  condition.length === 3 && typeof condition[1] === "string" && Array.isArray(condition[2]) && condition[2].every((value) => typeof value === "string");

interface FilterRowsProps {
  filters: Condition[];
  onChange: (filters: Condition[]) => void;
  /** By the condition's path, as `[0]`. */
  errorAt: (field: string) => string | undefined;
}

/** Narrows a trigger to a part of the site's events. Conditions within others are written as JSON. */
export function FilterRows({ filters, onChange, errorAt }: FilterRowsProps) {
  const goals = useGoals();
  const [asJSON, setAsJSON] = useState(() => !filters.every(isSimple));
  if (asJSON) return <FiltersAsJSON filters={filters} onChange={onChange} error={errorAt("")} onRows={filters.every(isSimple) ? () => setAsJSON(false) : undefined} />;
  const rows = filters.filter(isSimple);
  const change = (i: number, row: Condition) => onChange(filters.map((other, at) => (at === i ? row : other)));
  return (
    <div className="flex flex-col gap-3">
      {rows.map(([operator, dimension, values], i) => {
        const named = dimensions.some(({ id }) => id === dimension) ? dimensions : [...dimensions, { id: dimension, name: dimension.replace("event:props:", "Property ") }];
        const suggested = suggestions(goals, dimension).filter((value) => !values.includes(value));
        return (
          <div key={i} className="bg-sunken grid items-start gap-3 rounded-lg p-3 sm:grid-cols-[10rem_12rem_minmax(0,1fr)_auto]">
            <Select label="Where" choices={[...named, ...propertiesOf(goals, named.map(({ id }) => id))]} value={dimension} onChange={(id) => change(i, [operator, id, []])} />
            <Select label="Condition" choices={operators} value={operator} onChange={(id) => change(i, [id, dimension, values])} />
            <div className="flex flex-col gap-2">
              <TextField
                label="Values"
                description="Several with commas: any of them."
                error={errorAt(`[${i}]`)}
                value={values.join(", ")}
                onChange={(text) => change(i, [operator, dimension, text.split(",").map((value, at, all) => (at === all.length - 1 ? value.trimStart() : value.trim()))])}
              />
              {suggested.length > 0 && (
                <div role="group" aria-label="From the site's goals" className="flex flex-wrap gap-1.5">
                  {suggested.slice(0, 8).map((value) => (
                    <Button key={value} small onPress={() => change(i, withSuggestion([operator, dimension, values], value))}>
                      {value}
                    </Button>
                  ))}
                </div>
              )}
            </div>
            <div className="sm:pt-6">
              <IconButton label="Remove this condition" onPress={() => onChange(filters.filter((_, at) => at !== i))}>
                <Trash2 size={16} aria-hidden />
              </IconButton>
            </div>
          </div>
        );
      })}
      <div className="flex flex-wrap gap-2">
        <Button small onPress={() => onChange([...filters, ["is", "event:page", []]])}>
          <Plus size={14} aria-hidden />
          Add a condition
        </Button>
        {rows.length > 0 && (
          <Button small look="quiet" onPress={() => setAsJSON(true)}>
            Write as JSON
          </Button>
        )}
      </div>
    </div>
  );
}

/** A suggested value beside those that are there; the path of a goal may have wildcards, which only some operators know. */
export function withSuggestion([operator, dimension, values]: [string, string, string[]], value: string): Condition {
  const known = values.filter((each) => each !== "");
  return [value.includes("*") && operator === "is" && known.length === 0 ? "matches_wildcard" : operator, dimension, [...known, value]];
}

/** Values that the site's goals name. */
export function suggestions(goals: Goal[], dimension: string): string[] {
  const property = dimension.startsWith("event:props:") ? dimension.slice("event:props:".length) : null;
  const values = goals.map((goal) => (property !== null ? goal.custom_props[property] : dimension === "event:goal" ? (goal.scroll_threshold === null ? goal.display_name : null) : dimension === "event:name" ? goal.event_name : dimension === "event:page" ? goal.page_path : null));
  return [...new Set(values.filter((value): value is string => value != null && value !== ""))];
}

function propertiesOf(goals: Goal[], known: string[]) {
  const names = new Set(goals.flatMap((goal) => Object.keys(goal.custom_props)));
  return [...names].map((name) => ({ id: `event:props:${name}`, name: `Property ${name}` })).filter(({ id }) => !known.includes(id));
}

function FiltersAsJSON({ filters, onChange, error, onRows }: { filters: Condition[]; onChange: (filters: Condition[]) => void; error: string | undefined; onRows: (() => void) | undefined }) {
  const [text, setText] = useState(() => JSON.stringify(filters));
  const [unread, setUnread] = useState(false);
  return (
    <div className="flex flex-col gap-2">
      <TextField
        label="Conditions as JSON"
        description={'In the grammar of the Stats API v2: [["or", [["is", "visit:country", ["EE"]], ["is", "event:page", ["/"]]]]]'}
        mono
        lines={4}
        error={unread ? "This is not a list in JSON yet." : error}
        value={text}
        onChange={(next) => {
          setText(next);
          const read = listOf(next);
          setUnread(read === undefined);
          if (read !== undefined) onChange(read);
        }}
      />
      {onRows !== undefined && (
        <div>
          <Button small look="quiet" onPress={onRows}>
            Back to rows
          </Button>
        </div>
      )}
    </div>
  );
}

function listOf(text: string): Condition[] | undefined {
  try {
    const read: unknown = JSON.parse(text);
    return Array.isArray(read) ? (read as Condition[]) : undefined;
  } catch {
    return undefined;
  }
}
