package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// occurrence is what a step found, with its trigger.
type occurrence struct {
	*watched
	trigger.Occurrence
	asked trigger.Question // the first of the slot: the number that the condition is about, where it is about one
}

// firings makes the messages of a slot. Their context is fetched for what fired only, with a
// constant number of queries.
func (e *evaluator) firings(ctx context.Context, slot time.Time, occurred []occurrence) ([]trigger.Firing, error) {
	if len(occurred) == 0 {
		return nil, nil
	}
	var contexts []*trigger.Context
	var conversions [][]trigger.Conversion
	var fetching sync.WaitGroup
	fetching.Go(func() { contexts = e.contexts(ctx, slot, occurred) })
	fetching.Go(func() { conversions = e.conversions(ctx, slot, occurred) })
	fetching.Wait()
	traceContext := daemon.TraceContext(ctx)
	firings := make([]trigger.Firing, len(occurred))
	for i, o := range occurred {
		message, err := e.message(slot, o)
		if err != nil {
			return nil, err
		}
		message.Data.Context, message.Data.Conversions = contexts[i], conversions[i]
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

// chartPoints is how many windows before the firing a message shows at most.
const chartPoints = 60

// contexts rank the sources and pages of what fired and chart its number up to the window that fired. A
// firing is worth more than its context: if a query fails, it goes out without.
func (e *evaluator) contexts(ctx context.Context, slot time.Time, occurred []occurrence) []*trigger.Context {
	contexts := make([]*trigger.Context, len(occurred))
	windows, charted := make([]clickhouse.Question, len(occurred)), make([]clickhouse.Question, len(occurred))
	for i, o := range occurred {
		windows[i] = clickhouse.Question{SiteID: o.SiteID, Question: trigger.Question{Filters: o.filters, Window: o.Window}}
		charted[i] = clickhouse.Question{SiteID: o.SiteID, Question: o.asked}
		charted[i].Window = o.Window
	}
	var tops []clickhouse.Top
	var charts [][]trigger.Point
	var failed, chartless error
	var fetching sync.WaitGroup
	fetching.Go(func() { tops, failed = e.events.Top(ctx, windows) })
	fetching.Go(func() { charts, chartless = e.events.Series(ctx, charted, chartPoints) })
	fetching.Wait()
	if failed != nil {
		e.log.Warn("firings go out without their context", "slot", slot, "error", failed.Error())
		return contexts
	}
	if chartless != nil {
		e.log.Warn("firings go out without their chart", "slot", slot, "error", chartless.Error())
		charts = make([][]trigger.Point, len(occurred))
	}
	for i, top := range tops {
		contexts[i] = &trigger.Context{TopSources: top.Sources, TopPages: top.Pages, Chart: charts[i]}
		if contexts[i].TopSources == nil {
			contexts[i].TopSources = []trigger.Ranked{}
		}
		if contexts[i].TopPages == nil {
			contexts[i].TopPages = []trigger.Ranked{}
		}
	}
	return contexts
}

// conversions lists the new conversions of the firings of mode "each", and nothing for others.
func (e *evaluator) conversions(ctx context.Context, slot time.Time, occurred []occurrence) [][]trigger.Conversion {
	lists := make([][]trigger.Conversion, len(occurred))
	var questions []clickhouse.Question
	var wanted [][]uint64
	var of []int
	for i, o := range occurred {
		if len(o.Fingerprints) == 0 {
			continue
		}
		questions = append(questions, clickhouse.Question{SiteID: o.SiteID, Question: trigger.Question{
			Ask: trigger.AskEach, Goal: o.goal, Filters: o.filters, Window: o.Window,
		}})
		wanted = append(wanted, o.Fingerprints)
		of = append(of, i)
	}
	if len(questions) == 0 {
		return lists
	}
	found, err := e.events.List(ctx, questions, wanted)
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
