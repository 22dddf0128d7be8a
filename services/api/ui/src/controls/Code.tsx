/** Text as it is, in a box that scrolls, and so can be reached by the keyboard. */
export function Code({ label, text, height = "max-h-96" }: { label: string; text: string; height?: string }) {
  return (
    <pre tabIndex={0} aria-label={label} role="region" className={`bg-sunken border-line overflow-auto rounded-lg border p-3 font-mono text-xs break-words whitespace-pre-wrap ${height}`}>
      {text}
    </pre>
  );
}
