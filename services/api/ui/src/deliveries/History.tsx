import { today, toCalendarDate, toZoned } from "@internationalized/date";
import { useNavigate } from "@tanstack/react-router";
import { CalendarDays, ChevronLeft, ChevronRight, Radio, X } from "lucide-react";
import { useMemo, useState } from "react";
import {
  Button as AriaButton,
  CalendarCell,
  CalendarGrid,
  Collection,
  DateRangePicker,
  type DateRangePickerProps,
  Dialog,
  type DateValue,
  GridList,
  GridListItem,
  GridListLoadMoreItem,
  Group,
  Heading,
  Label,
  ListLayout,
  Popover,
  RangeCalendar,
  Virtualizer,
} from "react-aria-components";

import type { Delivery, DeliveryStatus, Webhook } from "../api/client";
import { Badge } from "../controls/Badge";
import { Button } from "../controls/Button";
import { DateParts } from "../controls/DateParts";
import { type Choice, Select } from "../controls/Field";
import { Empty, ErrorNotice, Loading } from "../controls/State";
import { useNow, useSite } from "../sites/useSite";
import { ago, fullTime, shortTime } from "../time";
import { useWebhook } from "../webhooks/useWebhook";
import type { Filter } from "./merge";
import { useDeliveries } from "./useDeliveries";
import { messageName, statusOf } from "./words";

const any = "any";
const statuses: Choice[] = [
  { id: any, name: "Any status" },
  { id: "waiting", name: "Waiting or trying again" },
  { id: "delivered", name: "Delivered" },
  { id: "dead", name: "Given up" },
  { id: "cancelled", name: "Cancelled" },
];

type Range = DateRangePickerProps<DateValue>["value"];

/** What was sent by a webhook, or waits to be: filtered, as it happens. */
export function History({ webhook }: { webhook: Webhook }) {
  const site = useSite();
  const navigate = useNavigate();
  const [status, setStatus] = useState<string>(any);
  const [trigger, setTrigger] = useState<string>(any);
  const [range, setRange] = useState<Range>(null);
  const filter: Filter = {
    ...(status === any ? {} : { status: status as DeliveryStatus }),
    ...(trigger === any ? {} : { trigger_id: trigger }),
    ...(range ? { from: startOfDay(range.start, site.timezone), to: startOfDay(range.end.add({ days: 1 }), site.timezone) } : {}),
  };
  const filtered = Object.keys(filter).length > 0;
  const list = useDeliveries(site.domain, webhook.id, filter);
  const deliveries = useMemo(() => list.data?.pages.flatMap((page) => page.deliveries), [list.data]);
  const triggers: Choice[] = [{ id: any, name: "Any trigger" }, ...webhook.triggers.map((each) => ({ id: each.id, name: each.name }))];
  return (
    <section aria-labelledby="history" className="flex flex-col gap-3">
      <div className="flex flex-wrap items-center gap-3">
        <h2 id="history" className="text-base font-semibold">
          Deliveries
        </h2>
        <span role="status" className={`inline-flex items-center gap-1.5 text-xs ${list.live ? "text-good" : "text-soft"}`}>
          <Radio size={14} aria-hidden />
          {list.live ? "Live" : "Connecting …"}
        </span>
      </div>
      <div className="grid items-end gap-3 sm:grid-cols-[repeat(3,minmax(0,1fr))_auto]">
        <Select label="Status" choices={statuses} value={status} onChange={setStatus} />
        <Select label="Trigger" choices={triggers} value={trigger} onChange={setTrigger} />
        <DayRange value={range} onChange={setRange} />
        {filtered && (
          <Button
            look="quiet"
            onPress={() => {
              setStatus(any);
              setTrigger(any);
              setRange(null);
            }}
          >
            Show all
          </Button>
        )}
      </div>
      {list.isError && <ErrorNotice error={list.error} onRetry={() => list.refetch()} />}
      {list.isPending && <Loading label="Loading the deliveries" rows={5} />}
      {deliveries?.length === 0 && !list.hasNextPage && (
        <Empty title={filtered ? "None of the deliveries is like this" : "Nothing sent yet"}>
          {filtered ? "Choose another status, trigger or time, or show all." : "When a trigger fires, its message appears here at once. “Send a test” tries the way to the receiver now."}
        </Empty>
      )}
      {deliveries !== undefined && (deliveries.length > 0 || list.hasNextPage) && (
        <Virtualizer layout={ListLayout} layoutOptions={{ rowHeight: 64, gap: 0, loaderHeight: 48 }}>
          <GridList
            aria-label="Deliveries, the newest first"
            className="card block max-h-[70dvh] overflow-auto outline-offset-2"
            onAction={(id) => void navigate({ to: "/sites/$site/webhooks/$id/deliveries/$delivery", params: { site: site.domain, id: webhook.id, delivery: String(id) } })}
          >
            <Collection items={deliveries}>{row}</Collection>
            <GridListLoadMoreItem onLoadMore={() => void list.fetchNextPage()} isLoading={list.isFetchingNextPage} className="text-soft flex h-12 items-center justify-center">
              Loading older ones …
            </GridListLoadMoreItem>
          </GridList>
        </Virtualizer>
      )}
    </section>
  );
}

/**
 * All rows are known to the list, and those in sight are shown: what is costly stands in the row's content. A row is
 * made once for a delivery as it is, so that the ten-thousandth page costs no more than the first.
 */
function row(delivery: Delivery) {
  return (
    <GridListItem
      id={delivery.id}
      textValue={`${messageName(delivery.type)}, ${statusOf(delivery).name}`}
      className="border-line data-hovered:bg-hover data-focus-visible:bg-hover flex h-16 cursor-pointer items-center gap-3 border-b px-4 outline-none data-focus-visible:shadow-[inset_2px_0_0_var(--color-accent)]"
    >
      <DeliveryRow delivery={delivery} />
    </GridListItem>
  );
}

function DeliveryRow({ delivery }: { delivery: Delivery }) {
  const site = useSite();
  const now = useNow();
  const trigger = useWebhook().data?.triggers.find(({ id }) => id === delivery.trigger_id)?.name;
  const status = statusOf(delivery);
  return (
    <>
      <div className="w-26 shrink-0 max-sm:hidden">
        <Badge tone={status.tone}>{status.name}</Badge>
      </div>
      <div className="min-w-0 flex-1">
        <p className="flex items-center gap-2">
          <span className="shrink-0 sm:hidden">
            <Badge tone={status.tone}>{status.name}</Badge>
          </span>
          <span className="truncate font-medium">
            {messageName(delivery.type)}
            {trigger !== undefined && <span className="text-soft font-normal"> · {trigger}</span>}
          </span>
        </p>
        <p className="text-soft truncate text-xs">
          {delivery.last_error ?? (delivery.attempts <= 1 ? "At the first attempt" : `After ${delivery.attempts} attempts`)}
          {delivery.status === "waiting" && delivery.next_attempt_at !== null && `, next attempt ${ago(delivery.next_attempt_at, now)}`}
        </p>
      </div>
      <time dateTime={delivery.created_at} title={fullTime(delivery.created_at, site.timezone)} className="text-soft shrink-0 text-xs tabular-nums max-sm:max-w-12 max-sm:text-right">
        {shortTime(delivery.created_at, site.timezone)}
      </time>
      <ChevronRight size={14} aria-hidden className="text-soft shrink-0 max-sm:hidden" />
    </>
  );
}

/** The moment at which a day begins in a time zone: not always at midnight, and not always 24 hours before the next. */
function startOfDay(date: DateValue, zone: string): string {
  return toZoned(toCalendarDate(date), zone).toAbsoluteString();
}

function DayRange({ value, onChange }: { value: Range; onChange: (range: Range) => void }) {
  const site = useSite();
  const cell = "flex size-8 items-center justify-center rounded-md outline-none";
  return (
    <DateRangePicker value={value} onChange={onChange} maxValue={today(site.timezone)} className="flex flex-col gap-1.5">
      <Label className="text-[13px] font-medium">Days</Label>
      <Group className="border-edge bg-surface focus-within:outline-accent flex h-[38px] items-center gap-1 rounded-lg border pr-1 pl-3 focus-within:outline-2">
        <DateParts slot="start" className="flex" />
        <span aria-hidden className="text-soft">
          –
        </span>
        <DateParts slot="end" className="flex flex-1" />
        {value !== null && (
          <AriaButton slot={null} aria-label="Clear the days" onPress={() => onChange(null)} className="text-soft hover:text-ink cursor-pointer rounded p-1">
            <X size={14} aria-hidden />
          </AriaButton>
        )}
        <AriaButton className="text-soft hover:text-ink cursor-pointer rounded p-1.5">
          <CalendarDays size={14} aria-hidden />
        </AriaButton>
      </Group>
      <Popover className="bg-surface border-line rounded-xl border p-3 shadow-lg">
        <Dialog className="outline-none">
          <RangeCalendar>
            <header className="mb-2 flex items-center justify-between">
              <AriaButton slot="previous" className="hover:bg-hover cursor-pointer rounded-md p-2">
                <ChevronLeft size={16} aria-hidden />
              </AriaButton>
              <Heading className="font-semibold" />
              <AriaButton slot="next" className="hover:bg-hover cursor-pointer rounded-md p-2 disabled:opacity-40">
                <ChevronRight size={16} aria-hidden />
              </AriaButton>
            </header>
            <CalendarGrid weekdayStyle="short" className="text-[13px] [&_th]:font-normal [&_th]:text-soft">
              {(date) => (
                <CalendarCell
                  date={date}
                  className={`${cell} data-selected:bg-tint data-selection-start:bg-solid data-selection-start:text-white data-selection-end:bg-solid data-selection-end:text-white data-focus-visible:outline-accent data-hovered:bg-hover data-disabled:text-soft cursor-pointer data-disabled:cursor-default data-disabled:opacity-50 data-focus-visible:outline-2 data-outside-month:invisible`}
                />
              )}
            </CalendarGrid>
          </RangeCalendar>
        </Dialog>
      </Popover>
    </DateRangePicker>
  );
}
