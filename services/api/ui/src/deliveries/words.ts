import type { DeliveryStatus } from "../api/client";
import type { Tone } from "../controls/Badge";

/** What a delivery's status is called. One that waits after a failed attempt is being tried again. */
export function statusOf(delivery: { status: DeliveryStatus; attempts: number }): { tone: Tone; name: string } {
  switch (delivery.status) {
    case "delivered":
      return { tone: "good", name: "Delivered" };
    case "dead":
      return { tone: "bad", name: "Given up" };
    case "cancelled":
      return { tone: "neutral", name: "Cancelled" };
    case "waiting":
      return delivery.attempts > 0 ? { tone: "warn", name: "Trying again" } : { tone: "accent", name: "Waiting" };
  }
}

/** What each type of trigger is called, and what it does in plain words. */
export const triggerTypes: Record<string, { name: string; does: string }> = {
  goal_achieved: { name: "Goal reached", does: "Somebody signs up, buys, or reaches another goal: every time, or when so many have." },
  visitor_spike: { name: "Visitor spike", does: "Many more people than usual are on the site." },
  visitor_drop: { name: "Visitor drop", does: "People stay away." },
  pageview_milestone: { name: "Page view milestone", does: "The page views pass a round number." },
  metric_threshold: { name: "Metric crosses a limit", does: "Visits, bounce rate, conversion rate or another number goes above or below a limit." },
  metric_change: { name: "Metric changes", does: "A number is far from what it was, or from what it usually is." },
  tracking_silence: { name: "Tracking fell silent", does: "No event arrives any more: the tracking may be broken." },
  goal_silence: { name: "Goal fell silent", does: "Visitors come as always, but nobody reaches the goal." },
  new_source: { name: "New source", does: "A source, country, campaign or page that was never seen brings visitors." },
  not_found_burst: { name: "Burst of 404s", does: "Many visitors run into a page that does not exist." },
};

const others: Record<string, string> = {
  "webhook.ping": "Test message",
  "webhook.failing": "Another webhook is failing",
  "webhook.disabled": "Another webhook was disabled",
  batch: "Several messages together",
};

/** What a message's type is called: `Visitor spike`, `Visitor spike is over`. Types of a newer version are shown as they are. */
export function messageName(type: string): string {
  const [trigger = "", transition] = type.split(".");
  const known = triggerTypes[trigger];
  if (known === undefined) return others[type] ?? type;
  return transition === "resolved" ? `${known.name} is over` : known.name;
}

/** What the owner of a webhook can do about an attempt that failed. The texts are those of the dispatcher. */
export function adviceOf(error: string, status: number | null): string {
  if (status === 410) return "410 Gone means that the receiver wants nothing more, so the webhook was disabled. Enable it again if that was a mistake.";
  if (status === 401 || status === 403) return "The receiver does not let us in. Check the headers that it wants, such as a token, and that it verifies the signature with the current secret.";
  if (status === 404 || status === 405) return "The receiver has nothing at this address. Check the path of the URL, and that it takes POST requests.";
  if (status === 413) return "The message is larger than the receiver takes. Raise its limit, or send fewer at once in a batch.";
  if (status === 429) return "The receiver gets more than it wants. Set a limit per second for the webhook, or let messages go together in batches.";
  if (status !== null && status >= 300 && status < 400) return "Redirects are not followed, as they could lead anywhere. Put the address that it points to into the webhook.";
  if (status !== null && status >= 500) return "The receiver, or what stands before it, failed. Its own log says why; the webhook-id and its answer below help to find the place.";
  if (status !== null && status >= 400) return "The receiver refused the message. Its answer below may say why.";
  const known = advices.find(([text]) => error.includes(text));
  return known?.[1] ?? "Look at the receiver's log for the time of the attempt.";
}

const advices: [string, string][] = [
  ["while waiting", "The receiver took the connection, but did not answer in time. It should answer at once and work afterwards; a longer timeout can be set for the webhook."],
  ["timed out", "Nothing answered at the address in time. Check that the receiver runs, and that no firewall drops what comes from here."],
  ["name does not exist", "There is no such host. Check the URL for a typing mistake, and the domain's DNS entries."],
  ["could not be resolved", "The name servers of the host's domain do not answer. This often passes; check the domain if it does not."],
  ["connection was refused", "The host is there, but nothing listens on this port. Start the receiver, or correct the port in the URL."],
  ["could not be reached", "There is no way to the host. Check that it runs and that its address is reachable from here."],
  ["has expired or is not valid yet", "Renew the certificate of the host, and check its clock."],
  ["certificate is for another name", "The host shows a certificate that is not for this name. Check the URL, and the certificate's names."],
  ["signed by an unknown authority", "The certificate is self-signed, or its chain is not complete. Install the whole chain of a known authority."],
  ["does not speak TLS", "The URL says https, but this port answers in plain text. Correct the port."],
  ["TLS handshake failed", "The host and the dispatcher could not agree on a secure connection. TLS 1.2 or later is needed."],
  ["closed before an answer", "The receiver, or a proxy before it, closed the connection. A crash in the receiver looks like this: see its log."],
  ["not valid HTTP", "What answered is not a web server, or its headers are too large. Check the port in the URL."],
  ["the URL", "The operator of this server does not allow messages to this address. Use one that is allowed, or ask the operator."],
];
