import { useNavigate } from "@tanstack/react-router";
import { KeyRound, MoreHorizontal, Pencil, Send, Trash2 } from "lucide-react";
import { useState } from "react";
import { Menu, MenuItem, MenuTrigger, Popover, Separator } from "react-aria-components";

import { $api, queryClient, type Webhook } from "../api/client";
import { sentenceOf } from "../api/refusal";
import { Button, IconButton } from "../controls/Button";
import { Confirm, Dialog } from "../controls/Dialog";
import { Select, Switch } from "../controls/Field";
import { ErrorNotice } from "../controls/State";
import { toast } from "../controls/Toasts";
import { useSite } from "../sites/useSite";
import { nameOf } from "./health";
import { SecretDialog } from "./SecretDialog";

/** What is known of webhooks is not true any more. */
export function forgetWebhooks() {
  return queryClient.invalidateQueries({ predicate: ({ queryKey: [, path] }) => typeof path === "string" && path.startsWith("/api/sites/{site_id}/webhooks") });
}

export function EnabledSwitch({ webhook }: { webhook: Webhook }) {
  const site = useSite();
  const patch = $api.useMutation("patch", "/api/sites/{site_id}/webhooks/{id}", {
    onSettled: forgetWebhooks,
    onError: (error) => toast(sentenceOf(error)),
  });
  const on = webhook.enabled && webhook.disabled_reason === null;
  const wanted = patch.isPending ? patch.variables.body.enabled === true : on;
  return (
    <Switch
      aria-label={`${nameOf(webhook)} is enabled`}
      isSelected={wanted}
      isDisabled={!site.can_change || patch.isPending}
      onChange={(enabled) => patch.mutate({ params: { path: { site_id: site.domain, id: webhook.id } }, body: { enabled } })}
    />
  );
}

export function TestButton({ webhook, small }: { webhook: Webhook; small?: boolean }) {
  const site = useSite();
  const navigate = useNavigate();
  const test = $api.useMutation("post", "/api/sites/{site_id}/webhooks/{id}/test", {
    onSuccess: async (delivery) => {
      void forgetWebhooks();
      await navigate({ to: "/sites/$site/webhooks/$id/deliveries/$delivery", params: { site: site.domain, id: webhook.id, delivery: delivery.id } });
    },
    onError: (error) => toast(sentenceOf(error)),
  });
  return (
    <Button small={small} isDisabled={!site.can_change} isPending={test.isPending} onPress={() => test.mutate({ params: { path: { site_id: site.domain, id: webhook.id } } })}>
      <Send size={14} aria-hidden />
      Send a test
    </Button>
  );
}

const overlaps = [
  { id: "0", name: "At once", detail: "For a secret that has leaked: the old one signs nothing more." },
  { id: "3600", name: "In an hour", detail: "Both sign until then, so that no message is refused meanwhile." },
  { id: "86400", name: "In a day" },
  { id: "604800", name: "In a week" },
];

function RotateDialog({ webhook, isOpen, onClose }: { webhook: Webhook; isOpen: boolean; onClose: () => void }) {
  const site = useSite();
  const [overlap, setOverlap] = useState("86400");
  const [secret, setSecret] = useState<string | null>(null);
  const rotate = $api.useMutation("post", "/api/sites/{site_id}/webhooks/{id}/secret/rotate", {
    onSuccess: (rotated) => {
      onClose();
      setSecret(rotated.secret ?? null);
      void forgetWebhooks();
    },
  });
  return (
    <>
      <Dialog title="Rotate the secret" isOpen={isOpen} onClose={onClose}>
        <p className="text-soft text-pretty">The new secret signs at once. When is the old one to end?</p>
        <Select label="The old secret ends" choices={overlaps} value={overlap} onChange={setOverlap} />
        {rotate.isError && <ErrorNotice error={rotate.error} />}
        <div className="flex justify-end gap-2">
          <Button onPress={onClose}>Cancel</Button>
          <Button
            look="solid"
            isPending={rotate.isPending}
            onPress={() => rotate.mutate({ params: { path: { site_id: site.domain, id: webhook.id } }, body: { overlap_seconds: Number(overlap) } })}
          >
            Rotate
          </Button>
        </div>
      </Dialog>
      <SecretDialog secret={secret} onClose={() => setSecret(null)} title="The new secret" />
    </>
  );
}

function DeleteDialog({ webhook, isOpen, onClose }: { webhook: Webhook; isOpen: boolean; onClose: () => void }) {
  const site = useSite();
  const navigate = useNavigate();
  const remove = $api.useMutation("delete", "/api/sites/{site_id}/webhooks/{id}", {
    onSuccess: async () => {
      onClose();
      await navigate({ to: "/sites/$site", params: { site: site.domain } });
      await forgetWebhooks();
      toast(`${nameOf(webhook)} was deleted.`);
    },
  });
  return (
    <Confirm
      title={`Delete ${nameOf(webhook)}?`}
      isOpen={isOpen}
      onClose={onClose}
      action="Delete"
      isPending={remove.isPending}
      error={remove.error}
      onConfirm={() => remove.mutate({ params: { path: { site_id: site.domain, id: webhook.id } } })}
    >
      Its {webhook.triggers.length === 1 ? "trigger goes" : `${webhook.triggers.length} triggers go`} with it, its secret is lost, and what still waits to be delivered is cancelled. This cannot be undone. To
      pause it, switch it off instead.
    </Confirm>
  );
}

const itemClass = "data-focused:bg-hover flex cursor-pointer items-center gap-2.5 rounded-md px-2.5 py-1.5 outline-none";

export function WebhookMenu({ webhook }: { webhook: Webhook }) {
  const site = useSite();
  const navigate = useNavigate();
  const [open, setOpen] = useState<"rotate" | "delete" | null>(null);
  const close = () => setOpen(null);
  if (!site.can_change) return null;
  return (
    <>
      <MenuTrigger>
        <IconButton label={`More for ${nameOf(webhook)}`}>
          <MoreHorizontal size={16} aria-hidden />
        </IconButton>
        <Popover placement="bottom end" className="bg-surface border-line min-w-48 rounded-lg border p-1 shadow-lg">
          <Menu
            className="outline-none"
            onAction={(key) => {
              if (key === "edit") void navigate({ to: "/sites/$site/webhooks/$id/edit", params: { site: site.domain, id: webhook.id } });
              else setOpen(key as "rotate" | "delete");
            }}
          >
            <MenuItem id="edit" className={itemClass}>
              <Pencil size={14} aria-hidden /> Edit
            </MenuItem>
            <MenuItem id="rotate" className={itemClass}>
              <KeyRound size={14} aria-hidden /> Rotate the secret
            </MenuItem>
            <Separator className="border-line my-1 border-t" />
            <MenuItem id="delete" className={`${itemClass} text-bad`}>
              <Trash2 size={14} aria-hidden /> Delete
            </MenuItem>
          </Menu>
        </Popover>
      </MenuTrigger>
      <RotateDialog webhook={webhook} isOpen={open === "rotate"} onClose={close} />
      <DeleteDialog webhook={webhook} isOpen={open === "delete"} onClose={close} />
    </>
  );
}
