import { createPublicKey, verify as verifySignature } from "node:crypto";

const tolerance = 5 * 60; // seconds that a message may be old, or the sender's clock ahead

const [, encoded] = (process.env.WEBHOOK_PUBLIC_KEY ?? "").match(/^whpk_(.+)$/) ?? [];
if (!encoded) {
  throw new Error("WEBHOOK_PUBLIC_KEY must be the webhook's public key, whpk_…");
}
const x = Buffer.from(encoded, "base64").toString("base64url");
const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });

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
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const matches = (headers["webhook-signature"] ?? "").split(" ").some((entry) => {
    const signature = Buffer.from(entry.slice("v1a,".length), "base64"); // which skips what is not base64
    return entry === `v1a,${signature.toString("base64")}` && verifySignature(null, signed, publicKey, signature);
  });
  if (!matches) {
    throw new Error("no signature matches");
  }
}
