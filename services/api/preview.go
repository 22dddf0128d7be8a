package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// What needs Plausible's ClickHouse is asked of the evaluators.

const (
	fewestPerMonth = 0.1
	mostPerMonth   = 10_000
)

// PreviewTrigger implements rest.StrictServerInterface: it shows when an unsaved trigger would have fired.
func (a *api) PreviewTrigger(ctx context.Context, request rest.PreviewTriggerRequestObject) (rest.PreviewTriggerResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	o := strict.Read("", *request.Body, &problems)
	asked := stream.PreviewRequest{SiteID: by.site.ID}
	if perMonth := o.Number("firings_per_month", fewestPerMonth, mostPerMonth); perMonth != nil {
		asked.PerMonth = *perMonth
	}
	if from := timeField(o, "from", &problems); from != nil {
		asked.From = *from
	}
	if to := timeField(o, "to", &problems); to != nil {
		asked.To = *to
	}
	// The rest is a trigger, read and refused as one that is saved.
	d := readCondition(o)
	o.End()
	if _, err := a.settle(ctx, by, []triggerDocument{d}, nil, problems); err != nil {
		return nil, err
	}
	asked.Type, asked.Config, asked.Filters = d.typ, mustMarshal(d.config), mustMarshal(d.filters)
	asked.CooldownSeconds, asked.NotifyResolved = int64(d.cooldownSeconds), d.notifyResolved
	preview, err := stream.AskPreview(ctx, a.nats, asked)
	if err != nil {
		return nil, refusal(err)
	}
	return rest.PreviewTrigger200JSONResponse(preview), nil
}

// ExplainTrigger implements rest.StrictServerInterface: it tells what came of a trigger's evaluations.
func (a *api) ExplainTrigger(ctx context.Context, request rest.ExplainTriggerRequestObject) (rest.ExplainTriggerResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	asked := stream.ExplainRequest{TriggerID: request.TriggerID}
	if from := readTime("from", request.Params.From, &problems); from != nil {
		asked.From = *from
	}
	if to := readTime("to", request.Params.To, &problems); to != nil {
		asked.To = *to
	}
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	if _, err := a.store.Trigger(ctx, by.site.ID, request.ID, request.TriggerID); err != nil {
		return nil, err
	}
	explanation, err := stream.AskExplain(ctx, a.nats, asked)
	if err != nil {
		return nil, refusal(err)
	}
	return rest.ExplainTrigger200JSONResponse(explanation), nil
}

// refusal is the answer to what an evaluator, or the absence of one, refused.
func refusal(err error) error {
	refused := new(stream.Refusal)
	if !errors.As(err, &refused) {
		return err
	}
	p := &problem{sentence: refused.Sentence}
	switch refused.Code {
	case stream.RefusedInvalid, stream.RefusedImpossible:
		p.status = http.StatusUnprocessableEntity
		if len(refused.Problems) > 0 && json.Unmarshal(refused.Problems, &p.errors) != nil {
			return err
		}
	case stream.RefusedBusy:
		p.status = http.StatusTooManyRequests
	case stream.RefusedUnavailable, stream.RefusedTooLong:
		p.status = http.StatusServiceUnavailable
	default:
		return err
	}
	return p
}
