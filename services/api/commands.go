package api

import (
	"context"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// A command is a row first, which the dispatchers obey once; the message only wakes them.

// ask stores a command of a call and returns its id.
func (a *api) ask(ctx context.Context, by *call, command postgres.Command) (string, error) {
	command.ID, command.SiteID, command.SiteDomain = newID("cmd_"), by.site.ID, by.site.Domain
	if err := a.store.Ask(ctx, command); err != nil {
		return "", err
	}
	by.afterCommit(func() {
		if err := a.nats.PublishMsg(stream.EncodeCommand(command.Kind, command.ID)); err != nil {
			a.log.Warn("a command was not announced: the dispatchers' next sweep finds it", "command_id", command.ID, "error", err.Error())
		}
	})
	return command.ID, nil
}

// TestWebhook implements rest.StrictServerInterface: it sends a webhook.ping now, as any message is sent.
func (a *api) TestWebhook(ctx context.Context, request rest.TestWebhookRequestObject) (rest.TestWebhookResponseObject, error) {
	by := callOf(ctx)
	w, err := a.store.Webhook(ctx, by.site.ID, request.ID)
	if err != nil {
		return nil, err
	}
	if !w.Enabled || w.SwitchedOff {
		return nil, conflict("The webhook is disabled, so nothing is sent to it: enable it first.")
	}
	delivery := newID("msg_")
	if _, err := a.ask(ctx, by, postgres.Command{WebhookID: request.ID, Kind: stream.TestCommand, DeliveryID: delivery}); err != nil {
		return nil, err
	}
	by.made = &delivery
	return rest.TestWebhook202JSONResponse{AcceptedDeliveryJSONResponse: acceptedDelivery(request.SiteID, request.ID, rest.Delivery{
		ID: delivery, Status: rest.DeliveryStatusWaiting, Type: "webhook.ping", FiringIds: []string{}, CreatedAt: time.Now().UTC(),
	})}, nil
}

func acceptedDelivery(siteID, webhookID string, d rest.Delivery) rest.AcceptedDeliveryJSONResponse {
	return rest.AcceptedDeliveryJSONResponse{Body: d, Headers: rest.AcceptedDeliveryResponseHeaders{Location: pathOf(siteID, webhookID, "deliveries", d.ID)}}
}

// RetryDelivery implements rest.StrictServerInterface: it sends a delivery again now, whatever became
// of it, with the same webhook-id.
func (a *api) RetryDelivery(ctx context.Context, request rest.RetryDeliveryRequestObject) (rest.RetryDeliveryResponseObject, error) {
	by := callOf(ctx)
	d, _, _, err := a.store.Delivery(ctx, by.site.ID, request.ID, request.DeliveryID)
	if err != nil {
		return nil, err
	}
	if _, err := a.ask(ctx, by, postgres.Command{WebhookID: request.ID, Kind: stream.RetryCommand, DeliveryID: d.ID}); err != nil {
		return nil, err
	}
	view := viewDelivery(d)
	view.Status, view.FinishedAt, view.NextAttemptAt = rest.DeliveryStatusWaiting, nil, nil
	return rest.RetryDelivery202JSONResponse{AcceptedDeliveryJSONResponse: acceptedDelivery(request.SiteID, request.ID, view)}, nil
}

const highestRecovery = 10_000 // per second

// RecoverDeliveries implements rest.StrictServerInterface: it sends again what ended so in a time, by a
// job that goes on until it is done, whichever dispatchers come and go.
func (a *api) RecoverDeliveries(ctx context.Context, request rest.RecoverDeliveriesRequestObject) (rest.RecoverDeliveriesResponseObject, error) {
	by, id, raw := callOf(ctx), request.ID, *request.Body
	var problems []strict.Problem
	o := strict.Read("", raw, &problems)
	recovery := postgres.Recovery{
		Until: time.Now().UTC(), Status: o.Choice("status", "dead", "cancelled", "delivered"), Rate: o.Number("rate_per_second", lowestRate, highestRecovery),
	}
	switch since := timeField(o, "since", &problems); {
	case since != nil:
		recovery.Since = *since
	case !hasProblem(problems, "since"):
		o.Refuse("since", "is required: a time such as 2026-11-23T15:04:05Z")
	}
	if until := timeField(o, "until", &problems); until != nil {
		recovery.Until = *until
	}
	if len(problems) == 0 && !recovery.Since.Before(recovery.Until) {
		o.Refuse("until", "must be after since")
	}
	o.End()
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	job, err := a.ask(ctx, by, postgres.Command{WebhookID: id, Kind: stream.RecoverCommand, Recovery: recovery})
	if err != nil {
		return nil, err
	}
	by.made = &job
	view, err := a.viewRecovery(ctx, id, job)
	return rest.RecoverDeliveries202JSONResponse{
		Body: view, Headers: rest.RecoverDeliveries202ResponseHeaders{Location: pathOf(request.SiteID, id, "recoveries", job)},
	}, err
}

func (a *api) viewRecovery(ctx context.Context, webhookID, id string) (rest.Recovery, error) {
	p, err := a.store.Recovery(ctx, callOf(ctx).site.ID, webhookID, id)
	return rest.Recovery{
		ID: p.ID, State: rest.RecoveryState(p.State), Total: p.Total, Done: p.Done, Error: orNull(p.Error), Since: p.Since.UTC(), Until: p.Until.UTC(),
		Status: p.Status, RatePerSecond: p.Rate, CreatedAt: p.CreatedAt.UTC(), FinishedAt: utc(p.FinishedAt),
	}, err
}

// ShowRecovery implements rest.StrictServerInterface.
func (a *api) ShowRecovery(ctx context.Context, request rest.ShowRecoveryRequestObject) (rest.ShowRecoveryResponseObject, error) {
	view, err := a.viewRecovery(ctx, request.ID, request.JobID)
	return rest.ShowRecovery200JSONResponse(view), err
}

// CancelRecovery implements rest.StrictServerInterface.
func (a *api) CancelRecovery(ctx context.Context, request rest.CancelRecoveryRequestObject) (rest.CancelRecoveryResponseObject, error) {
	if err := a.store.CancelRecovery(ctx, callOf(ctx).site.ID, request.ID, request.JobID); err != nil {
		return nil, err
	}
	return rest.CancelRecovery204Response{}, nil
}
