import { defineConfig } from "vitest/config";

// One browser and one stack; what comes later builds on what came before.
export default defineConfig({
  test: { root: import.meta.dirname, environment: "node", fileParallelism: false, sequence: { concurrent: false }, testTimeout: 120_000, expect: { poll: { timeout: 15_000 } }, hookTimeout: 120_000, bail: 1 },
});
