package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// occurrence is what a step found, with its trigger.
type occurrence struct {
	watched
	trigger.Occurrence
}

// firings makes the messages of a slot. Their context is fetched for what fired only, with one
// query for all listed conversions and one for all rankings.
func (e *evaluator) firings(ctx context.Context, slot time.Time, occurred []occurrence) ([]trigger.Firing, error) {
	if len(occurred) == 0 {
		return nil, nil
	}
	tops := e.tops(ctx, slot, occurred)
	conversions := e.conversions(ctx, slot, occurred)
	traceContext := daemon.TraceContext(ctx)
	firings := make([]trigger.Firing, len(occurred))
	for i, o := range occurred {
		message, err := e.message(slot, o)
		if err != nil {
			return nil, err
		}
		message.Data.Context, message.Data.Conversions = tops[i], conversions[i]
		payload, err := json.Marshal(message)
		if err != nil {
			return nil, fmt.Errorf("encode the message of trigger %s: %w", o.ID, err)
		}
		firings[i] = trigger.Firing{
			ID: message.Data.ID, Slot: slot, SiteID: o.SiteID, WebhookID: o.WebhookID, TriggerID: o.ID,
			TriggerType: o.Type, Type: message.Type, Payload: payload, TraceContext: traceContext,
		}
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
			Late:         o.Late,
			Suppressed:   o.Suppressed,
			DashboardURL: e.baseURL + "/" + url.PathEscape(o.site.Domain),
		},
	}
	if ended := o.Episode; ended != nil {
		m.Data.Episode = &trigger.EndedEpisode{From: ended.Start, Peak: ended.Peak, PeakAt: ended.PeakAt}
	}
	return m, nil
}

// tops ranks the sources and pages of what fired. A firing is worth more than its context: if
// the query fails, it goes out without.
func (e *evaluator) tops(ctx context.Context, slot time.Time, occurred []occurrence) []*trigger.Context {
	contexts := make([]*trigger.Context, len(occurred))
	windows := make([]clickhouse.SiteWindow, len(occurred))
	for i, o := range occurred {
		windows[i] = clickhouse.SiteWindow{SiteID: o.SiteID, From: o.Window.From.Unix(), To: o.Window.To.Unix()}
	}
	tops, err := e.events.Top(ctx, windows, slot)
	if err != nil {
		e.log.Warn("firings go out without their context", "slot", slot, "error", err.Error())
		return contexts
	}
	for i, top := range tops {
		contexts[i] = &trigger.Context{TopSources: ranked(top.Sources), TopPages: ranked(top.Pages)}
	}
	return contexts
}

func ranked(rankings []clickhouse.Ranking) []trigger.Ranked {
	list := make([]trigger.Ranked, len(rankings))
	for i, r := range rankings {
		list[i] = trigger.Ranked(r)
	}
	return list
}

// conversions lists the new conversions of the firings of mode "each", and nothing for others.
func (e *evaluator) conversions(ctx context.Context, slot time.Time, occurred []occurrence) [][]trigger.Conversion {
	lists := make([][]trigger.Conversion, len(occurred))
	var conditions []clickhouse.Condition
	var wanted [][]uint64
	var of []int
	for i, o := range occurred {
		if len(o.Fingerprints) == 0 {
			continue
		}
		conditions = append(conditions, clickhouse.Condition{SiteID: o.SiteID, Goal: o.goal, From: o.Window.From, Each: true})
		wanted = append(wanted, o.Fingerprints)
		of = append(of, i)
	}
	if len(conditions) == 0 {
		return lists
	}
	found, err := e.events.List(ctx, conditions, wanted, slot)
	if err != nil {
		e.log.Warn("firings go out without their conversions", "slot", slot, "error", err.Error())
		return lists
	}
	for k, list := range found {
		for _, c := range list {
			lists[of[k]] = append(lists[of[k]], trigger.Conversion{Time: c.At, Page: c.Page, Source: c.Source, Country: c.Country, Props: c.Props})
		}
	}
	return lists
}
