package evaluator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
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
	round           *round
}

// newEvaluator makes one for the shards. wake is called when the outbox has rows.
func newEvaluator(c Config, s *daemon.Service, events *clickhouse.Events, store *postgres.Store, known *catalogue, m *metrics, own *shards, wake func()) *evaluator {
	e := &evaluator{
		events: events, store: store, catalogue: known, interval: c.Interval, delay: c.Delay,
		baseURL: strings.TrimSuffix(c.PlausibleBaseURL, "/"), log: s.Log, tracer: s.Tracer, metrics: m, shards: own,
		norms: newNorms(events, store, s.Log), newcomers: newNewcomers(events, store, s.Log), system: newSystem(store, s.Log, m, c.Interval, wake),
	}
	e.ingestion = newIngestion(events, store, e.system, s.Log, m)
	e.results, e.round = newResults(store, c.Interval, s.Log), newRound()
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
	r := e.round
	r.begin(len(triggers))
	e.askAll(r, triggers, slot)
	if err := r.plan.answer(ctx, e, slot); err != nil {
		return 0, err
	}
	e.lookBack(ctx, r, slot)
	found := e.stepAll(r, slot)

	result := postgres.Result{Leases: due, Slot: slot, States: r.changes(slot, e.interval)}
	if result.Firings, err = e.firings(ctx, slot, found.occurred); err != nil {
		return 0, err
	}
	written, err := e.store.Commit(ctx, result)
	if err == nil || errors.Is(err, postgres.ErrFenced) {
		e.shards.settle(due, written, r)
	}
	if err != nil {
		return 0, err
	}

	e.results.note(slot, written.Leases, r)
	e.system.triggersFail(ctx, found.faulty)
	for _, f := range written.Firings {
		e.metrics.firings.WithLabelValues(f.Type).Inc()
	}
	e.metrics.slot(time.Since(started), len(triggers), time.Since(slot))
	e.log.Info("slot evaluated", "event", "slot", "slot", slot, "shards", len(written.Leases), "triggers", len(triggers),
		"questions", len(r.plan.questions),
		"states_changed", len(written.States), "firings", len(written.Firings), "took_ms", time.Since(started).Milliseconds(),
		"trace_id", span.SpanContext().TraceID().String())
	return len(written.Firings), nil
}

// watched are the triggers of some shards.
func (e *evaluator) watched(ctx context.Context, due []postgres.Lease) ([]*watched, error) {
	all, err := e.catalogue.read(ctx)
	if err != nil {
		return nil, err
	}
	if len(due) == postgres.Shards {
		return all, nil
	}
	var isDue [postgres.Shards]bool
	for _, l := range due {
		isDue[l.Shard] = true
	}
	some := make([]*watched, 0, len(all))
	for _, w := range all {
		if isDue[postgres.ShardOf(w.SiteID)] {
			some = append(some, w)
		}
	}
	return some, nil
}

// round is what is known of a slot while it is evaluated. The next slot uses its memory again.
type round struct {
	plan   *plan                     // of all sites
	plans  []*plan                   // of portions of the sites; the first becomes the one of all
	turns  []turn                    // of all triggers, those of a portion of the sites side by side
	after  []standings               // states that the slot changed, of each portion of the turns
	missed map[string][]trigger.Past // by trigger: slots that nobody evaluated
}

func newRound() *round {
	r := &round{after: make([]standings, portions), missed: map[string][]trigger.Past{}}
	for range portions {
		r.plans = append(r.plans, newPlan())
	}
	r.plan = r.plans[0]
	return r
}

// begin makes room for so many turns, and forgets the slot before.
func (r *round) begin(turns int) {
	clear(r.turns[:cap(r.turns)]) // what the last slot pointed to can go
	if cap(r.turns) < turns {
		r.turns = make([]turn, turns)
	}
	r.turns = r.turns[:turns]
	for i := range r.after {
		r.after[i].begin()
	}
	clear(r.missed)
	for _, p := range r.plans {
		p.begin()
	}
}

// deal gives each trigger a turn, and returns the portions: all triggers of a site are in the same. They do not follow the
// shards, of which a replica may hold every second.
func (r *round) deal(triggers []*watched) [][]turn {
	portionOf := func(w *watched) int64 { return (w.SiteID + w.SiteID/postgres.Shards) % int64(portions) }
	counts := make([]int, portions)
	for _, w := range triggers {
		counts[portionOf(w)]++
	}
	dealt, free := make([][]turn, portions), r.turns
	for k, count := range counts {
		dealt[k], free = free[:0:count], free[count:]
	}
	for _, w := range triggers {
		k := portionOf(w)
		dealt[k] = append(dealt[k], turn{watched: w})
	}
	return dealt
}

// turn is a trigger's part in a slot.
type turn struct {
	*watched
	before   *standing     // nil: it is new, or of a new revision
	next     *standing     // after the slot; nil: the same, but that the slot has passed
	interval time.Duration // between two of its slots
	asked    numbers       // its questions
	due      bool          // long windows are not worth looking at in every slot
	faulty   bool          // a fault of this program was met
	passed   bool          // it was stepped, and nothing else came of it
}

// after is where the trigger stands after the slot.
func (t *turn) after() *standing {
	if t.next == nil {
		return t.before
	}
	return t.next
}

func (e *evaluator) turnOf(w *watched, slot time.Time) turn {
	t := turn{watched: w, before: e.shards.state(w)}
	if t.before != nil && int(t.before.revision) != w.Revision { // it starts anew
		t.before = nil
	}
	if w.problem == "" {
		t.interval = e.cadence(w.Config)
		t.due = e.hasTurn(w.Type, w.SiteID, t.slot(slot)) || t.before == nil || t.before.last == never // a trigger's first slot is the next one
	}
	return t
}

func (t *turn) slot(at time.Time) trigger.Slot { return trigger.Slot{At: at, Interval: t.interval} }

// state is the one before the slot.
func (t *turn) state() trigger.State {
	if t.before == nil {
		return trigger.NewState(t.Revision, t.RevisedAt)
	}
	return t.before.unpacked()
}

// askAll collects what all triggers must know of the slot. What triggers of a site ask alike is asked once.
func (e *evaluator) askAll(r *round, triggers []*watched, slot time.Time) {
	var working sync.WaitGroup
	dealt := r.deal(triggers)
	for k, some := range dealt {
		working.Go(func() {
			for i := range some {
				t := &some[i]
				if *t = e.turnOf(t.watched, slot); t.due {
					e.ask(t, r.plans[k], slot)
				}
			}
		})
	}
	working.Wait()
	for k, some := range dealt[1:] {
		first := r.plan.join(r.plans[k+1])
		for i := range some {
			some[i].asked.first += first
		}
	}
}

// ask adds to a plan what the trigger must know of the slot.
func (e *evaluator) ask(t *turn, p *plan, slot time.Time) {
	defer e.contain(t)
	t.asked = p.ask(t.watched, t.Config.Ask(t.setting(), t.state(), t.slot(slot)))
}

// portions is how many parts are worked on at once: as many as there are processors.
var portions = runtime.GOMAXPROCS(0)

// contain is deferred where code of a trigger's type runs: a fault in it harms no other trigger.
func (e *evaluator) contain(t *turn) {
	if fault := recover(); fault != nil {
		t.faulty = true
		e.metrics.panics.Inc()
		e.log.Error("a trigger's evaluation failed", "event", "panic", "trigger_id", t.ID, "type", t.Type, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
	}
}

// cadence is how often a trigger is looked at: in whole slots.
func (e *evaluator) cadence(c trigger.Config) time.Duration {
	slots := max(1, int((c.Every()+e.interval-1)/e.interval))
	return time.Duration(slots) * e.interval
}

// leaders are the types whose long windows ask the most, each in a query of another kind: conversions, metrics of visits,
// and visitors since a conversion. Each leads a crew of types, to which the others are dealt out. Fewer crews would have
// every slot ask every kind of question, more leave a slot to all that the few types of a crew ask.
var leaders = []trigger.Type{trigger.GoalAchievedType, trigger.MetricThresholdType, trigger.GoalSilenceType}

var crews = int64(len(leaders))

var crewOf = func() map[trigger.Type]int64 {
	crew := map[trigger.Type]int64{}
	for i, t := range trigger.Types() {
		crew[t] = int64(i) % crews
	}
	for i, t := range leaders {
		crew[t] = int64(i)
	}
	return crew
}()

// neighbours are sites with adjacent ids: small ones share a granule of the primary key, the least that is read. More
// would leave large ones together too.
const neighbours = 4

// hasTurn tells whether a slot is one of those that the triggers of a type and cadence are looked at in. Crews
// of types take turns: a query costs some 15 ms however little it is about, so that a slot is best spent on the few
// kinds of questions that one crew asks. In a crew's slots the sites take turns: the day that the longest windows read of
// every site would make one slot take twice as long. Sites whose rows lie side by side go together.
func (e *evaluator) hasTurn(of trigger.Type, site int64, slot trigger.Slot) bool {
	slots := int64(slot.Interval / e.interval)
	place := crewOf[of] + crews*(site/neighbours%max(1, slots/crews))
	return (slot.At.Unix()/int64(e.interval/time.Second)+place)%slots == 0
}

// findings are what came of some turns.
type findings struct {
	occurred []occurrence
	faulty   []failure
}

// stepAll takes all triggers through the slot, in portions: steps are pure.
func (e *evaluator) stepAll(r *round, slot time.Time) (all findings) {
	view := e.ingestion.view()
	found := make([]findings, portions)
	var working sync.WaitGroup
	size := max(1, (len(r.turns)+portions-1)/portions)
	for first := 0; first < len(r.turns); first += size {
		some, portion := r.turns[first:min(first+size, len(r.turns))], first/size
		working.Go(func() { e.stepSome(some, r.plan, r.missed, view, slot, &r.after[portion], &found[portion]) })
	}
	working.Wait()
	for _, f := range found {
		all.occurred, all.faulty = append(all.occurred, f.occurred...), append(all.faulty, f.faulty...)
	}
	return all
}

func (e *evaluator) stepSome(some []turn, p *plan, missed map[string][]trigger.Past, view sight, slot time.Time, after *standings, f *findings) {
	var answers []trigger.Answer // of one trigger after the other
	for i := range some {
		t := &some[i]
		if t.due || t.problem != "" {
			var sample trigger.Sample
			if t.due && !t.faulty {
				sample = p.sample(t.asked, view, answers)
				answers = sample.Answers
			}
			next, occurrences := e.step(t, sample, missed[t.ID], slot)
			state := packed(next, t.before)
			if t.passed = t.before != nil && t.before.onlyPassed(state, slot); !t.passed {
				t.next = after.keep(state)
			}
			for _, o := range occurrences {
				f.occurred = append(f.occurred, occurrence{watched: t.watched, Occurrence: o, asked: p.asked(t.asked)[0]})
			}
		}
		if state := t.after(); t.problem == "" && resultStatuses[state.status] == trigger.StatusError {
			f.faulty = append(f.faulty, failure{triggerID: t.ID, siteID: t.SiteID, since: time.UnixMicro(state.since).UTC(), problem: state.explanation})
		}
	}
}

// step takes one trigger through the slot.
func (e *evaluator) step(t *turn, sample trigger.Sample, past []trigger.Past, slot time.Time) (next trigger.State, occurrences []trigger.Occurrence) {
	before := t.state()
	if t.problem != "" {
		return before.Failed(slot, t.problem), nil
	}
	if !t.faulty {
		next, occurrences = e.stepSound(t, before, sample, past, slot)
	}
	if t.faulty {
		return before.Failed(slot, "The evaluation failed by a fault of this program; its log tells more."), nil
	}
	return next, occurrences
}

func (e *evaluator) stepSound(t *turn, before trigger.State, sample trigger.Sample, past []trigger.Past, slot time.Time) (next trigger.State, occurrences []trigger.Occurrence) {
	defer e.contain(t)
	next, occurrences = t.Config.Step(t.setting(), before, sample, t.slot(slot))
	if len(past) > 0 {
		var missed []trigger.Occurrence
		next, missed = trigger.Recall(t.Config, t.setting(), before, next, past)
		occurrences = append(missed, occurrences...)
	}
	return next, occurrences
}
