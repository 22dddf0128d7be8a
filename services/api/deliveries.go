package api

import (
	"context"
	"regexp"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

func viewDelivery(d postgres.Delivery) rest.Delivery {
	return rest.Delivery{
		ID: d.ID, Status: rest.DeliveryStatus(d.Status), Type: d.Type, TriggerID: d.TriggerID, FiringIds: d.FiringIDs, Attempts: d.Attempts,
		NextAttemptAt: utc(d.NextAttemptAt), LastError: orNull(d.LastError), CreatedAt: d.CreatedAt.UTC(), FinishedAt: utc(d.FinishedAt),
	}
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// ListDeliveries implements rest.StrictServerInterface.
func (a *api) ListDeliveries(ctx context.Context, request rest.ListDeliveriesRequestObject) (rest.ListDeliveriesResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := ofOurs.page(request.Params.Limit, request.Params.After, request.Params.Before, &problems)
	filter := readFilter(request.Params, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	deliveries, around, err := a.store.Deliveries(ctx, by.site.ID, request.ID, filter, page)
	if err != nil {
		return nil, err
	}
	views := make([]rest.Delivery, len(deliveries))
	for i, d := range deliveries {
		views[i] = viewDelivery(d)
	}
	return rest.ListDeliveries200JSONResponse{Deliveries: views, Meta: ofOurs.meta(page, around)}, nil
}

// messageType is what a message's type looks like: visitor_spike.fired, batch.
var messageType = regexp.MustCompile(`^[a-z0-9_.]{1,100}$`)

// readFilter reads the filters of a history. A trigger's id is not looked up: the history of a
// removed one stays, and that of another site's is not in this webhook's.
func readFilter(query rest.ListDeliveriesParams, problems *[]strict.Problem) postgres.DeliveryFilter {
	text := func(name string, parameter *string, message string, valid func(string) bool) *string {
		if given(parameter) == "" {
			return nil
		}
		if !valid(*parameter) {
			*problems = append(*problems, strict.Problem{Field: name, Message: message})
		}
		return parameter
	}
	return postgres.DeliveryFilter{
		Status: text("status", query.Status, "must be one of waiting, delivered, dead, cancelled", func(value string) bool {
			return rest.DeliveryStatus(value).Valid()
		}),
		TriggerID: text("trigger_id", query.TriggerID, "is not a trigger's id", idPattern.MatchString),
		Type:      text("type", query.Type, "must be a message's type such as visitor_spike.fired", messageType.MatchString),
		From:      readTime("from", query.From, problems),
		To:        readTime("to", query.To, problems),
	}
}

// readTime reads a time; nil if it was not given.
func readTime(name string, parameter *string, problems *[]strict.Problem) *time.Time {
	text := given(parameter)
	if text == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		*problems = append(*problems, strict.Problem{Field: name, Message: "must be a time such as 2026-11-23T15:04:05Z"})
	}
	at = at.UTC()
	return &at
}

// timeField reads a time of a body; nil if it was not given.
func timeField(o *strict.Object, name string, problems *[]strict.Problem) *time.Time {
	text := o.Text(name, 1, 100)
	return readTime(name, &text, problems)
}

// ShowDelivery implements rest.StrictServerInterface.
func (a *api) ShowDelivery(ctx context.Context, request rest.ShowDeliveryRequestObject) (rest.ShowDeliveryResponseObject, error) {
	d, payload, attempts, err := a.store.Delivery(ctx, callOf(ctx).site.ID, request.ID, request.DeliveryID)
	if err != nil {
		return nil, err
	}
	details := rest.DeliveryDetails{DeliveryView: viewDelivery(d), Payload: payload, AttemptList: make([]rest.Attempt, len(attempts))}
	for i, t := range attempts {
		details.AttemptList[i] = rest.Attempt{
			Number: t.Number, StartedAt: t.StartedAt.UTC(), DurationMs: t.DurationMS, RequestHeaders: t.RequestHeaders,
			StatusCode: t.StatusCode, ResponseHeaders: t.ResponseHeaders, ResponseBody: t.ResponseBody, Timings: t.Timings, Error: orNull(t.Error),
		}
	}
	return rest.ShowDelivery200JSONResponse(details), nil
}
