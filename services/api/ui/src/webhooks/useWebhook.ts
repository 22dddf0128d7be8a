import { useParams } from "@tanstack/react-router";

import { $api } from "../api/client";
import { useSite } from "../sites/useSite";

const refreshed = 10_000; // ms: as often as triggers are evaluated

/** The webhook that the address names, with its triggers' states as they are. */
export function useWebhook() {
  const site = useSite();
  const { id } = useParams({ strict: false }) as { id: string };
  return $api.useQuery("get", "/api/sites/{site_id}/webhooks/{id}", { params: { path: { site_id: site.domain, id } } }, { refetchInterval: refreshed });
}
