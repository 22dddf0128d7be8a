import { Check, Copy } from "lucide-react";
import { useEffect, useState } from "react";

import { Button } from "./Button";

/** Browsers have no clipboard for pages that came over http from another machine. */
async function copy(text: string) {
  if (!window.isSecureContext) throw new Error("no clipboard");
  await navigator.clipboard.writeText(text);
}

/** Copies a text, and says that it has. */
export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [copied, setCopied] = useState<boolean | null>(null);
  useEffect(() => {
    if (copied === null) return;
    const timer = setTimeout(() => setCopied(null), 2500);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <Button
      small
      onPress={() => {
        copy(text).then(
          () => setCopied(true),
          () => setCopied(false),
        );
      }}
    >
      {copied === true ? <Check size={14} aria-hidden /> : <Copy size={14} aria-hidden />}
      <span aria-live="polite">{copied === null ? label : copied ? "Copied" : "Select the text to copy it"}</span>
    </Button>
  );
}
