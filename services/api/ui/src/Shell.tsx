import { onlineManager } from "@tanstack/react-query";
import { Link, Outlet } from "@tanstack/react-router";
import { BookOpen, LogOut, Monitor, Moon, Sun, WifiOff } from "lucide-react";
import { useSyncExternalStore } from "react";

import { session } from "./api/session";
import { IconButton } from "./controls/Button";
import { ButtonLink } from "./controls/Link";
import { Empty } from "./controls/State";
import { applyTheme, type Theme, useTheme } from "./theme";

export function Mark({ size = 24 }: { size?: number }) {
  return (
    <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden>
      <rect width="32" height="32" rx="8" fill="#5850ec" />
      <path d="M7 20.5h4.2l3.3-11 4 15 2.9-9H25" fill="none" stroke="#fff" strokeWidth="2.6" strokeLinecap="round" strokeLinejoin="round" />
    </svg>
  );
}

const nextTheme: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const themeIcons = { system: Monitor, light: Sun, dark: Moon };

function ThemeButton() {
  const theme = useTheme();
  const Icon = themeIcons[theme];
  return (
    <IconButton label={`Colours: ${theme}`} onPress={() => applyTheme(nextTheme[theme])}>
      <Icon size={16} aria-hidden />
    </IconButton>
  );
}

function OfflineNotice() {
  const online = useSyncExternalStore(
    (listener) => onlineManager.subscribe(listener),
    () => onlineManager.isOnline(),
  );
  if (online) return null;
  return (
    <div role="status" className="bg-warn-tint text-warn flex items-center justify-center gap-2 px-4 py-2">
      <WifiOff size={14} aria-hidden />
      You are offline. What you see is as of before; it goes on by itself.
    </div>
  );
}

/** What is around every view. */
export function Shell() {
  return (
    <>
      <a href="#content" className="bg-surface sr-only z-50 rounded-lg px-4 py-2 focus:not-sr-only focus:fixed focus:top-2 focus:left-2">
        Skip to the content
      </a>
      <header className="bg-surface border-line sticky top-0 z-20 border-b">
        <div className="mx-auto flex h-14 max-w-6xl items-center gap-2 px-4">
          <Link to="/" className="mr-auto flex items-center gap-2.5 rounded-md font-semibold">
            <Mark />
            <span className="max-sm:sr-only">Plausible Webhooks</span>
          </Link>
          <a href="/api/docs" className="text-soft hover:bg-hover hover:text-ink flex h-9 items-center gap-1.5 rounded-lg px-2.5">
            <BookOpen size={16} aria-hidden />
            API
          </a>
          <ThemeButton />
          <IconButton label="Sign out" onPress={() => session.end()}>
            <LogOut size={16} aria-hidden />
          </IconButton>
        </div>
        <OfflineNotice />
      </header>
      <main id="content" className="mx-auto max-w-6xl px-4 py-6">
        <Outlet />
      </main>
    </>
  );
}

export function NothingHere() {
  return (
    <Empty title="There is nothing here" action={<ButtonLink to="/">Your sites</ButtonLink>}>
      The address may be old, or mistyped.
    </Empty>
  );
}
