import { parseAbsolute, type ZonedDateTime } from "@internationalized/date";
import { type ReactNode, useState } from "react";
import { DateField, Label, ProgressBar, Text } from "react-aria-components";

import { $api, type Webhook } from "../api/client";
import { Button } from "../controls/Button";
import { DateParts } from "../controls/DateParts";
import { Dialog } from "../controls/Dialog";
import { Select } from "../controls/Field";
import { ErrorNotice } from "../controls/State";
import { useSite } from "../sites/useSite";
import { number, zoneName } from "../time";

const kinds = [
  { id: "dead", name: "Given up", detail: "What no attempt could deliver." },
  { id: "cancelled", name: "Cancelled", detail: "What was not sent any more." },
  { id: "delivered", name: "Delivered", detail: "For a receiver that has lost what it had: it gets each message again, with the same webhook-id." },
];

/** Sends again what ended in a time, and shows how far that has come. */
export function RecoverButton({ webhook, icon }: { webhook: Webhook; icon: ReactNode }) {
  const site = useSite();
  const [isOpen, setOpen] = useState(false);
  const [job, setJob] = useState<string | null>(null);
  const close = () => setOpen(false);
  return (
    <>
      <Button isDisabled={!site.can_change} onPress={() => setOpen(true)}>
        {icon}
        Recover
      </Button>
      <Dialog title="Send again after an outage" isOpen={isOpen} onClose={close}>
        {job === null ? <RecoverForm webhook={webhook} onBegun={setJob} onClose={close} /> : <Progress webhook={webhook} job={job} onAnother={() => setJob(null)} onClose={close} />}
      </Dialog>
    </>
  );
}

function RecoverForm({ webhook, onBegun, onClose }: { webhook: Webhook; onBegun: (job: string) => void; onClose: () => void }) {
  const site = useSite();
  const [kind, setKind] = useState("dead");
  const [since, setSince] = useState<ZonedDateTime | null>(() => parseAbsolute(new Date(Date.now() - 24 * 3600 * 1000).toISOString(), site.timezone).set({ second: 0, millisecond: 0 }));
  const recover = $api.useMutation("post", "/api/sites/{site_id}/webhooks/{id}/recover", { onSuccess: (begun) => onBegun(begun.id) });
  return (
    <>
      <Select label="What to send again" choices={kinds} value={kind} onChange={setKind} description={kinds.find(({ id }) => id === kind)?.detail} />
      <DateField value={since} onChange={setSince} granularity="minute" hideTimeZone className="flex flex-col gap-1.5">
        <Label className="text-[13px] font-medium">Since</Label>
        <DateParts className="border-edge bg-surface focus-within:outline-accent flex rounded-lg border px-3 py-2 focus-within:outline-2" />
        <Text slot="description" className="text-soft text-xs">
          The time of the messages, in the site's zone ({zoneName(new Date(), site.timezone)}).
        </Text>
      </DateField>
      {recover.isError && <ErrorNotice error={recover.error} />}
      <div className="flex justify-end gap-2">
        <Button onPress={onClose}>Cancel</Button>
        <Button
          look="solid"
          isDisabled={since === null}
          isPending={recover.isPending}
          onPress={() => {
            if (since === null) return;
            recover.mutate({ params: { path: { site_id: site.domain, id: webhook.id } }, body: { since: since.toAbsoluteString(), status: kind as "dead" | "cancelled" | "delivered" } });
          }}
        >
          Send again
        </Button>
      </div>
    </>
  );
}

const sentences = { waiting: "It begins in a moment.", running: "It goes on when you close this.", done: "All of it is on its way.", cancelled: "It was cancelled. What was sent stays sent.", failed: "It failed." };

function Progress({ webhook, job, onAnother, onClose }: { webhook: Webhook; job: string; onAnother: () => void; onClose: () => void }) {
  const site = useSite();
  const params = { params: { path: { site_id: site.domain, id: webhook.id, job_id: job } } };
  const recovery = $api.useQuery("get", "/api/sites/{site_id}/webhooks/{id}/recoveries/{job_id}", params, {
    refetchInterval: ({ state }) => (state.data?.finished_at ? false : 1000),
  });
  const cancel = $api.useMutation("delete", "/api/sites/{site_id}/webhooks/{id}/recoveries/{job_id}", { onSuccess: () => recovery.refetch() });
  const state = recovery.data;
  const ended = state?.finished_at != null;
  return (
    <>
      {recovery.isError && <ErrorNotice error={recovery.error} onRetry={() => recovery.refetch()} />}
      {state !== undefined && (
        <>
          <ProgressBar minValue={0} maxValue={state.total ?? 1} value={ended && state.state === "done" ? (state.total ?? 1) : state.done} isIndeterminate={state.total === null && !ended}>
            {({ percentage }) => (
              <>
                <div className="mb-1.5 flex justify-between">
                  <Label>{`${number(state.done)} ${state.total === null ? "" : `of ${number(state.total)} `}sent again`}</Label>
                </div>
                <svg viewBox="0 0 100 4" preserveAspectRatio="none" className="text-solid bg-hover h-2 w-full rounded-full" aria-hidden>
                  <rect width={percentage ?? 30} height="4" rx="2" fill="currentColor" className={percentage === undefined ? "animate-pulse" : ""} />
                </svg>
              </>
            )}
          </ProgressBar>
          <p className="text-soft">
            {sentences[state.state]} {state.error}
          </p>
        </>
      )}
      {cancel.isError && <ErrorNotice error={cancel.error} />}
      <div className="flex justify-end gap-2">
        {ended ? (
          <Button onPress={onAnother}>Another one</Button>
        ) : (
          <Button isPending={cancel.isPending} onPress={() => cancel.mutate(params)}>
            Stop it
          </Button>
        )}
        <Button look="solid" onPress={onClose}>
          Close
        </Button>
      </div>
    </>
  );
}
