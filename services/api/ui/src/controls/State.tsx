import { CircleAlert, Inbox, RotateCw, WifiOff } from "lucide-react";
import type { ReactNode } from "react";

import { sentenceOf, Unreachable } from "../api/refusal";
import { Button } from "./Button";

/** Holds the place of what is loading. */
export function Loading({ label, rows = 3 }: { label: string; rows?: number }) {
  return (
    <div role="status" aria-label={label} className="flex flex-col gap-3">
      {Array.from({ length: rows }, (_, i) => (
        <div key={i} className="bg-hover h-16 animate-pulse rounded-xl" />
      ))}
    </div>
  );
}

/** There is nothing to show yet: says what would be here, and how it comes here. */
export function Empty({ title, children, action }: { title: string; children: ReactNode; action?: ReactNode }) {
  return (
    <div className="card flex flex-col items-center gap-2 px-6 py-12 text-center">
      <Inbox size={28} aria-hidden className="text-soft" />
      <h2 className="font-semibold">{title}</h2>
      <p className="text-soft max-w-md text-pretty">{children}</p>
      {action !== undefined && <div className="mt-2">{action}</div>}
    </div>
  );
}

/** Something was not done, or cannot be shown: says why, and lets one try again where that may help. */
export function ErrorNotice({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const Icon = error instanceof Unreachable ? WifiOff : CircleAlert;
  return (
    <div role="alert" className="bg-bad-tint text-bad flex flex-wrap items-center gap-3 rounded-lg px-4 py-3">
      <Icon size={16} aria-hidden className="shrink-0" />
      <p className="min-w-0 flex-1 break-words">{sentenceOf(error)}</p>
      {onRetry !== undefined && (
        <Button small onPress={onRetry}>
          <RotateCw size={14} aria-hidden />
          Try again
        </Button>
      )}
    </div>
  );
}
