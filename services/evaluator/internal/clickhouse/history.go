package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Grid is slots of the past: so many, Step apart.
type Grid struct {
	First time.Time
	Step  time.Duration
	Slots int
}

// Last is its newest slot.
func (g Grid) Last() time.Time { return g.First.Add(time.Duration(g.Slots-1) * g.Step) }

// Sliding answers a question for a number of visitors, visits or their conversions at every slot of a grid,
// with one query, or two for a rate: over windows of a length that end so long before each slot.
// Events before statsFrom do not count. What filters ask of a visit, such as has_done, is looked up as it is
// at the grid's end: who did it later has done it.
//
// Nobody is looked for in each window. Of a visitor, only the last event before a window's end matters, so
// between an event and the visitor's next one, or the event's end of counting, whichever is first, all
// windows have that visitor: +1 at the first slot of that span, -1 after its last. Their sums, slot by
// slot, are the numbers, and the work does not grow with the windows' length: 30 days of windows of a day
// take as long as of 5 minutes.
func (e *Events) Sliding(ctx context.Context, q Question, length, lag time.Duration, g Grid, statsFrom time.Time) ([]trigger.Answer, error) {
	counts, err := e.sliding(ctx, q, length, lag, g, statsFrom)
	if err != nil {
		return nil, err
	}
	answers := make([]trigger.Answer, g.Slots)
	if q.Metric != trigger.ConversionRate {
		for i, n := range counts {
			answers[i] = trigger.Answer{Value: float64(n), Volume: n}
		}
		return answers, nil
	}
	all, err := e.sliding(ctx, e.everybody(q), length, lag, g, statsFrom)
	if err != nil {
		return nil, err
	}
	for i, n := range all {
		if n > 0 {
			answers[i] = trigger.Answer{Value: rounded(100*float64(counts[i])/float64(n), 2), Volume: n}
		}
	}
	return answers, nil
}

func (e *Events) sliding(ctx context.Context, q Question, length, lag time.Duration, g Grid, statsFrom time.Time) ([]int64, error) {
	wants, who := wantVisitors, "user_id"
	if wantsOf(q) == wantVisits {
		wants, who = wantVisits, "session_id"
	}
	from, to := g.First.Add(-lag-length), g.Last().Add(-lag)
	changes := make([]int64, g.Slots)
	err := e.ofHistory(ctx, q, from, to, statsFrom, wants, func(rows string) (string, func(driver.Rows) error) {
		slotAfter := func(at string) string {
			return fmt.Sprintf("if(%[1]s < %[2]d, 0, intDiv(%[1]s - %[2]d, %[3]d) + 1)", at, g.First.Add(-lag).Unix(), int64(g.Step/time.Second))
		}
		statement := fmt.Sprintf(`
			SELECT toUInt32(change.1) AS slot, toInt64(sum(change.2))
			FROM (
				SELECT arrayJoin(arrayConcat(
					arrayMap(t -> (toInt64(%[1]s), toInt8(1)), times),
					arrayMap((t, n) -> (toInt64(%[2]s), toInt8(-1)), times, arrayPushBack(arrayPopFront(times), toInt64(%[3]d))))) AS change
				FROM (
					SELECT arrayMap(t -> toInt64(t), arraySort(groupUniqArray(e.at))) AS times%[4]s
					GROUP BY e.%[5]s
				)
			)
			WHERE change.1 < %[6]d
			GROUP BY slot`,
			slotAfter("t"), slotAfter(fmt.Sprintf("least(n, t + %d)", int64(length/time.Second))), int64(unbroken)*2, rows, who, g.Slots)
		return statement, func(rows driver.Rows) error {
			var slot uint32
			var change int64
			err := rows.Scan(&slot, &change)
			if err == nil {
				changes[slot] = change
			}
			return err
		}
	})
	for i := 1; i < len(changes); i++ {
		changes[i] += changes[i-1]
	}
	return changes, err
}

// Tally is the matching events of a bucket of a history.
type Tally struct {
	Start, Last time.Time // of the bucket, and its last event
	Count       int64
}

// Tallies counts the events or page views that a question matches by buckets of a width, from one time to
// another, those without any left out. What is before "lumped" is one bucket, which starts at "from".
func (e *Events) Tallies(ctx context.Context, q Question, from, lumped, to time.Time, width time.Duration, statsFrom time.Time) ([]Tally, error) {
	var tallies []Tally
	err := e.ofHistory(ctx, q, from, to, statsFrom, wantEvents, func(rows string) (string, func(driver.Rows) error) {
		statement := fmt.Sprintf(`
			SELECT toUInt32(if(e.at < %[1]d, %[2]d, e.at - e.at %% %[3]d)) AS bucket, count(), toUInt32(max(e.at))%[4]s
			GROUP BY bucket`, seconds(lumped), seconds(from), int64(width/time.Second), rows)
		return statement, func(rows driver.Rows) error {
			var start, last uint32
			var count uint64
			err := rows.Scan(&start, &count, &last)
			tallies = append(tallies, Tally{Start: instant(start), Last: instant(last), Count: int64(count)})
			return err
		}
	})
	slices.SortFunc(tallies, func(x, y Tally) int { return cmp.Compare(x.Start.Unix(), y.Start.Unix()) })
	return tallies, err
}

// Arrival is the last event of a visitor in a bucket of a history.
type Arrival struct {
	At      uint32 // Unix seconds
	Visitor uint64
}

// MostArrivals bounds the memory of one history to 32 MB.
const MostArrivals = 2_000_000

// Arrivals lists who was there by buckets of a width, in order of time: for windows that begin where only the step
// function knows. There are MostArrivals + 1 if there are more.
func (e *Events) Arrivals(ctx context.Context, q Question, from, to time.Time, width time.Duration, statsFrom time.Time) ([]Arrival, error) {
	var arrivals []Arrival
	err := e.ofHistory(ctx, q, from, to, statsFrom, wantVisitors, func(rows string) (string, func(driver.Rows) error) {
		statement := fmt.Sprintf(`
			SELECT toUInt32(max(e.at)) AS last, e.user_id%s
			GROUP BY e.user_id, intDiv(e.at, %d)
			LIMIT %d`, rows, int64(width/time.Second), MostArrivals+1)
		return statement, func(rows driver.Rows) error {
			var a Arrival
			err := rows.Scan(&a.At, &a.Visitor)
			arrivals = append(arrivals, a)
			return err
		}
	})
	slices.SortFunc(arrivals, func(x, y Arrival) int { return cmp.Compare(x.At, y.At) })
	return arrivals, err
}

// Reach is when a session read as far as a scroll goal, for the first time or after having been away.
type Reach struct {
	At, Before uint32 // Unix seconds; Before: when it last did until then, zero: never
}

// Counts tells whether the reach is new in windows that begin then, as AskEach has it.
func (r Reach) Counts(from time.Time) bool { return int64(r.Before)+awaySeconds < from.Unix() }

// Reaches lists the sessions that reached a scroll goal, in order of time, each time that they may count.
func (e *Events) Reaches(ctx context.Context, q Question, from, to time.Time) ([]Reach, error) {
	var reaches []Reach
	err := e.ofHistory(ctx, q, from, to, time.Time{}, wantVisits, func(rows string) (string, func(driver.Rows) error) {
		statement := fmt.Sprintf(`
			SELECT at, before
			FROM (
				SELECT arraySort(groupUniqArray(e.at)) AS times%s
				GROUP BY e.session_id
			)
			ARRAY JOIN times AS at, arrayPushFront(arrayPopBack(times), toUInt32(0)) AS before
			WHERE before = 0 OR at - before > %d`, rows, awaySeconds)
		return statement, func(rows driver.Rows) error {
			var r Reach
			err := rows.Scan(&r.At, &r.Before)
			reaches = append(reaches, r)
			return err
		}
	})
	slices.SortFunc(reaches, func(x, y Reach) int { return cmp.Compare(x.At, y.At) })
	return reaches, err
}

// ofHistory asks one statement about the rows that match a question in a span.
func (e *Events) ofHistory(ctx context.Context, q Question, from, to, statsFrom time.Time, wants uint8, ask func(rows string) (string, func(driver.Rows) error)) error {
	if from.Before(statsFrom) {
		from = statsFrom
	}
	w := window{from: seconds(from), to: seconds(to), step: unbroken}
	if w.from >= w.to || e.Lacks(q.Question) != "" {
		return nil
	}
	if q.Goal == nil && q.Metric == trigger.Pageviews {
		wants = wantPageviews
	}
	return e.withoutBroken(ctx, []Question{q}, func() error {
		if e.Lacks(q.Question) != "" {
			return nil
		}
		b := newBatch(e, to)
		b.add(q, w.from, w, wants)
		b.settle()
		statement, scan := ask(b.rows(b.eventsOf()))
		return b.ask(ctx, "history", statement, scan)
	})
}
