package evaluator

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// evaluator evaluates slots, one after the other, as the owner of the lease.
type evaluator struct {
	events          *clickhouse.Events
	store           *postgres.Store
	catalogue       *catalogue
	interval, delay time.Duration
	baseURL         string
	log             *slog.Logger
	tracer          trace.Tracer
	metrics         *metrics

	lease    postgres.Lease
	lastSlot time.Time
	states   map[string]trigger.State
}

func newEvaluator(c Config, s *daemon.Service, events *clickhouse.Events, store *postgres.Store, known *catalogue, m *metrics) *evaluator {
	return &evaluator{
		events: events, store: store, catalogue: known, interval: c.Interval, delay: c.Delay,
		baseURL: strings.TrimSuffix(c.PlausibleBaseURL, "/"), log: s.Log, tracer: s.Tracer, metrics: m,
	}
}

// restore reads where every trigger stands after the lease's last slot. Only states that changed
// were written; the others stand as written, but were stepped up to that slot too.
func (e *evaluator) restore(ctx context.Context, lease postgres.Lease) error {
	// The lease is read again: an earlier commit of this tenure may have moved its last slot.
	current, held, err := e.store.AcquireLease(ctx, lease.Shard, lease.Owner, leaseTTL)
	if err != nil {
		return err
	}
	if !held || current.Epoch != lease.Epoch {
		return postgres.ErrFenced
	}
	states, err := e.store.States(ctx)
	if err != nil {
		return err
	}
	for id, state := range states {
		if state.Status != trigger.StatusError {
			state.LastSlot = latest(state.LastSlot, current.LastSlot)
			states[id] = state
		}
	}
	e.lease, e.lastSlot, e.states = lease, current.LastSlot, states
	return nil
}

// evaluate judges all triggers for one slot and commits what came of it. It returns the number
// of firings. On an error nothing has changed.
func (e *evaluator) evaluate(ctx context.Context, slot time.Time) (firings int, err error) {
	started := time.Now()
	ctx, span := e.tracer.Start(ctx, "evaluate slot", trace.WithAttributes(attribute.String("slot", slot.Format(time.RFC3339))))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()

	triggers, err := e.catalogue.read(ctx)
	if err != nil {
		return 0, err
	}
	p := newPlan(slot)
	before := make([]trigger.State, len(triggers))
	questions := make([]question, len(triggers))
	for i, w := range triggers {
		before[i] = e.state(w)
		if w.problem == "" {
			questions[i] = p.ask(w, before[i])
		}
	}
	if err := p.query(ctx, e.events, e.interval); err != nil {
		return 0, err
	}

	result := postgres.Result{Lease: e.lease, Slot: slot, States: map[string]trigger.State{}}
	after := make(map[string]trigger.State, len(triggers))
	var occurred []occurrence
	for i, w := range triggers {
		next, occurrences := before[i], []trigger.Occurrence(nil)
		if w.problem != "" {
			next = next.Failed(slot, w.problem)
		} else {
			next, occurrences = w.Config.Step(w.Options, next, p.sample(w, questions[i]), slot)
		}
		after[w.ID] = next
		if changed(e.states[w.ID], next) {
			result.States[w.ID] = next
		}
		for _, o := range occurrences {
			occurred = append(occurred, occurrence{watched: w, Occurrence: o})
		}
	}
	if result.Firings, err = e.firings(ctx, slot, occurred); err != nil {
		return 0, err
	}
	if err := e.store.Commit(ctx, result); err != nil {
		return 0, err
	}
	e.states, e.lastSlot = after, slot

	for _, f := range result.Firings {
		e.metrics.firings.WithLabelValues(f.Type).Inc()
	}
	e.metrics.slot(time.Since(started), len(triggers), time.Since(slot))
	e.log.Info("slot evaluated", "event", "slot", "slot", slot, "triggers", len(triggers), "windows", len(p.windows), "conditions", len(p.conditions),
		"states_changed", len(result.States), "firings", len(result.Firings), "took_ms", time.Since(started).Milliseconds(),
		"trace_id", span.SpanContext().TraceID().String())
	return len(result.Firings), nil
}

// state is where a trigger stands. A new revision starts anew.
func (e *evaluator) state(w watched) trigger.State {
	if state, known := e.states[w.ID]; known && state.Revision == w.Revision {
		return state
	}
	return trigger.NewState(w.Revision, w.RevisedAt)
}

// changed tells whether a state must be written. That a slot passed is known from the lease.
func changed(written, now trigger.State) bool {
	written.LastSlot = now.LastSlot
	return !reflect.DeepEqual(written, now)
}
