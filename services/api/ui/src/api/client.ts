import { QueryClient } from "@tanstack/react-query";
import createFetchClient, { type Middleware } from "openapi-fetch";
import createQueryClient from "openapi-react-query";

import { isPassing, Refusal, refusalOf, Unreachable } from "./refusal";
import type { components, paths } from "./schema";
import { session } from "./session";

type Schemas = components["schemas"];
export type Site = Schemas["Site"];
export type Goal = Schemas["Goal"];
export type Webhook = Schemas["Webhook"];
export type Activity = Schemas["Activity"];
export type Trigger = Schemas["Trigger"];
export type TriggerInput = Schemas["TriggerReplace"];
export type TriggerType = Schemas["TriggerType"];
export type TriggerTypeDescription = Schemas["TriggerTypeDescription"];
export type TriggerStatus = Schemas["TriggerStatus"];
export type TriggerPreview = Schemas["TriggerPreview"];
export type Explanation = Schemas["Explanation"];
export type Delivery = Schemas["Delivery"];
export type DeliveryDetails = Schemas["DeliveryDetails"];
export type DeliveryStatus = Schemas["DeliveryStatus"];
export type Attempt = Schemas["Attempt"];
export type Recovery = Schemas["Recovery"];
export type SignedRequest = Schemas["SignedRequest"];

const authorized: Middleware = {
  onRequest({ request }) {
    if (session.key !== null && !request.headers.has("Authorization")) request.headers.set("Authorization", `Bearer ${session.key}`);
    return request;
  },
  async onResponse({ response }) {
    if (response.ok) return undefined;
    const refusal = await refusalOf(response);
    if (refusal.status === 401 && session.key !== null) session.end(`${refusal.message} Sign in again.`);
    throw refusal;
  },
  onError({ error }) {
    return error instanceof DOMException && error.name === "AbortError" ? undefined : new Unreachable(error);
  },
};

/** The API, typed by its OpenAPI document. It throws a Refusal or an Unreachable where there is no good answer. */
export const api = createFetchClient<paths>({ baseUrl: location.origin });
api.use(authorized);

export const $api = createQueryClient(api);

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      retry: (failures, error) => failures < 3 && isPassing(error),
      retryDelay: (failures, error) => (error instanceof Refusal && error.retryAfter !== null ? error.retryAfter * 1000 : Math.min(1000 * 2 ** failures, 15_000)),
      networkMode: "always", // a server on this machine is reachable without a network
    },
    mutations: { networkMode: "always" },
  },
});
