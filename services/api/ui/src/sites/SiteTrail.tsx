import { Link } from "@tanstack/react-router";

import { Trail } from "../controls/Link";
import { useSite } from "./useSite";

/** Where a view below a site is: within a webhook, where one is given. */
export function SiteTrail({ webhook, here }: { webhook?: { id: string; name: string }; here: string }) {
  const site = useSite();
  return (
    <Trail>
      {[
        <Link key="site" to="/sites/$site" params={{ site: site.domain }}>
          {site.domain}
        </Link>,
        ...(webhook === undefined
          ? []
          : [
              <Link key="webhook" to="/sites/$site/webhooks/$id" params={{ site: site.domain, id: webhook.id }}>
                {webhook.name}
              </Link>,
            ]),
        <span key="here">{here}</span>,
      ]}
    </Trail>
  );
}
