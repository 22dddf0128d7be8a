import type { Webhook } from "../api/client";
import { type Draft, draftOf, inputOf } from "../triggers/draft";

export interface HeaderRow {
  key: number;
  name: string;
  value: string;
}

/** A webhook in its form. */
export interface Settings {
  url: string;
  description: string;
  headers: HeaderRow[];
  format: Webhook["format"];
  template: string;
  batch: { max_size: number; max_wait_seconds: number } | null;
  rate_limit_per_second: number | null;
  timeout_seconds: number;
  triggers: Draft[];
}

export const blank: Settings = { url: "", description: "", headers: [], format: "standard", template: "{text: .data.explanation}", batch: null, rate_limit_per_second: null, timeout_seconds: 15, triggers: [] };

let rows = 0;

export function headerRow(name = "", value = ""): HeaderRow {
  return { key: ++rows, name, value };
}

export function settingsOf(webhook: Webhook): Settings {
  return {
    url: webhook.url,
    description: webhook.description,
    headers: Object.entries(webhook.headers).map(([name, value]) => headerRow(name, value)),
    format: webhook.format,
    template: webhook.template ?? blank.template,
    batch: webhook.batch,
    rate_limit_per_second: webhook.rate_limit_per_second,
    timeout_seconds: webhook.timeout_seconds,
    triggers: webhook.triggers.map(draftOf),
  };
}

/** What the API is sent: all that the form holds, so that what was there before is replaced by it. */
export function bodyOf(settings: Settings) {
  const { headers, format, template, triggers, ...rest } = settings;
  return {
    ...rest,
    format,
    template: format === "custom" ? template : null,
    headers: Object.fromEntries(headers.filter(({ name }) => name.trim() !== "").map(({ name, value }) => [name.trim(), value])),
    triggers: triggers.map(inputOf),
  };
}

/**
 * Which problems to show while one types: those of fields that were touched, and all once it was tried to save.
 * `url is required` is nothing to say to somebody who has just opened the form.
 */
export function shownProblems(problems: Map<string, string>, touched: Set<string>, all: boolean): Map<string, string> {
  if (all) return problems;
  return new Map([...problems].filter(([field]) => [...touched].some((name) => field === name || field.startsWith(`${name}.`) || field.startsWith(`${name}[`))));
}
