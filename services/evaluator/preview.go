package evaluator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
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

	month = 30 * 24 * time.Hour
)

// previewSteps are the distances of slots: divisors of an hour, and those that the day is made of.
var previewSteps = []time.Duration{
	time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute, 6 * time.Minute, 10 * time.Minute, 12 * time.Minute,
	15 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 6 * time.Hour,
}

// refuse is a refusal of an answer, with a sentence for the user.
func refuse(code, format string, arguments ...any) error {
	return &stream.Refusal{Code: code, Sentence: fmt.Sprintf(format, arguments...)}
}

// preview tells what an unsaved trigger would have done: it steps it through the past by the functions of
// production. Answers to its questions are fetched for all slots at once.
func (e *evaluator) preview(ctx context.Context, request stream.PreviewRequest) (stream.Preview, error) {
	now, _, err := e.events.Now(ctx)
	if err != nil {
		return stream.Preview{}, err
	}
	w, err := e.unsaved(ctx, request)
	if err != nil {
		return stream.Preview{}, err
	}
	r, err := e.newRehearsal(ctx, w, request, closedSlot(now, e.interval, e.delay))
	if err != nil {
		return stream.Preview{}, err
	}
	done, err := r.run(ctx, w.Config)
	if err != nil {
		return stream.Preview{}, err
	}
	p := stream.Preview{
		From: r.from, To: r.to, StepSeconds: int(r.step / time.Second), Points: thinned(done.points, stream.MostPoints), Firings: done.firings(), Count: done.count,
	}
	if cut := len(p.Firings) - stream.MostFirings; cut > 0 {
		p.Firings, p.Truncated = p.Firings[cut:], true
	}
	if request.PerMonth > 0 {
		p.Suggestion, err = r.suggest(ctx, request, done)
	}
	return p, err
}

// unsaved makes a trigger of a request, with what Plausible says of its site and goal.
func (e *evaluator) unsaved(ctx context.Context, request stream.PreviewRequest) (watched, error) {
	config, problems := trigger.Parse(request.Type, request.Config)
	filters, faults := trigger.ParseFilters(request.Filters)
	if problems = append(problems, faults...); len(problems) == 0 {
		problems = trigger.CheckFilters(config, filters)
	}
	if request.CooldownSeconds < 0 {
		problems = append(problems, strict.Problem{Field: "cooldown_seconds", Message: "must not be negative"})
	}
	if len(problems) > 0 {
		details, err := json.Marshal(problems)
		if err != nil {
			return watched{}, fmt.Errorf("encode problems: %w", err)
		}
		return watched{}, &stream.Refusal{Code: stream.RefusedInvalid, Sentence: "The trigger is not valid.", Problems: details}
	}
	sites, err := e.catalogue.directory.Sites(ctx, []int64{request.SiteID})
	if err != nil {
		return watched{}, err
	}
	var goalIDs []int64
	if goal := trigger.GoalOf(config); goal != nil && goal.ID != 0 {
		goalIDs = append(goalIDs, goal.ID)
	}
	goals, err := e.catalogue.directory.Goals(ctx, goalIDs)
	if err != nil {
		return watched{}, err
	}
	w := e.catalogue.resolve(trigger.Trigger{
		ID: "preview", SiteID: request.SiteID, Type: request.Type, Config: config, Revision: 1,
		Options: trigger.Options{Cooldown: time.Duration(request.CooldownSeconds) * time.Second, NotifyResolved: request.NotifyResolved, Filters: filters},
	}, sites, goals)
	if w.problem != "" {
		return watched{}, refuse(stream.RefusedImpossible, "%s", w.problem)
	}
	w.setting.Zone = e.catalogue.zone(w.site)
	return w, nil
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
	r.watched.setting.RevisedAt = r.from // a trigger that begins then
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
	s := r.watched.setting
	s.StatsFrom = time.Time{}
	return s
}

// byWindow tells whether a question must be asked window by window.
func byWindow(q trigger.Question) bool {
	return q.Ask == trigger.AskRanking || q.Ask == trigger.AskNumber && q.Metric.OfSessions()
}

// choose decides how far apart the slots are.
func (r *rehearsal) choose(asked []trigger.Question) (clickhouse.Grid, error) {
	var length time.Duration // of the window; 0: it has none of its own
	for _, q := range asked {
		switch {
		case q.Ask == trigger.AskNewcomers:
			return clickhouse.Grid{}, refuse(stream.RefusedImpossible, "A trigger that looks for what was never seen before cannot be previewed yet.")
		case q.Ask == trigger.AskEach && q.Goal.Scroll():
			return clickhouse.Grid{}, refuse(stream.RefusedImpossible, "A trigger for each conversion of a scroll goal cannot be previewed yet.")
		case length == 0 && (q.Ask == trigger.AskNumber || q.Ask == trigger.AskRanking):
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
	setting, nominal := r.watched.setting, r.nominal()
	state := trigger.NewState(1, r.from)
	var sample trigger.Sample
	for k := range r.grid.Slots {
		slot := trigger.Slot{At: r.grid.First.Add(time.Duration(k) * r.grid.Step), Interval: r.step}
		if r.grid.Step < r.step && k > 0 && !r.e.hasTurn(r.watched.SiteID, slot) {
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

// thinned are so many of the points: of each stretch its lowest and its highest.
func thinned(points []stream.PreviewPoint, most int) []stream.PreviewPoint {
	if len(points) <= most {
		return points
	}
	kept := make([]stream.PreviewPoint, 0, most)
	stretches := most / 2
	for i := range stretches {
		stretch := points[i*len(points)/stretches : (i+1)*len(points)/stretches]
		low, high := 0, 0
		for k, p := range stretch {
			if p.Value == nil {
				continue
			}
			if v := stretch[low].Value; v == nil || *p.Value < *v {
				low = k
			}
			if v := stretch[high].Value; v == nil || *p.Value > *v {
				high = k
			}
		}
		kept = append(kept, stretch[min(low, high)])
		if low != high {
			kept = append(kept, stretch[max(low, high)])
		}
	}
	return kept
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

// suggest looks for the threshold with which the trigger would have fired about as often as is wanted, on the
// answers that the preview has fetched. A higher bar fires less often only above the middle of what is
// measured: below it, a lower one makes one long episode of several. So it is looked for from there.
func (r *rehearsal) suggest(ctx context.Context, request stream.PreviewRequest, done replayed) (*stream.SuggestedConfig, error) {
	const day = 24 * time.Hour
	period := r.to.Sub(r.from)
	field, candidates, set := thresholds(r.watched.Config, done.points)
	if len(candidates) == 0 || period < day {
		return nil, nil //nolint:nilnil // no suggestion is an answer
	}
	perMonth := func(count int) float64 { return float64(count) * float64(month) / float64(period) }
	tried := map[int]int{}
	count := func(i int) (int, error) {
		if n, known := tried[i]; known {
			return n, nil
		}
		other, err := r.run(ctx, set(candidates[i]))
		tried[i] = other.count
		return other.count, err
	}
	var failed error
	first := sort.Search(len(candidates), func(i int) bool { // the first that fires seldom enough
		n, err := count(i)
		if failed == nil {
			failed = err
		}
		return failed != nil || perMonth(n) <= request.PerMonth
	})
	if failed != nil {
		return nil, failed
	}
	best, distance := -1, math.Inf(1)
	for _, i := range []int{first, first - 1} { // of two that are equally near, the one that fires less
		if i < 0 || i >= len(candidates) {
			continue
		}
		n, err := count(i)
		if err != nil {
			return nil, err
		}
		if d := math.Abs(perMonth(n) - request.PerMonth); d < distance {
			best, distance = i, d
		}
	}
	return &stream.SuggestedConfig{Field: field, Value: candidates[best], FiringsPerMonth: math.Round(perMonth(tried[best])*10) / 10}, nil
}

// thresholds are the values of a config's one numeric threshold that come into question, from the one that fires
// most often to the one that never did, and how to set them. There are none for other configs.
func thresholds(config trigger.Config, points []stream.PreviewPoint) (field string, candidates []float64, set func(float64) trigger.Config) {
	var values []float64
	for _, p := range points {
		if p.Value != nil {
			values = append(values, *p.Value)
		}
	}
	if len(values) == 0 {
		return "", nil, nil
	}
	slices.Sort(values)
	middle := values[len(values)/2]
	values = slices.Compact(values)
	high := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v <= middle })
	low := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v >= middle })
	slices.Reverse(low)
	whole := func(list []float64, beyond float64) []float64 { // thresholds of whole numbers, from 1 up
		list = append(slices.Clone(list), beyond)
		return slices.DeleteFunc(list, func(v float64) bool { return v < 1 })
	}
	switch c := config.(type) {
	case *trigger.VisitorSpike:
		if c.Sensitivity != "" {
			return "", nil, nil
		}
		return "threshold", whole(high, values[len(values)-1]+1), func(v float64) trigger.Config { o := *c; o.Threshold = int64(v); return &o }
	case *trigger.GoalAchieved:
		if c.Mode != trigger.ModeThreshold {
			return "", nil, nil
		}
		return "threshold", whole(high, values[len(values)-1]+1), func(v float64) trigger.Config { o := *c; o.Threshold = int64(v); return &o }
	case *trigger.VisitorDrop:
		if c.Sensitivity != "" {
			return "", nil, nil
		}
		for i := range low { // fewer than the threshold fire
			low[i]++
		}
		return "threshold", whole(low, max(1, values[0])), func(v float64) trigger.Config { o := *c; o.Threshold = int64(v); return &o }
	case *trigger.MetricThreshold:
		candidates = high
		isLow := c.Operator == "<" || c.Operator == "<="
		if isLow {
			candidates = low
		}
		if c.RecoveryThreshold != nil { // it must stay on the safe side
			candidates = slices.DeleteFunc(candidates, func(v float64) bool { return isLow && v > *c.RecoveryThreshold || !isLow && v < *c.RecoveryThreshold })
		}
		return "threshold", candidates, func(v float64) trigger.Config { o := *c; o.Threshold = v; return &o }
	case *trigger.MetricChange:
		for _, percent := range []float64{5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95, 100, 125, 150, 175, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000} {
			if c.Direction != "down" || percent <= 95 {
				candidates = append(candidates, percent)
			}
		}
		return "percent", candidates, func(v float64) trigger.Config { o := *c; o.Percent = v; return &o }
	}
	return "", nil, nil
}

// history answers questions about the past. What it fetches, it fetches for all slots, the first time that
// it is asked.
type history struct {
	e       *evaluator
	site    watched
	grid    clickhouse.Grid
	to      time.Time
	regular map[span]bool // windows that a step asks for whatever its state

	sliding  map[shape][]trigger.Answer
	tallies  map[shape]*tallies
	arrivals map[shape]*presence
	windows  map[questionKey]trigger.Answer
	norms    map[seriesKey]*trigger.Norm
}

func newHistory(e *evaluator, w watched, grid clickhouse.Grid, to time.Time) *history {
	return &history{
		e: e, site: w, grid: grid, to: to, regular: map[span]bool{}, sliding: map[shape][]trigger.Answer{}, tallies: map[shape]*tallies{},
		arrivals: map[shape]*presence{}, windows: map[questionKey]trigger.Answer{}, norms: map[seriesKey]*trigger.Norm{},
	}
}

// span is where a window lies before its slot.
type span struct{ length, lag time.Duration }

func spanOf(q trigger.Question, slot time.Time) span {
	return span{q.Window.To.Sub(q.Window.From), slot.Sub(q.Window.To)}
}

// shape is what questions of different slots have in common.
type shape struct {
	metric  trigger.Metric
	goal    trigger.GoalKey
	filters trigger.Filters
	span
}

func (h *history) question(q trigger.Question) clickhouse.Question {
	return clickhouse.Question{SiteID: h.site.SiteID, Question: q}
}

// answer answers a question of the k-th slot.
func (h *history) answer(ctx context.Context, q trigger.Question, k int, slot trigger.Slot) (trigger.Answer, error) {
	key := shape{metric: q.Metric, goal: q.Goal.Key(), filters: q.Filters}
	switch {
	case q.Ask == trigger.AskNorm:
		norm, err := h.norm(ctx, q)
		return trigger.Answer{Norm: norm}, err
	case byWindow(q):
		return h.windows[questionKeyOf(h.question(q))], nil
	case q.Ask == trigger.AskNumber && !isTallied(q):
		key.span = spanOf(q, slot.At)
		if h.regular[key.span] {
			return h.slide(ctx, key, q, k)
		}
		return h.present(ctx, key, q)
	}
	if q.Ask != trigger.AskBuckets && q.Goal == nil && q.Ask != trigger.AskNumber {
		key.metric = trigger.Events
	}
	t, err := h.tally(ctx, key, q)
	if err != nil {
		return trigger.Answer{}, err
	}
	switch q.Ask {
	case trigger.AskNumber:
		n := t.between(q.Window.From, q.Window.To)
		return trigger.Answer{Value: float64(n), Volume: n}, nil
	case trigger.AskLast:
		return trigger.Answer{Last: t.last(q.Window.From, q.Window.To)}, nil
	}
	return trigger.Answer{Buckets: t.counted(q.Window, slot.Interval)}, nil
}

// isTallied tells whether a number is a sum of what happened, so that the buckets of a window need only be added.
func isTallied(q trigger.Question) bool {
	return q.Metric == trigger.Pageviews || q.Metric == trigger.Events && (q.Goal == nil || !q.Goal.Scroll())
}

func (h *history) slide(ctx context.Context, key shape, q trigger.Question, k int) (trigger.Answer, error) {
	answers, fetched := h.sliding[key]
	if !fetched {
		var err error
		if answers, err = h.e.events.Sliding(ctx, h.question(q), key.length, key.lag, h.grid, h.site.site.StatsAt); err != nil {
			return trigger.Answer{}, err
		}
		h.sliding[key] = answers
	}
	return answers[k], nil
}

// fetchWindows asks what is asked window by window, for all slots together.
func (r *rehearsal) fetchWindows(ctx context.Context, config trigger.Config, nominal trigger.Setting) error {
	var questions []clickhouse.Question
	var keys []questionKey
	for k := range r.grid.Slots {
		slot := trigger.Slot{At: r.grid.First.Add(time.Duration(k) * r.grid.Step), Interval: r.step}
		if r.grid.Step < r.step && k > 0 && !r.e.hasTurn(r.watched.SiteID, slot) {
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
	for i, a := range answers {
		r.windows[keys[i]] = a
	}
	return err
}

// tallies are the buckets of a history, with the sum of all before each.
type tallies struct {
	from    time.Time     // it knows what was since then
	width   time.Duration // what is asked begins and ends at multiples of it
	buckets []clickhouse.Tally
	before  []int64
}

// talliedBack is how far before the first slot a tally reaches at least: a day, for the last event before it.
const talliedBack = 25 * time.Hour

func (h *history) tally(ctx context.Context, key shape, q trigger.Question) (*tallies, error) {
	from := h.grid.First.Add(-talliedBack)
	width := int64(h.grid.Step / time.Second)
	if q.Ask == trigger.AskBuckets || q.Ask == trigger.AskEach {
		width = greatestDivisor(width, int64(trigger.Overlap/time.Second))
	}
	if q.Ask != trigger.AskLast { // the last event before a time, to the second, is known whatever the width
		width = greatestDivisor(greatestDivisor(width, max(q.Window.From.Unix(), 0)), q.Window.To.Unix())
	}
	if q.Window.From.Before(from) {
		from = q.Window.From
	}
	if from.Unix() < 0 {
		from = time.Unix(0, 0)
	}
	t := h.tallies[key]
	if t != nil {
		if width = greatestDivisor(width, int64(t.width/time.Second)); int64(t.width/time.Second) == width && !from.Before(t.from) {
			return t, nil
		}
		if t.from.Before(from) {
			from = t.from
		}
	}
	t = &tallies{from: from, width: time.Duration(width) * time.Second}
	lumped := from
	if from.Unix() == 0 { // of the site's whole life the sum alone matters
		lumped = h.grid.First.Add(-talliedBack).Truncate(t.width)
	}
	var err error
	if t.buckets, err = h.e.events.Tallies(ctx, h.question(q), from, lumped, h.grid.Last(), t.width, h.site.site.StatsAt); err != nil {
		return nil, err
	}
	t.before = make([]int64, len(t.buckets)+1)
	for i, b := range t.buckets {
		t.before[i+1] = t.before[i] + b.Count
	}
	h.tallies[key] = t
	return t, nil
}

func greatestDivisor(x, y int64) int64 {
	for y != 0 {
		x, y = y, x%y
	}
	return x
}

// first is the first bucket that does not start before a time.
func (t *tallies) first(at time.Time) int {
	return sort.Search(len(t.buckets), func(i int) bool { return !t.buckets[i].Start.Before(at) })
}

func (t *tallies) between(from, to time.Time) int64 {
	if from.Unix() < 0 {
		from = time.Unix(0, 0)
	}
	return t.before[max(t.first(to), t.first(from))] - t.before[t.first(from)]
}

// last is the newest event between two times; zero: there is none.
func (t *tallies) last(from, to time.Time) time.Time {
	if i := t.first(to); i > 0 && !t.buckets[i-1].Last.Before(from) {
		return t.buckets[i-1].Last
	}
	return time.Time{}
}

// counted are buckets as Answer has them.
func (t *tallies) counted(w trigger.Window, interval time.Duration) []trigger.Bucket {
	var list []trigger.Bucket
	for i := t.first(w.From); i < t.first(w.To); i++ {
		start := t.buckets[i].Start.Truncate(interval)
		if start.Before(w.From) {
			start = w.From
		}
		if n := len(list); n > 0 && list[n-1].Start.Equal(start) {
			list[n-1].Count += t.buckets[i].Count
			continue
		}
		list = append(list, trigger.Bucket{Start: start, Count: t.buckets[i].Count})
	}
	return list
}

// presence counts the visitors of windows whose ends only move forward.
type presence struct {
	arrivals []clickhouse.Arrival
	from, to int // those within the window
	slot     time.Time
	visitors map[uint64]int
}

// errTooMany is a site of which not every visitor can be kept in mind.
var errTooMany = refuse(stream.RefusedImpossible, "The site has too many visitors in this period for this type of trigger: choose a shorter one.")

// present answers for windows that begin where only the state knows.
func (h *history) present(ctx context.Context, key shape, q trigger.Question) (trigger.Answer, error) {
	if q.Metric != trigger.Visitors {
		return trigger.Answer{}, errors.New("a window that begins where only the state knows is asked for visitors alone")
	}
	key.span = span{}
	p := h.arrivals[key]
	if p == nil {
		arrivals, err := h.e.events.Arrivals(ctx, h.question(q), h.grid.First.Add(-talliedBack), h.grid.Last(), h.grid.Step, h.site.site.StatsAt)
		if err != nil {
			return trigger.Answer{}, err
		}
		if len(arrivals) > clickhouse.MostArrivals {
			return trigger.Answer{}, errTooMany
		}
		p = &presence{arrivals: arrivals, visitors: map[uint64]int{}}
		h.arrivals[key] = p
	}
	if q.Window.To.Before(p.slot) { // another replay begins
		p.from, p.to = 0, 0
		clear(p.visitors)
	}
	p.slot = q.Window.To
	for ; p.to < len(p.arrivals) && int64(p.arrivals[p.to].At) < q.Window.To.Unix(); p.to++ {
		p.visitors[p.arrivals[p.to].Visitor]++
	}
	for ; p.from < p.to && int64(p.arrivals[p.from].At) < q.Window.From.Unix(); p.from++ {
		visitor := p.arrivals[p.from].Visitor
		if p.visitors[visitor]--; p.visitors[visitor] == 0 {
			delete(p.visitors, visitor)
		}
	}
	n := int64(len(p.visitors))
	return trigger.Answer{Value: float64(n), Volume: n}, nil
}

// norm is what is usual at present: of the past, too, since the past is what it is made of.
func (h *history) norm(ctx context.Context, q trigger.Question) (*trigger.Norm, error) {
	asked := h.question(q)
	key := keyOf(asked)
	norm, known := h.norms[key]
	if known {
		return norm, nil
	}
	norm, err := h.e.norms.offhand(ctx, h.site, asked, h.to)
	if err == nil {
		h.norms[key] = norm
	}
	return norm, err
}

// offhand is a norm for a question that nobody may ask again: the one that is known, or else one that is formed now and
// not kept.
func (n *norms) offhand(ctx context.Context, w watched, q clickhouse.Question, now time.Time) (*trigger.Norm, error) {
	n.mutex.Lock()
	if s := n.wanted[keyOf(q)]; s != nil && s.of(w.site) && s.norm != nil {
		defer n.mutex.Unlock()
		return s.norm, nil
	}
	n.mutex.Unlock()
	m := measuring{wanted: normSeries{question: q, samples: n.events.Samples(q), site: w.site}}
	if m.wanted.samples == 0 {
		return nil, nil //nolint:nilnil // as norms.of tells what is not known
	}
	m.StatsFrom, m.KnownTo = w.site.StatsAt, now.Add(-normSettling).Truncate(time.Hour).UTC()
	cells, err := n.cells(ctx, []clickhouse.Question{q}, m.KnownTo.Add(-normSpan), m.KnownTo)
	if err != nil {
		return nil, err
	}
	counting := m.wanted.countsFrom(m.StatsFrom)
	days := map[time.Time]*postgres.BaselineDay{}
	for _, c := range cells[0] {
		if c.Hour.Before(counting) || c.Sum == 0 {
			continue
		}
		if m.Began.IsZero() || c.Hour.Before(m.Began) {
			m.Began = c.Hour
		}
		day := c.Hour.Truncate(24 * time.Hour)
		if days[day] == nil {
			days[day] = &postgres.BaselineDay{Day: day}
		}
		days[day].Sums[c.Hour.Hour()], days[day].Squares[c.Hour.Hour()] = float32(c.Sum), float32(c.Squares)
	}
	list := make([]postgres.BaselineDay, 0, len(days))
	for _, d := range days {
		list = append(list, *d)
	}
	return m.norm(list, w.setting.Zone), nil
}
