package evaluator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// pending is what a firing's context is asked with, as the outbox keeps it until the message has it.
type pending struct {
	Goal         *trigger.Goal    `json:"goal,omitempty"` // of conversions to list
	Filters      trigger.Filters  `json:"filters"`
	Asked        trigger.Question `json:"asked"` // the first of the slot: the number that the condition is about, where it is about one
	Fingerprints []uint64         `json:"fingerprints,omitempty"`
}

// contexts completes the messages of firings: what stood out in the window, a chart, and the conversions. That is read after
// the slot was committed, for what fired only: no slot waits for it, however much there is to read.
type contexts struct {
	events *clickhouse.Events
	log    *slog.Logger
}

const (
	// chartPoints is how many windows before the firing a message shows at most.
	chartPoints = 60

	// contextWait is how long messages wait for their context. A firing is worth more than that: it goes out without, if
	// a query fails or takes longer.
	contextWait = 5 * time.Second
)

// unfinished is a firing with its message, as it was committed.
type unfinished struct {
	pending
	message trigger.Message
	firing  *postgres.Firing
}

func unfinishedOf(f *postgres.Firing) (*unfinished, error) {
	u := &unfinished{firing: f}
	err := json.Unmarshal(f.Pending, &u.pending)
	if err == nil {
		err = json.Unmarshal(f.Payload, &u.message)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the context of %s is asked with: %w", f.ID, err)
	}
	return u, nil
}

// add puts the context into the payloads of firings, with a constant number of queries. It fails only when ctx ends.
func (c *contexts) add(ctx context.Context, firings []postgres.Firing) error {
	var all []*unfinished
	for i := range firings {
		u, err := unfinishedOf(&firings[i])
		if err != nil {
			c.log.Error("a firing goes out without its context", "firing_id", firings[i].ID, "error", err.Error())
			continue
		}
		all = append(all, u)
	}
	bounded, stop := context.WithTimeoutCause(ctx, contextWait, errors.New("ClickHouse did not answer in time"))
	defer stop()
	var fetching sync.WaitGroup
	fetching.Go(func() { c.read(bounded, all) })
	fetching.Go(func() { c.list(bounded, all) })
	fetching.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, u := range all {
		payload, err := json.Marshal(u.message)
		if err != nil {
			c.log.Error("a firing goes out without its context", "firing_id", u.firing.ID, "error", err.Error())
			continue
		}
		u.firing.Payload = payload
	}
	return nil
}

// read ranks the sources and pages of what fired and charts its number up to the window that fired.
func (c *contexts) read(ctx context.Context, all []*unfinished) {
	windows, charted := make([]clickhouse.Question, len(all)), make([]clickhouse.Question, len(all))
	for i, u := range all {
		site, window := u.message.Data.Site.ID, u.message.Data.Window
		windows[i] = clickhouse.Question{SiteID: site, Question: trigger.Question{Filters: u.Filters, Window: window}}
		charted[i] = clickhouse.Question{SiteID: site, Question: u.Asked}
		charted[i].Window = window
	}
	var tops []clickhouse.Top
	var charts [][]trigger.Point
	var failed, chartless error
	var fetching sync.WaitGroup
	fetching.Go(func() { tops, failed = c.events.Top(ctx, windows) })
	fetching.Go(func() { charts, chartless = c.events.Series(ctx, charted, chartPoints) })
	fetching.Wait()
	if failed != nil {
		c.log.Warn("firings go out without their context", "firings", len(all), "error", failed.Error())
		return
	}
	if chartless != nil {
		c.log.Warn("firings go out without their chart", "firings", len(all), "error", chartless.Error())
		charts = make([][]trigger.Point, len(all))
	}
	for i, top := range tops {
		found := &trigger.Context{TopSources: top.Sources, TopPages: top.Pages, Chart: charts[i]}
		if found.TopSources == nil {
			found.TopSources = []trigger.Ranked{}
		}
		if found.TopPages == nil {
			found.TopPages = []trigger.Ranked{}
		}
		all[i].message.Data.Context = found
	}
}

// list adds the new conversions to the firings of mode "each", and nothing to others.
func (c *contexts) list(ctx context.Context, all []*unfinished) {
	var questions []clickhouse.Question
	var wanted [][]uint64
	var of []int
	for i, u := range all {
		if len(u.Fingerprints) == 0 {
			continue
		}
		questions = append(questions, clickhouse.Question{SiteID: u.message.Data.Site.ID, Question: trigger.Question{
			Ask: trigger.AskEach, Goal: u.Goal, Filters: u.Filters, Window: u.message.Data.Window,
		}})
		wanted, of = append(wanted, u.Fingerprints), append(of, i)
	}
	if len(questions) == 0 {
		return
	}
	found, err := c.events.List(ctx, questions, wanted)
	if err != nil {
		c.log.Warn("firings go out without their conversions", "firings", len(questions), "error", err.Error())
		return
	}
	for k, list := range found {
		conversions := make([]trigger.Conversion, len(list))
		for i, one := range list {
			conversions[i] = trigger.Conversion{Time: one.At, Page: one.Page, Source: one.Source, Country: one.Country, Props: one.Props}
		}
		all[of[k]].message.Data.Conversions = conversions
	}
}
