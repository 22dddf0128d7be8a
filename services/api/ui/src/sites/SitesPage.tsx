import { Link, Navigate } from "@tanstack/react-router";
import { ChevronRight, Globe } from "lucide-react";
import { useState } from "react";

import { $api } from "../api/client";
import { Button } from "../controls/Button";
import { TextField } from "../controls/Field";
import { Empty, ErrorNotice, Loading } from "../controls/State";

/** The sites that the key can see. With one alone there is nothing to choose. */
export function SitesPage() {
  const [wanted, setWanted] = useState("");
  const pages = $api.useInfiniteQuery(
    "get",
    "/api/sites",
    { params: { query: { limit: 100 } } },
    { pageParamName: "after", initialPageParam: "", getNextPageParam: (last) => last.meta.after ?? undefined },
  );
  if (pages.isPending) return <Loading label="Loading the sites" />;
  if (pages.isError) return <ErrorNotice error={pages.error} onRetry={() => pages.refetch()} />;
  const sites = pages.data.pages.flatMap((page) => page.sites);
  const [only] = sites;
  if (only === undefined) {
    return (
      <Empty title="No sites yet">
        The API key works, but its user sees no site in Plausible. Add a site there, or ask its owner to invite you; it appears here at once.
      </Empty>
    );
  }
  if (sites.length === 1) return <Navigate to="/sites/$site" params={{ site: only.domain }} replace />;
  const shown = sites.filter((site) => site.domain.includes(wanted.trim().toLowerCase()));
  return (
    <div className="flex flex-col gap-4">
      <h1 className="text-xl font-semibold">Sites</h1>
      {sites.length > 8 && <TextField label="Find a site" value={wanted} onChange={setWanted} autoComplete="off" />}
      <ul className="grid gap-3 sm:grid-cols-2 lg:grid-cols-3">
        {shown.map((site) => (
          <li key={site.id}>
            <Link to="/sites/$site" params={{ site: site.domain }} className="card hover:border-edge flex items-center gap-3 p-4 transition-colors">
              <span className="bg-tint text-accent flex size-9 shrink-0 items-center justify-center rounded-lg">
                <Globe size={16} aria-hidden />
              </span>
              <span className="min-w-0 flex-1">
                <span className="block truncate font-medium">{site.domain}</span>
                <span className="text-soft block truncate text-xs">
                  {site.timezone} · {site.role.replace("_", " ")}
                </span>
              </span>
              <ChevronRight size={16} aria-hidden className="text-soft" />
            </Link>
          </li>
        ))}
      </ul>
      {shown.length === 0 && <p className="text-soft">None of the sites loaded so far has “{wanted.trim()}” in its domain.</p>}
      {pages.hasNextPage && (
        <div>
          <Button onPress={() => pages.fetchNextPage()} isPending={pages.isFetchingNextPage}>
            Load more sites
          </Button>
        </div>
      )}
    </div>
  );
}
