import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { cleanup, renderHook, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, test } from "vitest";

import { session } from "./session";
import { type Changed, useChanges } from "./useChanges";

let server: Server;
let answers: ((response: ServerResponse) => void)[];
let asked: string[];

beforeEach(async () => {
  asked = [];
  server = createServer((request, response) => {
    asked.push(`${request.url} ${request.headers.authorization}`);
    answers.shift()?.(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  (window as unknown as { happyDOM: { setURL: (url: string) => void } }).happyDOM.setURL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  session.begin("the-key");
});

afterEach(async () => {
  cleanup();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const stream = (response: ServerResponse) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(": connected\n\n");
  return response;
};

test("changes are heard, and the list is to be read at each connection", async () => {
  let open: ServerResponse | undefined;
  answers = [(response) => (open = stream(response))];
  const heard: Changed[] = [];
  const { result, unmount } = renderHook(() => useChanges("example.com/blog", "wh_1", (changed) => heard.push(changed)));
  await waitFor(() => expect(result.current).toBe(true));
  expect(asked).toEqual(["/api/sites/example.com%2Fblog/webhooks/wh_1/deliveries/changes Bearer the-key"]);
  open?.write('event: changed\ndata: {"delivery_ids":["msg_1","msg_2"]}\n\n');
  open?.write('event: changed\ndata: {"delivery_ids":null}\n\n');
  await waitFor(() => expect(heard).toEqual([null, ["msg_1", "msg_2"], null]));
  const closed = new Promise<void>((resolve) => open?.once("close", resolve));
  unmount();
  await closed;
});

test("a server that refuses for a while is asked again", async () => {
  answers = [(response) => response.writeHead(503).end("{}"), stream];
  const { result } = renderHook(() => useChanges("example.com", "wh_1", () => {}));
  await waitFor(() => expect(asked).toHaveLength(1));
  expect(result.current).toBe(false);
  await waitFor(() => expect(result.current).toBe(true), { timeout: 10_000 });
  expect(asked).toHaveLength(2);
}, 15_000);
