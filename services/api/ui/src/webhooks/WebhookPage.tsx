import { Link } from "@tanstack/react-router";
import { LifeBuoy, Pencil, Plus } from "lucide-react";

import { type Trigger, type TriggerStatus, type Webhook } from "../api/client";
import { Refusal } from "../api/refusal";
import { Badge, type Tone } from "../controls/Badge";
import { ButtonLink } from "../controls/Link";
import { Empty, ErrorNotice, Loading } from "../controls/State";
import { History } from "../deliveries/History";
import { RecoverButton } from "../deliveries/Recover";
import { triggerTypes } from "../deliveries/words";
import { SiteTrail } from "../sites/SiteTrail";
import { useNow, useSite } from "../sites/useSite";
import { ago, duration, withLocalTimes } from "../time";
import { EnabledSwitch, TestButton, WebhookMenu } from "./actions";
import { healthOf, hostOf, nameOf } from "./health";
import { useWebhook } from "./useWebhook";

/** One webhook: how it does, what it waits for, and what it sent. */
export function WebhookPage() {
  const query = useWebhook();
  if (query.isPending) return <Loading label="Loading the webhook" rows={5} />;
  if (query.data === undefined) {
    if (query.error instanceof Refusal && query.error.status === 404) return <NoWebhook />;
    return <ErrorNotice error={query.error} onRetry={() => query.refetch()} />;
  }
  const webhook = query.data;
  return (
    <div className="flex flex-col gap-6">
      <SiteTrail here={nameOf(webhook)} />
      <Header webhook={webhook} />
      <Triggers webhook={webhook} />
      <History webhook={webhook} />
    </div>
  );
}

export function NoWebhook() {
  const site = useSite();
  return (
    <Empty
      title="No such webhook"
      action={
        <ButtonLink to="/sites/$site" params={{ site: site.domain }}>
          The webhooks of {site.domain}
        </ButtonLink>
      }
    >
      It was deleted, or belongs to another site.
    </Empty>
  );
}

function Header({ webhook }: { webhook: Webhook }) {
  const site = useSite();
  const health = healthOf(webhook, useNow());
  const settings = [
    webhook.format === "standard" ? null : `format ${webhook.format}`,
    webhook.batch === null ? null : `batches of up to ${webhook.batch.max_size} in ${duration(webhook.batch.max_wait_seconds)}`,
    webhook.rate_limit_per_second === null ? null : `at most ${webhook.rate_limit_per_second} a second`,
    `timeout ${webhook.timeout_seconds} s`,
  ].filter((part) => part !== null);
  return (
    <header className="flex flex-col gap-3">
      <div className="flex flex-wrap items-start justify-between gap-3">
        <div className="min-w-0">
          <div className="flex flex-wrap items-center gap-2.5">
            <h1 className="text-xl font-semibold break-words">{nameOf(webhook)}</h1>
            <Badge tone={health.tone}>{health.name}</Badge>
          </div>
          <p className="text-soft font-mono text-xs break-all">{webhook.url}</p>
          <p className="text-soft mt-1 text-xs">{settings.join(" · ")}</p>
        </div>
        <div className="flex flex-wrap items-center gap-2">
          <EnabledSwitch webhook={webhook} />
          <TestButton webhook={webhook} />
          <RecoverButton webhook={webhook} icon={<LifeBuoy size={14} aria-hidden />} />
          {site.can_change && (
            <ButtonLink to="/sites/$site/webhooks/$id/edit" params={{ site: site.domain, id: webhook.id }}>
              <Pencil size={14} aria-hidden />
              Edit
            </ButtonLink>
          )}
          <WebhookMenu webhook={webhook} />
        </div>
      </div>
      {health.tone !== "good" && (
        <p role="status" className={`rounded-lg px-4 py-3 text-pretty ${health.tone === "bad" ? "bg-bad-tint text-bad" : health.tone === "warn" ? "bg-warn-tint text-warn" : "bg-hover text-soft"}`}>
          {health.sentence}
        </p>
      )}
    </header>
  );
}

const triggerStatuses: Record<TriggerStatus, { tone: Tone; name: string }> = {
  ok: { tone: "good", name: "Quiet" },
  pending: { tone: "warn", name: "About to fire" },
  firing: { tone: "accent", name: "Firing" },
  recovering: { tone: "warn", name: "Calming down" },
  insufficient_data: { tone: "neutral", name: "Too little data" },
  error: { tone: "bad", name: "Error" },
};

export function triggerStatus({ enabled, state }: Trigger): { tone: Tone; name: string } {
  if (!enabled) return { tone: "neutral", name: "Off" };
  return state.last_evaluated_at === null ? { tone: "neutral", name: "Not looked at yet" } : triggerStatuses[state.status];
}

function Triggers({ webhook }: { webhook: Webhook }) {
  const site = useSite();
  return (
    <section aria-labelledby="triggers" className="flex flex-col gap-3">
      <h2 id="triggers" className="text-base font-semibold">
        Triggers
      </h2>
      {webhook.triggers.length === 0 ? (
        <Empty
          title="No triggers yet"
          action={
            site.can_change && (
              <ButtonLink look="solid" to="/sites/$site/webhooks/$id/edit" params={{ site: site.domain, id: webhook.id }}>
                <Plus size={16} aria-hidden />
                Add a trigger
              </ButtonLink>
            )
          }
        >
          Triggers say what {hostOf(webhook.url)} is told of. Without one it gets test messages only.
        </Empty>
      ) : (
        <ul className="grid gap-3 md:grid-cols-2">
          {webhook.triggers.map((trigger) => (
            <TriggerCard key={trigger.id} webhook={webhook} trigger={trigger} />
          ))}
        </ul>
      )}
    </section>
  );
}

function TriggerCard({ webhook, trigger }: { webhook: Webhook; trigger: Trigger }) {
  const site = useSite();
  const now = useNow();
  const status = triggerStatus(trigger);
  return (
    <li>
      <Link
        to="/sites/$site/webhooks/$id/triggers/$trigger"
        params={{ site: site.domain, id: webhook.id, trigger: trigger.id }}
        className="card hover:border-edge flex h-full flex-col gap-1 p-4 transition-colors"
      >
        <span className="flex items-center justify-between gap-2">
          <span className="truncate font-medium">{trigger.name}</span>
          <Badge tone={status.tone}>{status.name}</Badge>
        </span>
        <span className="text-soft text-xs text-pretty">{withLocalTimes(trigger.state.explanation, site.timezone)}</span>
        <span className="text-soft mt-auto pt-1 text-xs">
          {triggerTypes[trigger.type]?.name ?? trigger.type}
          {trigger.state.last_fired_at === null ? " · has not fired yet" : ` · last fired ${ago(trigger.state.last_fired_at, now)}`}
        </span>
      </Link>
    </li>
  );
}
