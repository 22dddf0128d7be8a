import { cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { afterEach, expect, test } from "vitest";

import { ConfigFields } from "./ConfigFields";
import type { Config, FieldSchema } from "./draft";

afterEach(cleanup);

const schema: FieldSchema = {
  type: "object",
  properties: {
    threshold: { type: "integer", description: "How many.", default: 10, minimum: 1 },
    window_seconds: { type: "integer", default: 300 },
    sensitivity: { type: "string", default: "medium", enum: ["medium", "low", "off"] },
    milestones: { type: "array", items: { type: "integer" } },
    page_path: { type: "string" },
    for_seconds: { type: "integer", default: 0 },
  },
};

function Fields({ onConfig, errors = {} }: { onConfig: (config: Config) => void; errors?: Record<string, string> }) {
  const [config, setConfig] = useState<Config>({});
  return (
    <ConfigFields
      schema={schema}
      config={config}
      errorAt={(field) => errors[field]}
      onChange={(next) => {
        setConfig(next);
        onConfig(next);
      }}
    />
  );
}

test("what one types becomes a config, and what one leaves is left out", async () => {
  const user = userEvent.setup();
  let config: Config = {};
  render(<Fields onConfig={(next) => (config = next)} />);
  const threshold = screen.getByRole("textbox", { name: "Threshold" });
  expect(threshold).toHaveProperty("value", "10");
  await user.clear(threshold);
  await user.type(threshold, "25");
  await user.tab();
  expect(config).toEqual({ threshold: 25 });
  await user.type(screen.getByLabelText("Milestones"), "1000, 5000");
  await user.type(screen.getByLabelText("Only this page"), "/blog/*");
  const window = screen.getByRole<HTMLInputElement>("textbox", { name: "Within" });
  expect(window.value).toBe("5");
  await user.clear(window);
  await user.type(window, "15");
  await user.tab();
  expect(config).toEqual({ threshold: 25, milestones: [1000, 5000], page_path: "/blog/*", window_seconds: 900 });
  await user.clear(screen.getByLabelText("Only this page"));
  expect(config).not.toHaveProperty("page_path");
});

test("a problem stands at its field, and is read out with it", () => {
  render(<Fields onConfig={() => {}} errors={{ threshold: "must be at least 1" }} />);
  const field = screen.getByRole("textbox", { name: "Threshold" });
  expect(field.getAttribute("aria-invalid")).toBe("true");
  const described = (field.getAttribute("aria-describedby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent);
  expect(described).toContain("must be at least 1");
  expect(described).toContain("How many.");
});

test("the finer points are there when one asks for them", async () => {
  render(<Fields onConfig={() => {}} />);
  expect(screen.getByRole("button", { name: /Finer points/ }).getAttribute("aria-expanded")).toBe("false");
  await userEvent.setup().click(screen.getByRole("button", { name: /Finer points/ }));
  expect(screen.getByRole("button", { name: /Finer points/ }).getAttribute("aria-expanded")).toBe("true");
});
