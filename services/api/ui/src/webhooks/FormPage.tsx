import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useBlocker, useNavigate } from "@tanstack/react-router";
import { Plus, Trash2 } from "lucide-react";
import { type FormEvent, type ReactNode, useState } from "react";
import { Menu, MenuItem, MenuTrigger, Popover, Text } from "react-aria-components";

import { $api, api, type TriggerType, type Webhook } from "../api/client";
import { byField, Refusal } from "../api/refusal";
import { Button, IconButton } from "../controls/Button";
import { NumberField, Switch, TextField } from "../controls/Field";
import { ButtonLink } from "../controls/Link";
import { ErrorNotice, Loading } from "../controls/State";
import { toast } from "../controls/Toasts";
import { triggerTypes } from "../deliveries/words";
import { SiteTrail } from "../sites/SiteTrail";
import { useSite } from "../sites/useSite";
import { DurationField } from "../triggers/DurationField";
import { newDraft } from "../triggers/draft";
import { TriggerEditor } from "../triggers/TriggerEditor";
import { useDebounced } from "../useDebounced";
import { forgetWebhooks } from "./actions";
import { FormatFields } from "./FormatFields";
import { nameOf } from "./health";
import { SecretDialog } from "./SecretDialog";
import { blank, bodyOf, headerRow, type Settings, settingsOf, shownProblems } from "./settings";
import { useWebhook } from "./useWebhook";
import { NoWebhook } from "./WebhookPage";

export function NewWebhookPage() {
  const site = useSite();
  const navigate = useNavigate();
  const [created, setCreated] = useState<{ id: string; secret: string } | null>(null);
  const create = $api.useMutation("post", "/api/sites/{site_id}/webhooks", {
    onSuccess: (webhook) => {
      if (webhook === undefined) return; // the answer to a dry run, which this is not
      void forgetWebhooks();
      setCreated({ id: webhook.id, secret: webhook.secret });
    },
  });
  return (
    <>
      <Form
        title="New webhook"
        initial={blank}
        judge={(body, signal) => api.POST("/api/sites/{site_id}/webhooks", { params: { path: { site_id: site.domain }, query: { dry_run: true } }, body, signal })}
        save={(body) => create.mutate({ params: { path: { site_id: site.domain } }, body })}
        saving={create.isPending}
        error={create.error}
        action="Create the webhook"
      />
      <SecretDialog
        secret={created?.secret ?? null}
        title="The webhook's secret"
        onClose={() => created !== null && void navigate({ to: "/sites/$site/webhooks/$id", params: { site: site.domain, id: created.id }, ignoreBlocker: true })}
      >
        You can rotate it at any time.
      </SecretDialog>
    </>
  );
}

export function EditWebhookPage() {
  const webhook = useWebhook();
  if (webhook.data !== undefined) return <EditForm key={webhook.data.id} webhook={webhook.data} />;
  if (webhook.isPending) return <Loading label="Loading the webhook" rows={5} />;
  if (webhook.error instanceof Refusal && webhook.error.status === 404) return <NoWebhook />;
  return <ErrorNotice error={webhook.error} onRetry={() => webhook.refetch()} />;
}

/** Edits a webhook as it was read when the form was opened: whoever changed it meanwhile is not overwritten. */
function EditForm({ webhook }: { webhook: Webhook }) {
  const site = useSite();
  const navigate = useNavigate();
  const path = { site_id: site.domain, id: webhook.id };
  const opened = useQuery({
    queryKey: ["opened", path],
    queryFn: async ({ signal }) => {
      const { data, response } = await api.GET("/api/sites/{site_id}/webhooks/{id}", { params: { path }, signal });
      return { webhook: data as Webhook, etag: response.headers.get("ETag") ?? "*" };
    },
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  });
  const etag = opened.data?.etag ?? "*";
  const replace = $api.useMutation("put", "/api/sites/{site_id}/webhooks/{id}", {
    onSuccess: async () => {
      await forgetWebhooks();
      toast("Saved.");
      await navigate({ to: "/sites/$site/webhooks/$id", params: { site: site.domain, id: webhook.id }, ignoreBlocker: true });
    },
  });
  if (opened.isError) return <ErrorNotice error={opened.error} onRetry={() => opened.refetch()} />;
  if (opened.data === undefined) return <Loading label="Loading the webhook" rows={5} />;
  const enabled = opened.data.webhook.enabled;
  return (
    <Form
      title={`Edit ${nameOf(opened.data.webhook)}`}
      webhook={opened.data.webhook}
      initial={settingsOf(opened.data.webhook)}
      judge={(body, signal) => api.PUT("/api/sites/{site_id}/webhooks/{id}", { params: { path, query: { dry_run: true } }, body: { ...body, enabled }, signal })}
      save={(body) => replace.mutate({ params: { path, header: { "If-Match": etag } }, body: { ...body, enabled } })}
      saving={replace.isPending}
      error={replace.error}
      action="Save"
    />
  );
}

type Body = ReturnType<typeof bodyOf>;

interface FormProps {
  title: string;
  webhook?: Webhook;
  initial: Settings;
  /** Asks the API whether it would take this: the same rules as when it is saved. */
  judge: (body: Body, signal: AbortSignal) => Promise<unknown>;
  save: (body: Body) => void;
  saving: boolean;
  error: unknown;
  action: string;
}

function Form({ title, webhook, initial, judge, save, saving, error, action }: FormProps) {
  const site = useSite();
  const [settings, setSettings] = useState(initial);
  const [touched, setTouched] = useState<Set<string>>(new Set());
  const [tried, setTried] = useState(false);
  useBlocker({ shouldBlockFn: () => touched.size > 0 && !confirm("Leave without saving?"), enableBeforeUnload: () => touched.size > 0 });
  const types = $api.useQuery("get", "/api/trigger-types", {}, { staleTime: Number.POSITIVE_INFINITY });

  const body = useDebounced(bodyOf(settings), 300);
  const verdict = useQuery({
    queryKey: ["verdict", site.domain, webhook?.id, body],
    queryFn: async ({ signal }) => {
      try {
        await judge(body, signal);
        return [];
      } catch (refusal) {
        if (refusal instanceof Refusal && refusal.status === 422) return refusal.problems;
        throw refusal;
      }
    },
    placeholderData: keepPreviousData,
    staleTime: 10_000,
  });
  const refused = error instanceof Refusal && error.status === 422 ? error.problems : [];
  const problems = byField(verdict.data ?? refused);
  const shown = shownProblems(problems, touched, tried);
  const errorAt = (field: string) => shown.get(field);

  const change = (part: Partial<Settings>, field: string) => {
    setSettings((known) => ({ ...known, ...part }));
    setTouched((known) => new Set(known).add(field));
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    save(bodyOf(settings));
  };
  const setTriggers = (triggers: Settings["triggers"], field = "triggers") => change({ triggers }, field);

  return (
    <form onSubmit={submit} className="flex flex-col gap-6" noValidate>
      <SiteTrail webhook={webhook === undefined ? undefined : { id: webhook.id, name: nameOf(webhook) }} here={webhook === undefined ? "New webhook" : "Edit"} />
      <h1 className="text-xl font-semibold break-words">{title}</h1>

      <Part title="Where to">
        <div className="grid items-start gap-4 md:grid-cols-2">
          <TextField
            label="URL"
            placeholder="https://hooks.example.com/plausible"
            description="Where messages are sent, by POST."
            inputMode="url"
            autoFocus={webhook === undefined}
            error={errorAt("url")}
            value={settings.url}
            onChange={(url) => change({ url }, "url")}
          />
          <TextField label="Description" description="What you call it." error={errorAt("description")} value={settings.description} onChange={(description) => change({ description }, "description")} />
        </div>
      </Part>

      <section aria-labelledby="what" className="flex flex-col gap-3">
        <h2 id="what" className="text-base font-semibold">
          What to tell
        </h2>
        {types.isError && <ErrorNotice error={types.error} onRetry={() => types.refetch()} />}
        {settings.triggers.map((draft, i) => {
          const description = types.data?.trigger_types.find(({ type }) => type === draft.type);
          if (description === undefined) return types.isPending ? <Loading key={draft.key} label="Loading the trigger" rows={1} /> : null;
          return (
            <TriggerEditor
              key={draft.key}
              draft={draft}
              description={description}
              onChange={(next) => setTriggers(settings.triggers.map((other) => (other.key === draft.key ? next : other)), `triggers[${i}]`)}
              onRemove={() => setTriggers(settings.triggers.filter((other) => other.key !== draft.key))}
              errorAt={(field) => errorAt(`triggers[${i}]${field === "" ? "" : `.${field}`}`)}
            />
          );
        })}
        <div>
          <AddTrigger onAdd={(type) => setTriggers([...settings.triggers, newDraft(type)], "")} />
        </div>
      </section>

      <Part title="How messages look">
        <FormatFields settings={settings} onChange={change} errorAt={errorAt} />
      </Part>

      <Part title="Headers" note="Sent along with every message, such as a token that the receiver wants.">
        {settings.headers.map((row, i) => {
          const set = (part: Partial<typeof row>) => change({ headers: settings.headers.map((other) => (other.key === row.key ? { ...other, ...part } : other)) }, "headers");
          return (
            <div key={row.key} className="grid grid-cols-[minmax(0,1fr)_minmax(0,1fr)_auto] items-start gap-3">
              <TextField label={i === 0 ? "Name" : `Name of header ${i + 1}`} error={errorAt(`headers.${row.name.trim()}`)} value={row.name} onChange={(name) => set({ name })} />
              <TextField label={i === 0 ? "Value" : `Value of header ${i + 1}`} value={row.value} onChange={(value) => set({ value })} />
              <div className="pt-6">
                <IconButton label={`Remove ${row.name || "this header"}`} onPress={() => change({ headers: settings.headers.filter((other) => other.key !== row.key) }, "headers")}>
                  <Trash2 size={16} aria-hidden />
                </IconButton>
              </div>
            </div>
          );
        })}
        {errorAt("headers") !== undefined && <p className="text-bad text-xs">{errorAt("headers")}</p>}
        <div>
          <Button small onPress={() => setSettings({ ...settings, headers: [...settings.headers, headerRow()] })}>
            <Plus size={14} aria-hidden />
            Add a header
          </Button>
        </div>
      </Part>

      <Part title="Limits">
        <div className="grid items-start gap-4 md:grid-cols-2">
          <NumberField
            label="Timeout in seconds"
            description="How long the receiver may take to answer."
            minValue={1}
            maxValue={30}
            error={errorAt("timeout_seconds")}
            value={settings.timeout_seconds}
            onChange={(seconds) => change({ timeout_seconds: Number.isNaN(seconds) ? blank.timeout_seconds : seconds }, "timeout_seconds")}
          />
          <NumberField
            label="Messages a second"
            description="At most so many; empty: as many as there are."
            minValue={0}
            error={errorAt("rate_limit_per_second")}
            value={settings.rate_limit_per_second ?? Number.NaN}
            onChange={(rate) => change({ rate_limit_per_second: Number.isNaN(rate) ? null : rate }, "rate_limit_per_second")}
          />
        </div>
        <Switch isSelected={settings.batch !== null} onChange={(on) => change({ batch: on ? { max_size: 100, max_wait_seconds: 60 } : null }, "batch")}>
          Send several messages together
        </Switch>
        {settings.batch !== null && (
          <div className="grid items-start gap-4 md:grid-cols-2">
            <NumberField
              label="At most so many in one"
              minValue={2}
              maxValue={100}
              error={errorAt("batch.max_size")}
              value={settings.batch.max_size}
              onChange={(max_size) => settings.batch !== null && change({ batch: { ...settings.batch, max_size: Number.isNaN(max_size) ? 100 : max_size } }, "batch")}
            />
            <DurationField
              label="Wait for others at most"
              error={errorAt("batch.max_wait_seconds")}
              value={settings.batch.max_wait_seconds}
              otherwise={60}
              onChange={(seconds) => settings.batch !== null && change({ batch: { ...settings.batch, max_wait_seconds: seconds ?? 60 } }, "batch")}
            />
          </div>
        )}
      </Part>

      <div className="bg-ground border-line sticky bottom-0 z-10 -mx-4 flex flex-col gap-3 border-t px-4 py-3">
        {tried && problems.size > 0 && (
          <div role="alert" className="bg-bad-tint text-bad rounded-lg px-4 py-3">
            <p className="font-medium">{problems.size === 1 ? "One thing is not right yet:" : `${problems.size} things are not right yet:`}</p>
            <ul className="list-disc pl-5">
              {[...problems].slice(0, 6).map(([field, message]) => (
                <li key={field}>
                  {field} {message}
                </li>
              ))}
            </ul>
          </div>
        )}
        {error !== null && refused.length === 0 && <ErrorNotice error={error} />}
        {verdict.isError && <ErrorNotice error={verdict.error} onRetry={() => verdict.refetch()} />}
        <div className="flex justify-end gap-2">
          {webhook === undefined ? (
            <ButtonLink to="/sites/$site" params={{ site: site.domain }}>
              Cancel
            </ButtonLink>
          ) : (
            <ButtonLink to="/sites/$site/webhooks/$id" params={{ site: site.domain, id: webhook.id }}>
              Cancel
            </ButtonLink>
          )}
          <Button type="submit" look="solid" isPending={saving} isDisabled={!site.can_change}>
            {action}
          </Button>
        </div>
      </div>
    </form>
  );
}

function Part({ title, note, children }: { title: string; note?: string; children: ReactNode }) {
  return (
    <section aria-label={title} className="card flex flex-col gap-4 p-5">
      <div>
        <h2 className="text-base font-semibold">{title}</h2>
        {note !== undefined && <p className="text-soft text-xs">{note}</p>}
      </div>
      {children}
    </section>
  );
}

function AddTrigger({ onAdd }: { onAdd: (type: TriggerType) => void }) {
  return (
    <MenuTrigger>
      <Button>
        <Plus size={16} aria-hidden />
        Add a trigger
      </Button>
      <Popover placement="bottom start" className="bg-surface border-line max-h-96 w-96 max-w-[90vw] overflow-auto rounded-lg border p-1 shadow-lg">
        <Menu className="outline-none" onAction={(key) => onAdd(key as TriggerType)}>
          {Object.entries(triggerTypes).map(([type, { name, does }]) => (
            <MenuItem key={type} id={type} textValue={name} className="data-focused:bg-hover cursor-pointer rounded-md px-3 py-2 outline-none">
              <Text slot="label" className="block font-medium">
                {name}
              </Text>
              <Text slot="description" className="text-soft block text-xs">
                {does}
              </Text>
            </MenuItem>
          ))}
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}
