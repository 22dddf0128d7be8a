package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// occurrence is what a step found, with its trigger.
type occurrence struct {
	*watched
	trigger.Occurrence
	asked trigger.Question // the first of the slot: the number that the condition is about, where it is about one
}

// firings makes the messages of a slot. What their context is asked with goes into the outbox beside them (context.go).
func (e *evaluator) firings(ctx context.Context, slot time.Time, occurred []occurrence) ([]postgres.Firing, error) {
	traceContext := daemon.TraceContext(ctx)
	firings := make([]postgres.Firing, len(occurred))
	for i, o := range occurred {
		message, err := e.message(slot, o)
		if err != nil {
			return nil, err
		}
		payload, err := json.Marshal(message)
		if err != nil {
			return nil, fmt.Errorf("encode the message of trigger %s: %w", o.ID, err)
		}
		asked, err := json.Marshal(pending{Goal: o.goal, Filters: o.filters, Asked: o.asked, Fingerprints: o.Fingerprints})
		if err != nil {
			return nil, fmt.Errorf("encode what the context of trigger %s is asked with: %w", o.ID, err)
		}
		firings[i] = postgres.Firing{Pending: asked, Firing: trigger.Firing{
			ID: message.Data.ID, Slot: slot, SiteID: o.SiteID, WebhookID: o.WebhookID, TriggerID: o.ID,
			TriggerType: o.Type, Type: message.Type, Payload: payload, TraceContext: traceContext,
		}}
	}
	return firings, nil
}

func (e *evaluator) message(slot time.Time, o occurrence) (trigger.Message, error) {
	config, err := json.Marshal(o.Config)
	if err != nil {
		return trigger.Message{}, fmt.Errorf("encode the config of trigger %s: %w", o.ID, err)
	}
	m := trigger.Message{
		Type:      string(o.Type) + "." + string(o.Transition),
		Timestamp: slot,
		Data: trigger.MessageData{
			ID:           trigger.FiringID(o.ID, o.Revision, o.Transition, o.Anchor),
			Site:         trigger.MessageSite{ID: o.SiteID, Domain: o.site.Domain},
			WebhookID:    o.WebhookID,
			Trigger:      trigger.MessageTrigger{ID: o.ID, Name: o.Name, Type: o.Type, Config: config},
			Value:        o.Value,
			Threshold:    o.Threshold,
			Window:       o.Window,
			Explanation:  o.Explanation,
			Baseline:     o.Baseline,
			Group:        o.Group,
			Next:         o.Next,
			Late:         o.Late,
			Missed:       o.Missed,
			Suppressed:   o.Suppressed,
			Flapping:     o.Flapping,
			Renotified:   o.Renotified,
			DashboardURL: e.baseURL + "/" + url.PathEscape(o.site.Domain),
		},
	}
	if ended := o.Episode; ended != nil {
		m.Data.Episode = &trigger.EndedEpisode{From: ended.Start, To: ended.LastHeld, Peak: ended.Peak, PeakAt: ended.PeakAt}
	}
	return m, nil
}
