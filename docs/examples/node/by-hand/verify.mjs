import { createHmac, timingSafeEqual } from "node:crypto";

const tolerance = 5 * 60; // seconds that a message may be old, or the sender's clock ahead

const [, encoded] = (process.env.WEBHOOK_SECRET ?? "").match(/^whsec_(.+)$/) ?? [];
const key = Buffer.from(encoded ?? "", "base64");
if (key.length < 24) {
  throw new Error("WEBHOOK_SECRET must be the webhook's secret, whsec_…");
}

// Throws an error unless the message is genuine and of these minutes.
export function verify(body, headers) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  if (!id || !/^\d+$/.test(timestamp)) {
    throw new Error("the webhook-id or the webhook-timestamp is missing or malformed");
  }
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > tolerance) {
    throw new Error("the webhook-timestamp is too old or too new");
  }
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${mac}`);
  const matches = (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    const given = Buffer.from(signature);
    return given.length === expected.length && timingSafeEqual(given, expected); // it throws for other lengths
  });
  if (!matches) {
    throw new Error("no signature matches");
  }
}
