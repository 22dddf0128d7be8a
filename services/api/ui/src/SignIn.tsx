import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";

import { api } from "./api/client";
import { session, takeKeyFromAddress, useSession } from "./api/session";
import { Button } from "./controls/Button";
import { TextField } from "./controls/Field";
import { ErrorNotice } from "./controls/State";
import { Mark } from "./Shell";

const fromAddress = takeKeyFromAddress();

export function SignIn() {
  const { ended } = useSession();
  const [key, setKey] = useState(fromAddress);
  const check = useMutation({
    mutationFn: (candidate: string) => api.GET("/api/sites", { params: { query: { limit: 1 } }, headers: { Authorization: `Bearer ${candidate}` } }),
    onSuccess: (_, candidate) => session.begin(candidate),
  });
  const candidate = key.trim();
  const isKey = /^[!-~]*$/.test(candidate); // what a header can carry, and Plausible's keys are made of
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (candidate !== "" && isKey) check.mutate(candidate);
  };
  return (
    <main className="mx-auto flex min-h-dvh max-w-md flex-col justify-center gap-6 px-4 py-12">
      <div className="flex items-center gap-3">
        <Mark size={36} />
        <h1 className="text-xl font-semibold">Plausible Webhooks</h1>
      </div>
      <form onSubmit={submit} className="card flex flex-col gap-4 p-6">
        {ended !== null && (
          <p role="status" className="bg-warn-tint text-warn rounded-lg px-4 py-3">
            {ended}
          </p>
        )}
        <TextField
          label="Plausible API key"
          description="Make one in Plausible under Account settings → API keys. It shows you the sites that you see there, and is kept in this tab only, until you close it."
          type="password"
          autoComplete="off"
          autoFocus
          error={isKey ? undefined : "No API key has spaces or such letters in it."}
          value={key}
          onChange={setKey}
        />
        {check.isError && <ErrorNotice error={check.error} />}
        <Button type="submit" look="solid" isPending={check.isPending} isDisabled={candidate === "" || !isKey}>
          Sign in
        </Button>
      </form>
      <p className="text-soft text-center text-xs">
        For programs there is a{" "}
        <a href="/api/docs" className="text-accent underline">
          REST API
        </a>
        , which does all that this page does.
      </p>
    </main>
  );
}
