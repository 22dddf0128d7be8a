import type { ReactNode } from "react";
import { Dialog as AriaDialog, Heading, Modal, ModalOverlay } from "react-aria-components";

import { ErrorNotice } from "./State";
import { Button } from "./Button";

interface DialogProps {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  /** Whether a press beside it closes it too; not where something shown once would be lost. */
  dismissable?: boolean;
  children: ReactNode;
}

export function Dialog({ title, isOpen, onClose, dismissable = true, children }: DialogProps) {
  return (
    <ModalOverlay
      isOpen={isOpen}
      onOpenChange={(open) => !open && onClose()}
      isDismissable={dismissable}
      isKeyboardDismissDisabled={!dismissable}
      className="fixed inset-0 z-40 flex items-end justify-center bg-black/50 p-4 sm:items-center"
    >
      <Modal className="card w-full max-w-lg p-5 shadow-xl">
        <AriaDialog className="flex max-h-[85dvh] flex-col gap-4 overflow-y-auto outline-none">
          <Heading slot="title" className="text-base font-semibold">
            {title}
          </Heading>
          {children}
        </AriaDialog>
      </Modal>
    </ModalOverlay>
  );
}

interface ConfirmProps {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  /** What the button that does it is called. */
  action: string;
  onConfirm: () => void;
  isPending: boolean;
  error: unknown;
  children: ReactNode;
}

/** Asks before something that cannot be taken back. */
export function Confirm({ title, isOpen, onClose, action, onConfirm, isPending, error, children }: ConfirmProps) {
  return (
    <Dialog title={title} isOpen={isOpen} onClose={onClose}>
      <div className="text-soft text-pretty">{children}</div>
      {error !== null && <ErrorNotice error={error} />}
      <div className="flex justify-end gap-2">
        <Button onPress={onClose}>Cancel</Button>
        <Button look="danger" onPress={onConfirm} isPending={isPending}>
          {action}
        </Button>
      </div>
    </Dialog>
  );
}
