import { Link } from "@tanstack/react-router";
import { Plus } from "lucide-react";

import { $api, type Activity, type Webhook } from "../api/client";
import { Badge } from "../controls/Badge";
import { Button } from "../controls/Button";
import { ButtonLink, Trail } from "../controls/Link";
import { Empty, ErrorNotice, Loading } from "../controls/State";
import { useNow, useSite } from "../sites/useSite";
import { ago, fullTime } from "../time";
import { EnabledSwitch, TestButton, WebhookMenu } from "./actions";
import { DayChart, successRate } from "./DayChart";
import { healthOf, nameOf } from "./health";

const refreshed = 15_000; // ms

/** A site's webhooks, and how they do. */
export function WebhooksPage() {
  const site = useSite();
  const params = { params: { path: { site_id: site.domain } } };
  const list = $api.useInfiniteQuery(
    "get",
    "/api/sites/{site_id}/webhooks",
    { params: { ...params.params, query: { limit: 100 } } },
    { pageParamName: "after", initialPageParam: "", getNextPageParam: (last) => last.meta.after ?? undefined, refetchInterval: refreshed },
  );
  const webhooks = list.data?.pages.flatMap((page) => page.webhooks);
  const activity = $api.useQuery("get", "/api/sites/{site_id}/webhooks/activity", params, { refetchInterval: refreshed });
  const of = new Map(activity.data?.activity.map((each) => [each.webhook_id, each]));
  const create = site.can_change && (
    <ButtonLink look="solid" to="/sites/$site/webhooks/new" params={{ site: site.domain }}>
      <Plus size={16} aria-hidden />
      New webhook
    </ButtonLink>
  );
  return (
    <div className="flex flex-col gap-4">
      <Trail>
        {[
          <Link key="sites" to="/">
            Sites
          </Link>,
          <span key="site">{site.domain}</span>,
        ]}
      </Trail>
      <div className="flex flex-wrap items-center justify-between gap-3">
        <h1 className="text-xl font-semibold">Webhooks</h1>
        {webhooks !== undefined && webhooks.length > 0 && create}
      </div>
      {activity.isError && list.isSuccess && <ErrorNotice error={activity.error} onRetry={() => activity.refetch()} />}
      {list.isPending && <Loading label="Loading the webhooks" />}
      {list.isError && <ErrorNotice error={list.error} onRetry={() => list.refetch()} />}
      {webhooks?.length === 0 && (
        <Empty title="No webhooks yet" action={create || undefined}>
          A webhook tells another system, such as your chat or your own server, when something happens on {site.domain}: a goal is reached, visitors spike or stay away, tracking falls silent.
        </Empty>
      )}
      <ul className="flex flex-col gap-3">
        {webhooks?.map((webhook) => (
          <WebhookCard key={webhook.id} webhook={webhook} activity={of.get(webhook.id)} />
        ))}
      </ul>
      {list.hasNextPage && (
        <div>
          <Button onPress={() => list.fetchNextPage()} isPending={list.isFetchingNextPage}>
            Load more
          </Button>
        </div>
      )}
    </div>
  );
}

function WebhookCard({ webhook, activity }: { webhook: Webhook; activity: Activity | undefined }) {
  const site = useSite();
  const now = useNow();
  const health = healthOf(webhook, now);
  return (
    <li className="card grid gap-x-6 gap-y-3 p-4 md:grid-cols-[minmax(0,1fr)_16rem_auto] md:items-center">
      <div className="min-w-0">
        <div className="flex flex-wrap items-center gap-2">
          <Link to="/sites/$site/webhooks/$id" params={{ site: site.domain, id: webhook.id }} className="truncate font-semibold hover:underline">
            {nameOf(webhook)}
          </Link>
          <Badge tone={health.tone}>{health.name}</Badge>
        </div>
        <p className="text-soft truncate font-mono text-xs">{webhook.url}</p>
        <p className="text-soft mt-1 text-xs text-pretty">
          {health.tone === "good" ? `${webhook.triggers.length} ${webhook.triggers.length === 1 ? "trigger" : "triggers"}` : health.sentence}
        </p>
      </div>
      <div className="min-w-0">
        {activity !== undefined && (
          <>
            <DayChart activity={activity} />
            <p className="text-soft mt-1 flex justify-between gap-2 text-xs">
              <span>{activity.last_delivery === null ? "Nothing sent yet" : <time dateTime={activity.last_delivery.created_at} title={fullTime(activity.last_delivery.created_at, site.timezone)}>Last {ago(activity.last_delivery.created_at, now)}</time>}</span>
              <span>{successRate(activity) !== null && `${successRate(activity)} delivered`}</span>
            </p>
          </>
        )}
      </div>
      <div className="flex items-center gap-1">
        <EnabledSwitch webhook={webhook} />
        <TestButton webhook={webhook} small />
        <WebhookMenu webhook={webhook} />
      </div>
    </li>
  );
}
