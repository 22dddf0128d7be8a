import { expect, test } from "vitest";

import { adviceOf, messageName, statusOf } from "./words";

const general = adviceOf("something unheard of", null);

// The reasons that the dispatcher gives.
test.each([
  ["the URL leads to an address that is not public, which ALLOW_PRIVATE_TARGETS does not allow", null, /operator/],
  ["the URL leads to a host or a port that is not for webhooks here", null, /operator/],
  ["timed out after 10 s while connecting", null, /firewall/],
  ["timed out after 15 s while waiting for the answer", null, /answer at once/],
  ["the host's name does not exist", null, /typing mistake/],
  ["the host's name could not be resolved", null, /name servers/],
  ["the host does not speak TLS on this port", null, /plain text/],
  ["the host's certificate has expired or is not valid yet", null, /Renew/],
  ["the host's certificate is for another name", null, /names/],
  ["the host's certificate is signed by an unknown authority", null, /chain/],
  ["the TLS handshake failed", null, /TLS 1.2/],
  ["the connection was refused", null, /Start the receiver/],
  ["the host could not be reached", null, /reachable/],
  ["the connection was closed before an answer came", null, /crash/],
  ["the answer is not valid HTTP, or its headers are too large", null, /not a web server/],
  ["the receiver answered 301 Moved Permanently; redirects are not followed", 301, /Redirects/],
  ["the receiver answered 401 Unauthorized", 401, /secret/],
  ["the receiver answered 404 Not Found", 404, /path/],
  ["the receiver answered 410 Gone", 410, /disabled/],
  ["the receiver answered 422 Unprocessable Entity", 422, /refused/],
  ["the receiver answered 429 Too Many Requests", 429, /limit per second/],
  ["the receiver answered 503 Service Unavailable", 503, /own log/],
])("%s", (error, status, want) => {
  const advice = adviceOf(error, status);
  expect(advice).toMatch(want);
  expect(advice).not.toBe(general);
});

test("an unknown reason has an advice too", () => expect(general).toMatch(/log/));

test.each([
  ["visitor_spike.fired", "Visitor spike"],
  ["visitor_spike.resolved", "Visitor spike is over"],
  ["webhook.ping", "Test message"],
  ["batch", "Several messages together"],
  ["of_the_future.fired", "of_the_future.fired"],
])("%s is called %s", (type, name) => expect(messageName(type)).toBe(name));

test.each([
  ["waiting", 0, "Waiting"],
  ["waiting", 2, "Trying again"],
  ["delivered", 1, "Delivered"],
  ["dead", 11, "Given up"],
  ["cancelled", 0, "Cancelled"],
] as const)("%s after %i attempts is %s", (status, attempts, name) => expect(statusOf({ status, attempts }).name).toBe(name));
