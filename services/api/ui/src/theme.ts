import { useSyncExternalStore } from "react";

export type Theme = "system" | "light" | "dark";

const stored = "plausible-webhooks.theme";
const listeners = new Set<() => void>();
let current = read();

function read(): Theme {
  const text = localStorage.getItem(stored);
  return text === "light" || text === "dark" ? text : "system";
}

export function applyTheme(theme: Theme = current) {
  current = theme;
  if (theme === "system") {
    localStorage.removeItem(stored);
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem(stored, theme);
    document.documentElement.dataset.theme = theme;
  }
  for (const listener of listeners) listener();
}

const darkSystem = matchMedia("(prefers-color-scheme: dark)");

function subscribe(listener: () => void) {
  listeners.add(listener);
  darkSystem.addEventListener("change", listener);
  return () => {
    listeners.delete(listener);
    darkSystem.removeEventListener("change", listener);
  };
}

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, () => current);
}

/** Whether colours are dark now, for what is painted on a canvas. */
export function useDark(): boolean {
  return useSyncExternalStore(subscribe, () => (current === "system" ? darkSystem.matches : current === "dark"));
}
