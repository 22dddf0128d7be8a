import type { SignedRequest } from "../api/client";

/** A command for any POSIX shell that sends the very bytes of a request. */
export function curlOf({ method, url, headers, body }: SignedRequest): string {
  const lines = [`curl -X ${quote(method)} ${quote(url)}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quote(value === "" ? `${name};` : `${name}: ${value}`)}`);
  lines.push(`--data-raw ${quote(body)}`); // takes an @ for an @, and no file's name
  return lines.join(" \\\n  ");
}

/** Between single quotes a shell changes nothing; a single quote itself is put between two such texts. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
