import type { Trigger, TriggerInput, TriggerType } from "../api/client";

/** The part of JSON Schema in which the API describes the config of a type. */
export interface FieldSchema {
  type?: "object" | "string" | "integer" | "number" | "boolean" | "array";
  description?: string;
  default?: unknown;
  enum?: string[];
  minimum?: number;
  maximum?: number;
  properties?: Record<string, FieldSchema>;
  required?: string[];
  items?: FieldSchema;
  anyOf?: FieldSchema[];
}

export type Config = Record<string, unknown>;
/** `["is", "visit:country", ["EE"]]`, or one with others in it. */
export type Condition = [string, ...unknown[]];

/** A trigger in a form. What its config leaves out has its default. */
export interface Draft {
  /** Where it is in the form; it stays when others are removed. */
  key: string;
  /** Of the stored trigger that it changes. */
  id?: string;
  type: TriggerType;
  name: string;
  enabled: boolean;
  config: Config;
  filters: Condition[];
  cooldown_seconds: number;
  notify_resolved: boolean;
}

let made = 0;

export function newDraft(type: TriggerType, config: Config = {}): Draft {
  return { key: `new-${++made}`, type, name: "", enabled: true, config, filters: [], cooldown_seconds: 0, notify_resolved: false };
}

export function draftOf(trigger: Trigger): Draft {
  return {
    key: trigger.id,
    id: trigger.id,
    type: trigger.type as TriggerType,
    name: trigger.name,
    enabled: trigger.enabled,
    config: trigger.config,
    filters: trigger.filters as Condition[],
    cooldown_seconds: trigger.cooldown_seconds,
    notify_resolved: trigger.notify_resolved,
  };
}

/** What the API is sent. An empty name lets the API make one of what the trigger waits for. */
export function inputOf({ key: _, name, filters, ...rest }: Draft): TriggerInput {
  return { ...rest, filters: filters as unknown[], ...(name.trim() === "" ? {} : { name: name.trim() }) };
}

/** Sets a field; without a value it is left out, so that it has its default. */
export function withField(config: Config, name: string, value: unknown): Config {
  const { [name]: _, ...rest } = config;
  return value === undefined || value === "" || Number.isNaN(value) ? rest : { ...rest, [name]: value };
}

// In the order in which one thinks of them; the others follow as the schema has them.
const order = ["goal", "metric", "dimension", "event_name", "operator", "direction", "mode", "measure", "threshold", "percent", "every", "milestones", "period", "page_path", "minutes", "min_visitors", "baseline", "window_seconds", "sensitivity"];
const finer = new Set(["for_seconds", "min_breaches", "of_slots", "keep_firing_seconds", "renotify_seconds", "max_renotify", "recovery_threshold", "min_volume"]);

/** What a field is without a value. A threshold of one's own makes the sensitivity one's own choice as well. */
export function defaultOf({ properties = {} }: FieldSchema, name: string, config: Config): unknown {
  const field = properties[name];
  if (name === "sensitivity" && "threshold" in config && field?.enum?.includes("off")) return "off";
  return field?.default;
}

/** The fields of a type: those that everybody sets, and those for whoever wants it finer. */
export function fieldsOf(schema: FieldSchema, config: Config): { usual: string[]; finer: string[] } {
  const names = Object.keys(schema.properties ?? {}).filter((name) => matters(name, schema, config));
  const place = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length);
  return {
    usual: names.filter((name) => !finer.has(name)).sort((a, b) => place(a) - place(b)),
    finer: names.filter((name) => finer.has(name)),
  };
}

/** Some fields mean nothing while others stand as they do. What was set is shown in any case. */
function matters(name: string, { properties = {} }: FieldSchema, config: Config): boolean {
  if (name in config) return true;
  const value = (field: string) => config[field] ?? properties[field]?.default;
  if ("mode" in properties && value("mode") === "each") return !["threshold", "measure", "window_seconds", ...finer].includes(name);
  if (name === "goal" && "metric" in properties) return value("metric") === "conversion_rate";
  if (name === "sensitivity" && "minutes" in properties) return value("minutes") === "auto";
  return true;
}

/** The field that a threshold in the chart stands for; null: the type has none. */
export function limitField(schema: FieldSchema, config: Config): string | null {
  const { usual } = fieldsOf(schema, config);
  return ["threshold", "percent", "min_visitors"].find((name) => usual.includes(name) && schema.properties?.[name] !== undefined) ?? null;
}

const names: Record<string, string> = {
  goal: "Goal",
  mode: "When",
  measure: "Count",
  threshold: "Threshold",
  percent: "Change in %",
  window_seconds: "Within",
  min_visitors: "Visitors it must bring",
  every: "Every so many page views",
  milestones: "Milestones",
  page_path: "Only this page",
  event_name: "Name of the event",
  minutes: "Without events for",
  for_seconds: "Must hold for",
  min_breaches: "Must hold in so many evaluations",
  of_slots: "… of the last so many",
  keep_firing_seconds: "Ends after a calm of",
  renotify_seconds: "Remind every",
  max_renotify: "Remind at most so often",
  recovery_threshold: "Ends at",
  min_volume: "Needs so many visitors",
};

export function fieldName(name: string): string {
  const text = name.replaceAll("_", " ");
  return names[name] ?? text.charAt(0).toUpperCase() + text.slice(1);
}

const choices: Record<string, string> = {
  each: "Every conversion",
  threshold: "So many of them",
  conversions: "Conversions",
  visitors: "Visitors",
  off: "Off: the threshold alone",
  low: "Low: rarely, when it is very unusual",
  medium: "Medium",
  high: "High: early, sometimes in vain",
  ">=": "≥ at least",
  ">": "> more than",
  "<": "< less than",
  "<=": "≤ at most",
  previous_period: "The window before",
  same_hour_of_week: "What is usual at this hour of the week",
  utm_campaign: "Campaign (utm_campaign)",
};

export function choiceName(value: string): string {
  const text = value.replaceAll("_", " ");
  return choices[value] ?? text.charAt(0).toUpperCase() + text.slice(1);
}
