import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** A receiver as its owner would write it, which can be broken. */
export interface Receiver {
  url: string;
  /** What it verifies messages with. */
  secret: string;
  broken: boolean;
  /** The ids of the messages whose signature was right. */
  verified: string[];
  refused: number;
  stop: () => Promise<void>;
}

export async function startReceiver(): Promise<Receiver> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      if (receiver.broken) {
        response.writeHead(503, { "Content-Type": "text/html" }).end("<script>document.title = 'owned'</script> <b>the database is away</b>");
      } else if (isSigned(request, Buffer.concat(chunks), receiver.secret)) {
        receiver.verified.push(String(request.headers["webhook-id"]));
        response.writeHead(204).end();
      } else {
        receiver.refused++;
        response.writeHead(401).end("the signature is wrong");
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const receiver: Receiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    secret: "",
    broken: false,
    verified: [],
    refused: 0,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return receiver;
}

/** By the specification of Standard Webhooks, with nothing of the product's code. */
function isSigned({ headers }: IncomingMessage, body: Buffer, secret: string): boolean {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const made = createHmac("sha256", key)
    .update(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`)
    .update(body)
    .digest();
  return String(headers["webhook-signature"])
    .split(" ")
    .some((entry) => {
      const given = Buffer.from(entry.replace(/^v1,/, ""), "base64");
      return given.length === made.length && timingSafeEqual(given, made);
    });
}
