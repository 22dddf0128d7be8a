import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "../../../..");

export interface Stack {
  api: string;
  site: string;
  key: string;
  /** The operator's key, for every site. */
  operator: string;
  stop: () => Promise<void>;
}

/** The whole product, as `make up` runs it, in a folder and on ports of its own. */
export async function startStack(): Promise<Stack> {
  const dir = mkdtempSync(join(tmpdir(), "dashboard-"));
  const ports = Object.fromEntries(["API", "RECEIVER", "NATS", "POSTGRES", "CLICKHOUSE"].map((name) => [`${name}_PORT`, "0"]));
  const operator = randomBytes(32).toString("hex");
  const child = spawn(join(root, "bin/local"), {
    cwd: root,
    env: { ...process.env, ...ports, METRICS_ADDR: "127.0.0.1:0", LOCAL_DIR: dir, RATE_LIMIT_PER_MINUTE: "0", ADMIN_TOKEN: operator },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  await new Promise<void>((resolve, reject) => {
    const hear = (text: Buffer) => {
      said += text.toString();
      if (said.includes("Plausible Webhooks is up")) resolve();
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    void ended.then(() => reject(new Error(`the stack ended before it was up:\n${said}`)));
  });
  const env = new Map(
    readFileSync(join(dir, "stack.env"), "utf8")
      .trim()
      .split("\n")
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)] as const),
  );
  const read = (name: string) => {
    const value = env.get(name);
    if (value === undefined) throw new Error(`stack.env has no ${name}`);
    return value;
  };
  return { api: read("API_URL"), site: read("DEMO_SITE"), key: read("DEMO_API_KEY"), operator, stop: () => stop(child, ended, dir) };
}

async function stop(child: ChildProcess, ended: Promise<number | null>, dir: string) {
  child.kill("SIGINT");
  const code = await ended;
  rmSync(dir, { recursive: true });
  if (code !== 0) throw new Error(`the stack ended with ${code}`);
}
