import { execFileSync } from "node:child_process";

import { expect, test } from "vitest";

import { curlOf } from "./curl";

/** What a shell would give curl: the command with printf in its place. */
function argumentsOf(command: string): string[] {
  const printed = execFileSync("sh", ["-c", command.replace(/^curl/, "printf '%s\\0'")], { encoding: "utf8" });
  return printed.split("\0").slice(0, -1);
}

test.each([
  ["plain", '{"a":1}'],
  ["quotes", `it's "quoted" and '' twice`],
  ["what a shell would expand", "$HOME `id` $(id) \\ !! ~ * ? #"],
  ["lines", "a\nb\r\n\tc"],
  ["letters of the world", "ü 漢字 🎉"],
  ["what curl would take for a file", "@/etc/passwd"],
])("a shell passes on %s as it is", (_, body) => {
  const headers = { "Content-Type": "application/json", "X-It's": body.replace(/[\r\n]/g, " "), "X-Empty": "" };
  expect(argumentsOf(curlOf({ method: "POST", url: "https://example.com/?a='b'&c=$d", headers, body }))).toEqual([
    "-X",
    "POST",
    "https://example.com/?a='b'&c=$d",
    "-H",
    "Content-Type: application/json",
    "-H",
    `X-It's: ${headers["X-It's"]}`,
    "-H",
    "X-Empty;",
    "--data-raw",
    body,
  ]);
});
