package clickhouse

import (
	"context"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Question is a question about a site.
type Question struct {
	SiteID int64
	trigger.Question
}

// family is questions that one statement can answer.
type family uint8

const (
	lasting family = iota // all of a site's visitors, visits or last event, in windows of more than recent that end at the slot
	windows               // what else happened, any event or conversions of a goal
	scrolls               // sessions that reach a scroll goal, in buckets
	sessions
	rankings
	entryPages
	families
)

// plan is a slot's questions, sorted into queries.
type plan struct {
	events    *Events
	slot      time.Time
	questions int // at most so many have a window in a batch
	batches   [families]*batch
}

// latest is the newest end of the questions' windows.
func latest(questions []Question) (end time.Time) {
	for _, q := range questions {
		if q.Window.To.After(end) {
			end = q.Window.To
		}
	}
	return end
}

// part points to what was measured for a question; nil where nothing was asked.
type part struct {
	batch *batch
	no    uint32
}

func (p part) result() result {
	if p.batch == nil {
		return result{}
	}
	return p.batch.results[p.no]
}

// whole is the one bucket of a window that is not taken apart.
func (p part) whole() measured {
	if buckets := p.result().buckets; len(buckets) > 0 {
		return buckets[0]
	}
	return measured{}
}

func (p *plan) put(f family, q Question, readFrom uint32, w window, wants uint8) part {
	batch := &p.batches[f]
	if *batch == nil {
		*batch = newBatch(p.events, p.slot)
		if f == windows { // where most of them are
			(*batch).expect(p.questions)
		}
		(*batch).visits = f == sessions || f == entryPages
	}
	return part{*batch, (*batch).add(q, readFrom, w, wants)}
}

// atOnce is how many queries of a slot run at the same time. To plan one takes ClickHouse as long as to
// run it, on one core, and it waits in between: three took 118 ms one by one on two cores, 70 ms by twos and 57 ms together.
const atOnce = 4

// run asks what was planned.
func (p *plan) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	ask := [families]func(context.Context, *batch) error{
		lasting: p.events.askLasting, windows: p.events.askWindows, scrolls: p.events.askScrolls,
		sessions: p.events.askSessions, rankings: p.events.askRankings, entryPages: p.events.askEntryPages,
	}
	for f, b := range p.batches {
		if b == nil {
			continue
		}
		b.settle()
		group.Go(func() error { return ask[f](ctx, b) })
	}
	return group.Wait()
}

// seconds is a time as the tables have it.
func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

func instant(seconds uint32) time.Time { return time.Unix(int64(seconds), 0).UTC() }

// Answer answers the questions of one slot, in their order, with a number of queries that does not
// depend on theirs. Buckets are as long as the interval and aligned to it, but for the first, which
// starts with its window; those without events are left out.
//
// Value and Volume are as in the vocabulary of pkg/trigger; for numbers that count something, Volume
// is the same as Value. A ranking by page counts events, and not visitors: of a burst of pages that
// are not found, every hit matters. AskNewcomers is
// answered as AskRanking, but with up to rankedValues, and AskNorm not at all. A
// question that Lacks something gets an empty answer.
func (e *Events) Answer(ctx context.Context, questions []Question, slot time.Time, interval time.Duration) ([]trigger.Answer, error) {
	var parts [][2]part
	err := e.withoutBroken(ctx, questions, func() error {
		p := &plan{events: e, slot: slot, questions: len(questions)}
		parts = make([][2]part, len(questions))
		for i, q := range questions {
			if e.Lacks(q.Question) == "" {
				parts[i] = p.place(q, interval)
			}
		}
		if err := p.run(ctx); err != nil {
			return err
		}
		return e.rankWhatMayReach(ctx, questions, parts, slot)
	})
	if err != nil {
		return nil, err
	}
	answers := make([]trigger.Answer, len(questions))
	for i, q := range questions {
		answers[i] = answer(q, parts[i])
	}
	return answers, nil
}

// place puts a question into the batch of its family, a rate into two.
func (p *plan) place(q Question, interval time.Duration) [2]part {
	w := window{from: seconds(q.Window.From), to: seconds(q.Window.To), step: unbroken}
	switch {
	case q.Ask == trigger.AskNorm || w.from >= w.to:
		return [2]part{}
	case ofRanking(q.Ask) && countsFirst(q):
		return [2]part{p.placeNumber(q, w, wantEvents)}
	case ofRanking(q.Ask):
		return [2]part{p.placeRanking(q, w)}
	case q.Ask == trigger.AskNumber && q.Metric.OfSessions():
		return [2]part{p.put(sessions, withoutGoal(q), w.from, w, 0)}
	case q.Ask == trigger.AskNumber && q.Metric == trigger.ConversionRate:
		return [2]part{p.placeNumber(q, w, wantVisitors), p.placeNumber(p.events.everybody(q), w, wantVisitors)}
	case q.Ask == trigger.AskNumber:
		return [2]part{p.placeNumber(q, w, wantsOf(q))}
	case q.Ask == trigger.AskLast:
		return [2]part{p.placeNumber(q, w, wantLast)}
	}
	w.step = uint32(interval / time.Second)
	wants := wantEvents
	switch {
	case q.Ask == trigger.AskEach:
		wants |= wantFingerprints
	case q.Goal == nil && q.Metric == trigger.Pageviews:
		wants = wantPageviews
	}
	if q.Goal != nil && q.Goal.Scroll() {
		return [2]part{p.put(scrolls, q, w.from-min(w.from, awaySeconds), w, wants)}
	}
	return [2]part{p.placeNumber(q, w, wants)}
}

// recent is how many seconds back there are few enough rows to join each with all windows of its site, which is less
// than to group them by visitors first, in a query of its own: an hour, and the longest interval of slots, since before
// the last slot a silence is looked for as far back as an hour.
const recent = 3600 + int64(trigger.Overlap/time.Second)

func (p *plan) placeNumber(q Question, w window, wants uint8) part {
	if q.Goal == nil && wants&^(wantVisitors|wantVisits|wantLast) == 0 && w.step == unbroken && q.Filters.Empty() && int64(w.to) == p.slot.Unix() && p.slot.Unix()-int64(w.from) > recent {
		return p.put(lasting, q, w.from, w, wants)
	}
	return p.put(windows, q, w.from, w, wants)
}

func withoutGoal(q Question) Question { q.Goal = nil; return q }

// everybody is whom a conversion rate is of.
func (e *Events) everybody(q Question) Question {
	q.Filters = e.compile(q.Filters, false).everybody
	return withoutGoal(q)
}

// wantsOf is what a metric of events is taken from. The rows of a scroll goal are many a page view;
// its conversions are sessions.
func wantsOf(q Question) uint8 {
	switch q.Metric {
	case trigger.Visitors, trigger.ConversionRate:
		return wantVisitors
	case trigger.Visits:
		return wantVisits
	case trigger.Pageviews:
		return wantPageviews
	}
	if q.Goal != nil && q.Goal.Scroll() {
		return wantVisits
	}
	return wantEvents
}

func (m measured) count(wants uint8) uint64 {
	switch wants {
	case wantVisitors:
		return m.visitors
	case wantVisits:
		return m.visits
	case wantPageviews:
		return m.pageviews
	}
	return m.events
}

func answer(q Question, parts [2]part) trigger.Answer {
	switch q.Ask {
	case trigger.AskNewcomers:
		r := parts[0].result()
		return trigger.Answer{Ranking: r.ranking, More: r.more}
	case trigger.AskRanking:
		r := parts[0].result()
		kept := min(len(r.ranking), trigger.RankingCap)
		return trigger.Answer{Ranking: r.ranking[:kept], More: r.more + len(r.ranking) - kept}
	case trigger.AskBuckets, trigger.AskEach:
		return trigger.Answer{Buckets: buckets(q, parts[0].result())}
	case trigger.AskLast:
		if last := parts[0].whole().last; last > 0 {
			return trigger.Answer{Last: instant(last)}
		}
	case trigger.AskNumber:
		return number(q, parts)
	}
	return trigger.Answer{}
}

func number(q Question, parts [2]part) trigger.Answer {
	switch {
	case q.Metric.OfSessions():
		return parts[0].result().visits.answer(q.Metric)
	case q.Metric == trigger.ConversionRate:
		converted, all := parts[0].whole().visitors, parts[1].whole().visitors
		if all == 0 {
			return trigger.Answer{}
		}
		return trigger.Answer{Value: rounded(100*float64(converted)/float64(all), 2), Volume: int64(all)}
	}
	n := parts[0].whole().count(wantsOf(q))
	return trigger.Answer{Value: float64(n), Volume: int64(n)}
}

// rounded rounds as ClickHouse does, halves to even.
func rounded(x float64, places int) float64 {
	scale := math.Pow10(places)
	return math.RoundToEven(x*scale) / scale
}

func buckets(q Question, r result) []trigger.Bucket {
	wants := wantEvents
	if q.Ask == trigger.AskBuckets && q.Goal == nil && q.Metric == trigger.Pageviews {
		wants = wantPageviews
	}
	var list []trigger.Bucket
	for _, m := range r.buckets {
		n := m.count(wants)
		if n == 0 {
			continue
		}
		b := trigger.Bucket{Start: instant(m.start), Count: int64(n)}
		if q.Ask == trigger.AskEach {
			b.Fingerprints = m.fingerprints
		}
		list = append(list, b)
	}
	slices.SortFunc(list, func(x, y trigger.Bucket) int { return x.Start.Compare(y.Start) })
	return list
}
