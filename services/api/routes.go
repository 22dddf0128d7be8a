package api

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

// handler is every route.
func (a *api) handler(o *observer) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = answerError
	e.Pre(normalizePath)
	e.Use(o.observe, withDeadline, recoverPanic)

	const (
		webhooks   = "/api/sites/:site_id/webhooks"
		webhook    = webhooks + "/:id"
		triggers   = webhook + "/triggers"
		trigger    = triggers + "/:trigger_id"
		deliveries = webhook + "/deliveries"
		delivery   = deliveries + "/:delivery_id"
	)
	e.GET("/api/trigger-types", listTriggerTypes)
	e.GET("/api/public-keys/:id", a.listPublicKeys)

	e.GET(webhooks, a.look(a.listWebhooks))
	e.POST(webhooks, a.change(a.createWebhook))
	e.POST(webhooks+"/preview", a.look(a.previewMessage))
	e.GET(webhook, a.look(a.showWebhook))
	e.PUT(webhook, a.change(a.replaceWebhook))
	e.PATCH(webhook, a.change(a.patchWebhook))
	e.DELETE(webhook, a.change(a.removeWebhook))
	e.POST(webhook+"/secret/rotate", a.change(a.rotateSecret))
	e.DELETE(webhook+"/secret/v1a", a.change(a.removeKeys))

	e.GET(triggers, a.look(a.listTriggers))
	e.POST(triggers, a.change(a.createTrigger))
	e.GET(trigger, a.look(a.showTrigger))
	e.PUT(trigger, a.change(a.replaceTrigger))
	e.PATCH(trigger, a.change(a.patchTrigger))
	e.DELETE(trigger, a.change(a.removeTrigger))

	e.GET(deliveries, a.look(a.listDeliveries))
	e.GET(delivery, a.look(a.showDelivery))

	e.POST(webhook+"/test", a.change(a.testWebhook))
	e.POST(delivery+"/retry", a.change(a.retryDelivery))
	e.POST(webhook+"/recover", a.change(a.recoverDeliveries))
	e.GET(webhook+"/recoveries/:job_id", a.look(a.showRecovery))
	e.DELETE(webhook+"/recoveries/:job_id", a.change(a.cancelRecovery))
	return e
}

// normalizePath makes the router see the path as it was sent. A site's domain may hold an
// encoded slash (example.com%2Fblog), and the router unescapes nothing: with the raw path
// always set, param unescapes exactly once. A slash at the end means nothing.
func normalizePath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		u := c.Request().URL
		u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/")
		if u.RawPath == "" {
			u.RawPath = "/"
		}
		return next(c)
	}
}
