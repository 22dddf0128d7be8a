package evaluator

import (
	"context"
	"slices"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	usualPreview   = 30 * 24 * time.Hour
	longestPreview = 90 * 24 * time.Hour

	// exactPreview is up to which length a preview looks at the very slots of production. Of longer ones
	// it looks at a slot a minute, or sixty in the length of the window: 43,200 in a month.
	exactPreview = 6 * time.Hour

	// mostWindows is how many slots a preview has of what must be asked window by window.
	mostWindows = 720
)

// previewSteps are the distances of slots: divisors of an hour, and those that the day is made of.
var previewSteps = []time.Duration{
	time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute, 6 * time.Minute, 10 * time.Minute, 12 * time.Minute,
	15 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 6 * time.Hour,
}

// rehearsal is a past that triggers can be stepped through, as often as needed.
type rehearsal struct {
	*history
	e        *evaluator
	watched  watched
	from, to time.Time
	step     time.Duration // between two slots of the trigger
	blind    func(trigger.Window) bool
	sighted  func(time.Time) time.Time
}

// newRehearsal chooses the slots.
func (e *evaluator) newRehearsal(ctx context.Context, w watched, request stream.PreviewRequest, closed time.Time) (*rehearsal, error) {
	r := &rehearsal{e: e, watched: w, from: request.From.UTC().Truncate(time.Second), to: request.To.UTC().Truncate(e.interval)}
	if request.To.IsZero() || r.to.After(closed) {
		r.to = closed
	}
	if request.From.IsZero() {
		r.from = r.to.Add(-usualPreview)
	}
	if stats := w.site.StatsAt.UTC(); r.from.Before(stats) { // nothing before it is known
		r.from = stats.Add(time.Second - 1).Truncate(time.Second)
	}
	switch period := r.to.Sub(r.from); {
	case period < e.interval:
		return nil, refuse(stream.RefusedInvalid, "The period is empty: it must end after it begins, and after the site's stats begin.")
	case period > longestPreview:
		return nil, refuse(stream.RefusedInvalid, "The period has more than 90 days.")
	}
	asked := w.Config.Ask(r.nominal(), trigger.NewState(1, r.from), trigger.Slot{At: r.to, Interval: e.interval})
	grid, err := r.choose(asked)
	if err != nil {
		return nil, err
	}
	r.watched.RevisedAt = r.from // a trigger that begins then
	if grid.Slots < 1 {
		return nil, refuse(stream.RefusedInvalid, "The period is too short: of this trigger no slot lies in it.")
	}
	r.history = newHistory(e, w, grid, r.to)
	for _, q := range asked {
		r.history.regular[spanOf(q, r.to)] = true
	}
	if slices.ContainsFunc(asked, byWindow) {
		if err := r.fetchWindows(ctx, w.Config, r.nominal()); err != nil {
			return nil, err
		}
	}
	r.blind, r.sighted, err = e.hindsight(ctx, r.from)
	return r, err
}

// nominal is the setting with which questions are asked: their windows are whole, and it is the history that
// leaves out what came before the stats begin.
func (r *rehearsal) nominal() trigger.Setting {
	s := r.watched.setting()
	s.StatsFrom = time.Time{}
	return s
}

// byWindow tells whether a question must be asked window by window.
func byWindow(q trigger.Question) bool {
	return q.Ask == trigger.AskRanking || q.Ask == trigger.AskNewcomers || q.Ask == trigger.AskNumber && q.Metric.OfSessions()
}

// choose decides how far apart the slots are.
func (r *rehearsal) choose(asked []trigger.Question) (clickhouse.Grid, error) {
	var length time.Duration // of the window; 0: it has none of its own
	for _, q := range asked {
		switch {
		case length == 0 && (q.Ask == trigger.AskNumber || q.Ask == trigger.AskRanking || q.Ask == trigger.AskNewcomers):
			length = q.Window.To.Sub(q.Window.From)
		case q.Ask == trigger.AskLast || q.Ask == trigger.AskBuckets || q.Ask == trigger.AskEach:
			length = time.Minute
		}
	}
	period, e := r.to.Sub(r.from), r.e
	coarse := slices.ContainsFunc(asked, byWindow)
	r.step = e.cadence(r.watched.Config)
	if period <= exactPreview && !(coarse && period/r.step > mostWindows) {
		first := r.from.Truncate(e.interval).Add(e.interval)
		return clickhouse.Grid{First: first, Step: e.interval, Slots: int(r.to.Sub(first)/e.interval) + 1}, nil
	}
	least := max(time.Minute, r.step, length/60)
	if coarse {
		if least = max(least, period/mostWindows); least > length {
			return clickhouse.Grid{}, refuse(stream.RefusedImpossible,
				"Of visits, and of values one by one, %d windows can be looked at: choose a period of at most %d hours, or a longer window.", mostWindows, int((length * mostWindows).Hours()))
		}
	}
	i := slices.IndexFunc(previewSteps, func(s time.Duration) bool { return s >= least && s%e.interval == 0 })
	if i < 0 {
		return clickhouse.Grid{}, refuse(stream.RefusedImpossible, "So long a period cannot be previewed.")
	}
	r.step = previewSteps[i]
	r.from = r.from.Add(r.step - 1).Truncate(r.step)
	first := r.from.Add(r.step)
	return clickhouse.Grid{First: first, Step: r.step, Slots: int(r.to.Sub(first)/r.step) + 1}, nil
}

// fetchWindows asks what is asked window by window, for all slots together.
func (r *rehearsal) fetchWindows(ctx context.Context, config trigger.Config, nominal trigger.Setting) error {
	var questions []clickhouse.Question
	var keys []questionKey
	for k := range r.grid.Slots {
		slot := trigger.Slot{At: r.grid.First.Add(time.Duration(k) * r.grid.Step), Interval: r.step}
		if r.grid.Step < r.step && k > 0 && !r.e.hasTurn(r.watched.Type, r.watched.SiteID, slot) {
			continue
		}
		for _, q := range config.Ask(nominal, trigger.NewState(1, r.from), slot) {
			if !byWindow(q) {
				continue
			}
			keys = append(keys, questionKeyOf(r.question(q)))
			if q.Window.From.Before(r.site.site.StatsAt) {
				q.Window.From = r.site.site.StatsAt
			}
			questions = append(questions, r.question(q))
		}
	}
	answers, err := r.e.events.Answer(ctx, questions, r.to, r.step)
	if err != nil {
		return err
	}
	if err := r.e.newcomers.keep(ctx, questions, answers, map[int64]time.Time{r.site.SiteID: r.site.site.StatsAt}); err != nil {
		return err
	}
	for i, q := range questions {
		if q.Ask == trigger.AskNewcomers && !r.e.newcomers.knows(dimensionOf(q)) {
			return refuse(stream.RefusedBusy, "What was seen on the site before is being read for the first time, which takes some minutes: try again then.")
		}
		r.windows[keys[i]] = answers[i]
	}
	return nil
}

// replayed is what came of a replay.
type replayed struct {
	points      []stream.PreviewPoint
	occurrences []replayedOccurrence
	count       int // of those that fired
}

type replayedOccurrence struct {
	at time.Time
	trigger.Occurrence
}

func (d replayed) firings() []stream.PreviewFiring {
	firings := make([]stream.PreviewFiring, len(d.occurrences))
	for i, o := range d.occurrences {
		firings[i] = stream.PreviewFiring{At: o.at, Transition: o.Transition, Value: o.Value, Threshold: o.Threshold, Explanation: o.Explanation}
	}
	return firings
}

// run steps a config through all slots.
func (r *rehearsal) run(ctx context.Context, config trigger.Config) (done replayed, err error) {
	setting, nominal := r.watched.setting(), r.nominal()
	state := trigger.NewState(1, r.from)
	var sample trigger.Sample
	for k := range r.grid.Slots {
		slot := trigger.Slot{At: r.grid.First.Add(time.Duration(k) * r.grid.Step), Interval: r.step}
		if r.grid.Step < r.step && k > 0 && !r.e.hasTurn(r.watched.Type, r.watched.SiteID, slot) {
			continue
		}
		if k%1024 == 0 && ctx.Err() != nil {
			return done, ctx.Err()
		}
		sample.Answers, sample.Blind, sample.Sighted = sample.Answers[:0], false, r.sighted(slot.At)
		for _, q := range config.Ask(nominal, state, slot) {
			answer, err := r.answer(ctx, q, k, slot)
			if err != nil {
				return done, err
			}
			sample.Answers = append(sample.Answers, answer)
			sample.Blind = sample.Blind || blindTo(q, r.blind)
		}
		var occurred []trigger.Occurrence
		state, occurred = config.Step(setting, state, sample, slot)
		point := stream.PreviewPoint{At: slot.At, Status: state.Status}
		if state.Status != trigger.StatusInsufficient { // else the value is of an earlier slot
			point.Value, point.Threshold = state.Value, state.Threshold
		}
		done.points = append(done.points, point)
		for _, o := range occurred {
			done.occurrences = append(done.occurrences, replayedOccurrence{slot.At, o})
			if o.Transition == trigger.Fired {
				done.count++
			}
		}
	}
	return done, nil
}

// hindsight tells, of times after another, what the evaluator would have known of ingestion then: whether it was
// silent for all sites within a window, and since when it had worked.
func (e *evaluator) hindsight(ctx context.Context, from time.Time) (blind func(trigger.Window) bool, sighted func(time.Time) time.Time, err error) {
	const longestWindow = 24 * time.Hour
	outages, err := e.store.Outages(ctx, from.Add(-2*longestWindow))
	if err != nil {
		return nil, nil, err
	}
	e.ingestion.mu.Lock()
	patience := e.ingestion.patience
	e.ingestion.mu.Unlock()
	blind = func(w trigger.Window) bool {
		return slices.ContainsFunc(outages, func(o postgres.Outage) bool {
			known, lasts := o.Began.Add(patience), o.Ended.IsZero()
			if !w.To.Before(known) && (lasts || w.To.Before(o.Ended)) {
				return true // while it lasted, nothing low was believed
			}
			return !lasts && within(o, w) > patience
		})
	}
	sighted = func(at time.Time) (since time.Time) {
		for _, o := range outages {
			if !o.Ended.After(at) && o.Ended.After(since) {
				since = o.Ended
			}
		}
		return since
	}
	return blind, sighted, nil
}
