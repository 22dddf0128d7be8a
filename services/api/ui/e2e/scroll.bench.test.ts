import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { openBrowser, openPage } from "./browser";
import { type Receiver, startReceiver } from "./receiver";
import { type Stack, startStack } from "./stack";

let stack: Stack;
let receiver: Receiver;
let browser: Browser;

beforeAll(async () => {
  [stack, receiver, browser] = await Promise.all([startStack(), startReceiver(), openBrowser()]);
});

afterAll(async () => {
  await browser?.close();
  await Promise.all([stack?.stop(), receiver?.stop()]);
});

const many = 10_000;

test(`${many} deliveries scroll, and only those in sight are in the page`, async () => {
  const headers = { Authorization: `Bearer ${stack.key}`, "Content-Type": "application/json" };
  const base = `${stack.api}/api/sites/${stack.site}/webhooks`;
  const created = await fetch(base, { method: "POST", headers, body: JSON.stringify({ url: receiver.url, description: "Busy" }) });
  const { id, secret } = (await created.json()) as { id: string; secret: string };
  receiver.secret = secret;
  let left = many;
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      while (left-- > 0) {
        const sent = await fetch(`${base}/${id}/test`, { method: "POST", headers });
        if (sent.status !== 202) throw new Error(`${sent.status} ${await sent.text()}`);
      }
    }),
  );
  await expect.poll(() => receiver.verified.length, { timeout: 60_000 }).toBe(many);

  const { context, page, complaints } = await openPage(browser, stack.api, { key: stack.key });
  await page.goto(`${stack.api}/sites/${stack.site}/webhooks/${id}`);
  const list = page.getByRole("grid", { name: /Deliveries/ });
  await list.getByRole("row").first().waitFor();
  const began = performance.now();
  const frames = await list.evaluate(async (element, wanted) => {
    const times: number[] = [];
    let last = performance.now();
    let most = 0;
    while (element.scrollHeight < wanted * 64 || element.scrollTop + element.clientHeight < element.scrollHeight - 100) {
      element.scrollTop += 400; // as fast as a finger does, and further than a frame of it
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      times.push(now - last);
      last = now;
      most = Math.max(most, element.querySelectorAll("[role=row]").length);
    }
    return { times, most };
  }, many);
  const sorted = frames.times.toSorted((a, b) => a - b);
  const at = (share: number) => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
  console.log(
    `${many} deliveries scrolled from top to end in ${((performance.now() - began) / 1000).toFixed(1)} s, each page of a hundred loaded on the way: ${sorted.length} frames, p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, p99 ${at(0.99)} ms; at most ${frames.most} rows in the page`,
  );
  expect(frames.most).toBeLessThan(100);
  expect(complaints).toEqual([]);
  await context.close();
});
