import { useParams } from "@tanstack/react-router";
import { useSyncExternalStore } from "react";

import { $api, type Site } from "../api/client";

/** The domain of the site whose views these are. */
export function useDomain(): string {
  return useParams({ from: "/sites/$site" }).site;
}

/** The site of the views below SiteLayout, which shows them only when it is there. */
export function useSite(): Site {
  const { data } = $api.useQuery("get", "/api/sites/{site_id}", { params: { path: { site_id: useDomain() } } });
  if (data === undefined) throw new Error("useSite is for what is inside a SiteLayout");
  return data;
}

let now = new Date();
const listeners = new Set<() => void>();
let ticking: ReturnType<typeof setInterval> | undefined;

/** The present, to say how long ago something was: it goes on every second. */
export function useNow(): Date {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      ticking ??= setInterval(() => {
        now = new Date();
        for (const each of listeners) each();
      }, 1000);
      return () => {
        listeners.delete(listener);
        if (listeners.size === 0) {
          clearInterval(ticking);
          ticking = undefined;
        }
      };
    },
    () => now,
  );
}
