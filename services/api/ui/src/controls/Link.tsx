import { createLink } from "@tanstack/react-router";
import { ChevronRight } from "lucide-react";
import { type AnchorHTMLAttributes, Fragment, type ReactNode, type Ref } from "react";

import { buttonClass, type Look } from "./Button";

type AnchorProps = Omit<AnchorHTMLAttributes<HTMLAnchorElement>, "className"> & { look?: Look; small?: boolean; ref?: Ref<HTMLAnchorElement> };

/** A link that looks like a button: it goes somewhere, and does nothing. */
export const ButtonLink = createLink(({ look, small, ...props }: AnchorProps) => <a {...props} className={buttonClass(look, small)} />);

/** Where a view is: the links to those above it. */
export function Trail({ children }: { children: ReactNode[] }) {
  return (
    <nav aria-label="Breadcrumb" className="text-soft flex min-w-0 flex-wrap items-center gap-1 text-[13px] [&_a]:hover:text-ink [&_a]:hover:underline">
      {children.map((child, i) => (
        <Fragment key={i}>
          {i > 0 && <ChevronRight size={14} aria-hidden />}
          {child}
        </Fragment>
      ))}
    </nav>
  );
}
