import { useParams } from "@tanstack/react-router";
import { Pencil } from "lucide-react";
import { useMemo, useState } from "react";

import { $api, type Explanation, type Trigger } from "../api/client";
import { Refusal } from "../api/refusal";
import { MetricChart } from "../chart/MetricChart";
import { Badge } from "../controls/Badge";
import { Select } from "../controls/Field";
import { ButtonLink } from "../controls/Link";
import { Empty, ErrorNotice, Loading } from "../controls/State";
import { triggerTypes } from "../deliveries/words";
import { SiteTrail } from "../sites/SiteTrail";
import { useNow, useSite } from "../sites/useSite";
import { ago, duration, fullTime, number, shortTime, withLocalTimes } from "../time";
import { nameOf } from "../webhooks/health";
import { useWebhook } from "../webhooks/useWebhook";
import { NoWebhook, triggerStatus } from "../webhooks/WebhookPage";
import { fieldName } from "./draft";
import { episodesOf, pointsOf } from "./episodes";

/** One trigger: where it stands, why it has or has not fired, and its metric with its episodes. */
export function TriggerPage() {
  const site = useSite();
  const { id, trigger: triggerID } = useParams({ from: "/sites/$site/webhooks/$id/triggers/$trigger" });
  const webhook = useWebhook();
  if (webhook.isPending) return <Loading label="Loading the trigger" rows={5} />;
  if (webhook.data === undefined) return webhook.error instanceof Refusal && webhook.error.status === 404 ? <NoWebhook /> : <ErrorNotice error={webhook.error} onRetry={() => webhook.refetch()} />;
  const trigger = webhook.data.triggers.find((each) => each.id === triggerID);
  const toWebhook = { to: "/sites/$site/webhooks/$id", params: { site: site.domain, id } } as const;
  if (trigger === undefined) {
    return (
      <Empty title="No such trigger" action={<ButtonLink {...toWebhook}>Its webhook</ButtonLink>}>
        It was removed from {nameOf(webhook.data)}. What it sent is still among the webhook's deliveries.
      </Empty>
    );
  }
  const status = triggerStatus(trigger);
  return (
    <div className="flex flex-col gap-6">
      <SiteTrail webhook={{ id, name: nameOf(webhook.data) }} here={trigger.name} />
      <header className="flex flex-wrap items-start justify-between gap-3">
        <div className="min-w-0">
          <div className="flex flex-wrap items-center gap-2.5">
            <h1 className="text-xl font-semibold break-words">{trigger.name}</h1>
            <Badge tone={status.tone}>{status.name}</Badge>
          </div>
          <p className="text-soft text-xs">{triggerTypes[trigger.type]?.name ?? trigger.type}</p>
        </div>
        {site.can_change && (
          <ButtonLink to="/sites/$site/webhooks/$id/edit" params={{ site: site.domain, id }}>
            <Pencil size={14} aria-hidden />
            Edit
          </ButtonLink>
        )}
      </header>
      <State trigger={trigger} />
      <Past webhookID={id} trigger={trigger} />
      <Setup trigger={trigger} />
    </div>
  );
}

function State({ trigger }: { trigger: Trigger }) {
  const site = useSite();
  const now = useNow();
  const { state } = trigger;
  const facts: [string, string, string?][] = [
    ["Value", state.value === null ? "none yet" : number(state.value)],
    ["Threshold", state.threshold === null ? "none" : number(state.threshold)],
    ["In this state since", ago(state.since, now), fullTime(state.since, site.timezone)],
    ["Last fired", state.last_fired_at === null ? "never" : ago(state.last_fired_at, now), state.last_fired_at === null ? undefined : fullTime(state.last_fired_at, site.timezone)],
    ["Last looked at", state.last_evaluated_at === null ? "not yet" : ago(state.last_evaluated_at, now), state.last_evaluated_at === null ? undefined : fullTime(state.last_evaluated_at, site.timezone)],
  ];
  return (
    <section aria-label="State" className="card flex flex-col gap-4 p-5">
      <p role="status" className="text-base text-pretty">
        {trigger.enabled ? withLocalTimes(state.explanation, site.timezone) : "It is switched off, so it does not fire."}
      </p>
      <dl className="grid grid-cols-2 gap-4 sm:grid-cols-5">
        {facts.map(([name, value, exactly]) => (
          <div key={name}>
            <dt className="text-soft text-xs">{name}</dt>
            <dd className="font-medium tabular-nums" title={exactly}>
              {value}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

const spans = [
  { id: "1", name: "The last hour" },
  { id: "24", name: "The last 24 hours" },
  { id: "168", name: "The last 7 days" },
];

function Past({ webhookID, trigger }: { webhookID: string; trigger: Trigger }) {
  const site = useSite();
  const [hours, setHours] = useState("24");
  const [to, setTo] = useState(() => new Date());
  const from = new Date(to.getTime() - Number(hours) * 3_600_000);
  const past = $api.useQuery("get", "/api/sites/{site_id}/webhooks/{id}/triggers/{trigger_id}/explanation", {
    params: { path: { site_id: site.domain, id: webhookID, trigger_id: trigger.id }, query: { from: from.toISOString(), to: to.toISOString() } },
  });
  return (
    <section aria-labelledby="past" className="card flex flex-col gap-4 p-5">
      <div className="flex flex-wrap items-end justify-between gap-3">
        <h2 id="past" className="text-base font-semibold">
          What came of its evaluations
        </h2>
        <div className="w-52">
          <Select
            label="Show"
            choices={spans}
            value={hours}
            onChange={(id) => {
              setHours(id);
              setTo(new Date());
            }}
          />
        </div>
      </div>
      {past.isPending && <div role="status" aria-label="Loading its evaluations" className="bg-hover h-64 animate-pulse rounded-lg" />}
      {past.isError && <ErrorNotice error={past.error} onRetry={() => past.refetch()} />}
      {past.data !== undefined && <Evaluations explanation={past.data} />}
    </section>
  );
}

function Evaluations({ explanation }: { explanation: Explanation }) {
  const site = useSite();
  const { runs, truncated, complete_until } = explanation;
  const [points, episodes] = useMemo(() => [pointsOf(runs), episodesOf(runs)], [runs]);
  if (runs.length === 0) return <p className="text-soft rounded-lg border border-dashed p-4">Nothing was evaluated in this time, or it is not stored yet: that takes up to five minutes.</p>;
  const sentence = episodes.length === 0 ? "It did not fire." : episodes.length === 1 ? "It fired in one episode." : `It fired in ${episodes.length} episodes.`;
  return (
    <>
      <MetricChart label={sentence} points={points} marks={episodes.map((episode) => episode.from)} spans={episodes} zone={site.timezone} />
      <p className="text-soft text-xs">
        {sentence} {truncated && "Older evaluations are left out. "}
        {complete_until !== undefined && `Known until ${fullTime(complete_until, site.timezone)}.`}
      </p>
      {episodes.length > 0 && (
        <div className="overflow-x-auto">
          <table className="w-full text-left text-[13px]">
            <thead className="text-soft text-xs">
              <tr>
                <th className="py-1.5 pr-4 font-normal">Began</th>
                <th className="py-1.5 pr-4 font-normal">Lasted</th>
                <th className="py-1.5 pr-4 font-normal">Lowest</th>
                <th className="py-1.5 font-normal">Highest</th>
              </tr>
            </thead>
            <tbody>
              {episodes
                .toReversed()
                .slice(0, 20)
                .map(({ from, to, highest, lowest }) => (
                  <tr key={from} className="border-line border-t tabular-nums">
                    <td className="py-1.5 pr-4">{shortTime(from, site.timezone)}</td>
                    <td className="py-1.5 pr-4">{duration((Date.parse(to) - Date.parse(from)) / 1000)}</td>
                    <td className="py-1.5 pr-4">{lowest === null ? "–" : number(lowest)}</td>
                    <td className="py-1.5">{highest === null ? "–" : number(highest)}</td>
                  </tr>
                ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** What it waits for, as it is stored. */
function Setup({ trigger }: { trigger: Trigger }) {
  const facts: [string, string][] = Object.entries(trigger.config).map(([name, value]) => [
    fieldName(name),
    name.endsWith("_seconds") && typeof value === "number" ? duration(value) : typeof value === "object" ? JSON.stringify(value) : String(value),
  ]);
  if (trigger.filters.length > 0) facts.push(["Conditions", JSON.stringify(trigger.filters)]);
  if (trigger.cooldown_seconds > 0) facts.push(["Quiet after it fired", duration(trigger.cooldown_seconds)]);
  if (trigger.notify_resolved) facts.push(["When it is over", "a message too"]);
  return (
    <section aria-labelledby="setup" className="card flex flex-col gap-3 p-5">
      <h2 id="setup" className="text-base font-semibold">
        What it waits for
      </h2>
      <dl className="grid gap-x-6 gap-y-2 sm:grid-cols-[14rem_minmax(0,1fr)]">
        {facts.map(([name, value]) => (
          <div key={name} className="contents">
            <dt className="text-soft">{name}</dt>
            <dd className="break-words">{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
