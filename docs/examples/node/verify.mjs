import { Webhook } from "standardwebhooks";

if (!process.env.WEBHOOK_SECRET) {
  throw new Error("WEBHOOK_SECRET must be the webhook's secret, whsec_…");
}
const webhook = new Webhook(process.env.WEBHOOK_SECRET);

// Throws an error unless the message is genuine and of these minutes.
export function verify(body, headers) {
  webhook.verify(body, headers);
}
