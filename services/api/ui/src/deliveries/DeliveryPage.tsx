import { useParams } from "@tanstack/react-router";
import { RotateCw, Terminal } from "lucide-react";
import { useState } from "react";
import { Disclosure, DisclosurePanel, Heading, Button as AriaButton } from "react-aria-components";

import { $api, type Attempt, type DeliveryDetails, queryClient } from "../api/client";
import { Refusal, sentenceOf } from "../api/refusal";
import { useChanges } from "../api/useChanges";
import { Badge } from "../controls/Badge";
import { Button } from "../controls/Button";
import { Code } from "../controls/Code";
import { CopyButton } from "../controls/Copy";
import { Dialog } from "../controls/Dialog";
import { ButtonLink } from "../controls/Link";
import { Empty, ErrorNotice, Loading } from "../controls/State";
import { toast } from "../controls/Toasts";
import { SiteTrail } from "../sites/SiteTrail";
import { useNow, useSite } from "../sites/useSite";
import { ago, clockSeconds, clockTime, fullTime, milliseconds, zoneName } from "../time";
import { nameOf } from "../webhooks/health";
import { useWebhook } from "../webhooks/useWebhook";
import { curlOf } from "./curl";
import { adviceOf, messageName, statusOf } from "./words";

const path = "/api/sites/{site_id}/webhooks/{id}/deliveries/{delivery_id}";

/** One delivery: what was sent, what came back each time, and what to do about it. */
export function DeliveryPage() {
  const site = useSite();
  const { id, delivery: deliveryID } = useParams({ from: "/sites/$site/webhooks/$id/deliveries/$delivery" });
  const webhook = useWebhook();
  const params = { params: { path: { site_id: site.domain, id, delivery_id: deliveryID } } };
  const query = $api.useQuery("get", path, params, {
    // A test that was just asked for is stored a moment later.
    retry: (failures, error) => failures < 5 && error instanceof Refusal && (error.status === 404 || error.status >= 500),
    retryDelay: 400,
    refetchInterval: ({ state }) => (state.data?.status === "waiting" ? 5000 : false),
  });
  useChanges(site.domain, id, (changed) => {
    if (changed === null || changed.includes(deliveryID)) void query.refetch();
  });
  if (query.isPending) return <Loading label="Loading the delivery" rows={5} />;
  if (query.data === undefined) {
    if (!(query.error instanceof Refusal && query.error.status === 404)) return <ErrorNotice error={query.error} onRetry={() => query.refetch()} />;
    return (
      <Empty
        title="No such delivery"
        action={
          <ButtonLink to="/sites/$site/webhooks/$id" params={{ site: site.domain, id }}>
            All deliveries
          </ButtonLink>
        }
      >
        It is older than what is kept, or belongs to another webhook.
      </Empty>
    );
  }
  const delivery = query.data;
  return (
    <div className="flex flex-col gap-6">
      <SiteTrail webhook={{ id, name: webhook.data === undefined ? "Webhook" : nameOf(webhook.data) }} here="Delivery" />
      <Header webhookID={id} delivery={delivery} />
      <Attempts delivery={delivery} />
      <section aria-labelledby="payload" className="flex flex-col gap-3">
        <div className="flex items-center justify-between gap-3">
          <h2 id="payload" className="text-base font-semibold">
            Message
          </h2>
          <CopyButton text={JSON.stringify(delivery.payload, null, 2)} />
        </div>
        <Code label="The message as JSON" text={JSON.stringify(delivery.payload, null, 2)} />
      </section>
    </div>
  );
}

function Header({ webhookID, delivery }: { webhookID: string; delivery: DeliveryDetails }) {
  const site = useSite();
  const now = useNow();
  const status = statusOf(delivery);
  const params = { params: { path: { site_id: site.domain, id: webhookID, delivery_id: delivery.id } } };
  const retry = $api.useMutation("post", `${path}/retry`, {
    onSuccess: () => queryClient.invalidateQueries({ queryKey: ["get", path, params] }),
    onError: (error) => toast(sentenceOf(error)),
  });
  return (
    <header className="flex flex-wrap items-start justify-between gap-3">
      <div className="min-w-0">
        <div className="flex flex-wrap items-center gap-2.5">
          <h1 className="text-xl font-semibold">{messageName(delivery.type)}</h1>
          <Badge tone={status.tone}>{status.name}</Badge>
        </div>
        <p className="text-soft text-xs">
          <time dateTime={delivery.created_at}>{fullTime(delivery.created_at, site.timezone)}</time> {zoneName(delivery.created_at, site.timezone)}
          {delivery.firing_ids.length > 1 && ` · ${delivery.firing_ids.length} messages together`}
        </p>
        <p className="text-soft font-mono text-xs break-all">{delivery.id}</p>
        {delivery.status === "waiting" && (
          <p role="status" className="text-soft mt-1">
            {delivery.next_attempt_at === null
              ? delivery.attempts === 0
                ? "It is being sent."
                : "It is held until the webhook can take it."
              : `The next attempt is made ${ago(delivery.next_attempt_at, now)}, at ${clockSeconds(delivery.next_attempt_at, site.timezone)}.`}
          </p>
        )}
      </div>
      <div className="flex flex-wrap gap-2">
        <Button isDisabled={!site.can_change} isPending={retry.isPending} onPress={() => retry.mutate(params)}>
          <RotateCw size={14} aria-hidden />
          {delivery.status === "delivered" ? "Send again" : "Try again now"}
        </Button>
        <CurlButton webhookID={webhookID} delivery={delivery} />
      </div>
    </header>
  );
}

/** Shows the request as a command. It is signed when it is asked for: receivers refuse signatures that are older than some minutes. */
function CurlButton({ webhookID, delivery }: { webhookID: string; delivery: DeliveryDetails }) {
  const site = useSite();
  const sign = $api.useMutation("post", `${path}/request`, { onError: (error) => toast(sentenceOf(error)) });
  const command = sign.data === undefined ? "" : curlOf(sign.data);
  return (
    <>
      <Button
        isDisabled={!site.can_change}
        isPending={sign.isPending}
        onPress={() => sign.mutate({ params: { path: { site_id: site.domain, id: webhookID, delivery_id: delivery.id } } })}
      >
        <Terminal size={14} aria-hidden />
        Copy as curl
      </Button>
      <Dialog title="The request as a command" isOpen={sign.isSuccess} onClose={() => sign.reset()}>
        <p className="text-soft text-pretty">
          It sends what the dispatcher would send now, with a valid signature. Receivers accept that for about five minutes; the headers in it may be secret.
        </p>
        <Code label="A curl command" text={command} />
        <div className="flex justify-end gap-2">
          <CopyButton text={command} label="Copy the command" />
          <Button look="solid" onPress={() => sign.reset()}>
            Close
          </Button>
        </div>
      </Dialog>
    </>
  );
}

function Attempts({ delivery }: { delivery: DeliveryDetails }) {
  const attempts = delivery.attempt_list.toReversed();
  const longest = Math.max(...attempts.map((attempt) => attempt.duration_ms), 1);
  return (
    <section aria-labelledby="attempts" className="flex flex-col gap-3">
      <h2 id="attempts" className="text-base font-semibold">
        {attempts.length === 0 ? "Attempts" : attempts.length === 1 ? "1 attempt" : `${attempts.length} attempts, the newest first`}
      </h2>
      {attempts.length === 0 ? (
        <p className="card text-soft p-4">{delivery.last_error ?? "None was made yet."}</p>
      ) : (
        <ol className="flex flex-col gap-3">
          {attempts.map((attempt, i) => (
            <AttemptCard key={attempt.number} attempt={attempt} longest={longest} isNewest={i === 0} />
          ))}
        </ol>
      )}
    </section>
  );
}

const parts = [
  { id: "dns", name: "DNS", fill: "text-[#0e9aa7]" },
  { id: "connect", name: "Connect", fill: "text-[#d97706]" },
  { id: "tls", name: "TLS", fill: "text-[#a855f7]" },
  { id: "first_byte", name: "First byte", fill: "text-[#4f7df3]" },
  { id: "body", name: "Body", fill: "text-[#22a06b]" },
] as const;

function AttemptCard({ attempt, longest, isNewest }: { attempt: Attempt; longest: number; isNewest: boolean }) {
  const site = useSite();
  const failed = attempt.error !== null;
  return (
    <li className="card flex flex-col gap-3 p-4">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <span className="font-medium">#{attempt.number}</span>
        <Badge tone={failed ? "bad" : "good"}>{attempt.status_code === null ? "No answer" : `HTTP ${attempt.status_code}`}</Badge>
        <time dateTime={attempt.started_at} title={fullTime(attempt.started_at, site.timezone)} className="text-soft text-xs tabular-nums">
          {clockTime(attempt.started_at, site.timezone)}
        </time>
        <span className="text-soft ml-auto text-xs tabular-nums">{milliseconds(attempt.duration_ms)}</span>
      </div>
      <Latency attempt={attempt} longest={longest} />
      {attempt.error !== null && (
        <div className={failed && isNewest ? "bg-bad-tint rounded-lg px-4 py-3" : ""}>
          <p className="text-bad font-medium">{sentence(attempt.error)}</p>
          {isNewest && <p className="mt-1 text-pretty">{adviceOf(attempt.error, attempt.status_code)}</p>}
        </div>
      )}
      <div className="flex flex-col gap-1">
        {attempt.status_code !== null && (
          <Details title="Response">
            <Code label="The response's headers" text={headerLines(attempt.response_headers)} />
            {attempt.response_body === "" ? <p className="text-soft text-xs">It had no body.</p> : <Code label="The beginning of the response's body" text={attempt.response_body} />}
          </Details>
        )}
        <Details title="Request headers">
          <Code label="The request's headers, without secrets" text={headerLines(attempt.request_headers)} />
        </Details>
      </div>
    </li>
  );
}

/** Where the time went, on the scale of the longest attempt. */
function Latency({ attempt, longest }: { attempt: Attempt; longest: number }) {
  const shown = parts.filter(({ id }) => attempt.timings[id] !== undefined);
  if (shown.length === 0) return null;
  let from = 0;
  return (
    <div>
      <svg viewBox="0 0 1000 10" preserveAspectRatio="none" className="bg-hover h-2.5 w-full rounded-full" aria-hidden>
        {shown.map(({ id, fill }) => {
          const width = (1000 * (attempt.timings[id] ?? 0)) / longest;
          const x = from;
          from += width;
          return <rect key={id} x={x} width={Math.max(width, 1.5)} height="10" fill="currentColor" className={fill} />;
        })}
      </svg>
      <dl className="mt-1.5 flex flex-wrap gap-x-4 gap-y-1 text-xs">
        {shown.map(({ id, name, fill }) => (
          <div key={id} className="flex items-center gap-1.5">
            <svg viewBox="0 0 8 8" className={`size-2 ${fill}`} aria-hidden>
              <circle cx="4" cy="4" r="4" fill="currentColor" />
            </svg>
            <dt className="text-soft">{name}</dt>
            <dd className="tabular-nums">{milliseconds(attempt.timings[id] ?? 0)}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function Details({ title, children }: { title: string; children: React.ReactNode }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <Disclosure isExpanded={isOpen} onExpandedChange={setOpen}>
      <Heading level={3}>
        <AriaButton slot="trigger" className="text-accent cursor-pointer text-xs font-medium hover:underline">
          {isOpen ? `Hide: ${title.toLowerCase()}` : title}
        </AriaButton>
      </Heading>
      <DisclosurePanel className="flex flex-col gap-2 data-expanded:pt-2">{children}</DisclosurePanel>
    </Disclosure>
  );
}

function headerLines(headers: Record<string, unknown> | null): string {
  return Object.entries(headers ?? {})
    .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(", ") : String(value)}`)
    .join("\n");
}

/** The dispatcher's reasons are the second halves of sentences. */
function sentence(reason: string): string {
  const text = reason.charAt(0).toUpperCase() + reason.slice(1);
  return text.endsWith(".") ? text : `${text}.`;
}
