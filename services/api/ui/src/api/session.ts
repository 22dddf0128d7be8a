import { useSyncExternalStore } from "react";

// The API key lives in this tab alone, and ends with it. Nothing else ever stores it.
const stored = "plausible-webhooks.key";

export interface Session {
  key: string | null;
  /** Why the last session ended, where the user did not end it. */
  ended: string | null;
}

let current: Session = { key: sessionStorage.getItem(stored), ended: null };
const listeners = new Set<() => void>();

function change(next: Session) {
  current = next;
  for (const listener of listeners) listener();
}

export const session = {
  get key() {
    return current.key;
  },
  begin(key: string) {
    sessionStorage.setItem(stored, key);
    change({ key, ended: null });
  },
  end(why: string | null = null) {
    sessionStorage.removeItem(stored);
    change({ key: null, ended: why });
  },
};

export function useSession(): Session {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}

/**
 * Takes a key out of the address (`/#key=…`), as `make up` prints it, to be shown in the sign-in form. A
 * fragment is never sent to a server; it is taken away so that it does not stay in the history either.
 */
export function takeKeyFromAddress(): string {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key === null) return "";
  history.replaceState(history.state, "", location.pathname + location.search);
  return key;
}
