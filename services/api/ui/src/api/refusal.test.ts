import { expect, test } from "vitest";

import { byField, isPassing, Refusal, refusalOf, sentenceOf, Unreachable } from "./refusal";

test("an answer says what is wrong, field by field", async () => {
  const body = { error: "url is required; and 1 more.", errors: [{ field: "url", message: "is required" }, { field: "triggers[0].config.threshold", message: "must be at least 1" }] };
  const refusal = await refusalOf(new Response(JSON.stringify(body), { status: 422 }));
  expect([refusal.status, refusal.message, refusal.retryAfter]).toEqual([422, body.error, null]);
  expect([...byField(refusal.problems)]).toEqual([
    ["url", "is required"],
    ["triggers[0].config.threshold", "must be at least 1"],
  ]);
});

test.each(["", "<html>", "[]", '{"error": 1}', "null"])("an answer that is not the API's, %s, is told by its status", async (text) => {
  expect((await refusalOf(new Response(text, { status: 502 }))).message).toBe("The server answered with status 502.");
});

test("a limit says how long to wait", async () => {
  const refusal = await refusalOf(new Response('{"error": "Too many requests."}', { status: 429, headers: { "Retry-After": "3" } }));
  expect([refusal.retryAfter, isPassing(refusal)]).toEqual([3, true]);
});

test("problems of the same field come together", () => {
  expect(byField([{ field: "a", message: "x" }, { field: "a", message: "y" }]).get("a")).toBe("x; y");
});

test("only what may pass is tried again", () => {
  expect([new Unreachable("no network"), new Refusal(503, ""), new Refusal(404, ""), new Refusal(422, ""), new TypeError()].map(isPassing)).toEqual([true, true, false, false, false]);
});

test("a fault of the page is not shown as it is", () => expect(sentenceOf(new TypeError("x is undefined"))).not.toContain("undefined"));
