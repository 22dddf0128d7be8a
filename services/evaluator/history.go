package evaluator

import (
	"context"
	"errors"
	"sort"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

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
	reaches  map[shape][]clickhouse.Reach
	arrivals map[shape]*presence
	windows  map[questionKey]trigger.Answer
	norms    map[seriesKey]*trigger.Norm
}

func newHistory(e *evaluator, w watched, grid clickhouse.Grid, to time.Time) *history {
	return &history{
		e: e, site: w, grid: grid, to: to, regular: map[span]bool{}, sliding: map[shape][]trigger.Answer{}, tallies: map[shape]*tallies{},
		reaches:  map[shape][]clickhouse.Reach{},
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
	if q.Ask == trigger.AskEach && q.Goal.Scroll() {
		reaches, err := h.reached(ctx, key, q)
		return trigger.Answer{Buckets: h.newIn(reaches, q.Window, slot.Interval)}, err
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
		list = appendCount(list, t.buckets[i].Start, t.buckets[i].Count, w, interval)
	}
	return list
}

func (h *history) reached(ctx context.Context, key shape, q trigger.Question) ([]clickhouse.Reach, error) {
	reaches, fetched := h.reaches[key]
	if !fetched {
		var err error
		if reaches, err = h.e.events.Reaches(ctx, h.question(q), h.grid.First.Add(-talliedBack), h.grid.Last()); err != nil {
			return nil, err
		}
		h.reaches[key] = reaches
	}
	return reaches, nil
}

// newIn are the buckets of the sessions that count in a window.
func (h *history) newIn(reaches []clickhouse.Reach, w trigger.Window, interval time.Duration) []trigger.Bucket {
	from := w.From
	if stats := h.site.site.StatsAt; from.Before(stats) {
		from = stats
	}
	var list []trigger.Bucket
	first := sort.Search(len(reaches), func(i int) bool { return int64(reaches[i].At) >= from.Unix() })
	for _, r := range reaches[first:] {
		at := time.Unix(int64(r.At), 0).UTC()
		if !at.Before(w.To) {
			break
		}
		if !r.Counts(w.From) {
			continue
		}
		list = appendCount(list, at, 1, w, interval)
	}
	return list
}

// appendCount adds to the bucket that an instant belongs to. Buckets start at multiples of the interval, but for the
// first, which starts with the window.
func appendCount(list []trigger.Bucket, at time.Time, count int64, w trigger.Window, interval time.Duration) []trigger.Bucket {
	start := at.Truncate(interval)
	if start.Before(w.From) {
		start = w.From
	}
	if n := len(list); n > 0 && list[n-1].Start.Equal(start) {
		list[n-1].Count += count
		return list
	}
	return append(list, trigger.Bucket{Start: start, Count: count})
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
