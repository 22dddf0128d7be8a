import { Outlet } from "@tanstack/react-router";

import { $api } from "../api/client";
import { Refusal } from "../api/refusal";
import { Empty, ErrorNotice, Loading } from "../controls/State";
import { ButtonLink } from "../controls/Link";
import { useDomain } from "./useSite";

/** Shows a site's views when the site is known: they need its time zone, and whether the key may change things. */
export function SiteLayout() {
  const domain = useDomain();
  const site = $api.useQuery("get", "/api/sites/{site_id}", { params: { path: { site_id: domain } } }, { staleTime: 60_000 });
  if (site.data !== undefined) return <Outlet />;
  if (site.isPending) return <Loading label="Loading the site" />;
  if (site.error instanceof Refusal && site.error.status === 404) {
    return (
      <Empty title="No such site" action={<ButtonLink to="/">Your sites</ButtonLink>}>
        Plausible has no site {domain}, or your API key has no access to it.
      </Empty>
    );
  }
  return <ErrorNotice error={site.error} onRetry={() => site.refetch()} />;
}
