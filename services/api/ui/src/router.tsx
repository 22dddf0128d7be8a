import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";

import { ErrorNotice } from "./controls/State";
import { NothingHere, Shell } from "./Shell";
import { SiteLayout } from "./sites/SiteLayout";
import { SitesPage } from "./sites/SitesPage";
import { WebhooksPage } from "./webhooks/WebhooksPage";

// What is seen first is in the first script; the other views come when one goes to them, or points at a link to them.
const root = createRootRoute({ component: Shell, notFoundComponent: NothingHere });

const sites = createRoute({ getParentRoute: () => root, path: "/", component: SitesPage });

const site = createRoute({ getParentRoute: () => root, path: "/sites/$site", component: SiteLayout });

const webhooks = createRoute({ getParentRoute: () => site, path: "/", component: WebhooksPage });

const newWebhook = createRoute({ getParentRoute: () => site, path: "/webhooks/new", component: lazyRouteComponent(() => import("./webhooks/FormPage"), "NewWebhookPage") });

const webhook = createRoute({ getParentRoute: () => site, path: "/webhooks/$id", component: lazyRouteComponent(() => import("./webhooks/WebhookPage"), "WebhookPage") });

const editWebhook = createRoute({ getParentRoute: () => site, path: "/webhooks/$id/edit", component: lazyRouteComponent(() => import("./webhooks/FormPage"), "EditWebhookPage") });

const trigger = createRoute({ getParentRoute: () => site, path: "/webhooks/$id/triggers/$trigger", component: lazyRouteComponent(() => import("./triggers/TriggerPage"), "TriggerPage") });

const delivery = createRoute({ getParentRoute: () => site, path: "/webhooks/$id/deliveries/$delivery", component: lazyRouteComponent(() => import("./deliveries/DeliveryPage"), "DeliveryPage") });

export const router = createRouter({
  routeTree: root.addChildren([sites, site.addChildren([webhooks, newWebhook, webhook, editWebhook, trigger, delivery])]),
  defaultPreload: "intent",
  defaultErrorComponent: ({ error }) => <ErrorNotice error={error} onRetry={() => location.reload()} />,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
