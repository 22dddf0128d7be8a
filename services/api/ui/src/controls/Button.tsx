import type { ReactNode } from "react";
import { Button as AriaButton, type ButtonProps as AriaButtonProps, Tooltip, TooltipTrigger } from "react-aria-components";

export type Look = "solid" | "plain" | "quiet" | "danger";

const base =
  "inline-flex cursor-pointer items-center justify-center gap-1.5 rounded-lg font-medium whitespace-nowrap transition-colors disabled:cursor-not-allowed disabled:opacity-50 data-pending:cursor-progress";
const looks: Record<Look, string> = {
  solid: "bg-solid text-white hover:bg-solid-hover",
  plain: "bg-surface text-ink border border-line hover:bg-hover",
  quiet: "text-soft hover:bg-hover hover:text-ink",
  danger: "bg-bad-solid text-white hover:opacity-90",
};

export function buttonClass(look: Look = "plain", small = false): string {
  return `${base} ${looks[look]} ${small ? "h-8 px-2.5 text-[13px]" : "h-9 px-3.5"}`;
}

export interface ButtonProps extends Omit<AriaButtonProps, "className" | "style"> {
  look?: Look;
  small?: boolean;
}

export function Button({ look, small, ...props }: ButtonProps) {
  return <AriaButton {...props} className={buttonClass(look, small)} />;
}

/** A button that shows nothing but an icon; its name is read out, and shown to whoever points at it. */
export function IconButton({ label, children, ...props }: Omit<ButtonProps, "look" | "small" | "children"> & { label: string; children: ReactNode }) {
  return (
    <TooltipTrigger delay={400}>
      <AriaButton {...props} aria-label={label} className={`${base} ${looks.quiet} size-9`}>
        {children}
      </AriaButton>
      <Tooltip offset={6} className="bg-ink text-surface rounded-md px-2 py-1 text-xs">
        {label}
      </Tooltip>
    </TooltipTrigger>
  );
}
