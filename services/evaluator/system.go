package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// The kinds of system events: what operators, not the owners of sites, should know.
const (
	ingestionSilent     = "ingestion.silent"
	ingestionResumed    = "ingestion.resumed"
	evaluationFailing   = "evaluation.failing"
	evaluationRecovered = "evaluation.recovered"
	triggerFailing      = "trigger.failing"
)

const (
	// failingAfter is how many slots in a row must fail before an operator is told: one minute of
	// slots of 10 s. A restart of ClickHouse or Postgres passes in less.
	failingAfter = 6

	systemRetention = 90 * 24 * time.Hour // of system events and outages
)

// systemData is what a system event tells besides its kind and time.
type systemData map[string]any

// systemEvent makes an event. Its id is derived from the kind and a fact: every replica that notices the
// fact, however often, makes the same one.
func systemEvent(kind, fact string, at time.Time, explanation string, data systemData) (postgres.SystemEvent, error) {
	if data == nil {
		data = systemData{}
	}
	data["explanation"] = explanation
	payload, err := json.Marshal(struct {
		Type      string     `json:"type"`
		Timestamp time.Time  `json:"timestamp"`
		Data      systemData `json:"data"`
	}{kind, at.UTC(), data})
	if err != nil {
		return postgres.SystemEvent{}, fmt.Errorf("encode a system event: %w", err)
	}
	return postgres.SystemEvent{ID: trigger.FactID("sys_", kind, fact), Kind: kind, At: at.UTC(), Payload: payload}, nil
}

// instantOf is a fact that is an instant.
func instantOf(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// system tells operators of what goes wrong. Its events are committed to an outbox first, like
// firings, and then published. The goroutine that evaluates slots uses it.
type system struct {
	store    *postgres.Store
	log      *slog.Logger
	metrics  *metrics
	interval time.Duration
	wake     func() // the publisher

	failingSince time.Time // the first failed slot of a run that goes on; zero: the last one was evaluated
	failingTold  bool
	problem      error
	consistent   bool // runs of failures that an earlier life of a replica left open were ended

	triggersTold map[string]time.Time // the triggers that fail: since when, as was told
}

func newSystem(store *postgres.Store, log *slog.Logger, m *metrics, interval time.Duration, wake func()) *system {
	return &system{store: store, log: log, metrics: m, interval: interval, wake: wake, triggersTold: map[string]time.Time{}}
}

// raise puts events into the outbox and returns how many of them nobody had raised before. On an
// error none was; the caller tries again.
func (s *system) raise(ctx context.Context, events ...postgres.SystemEvent) (added int, err error) {
	if len(events) == 0 {
		return 0, nil
	}
	ids, err := s.store.AddSystemEvents(ctx, events)
	if err != nil {
		return 0, err
	}
	isNew := make(map[string]bool, len(ids))
	for _, id := range ids {
		isNew[id] = true
	}
	for _, e := range events {
		if isNew[e.ID] {
			s.metrics.systemEvents.WithLabelValues(e.Kind).Inc()
			s.log.Warn("system event", "event", "system", "kind", e.Kind, "id", e.ID, "at", e.At, "payload", json.RawMessage(e.Payload))
		}
	}
	if len(ids) > 0 {
		s.wake()
	}
	return len(ids), nil
}

// attempt raises events, and tells whether they are committed now.
func (s *system) attempt(ctx context.Context, events ...postgres.SystemEvent) bool {
	_, err := s.raise(ctx, events...)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("system events cannot be written, it is tried again", "event", "system", "error", err.Error())
	}
	return err == nil
}

// slotFailed notes that the slot could not be evaluated. It may be called for the same slot again.
func (s *system) slotFailed(ctx context.Context, slot time.Time, problem error) {
	if s.failingSince.IsZero() {
		s.failingSince = slot
	}
	s.problem = problem
	s.tellFailing(ctx, slot.Add(s.interval))
}

// tellFailing tells of the run of failed slots that ends before next, once it is long enough.
func (s *system) tellFailing(ctx context.Context, next time.Time) {
	if s.failingTold || next.Sub(s.failingSince) < failingAfter*s.interval {
		return
	}
	event, err := systemEvent(evaluationFailing, instantOf(s.failingSince), s.failingSince,
		fmt.Sprintf("No slot could be evaluated for %s; it is tried again at least once a minute, and facts of the meantime will be found.", inWords(next.Sub(s.failingSince))),
		systemData{"since": s.failingSince.UTC(), "problem": s.problem.Error()})
	if err == nil {
		s.failingTold = s.attempt(ctx, event)
	}
}

// slotEvaluated notes that the slot was evaluated: a run of failures is over.
func (s *system) slotEvaluated(ctx context.Context, slot time.Time) {
	if !s.failingSince.IsZero() {
		s.tellFailing(ctx, slot) // the database may have failed too, until now
		if !s.failingTold && slot.Sub(s.failingSince) >= failingAfter*s.interval {
			return // and fails still, for this
		}
	}
	if s.failingTold || !s.consistent {
		if !s.tellRecovered(ctx, slot) {
			return
		}
		s.consistent = true
	}
	s.failingSince, s.failingTold, s.problem = time.Time{}, false, nil
}

// tellRecovered ends all runs of failures that were told, also by a replica that died since.
func (s *system) tellRecovered(ctx context.Context, slot time.Time) bool {
	open, err := s.store.UnansweredSystemEvents(ctx, evaluationFailing, evaluationRecovered)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("system events cannot be read, it is tried again", "event", "system", "error", err.Error())
		}
		return false
	}
	var events []postgres.SystemEvent
	for _, failing := range open {
		event, err := systemEvent(evaluationRecovered, instantOf(failing.At), slot,
			fmt.Sprintf("Slots are evaluated again, after %s.", inWords(slot.Sub(failing.At))), systemData{"since": failing.At.UTC()})
		if err != nil {
			return false
		}
		events = append(events, event)
	}
	return s.attempt(ctx, events...)
}

// failure is a trigger whose evaluation fails, since a slot.
type failure struct {
	triggerID string
	siteID    int64
	since     time.Time // the first slot of the run: Since of its state
	problem   string
}

// triggersFail tells of each trigger that fails once in a run of failures. It is given all that fail
// at present, slot by slot, so that nothing is lost if it cannot be written at first; those told of by
// an earlier life have the same id.
func (s *system) triggersFail(ctx context.Context, failing []failure) {
	told := make(map[string]time.Time, len(failing))
	var events []postgres.SystemEvent
	for _, f := range failing {
		if s.triggersTold[f.triggerID].Equal(f.since) {
			told[f.triggerID] = f.since
			continue
		}
		event, err := systemEvent(triggerFailing, f.triggerID+"|"+instantOf(f.since), f.since, "A trigger's evaluation fails: "+f.problem,
			systemData{"trigger_id": f.triggerID, "site_id": f.siteID, "since": f.since.UTC(), "problem": f.problem})
		if err == nil {
			events = append(events, event)
		}
	}
	if s.attempt(ctx, events...) {
		for _, f := range failing {
			told[f.triggerID] = f.since
		}
	}
	s.triggersTold = told
}

// inWords is a span as people say it.
func inWords(span time.Duration) string {
	switch {
	case span < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(span.Seconds()))
	case span < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(span.Minutes()))
	}
	return strconv.FormatFloat(span.Hours(), 'f', 1, 64) + " hours"
}
