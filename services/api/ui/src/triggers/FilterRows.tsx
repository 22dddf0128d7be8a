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
  { id: "has_done", name: "the visit had" },
  { id: "has_not_done", name: "the visit had not" },
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
  { id: "visit:entry_page", name: "Entry page" },
  { id: "visit:exit_page", name: "Exit page" },
];

/** A condition that a row shows: an operator, a dimension and values. What a visit has done is an operator here. */
export type Row = [string, string, string[]];

const isComparison = (condition: unknown[]): condition is Row =>
  condition.length === 3 && typeof condition[1] === "string" && Array.isArray(condition[2]) && condition[2].every((value) => typeof value === "string");

const ofVisit = (operator: string) => operator === "has_done" || operator === "has_not_done";

/** How values are looked for: paths with wildcards as patterns. */
const within = (dimension: string, values: string[]) => (dimension !== "event:goal" && values.some((value) => value.includes("*")) ? "matches_wildcard" : "is");

export function rowOf(condition: Condition): Row | undefined {
  const [operator, inner] = condition;
  if (ofVisit(operator) && condition.length === 2 && Array.isArray(inner) && isComparison(inner) && inner[0] === within(inner[1], inner[2]) && inner[1].startsWith("event:")) return [operator, inner[1], inner[2]];
  return isComparison(condition) ? condition : undefined;
}

export function conditionOf([operator, dimension, values]: Row): Condition {
  return ofVisit(operator) ? [operator, [within(dimension, values), dimension, values]] : [operator, dimension, values];
}

/** Those that a dimension takes: goals have no patterns, and a visit has done only what an event tells. */
export const operatorsOf = (dimension: string) =>
  operators.filter(({ id }) => (dimension.startsWith("event:") || !ofVisit(id)) && (dimension !== "event:goal" || !id.startsWith("matches")));

/** The row about another dimension, which may not take its operator. */
export const withDimension = ([operator]: Row, dimension: string): Row => [operatorsOf(dimension).some(({ id }) => id === operator) ? operator : "is", dimension, []];

interface FilterRowsProps {
  filters: Condition[];
  onChange: (filters: Condition[]) => void;
  /** By the condition's path, as `[0]`. */
  errorAt: (field: string) => string | undefined;
}

/** Narrows a trigger to a part of the site's events. Conditions within others are written as JSON. */
export function FilterRows({ filters, onChange, errorAt }: FilterRowsProps) {
  const goals = useGoals();
  const rows = filters.map(rowOf).filter((row) => row !== undefined);
  const simple = rows.length === filters.length;
  const [asJSON, setAsJSON] = useState(!simple);
  if (asJSON) return <FiltersAsJSON filters={filters} onChange={onChange} error={errorAt("")} onRows={simple ? () => setAsJSON(false) : undefined} />;
  const change = (i: number, row: Row) => onChange(filters.map((other, at) => (at === i ? conditionOf(row) : other)));
  return (
    <div className="flex flex-col gap-3">
      {rows.map(([operator, dimension, values], i) => {
        const named = dimensions.some(({ id }) => id === dimension) ? dimensions : [...dimensions, { id: dimension, name: dimension.replace("event:props:", "Property ") }];
        const suggested = suggestions(goals, dimension, ofVisit(operator)).filter((value) => !values.includes(value));
        return (
          <div key={i} className="bg-sunken grid items-start gap-3 rounded-lg p-3 sm:grid-cols-[10rem_12rem_minmax(0,1fr)_auto]">
            <Select label="Where" choices={[...named, ...propertiesOf(goals, named.map(({ id }) => id))]} value={dimension} onChange={(id) => change(i, withDimension([operator, dimension, values], id))} />
            <Select label="Condition" choices={operatorsOf(dimension)} value={operator} onChange={(id) => change(i, [id, dimension, values])} />
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
export function withSuggestion([operator, dimension, values]: Row, value: string): Row {
  const known = values.filter((each) => each !== "");
  return [operator === "is" && known.length === 0 ? within(dimension, [value]) : operator, dimension, [...known, value]];
}

/** Values that the site's goals name. Scroll goals are only for what a visit has done. */
export function suggestions(goals: Goal[], dimension: string, done = false): string[] {
  const property = dimension.startsWith("event:props:") ? dimension.slice("event:props:".length) : null;
  const values = goals.map((goal) => {
    if (property !== null) return goal.custom_props[property];
    switch (dimension) {
      case "event:goal":
        return goal.scroll_threshold === null || done ? goal.display_name : null;
      case "event:name":
        return goal.event_name;
      case "event:page":
      case "visit:entry_page":
      case "visit:exit_page":
        return goal.page_path;
    }
    return null;
  });
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
