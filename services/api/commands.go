package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// A command is a row first, which the dispatchers obey once; the message only wakes them.

// ask stores a command and returns its id.
func (a *api) ask(c echo.Context, by access, command postgres.Command) (string, error) {
	command.ID, command.SiteID, command.SiteDomain = newID("cmd_"), by.site.ID, by.site.Domain
	if err := a.store.Ask(c.Request().Context(), command); err != nil {
		return "", err
	}
	if err := a.nats.PublishMsg(stream.EncodeCommand(command.Kind, command.ID)); err != nil {
		a.log.Warn("a command was not announced: the dispatchers' next sweep finds it", "command_id", command.ID, "error", err.Error())
	}
	return command.ID, nil
}

// testWebhook sends a webhook.ping now, as any message is sent.
func (a *api) testWebhook(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	w, err := a.store.Webhook(c.Request().Context(), by.site.ID, id)
	if err != nil {
		return err
	}
	if !w.Enabled || w.SwitchedOff {
		return conflict("The webhook is disabled, so nothing is sent to it: enable it first.")
	}
	delivery := newID("msg_")
	if _, err := a.ask(c, by, postgres.Command{WebhookID: id, Kind: stream.TestCommand, DeliveryID: delivery}); err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, pathWithin(c, "deliveries", delivery))
	return c.JSON(http.StatusAccepted, deliveryView{ID: delivery, Status: "waiting", Type: "webhook.ping", FiringIDs: []string{}, CreatedAt: time.Now().UTC()})
}

// pathWithin is where a thing of the request's webhook is found, of its deliveries or its recoveries.
func pathWithin(c echo.Context, things, id string) string {
	return "/api/sites/" + c.Param("site_id") + "/webhooks/" + c.Param("id") + "/" + things + "/" + id
}

// retryDelivery sends a delivery again now, whatever became of it, with the same webhook-id.
func (a *api) retryDelivery(c echo.Context, by access) error {
	webhookID, id, err := pathIDs(c, "delivery_id")
	if err != nil {
		return err
	}
	d, _, _, err := a.store.Delivery(c.Request().Context(), by.site.ID, webhookID, id)
	if err != nil {
		return err
	}
	if _, err := a.ask(c, by, postgres.Command{WebhookID: webhookID, Kind: stream.RetryCommand, DeliveryID: d.ID}); err != nil {
		return err
	}
	view := viewDelivery(d)
	view.Status, view.FinishedAt, view.NextAttemptAt = "waiting", nil, nil
	c.Response().Header().Set(echo.HeaderLocation, pathWithin(c, "deliveries", d.ID))
	return c.JSON(http.StatusAccepted, view)
}

// recoveryView is a recovery with its progress.
type recoveryView struct {
	ID            string     `json:"id"`
	State         string     `json:"state"`
	Total         *int64     `json:"total"`
	Done          int64      `json:"done"`
	Error         *string    `json:"error"`
	Since         time.Time  `json:"since"`
	Until         time.Time  `json:"until"`
	Status        string     `json:"status"`
	RatePerSecond *float64   `json:"rate_per_second"`
	CreatedAt     time.Time  `json:"created_at"`
	FinishedAt    *time.Time `json:"finished_at"`
}

const highestRecovery = 10_000 // per second

// recoverDeliveries sends again what ended so in a time: a job that goes on until it is done, whichever
// dispatchers come and go.
func (a *api) recoverDeliveries(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	var problems []strict.Problem
	o := strict.Read("", raw, &problems)
	recovery := postgres.Recovery{
		Until: time.Now().UTC(), Status: o.Choice("status", "dead", "cancelled", "delivered"), Rate: o.Number("rate_per_second", lowestRate, highestRecovery),
	}
	instant := func(name string, required bool, at *time.Time) {
		text := o.Text(name, 0, 100)
		switch parsed, err := time.Parse(time.RFC3339, text); {
		case text == "" && required && !hasProblem(problems, name):
			o.Refuse(name, "is required: a time such as 2026-11-23T15:04:05Z")
		case text != "" && err != nil:
			o.Refuse(name, "must be a time such as 2026-11-23T15:04:05Z")
		case text != "":
			*at = parsed.UTC()
		}
	}
	instant("since", true, &recovery.Since)
	instant("until", false, &recovery.Until)
	if len(problems) == 0 && !recovery.Since.Before(recovery.Until) {
		o.Refuse("until", "must be after since")
	}
	o.End()
	if err := invalid(problems); err != nil {
		return err
	}
	job, err := a.ask(c, by, postgres.Command{WebhookID: id, Kind: stream.RecoverCommand, Recovery: recovery})
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, pathWithin(c, "recoveries", job))
	return a.answerRecovery(c, by, http.StatusAccepted, id, job)
}

func (a *api) answerRecovery(c echo.Context, by access, status int, webhookID, id string) error {
	p, err := a.store.Recovery(c.Request().Context(), by.site.ID, webhookID, id)
	if err != nil {
		return err
	}
	return c.JSON(status, recoveryView{
		ID: p.ID, State: p.State, Total: p.Total, Done: p.Done, Error: orNull(p.Error), Since: p.Since.UTC(), Until: p.Until.UTC(),
		Status: p.Status, RatePerSecond: p.Rate, CreatedAt: p.CreatedAt.UTC(), FinishedAt: utc(p.FinishedAt),
	})
}

func (a *api) showRecovery(c echo.Context, by access) error {
	webhookID, id, err := pathIDs(c, "job_id")
	if err != nil {
		return err
	}
	return a.answerRecovery(c, by, http.StatusOK, webhookID, id)
}

func (a *api) cancelRecovery(c echo.Context, by access) error {
	webhookID, id, err := pathIDs(c, "job_id")
	if err != nil {
		return err
	}
	if err := a.store.CancelRecovery(c.Request().Context(), by.site.ID, webhookID, id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
