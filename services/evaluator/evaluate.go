package evaluator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// evaluator evaluates slots, one after the other, for the shards that it holds.
type evaluator struct {
	events          *clickhouse.Events
	store           *postgres.Store
	catalogue       *catalogue
	interval, delay time.Duration
	baseURL         string
	log             *slog.Logger
	tracer          trace.Tracer
	metrics         *metrics
	shards          *shards
	norms           *norms
	newcomers       *newcomers
	ingestion       *ingestion
	system          *system
	results         *results
}

// newEvaluator makes one for the shards. wake is called when the outbox has rows.
func newEvaluator(c Config, s *daemon.Service, events *clickhouse.Events, store *postgres.Store, known *catalogue, m *metrics, own *shards, wake func()) *evaluator {
	e := &evaluator{
		events: events, store: store, catalogue: known, interval: c.Interval, delay: c.Delay,
		baseURL: strings.TrimSuffix(c.PlausibleBaseURL, "/"), log: s.Log, tracer: s.Tracer, metrics: m, shards: own,
		norms: newNorms(events, store, s.Log), newcomers: newNewcomers(events, store, s.Log), system: newSystem(store, s.Log, m, c.Interval, wake),
	}
	e.ingestion = newIngestion(events, store, e.system, s.Log, m)
	e.results = newResults(store, c.Interval, s.Log)
	return e
}

// evaluate judges the triggers of all shards that the slot is due for, together, and commits what
// came of it. It returns the number of firings. On an error nothing has changed.
func (e *evaluator) evaluate(ctx context.Context, slot time.Time) (firings int, err error) {
	started := time.Now()
	ctx, span := e.tracer.Start(ctx, "evaluate slot", trace.WithAttributes(attribute.String("slot", slot.Format(time.RFC3339))))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()

	due, _ := e.shards.due(slot)
	triggers, err := e.watched(ctx, due)
	if err != nil {
		return 0, err
	}
	p := newPlan()
	turns, sites := make([]turn, len(triggers)), map[int64]plausible.Site{}
	for i, w := range triggers {
		turns[i] = e.turnOf(w, slot)
		if turns[i].due {
			sites[w.SiteID] = w.site
			turns[i].asked = w.Config.Ask(w.setting, turns[i].before, turns[i].slot)
			turns[i].questions = p.ask(w.SiteID, turns[i].asked)
		}
	}
	if err := p.answer(ctx, e, sites, slot); err != nil {
		return 0, err
	}
	e.lookBack(ctx, triggers, turns, sites, slot)

	result := postgres.Result{Leases: due, Slot: slot}
	after := make([]trigger.State, len(triggers))
	var occurred []occurrence
	var faulty []failure
	for i, w := range triggers {
		next, occurrences := e.step(w, turns[i], p)
		after[i] = next
		if w.problem == "" && next.Status == trigger.StatusError {
			faulty = append(faulty, failure{triggerID: w.ID, siteID: w.SiteID, since: next.Since, problem: next.Explanation})
		}
		for _, o := range occurrences {
			occurred = append(occurred, occurrence{watched: w, Occurrence: o, asked: turns[i].asked[0]})
		}
	}
	changes := e.shards.changes(triggers, turns, after, slot, e.interval)
	result.States = changes.write
	if result.Firings, err = e.firings(ctx, slot, occurred); err != nil {
		return 0, err
	}
	written, err := e.store.Commit(ctx, result)
	if err == nil || errors.Is(err, postgres.ErrFenced) {
		e.shards.settle(due, written, triggers, changes)
	}
	if err != nil {
		return 0, err
	}

	e.results.note(slot, written.Leases, triggers, turns, after)
	e.system.triggersFail(ctx, faulty)
	for _, f := range written.Firings {
		e.metrics.firings.WithLabelValues(f.Type).Inc()
	}
	e.metrics.slot(time.Since(started), len(triggers), time.Since(slot))
	e.log.Info("slot evaluated", "event", "slot", "slot", slot, "shards", len(written.Leases), "triggers", len(triggers),
		"questions", len(p.questions),
		"states_changed", len(written.States), "firings", len(written.Firings), "took_ms", time.Since(started).Milliseconds(),
		"trace_id", span.SpanContext().TraceID().String())
	return len(written.Firings), nil
}

// watched are the triggers of some shards.
func (e *evaluator) watched(ctx context.Context, due []postgres.Lease) ([]watched, error) {
	all, err := e.catalogue.read(ctx)
	if err != nil {
		return nil, err
	}
	var isDue [postgres.Shards]bool
	for _, l := range due {
		isDue[l.Shard] = true
	}
	some := make([]watched, 0, len(all))
	for _, w := range all {
		if isDue[postgres.ShardOf(w.SiteID)] {
			some = append(some, w)
		}
	}
	return some, nil
}

// turn is a trigger's part in a slot.
type turn struct {
	before    trigger.State
	stored    bool // before is what the database has; else it is new
	slot      trigger.Slot
	due       bool // long windows are not worth looking at in every slot
	asked     []trigger.Question
	questions []int          // their numbers in the plan
	past      []trigger.Past // slots that were missed
}

func (e *evaluator) turnOf(w watched, slot time.Time) turn {
	t := turn{slot: trigger.Slot{At: slot, Interval: e.interval}}
	if t.before, t.stored = e.shards.state(w); !t.stored || t.before.Revision != w.Revision { // a new revision starts anew
		t.before, t.stored = trigger.NewState(w.Revision, w.RevisedAt), false
	}
	if w.problem == "" {
		t.slot.Interval = e.cadence(w.Config)
		t.due = e.hasTurn(w.Type, t.slot) || t.before.LastSlot.IsZero() // a trigger's first slot is the next one
	}
	return t
}

// cadence is how often a trigger is looked at: in whole slots.
func (e *evaluator) cadence(c trigger.Config) time.Duration {
	slots := max(1, int((c.Every()+e.interval-1)/e.interval))
	return time.Duration(slots) * e.interval
}

// places are where in a longer cadence the triggers of each type have their turn.
var places = func() map[trigger.Type]int64 {
	places := map[trigger.Type]int64{}
	for i, t := range trigger.Types() {
		places[t] = int64(i)
	}
	return places
}()

// hasTurn tells whether a slot is one of those that the triggers of a type and cadence are looked at in. Types
// take turns, and not sites: a query costs some 10 ms however little it is about, so that a slot is best spent on all
// sites' triggers of the few types that have their turn.
func (e *evaluator) hasTurn(of trigger.Type, slot trigger.Slot) bool {
	return (slot.At.Unix()/int64(e.interval/time.Second)+places[of])%int64(slot.Interval/e.interval) == 0
}

// step takes one trigger through the slot. A fault in it harms no other trigger.
func (e *evaluator) step(w watched, t turn, p *plan) (next trigger.State, occurrences []trigger.Occurrence) {
	switch {
	case w.problem != "":
		return t.before.Failed(t.slot.At, w.problem), nil
	case !t.due:
		return t.before, nil
	}
	defer func() {
		if fault := recover(); fault != nil {
			e.metrics.panics.Inc()
			e.log.Error("a trigger's evaluation failed", "event", "panic", "trigger_id", w.ID, "type", w.Type, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
			next, occurrences = t.before.Failed(t.slot.At, "The evaluation failed by a fault of this program; its log tells more."), nil
		}
	}()
	next, occurrences = w.Config.Step(w.setting, t.before, p.sample(t.questions, e.ingestion), t.slot)
	if len(t.past) > 0 {
		var missed []trigger.Occurrence
		next, missed = trigger.Recall(w.Config, w.setting, t.before, next, t.past)
		occurrences = append(missed, occurrences...)
	}
	return next, occurrences
}
