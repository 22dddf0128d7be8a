import type { components } from "./schema";

export type Problem = components["schemas"]["Problem"];
export type FieldProblem = NonNullable<Problem["errors"]>[number];

/** What the API answers instead of what it was asked for. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    sentence: string,
    /** Every problem of a body or a query, each with its field such as `triggers[0].config.threshold`. */
    readonly problems: FieldProblem[] = [],
    /** Seconds to wait for, where the API said so. */
    readonly retryAfter: number | null = null,
  ) {
    super(sentence);
    this.name = "Refusal";
  }
}

/** There was no answer: no network, or no server. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super("The server cannot be reached.", { cause });
    this.name = "Unreachable";
  }
}

export async function refusalOf(response: Response): Promise<Refusal> {
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const body: unknown = await response.json().catch(() => null);
  const problem = isProblem(body) ? body : { error: `The server answered with status ${response.status}.` };
  return new Refusal(response.status, problem.error, problem.errors ?? [], Number.isNaN(wait) ? null : wait);
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && typeof (body as Problem).error === "string";
}

/** What to show of any error. */
export function sentenceOf(error: unknown): string {
  return error instanceof Refusal || error instanceof Unreachable ? error.message : "Something went wrong in this page. Load it again, and report it if it stays.";
}

/** Whether asking again may help: never after an answer that says what is wrong with the request. */
export function isPassing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof Refusal && (error.status >= 500 || error.status === 429));
}

/** The problems by field; those of fields for which a form has no place are left to be shown above it. */
export function byField(problems: FieldProblem[]): Map<string, string> {
  const fields = new Map<string, string>();
  for (const { field, message } of problems) {
    const earlier = fields.get(field);
    fields.set(field, earlier === undefined ? message : `${earlier}; ${message}`);
  }
  return fields;
}
