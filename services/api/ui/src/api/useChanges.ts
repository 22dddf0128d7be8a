import { EventSource } from "eventsource";
import { useEffect, useRef, useState } from "react";

import { session } from "./session";

/** The deliveries that changed; null: too many to name, so whoever has a list reads it again. */
export type Changed = string[] | null;

// A connection that breaks is made again by itself; one that was refused, as while the server starts, is asked for again.
const askAgain = 3000; // ms

/**
 * Hears of changes of a webhook's deliveries as they happen, at most once a second. Whatever happened before the
 * connection, or between two of them, is not told: `onChange(null)` is called with each connection instead.
 * The result is whether there is a connection.
 */
export function useChanges(siteID: string, webhookID: string, onChange: (changed: Changed) => void): boolean {
  const [connected, setConnected] = useState(false);
  const latest = useRef(onChange);
  latest.current = onChange;
  useEffect(() => {
    const path = `/api/sites/${encodeURIComponent(siteID)}/webhooks/${encodeURIComponent(webhookID)}/deliveries/changes`;
    let source: EventSource;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const connect = () => {
      source = new EventSource(new URL(path, location.origin), {
        fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${session.key ?? ""}` } }),
      });
      source.onopen = () => {
        setConnected(true);
        latest.current(null);
      };
      source.onerror = () => {
        setConnected(false);
        if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, askAgain);
      };
      source.addEventListener("changed", (event) => latest.current(changedOf(event.data)));
    };
    connect();
    return () => {
      clearTimeout(timer);
      source.close();
    };
  }, [siteID, webhookID]);
  return connected;
}

function changedOf(data: string): Changed {
  const { delivery_ids } = JSON.parse(data) as { delivery_ids: Changed };
  return delivery_ids;
}
