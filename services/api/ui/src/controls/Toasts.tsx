import { X } from "lucide-react";
import { Button, Text, UNSTABLE_Toast as Toast, UNSTABLE_ToastContent as ToastContent, UNSTABLE_ToastQueue as ToastQueue, UNSTABLE_ToastRegion as ToastRegion } from "react-aria-components";

const queue = new ToastQueue<string>({ maxVisibleToasts: 3 });

/** Says briefly that something was done. */
export function toast(sentence: string) {
  queue.add(sentence, { timeout: 5000 });
}

export function Toasts() {
  return (
    <ToastRegion queue={queue} className="fixed top-16 right-4 z-50 flex flex-col gap-2">
      {({ toast }) => (
        <Toast toast={toast} className="bg-ink text-surface flex items-center gap-3 rounded-lg py-2 pr-2 pl-4 shadow-lg">
          <ToastContent>
            <Text slot="title">{toast.content}</Text>
          </ToastContent>
          <Button slot="close" aria-label="Dismiss" className="cursor-pointer rounded p-1">
            <X size={14} aria-hidden />
          </Button>
        </Toast>
      )}
    </ToastRegion>
  );
}
