import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { expect } from "vitest";

const executables = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const screenshots = join(import.meta.dirname, "../screenshots");

export async function openBrowser(): Promise<Browser> {
  const executablePath = executables.find((path) => path !== undefined && existsSync(path));
  if (executablePath === undefined) throw new Error("Chromium is missing: `make ui-test` installs it, or set CHROMIUM to its path");
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}

/** A tab whose every request and complaint is looked at; with a key somebody is signed in there. */
export async function openPage(browser: Browser, origin: string, { key }: { key?: string } = {}): Promise<{ context: BrowserContext; page: Page; complaints: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" });
  if (key !== undefined) await context.addInitScript((known) => sessionStorage.setItem("plausible-webhooks.key", known), key);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // What the server refuses, it refuses by intent: the views show it.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith("data:")) complaints.push(`a request to ${request.url()}`);
  });
  return { context, page, complaints };
}

export async function keep(page: Page, name: string) {
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}

/** Keeps pictures of a view in both modes and at the width of a phone, and lets axe look at each. */
export async function look(page: Page, name: string) {
  for (const [mode, width, height] of [
    ["light", 1280, 900],
    ["dark", 1280, 900],
    ["phone", 390, 844],
  ] as const) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: mode === "dark" ? "dark" : "light" });
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    await keep(page, `${name}-${mode}`);
    expect(await faults(page), `axe on ${name}, ${mode}`).toEqual([]);
    const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(tooWide, `${name} scrolls sideways, ${mode}`).toBeLessThanOrEqual(0);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
}

interface Fault {
  id: string;
  impact: string | null;
  nodes: { html: string; failureSummary?: string }[];
}

/**
 * What axe finds serious, but for two things: items of menus and lists have a second line, which describes them and is
 * not their name; and what was read out a moment ago refers to what may be gone.
 */
async function faults(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { run } = (window as unknown as { axe: { run: (context: object, options: object) => Promise<{ violations: Fault[] }> } }).axe;
    return (await run({ exclude: ["[data-live-announcer]"] }, { rules: { "label-content-name-mismatch": { enabled: false } } })).violations;
  });
  return found
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 300)} ${failureSummary ?? ""}`));
}
