import { CopyButton } from "../controls/Copy";
import { Button } from "../controls/Button";
import { Dialog } from "../controls/Dialog";

/** Shows a secret the one time that the API tells it. */
export function SecretDialog({ secret, onClose, title, children }: { secret: string | null; onClose: () => void; title: string; children?: string }) {
  return (
    <Dialog title={title} isOpen={secret !== null} onClose={onClose} dismissable={false}>
      <p className="text-soft text-pretty">
        This is shown once and never again. Store it where your receiver finds it: with it the receiver verifies that messages come from here. {children}
      </p>
      <code className="bg-sunken border-line rounded-lg border px-3 py-2 font-mono text-[13px] break-all select-all">{secret}</code>
      <div className="flex justify-end gap-2">
        <CopyButton text={secret ?? ""} label="Copy the secret" />
        <Button look="solid" onPress={onClose}>
          I have stored it
        </Button>
      </div>
    </Dialog>
  );
}
