import type { Webhook } from "../api/client";
import type { Tone } from "../controls/Badge";
import { ago } from "../time";

export interface Health {
  tone: Tone;
  name: string;
  /** What it means for whoever waits for messages. */
  sentence: string;
}

export function healthOf(webhook: Webhook, now: Date): Health {
  const failing = webhook.failing_since === null ? "" : ` It has failed since ${ago(webhook.failing_since, now)}.`;
  if (webhook.disabled_reason !== null) {
    return { tone: "bad", name: "Disabled", sentence: `Disabled by the dispatcher: ${webhook.disabled_reason}${failing} What fires is kept, and sent when you enable it again.` };
  }
  if (!webhook.enabled) {
    return { tone: "neutral", name: "Off", sentence: "Switched off. What fires is kept, and sent when you switch it on again." };
  }
  if (webhook.status === "failing") {
    const since = webhook.failing_since === null ? "" : ` since ${ago(webhook.failing_since, now)}`;
    return { tone: "warn", name: "Failing", sentence: `No attempt has succeeded${since}. Messages are tried again, for over three days.` };
  }
  return { tone: "good", name: "Active", sentence: "The last attempt succeeded, or none was made yet." };
}

/** A short name where it has no description: the receiver's host. */
export function nameOf(webhook: Webhook): string {
  return webhook.description.trim() || hostOf(webhook.url);
}

export function hostOf(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}
