package clickhouse

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// visits is the sums over a window's visits.
type visits struct{ visits, entered, bounces, duration, pageviews int64 }

// answer has the dashboard's formulas. Where rows of a visit are not all visible yet, sums may be
// negative for a moment.
func (v visits) answer(metric trigger.Metric) trigger.Answer {
	if v.visits == 0 {
		return trigger.Answer{}
	}
	per := func(sum int64) float64 { return float64(sum) / float64(v.visits) }
	a := trigger.Answer{Volume: max(v.visits, 0)}
	switch metric {
	case trigger.BounceRate:
		if v.entered != 0 {
			a.Value = max(rounded(float64(v.bounces)/float64(v.entered)*100, 0), 0)
		}
	case trigger.VisitDuration:
		a.Value = rounded(per(v.duration), 0)
	case trigger.ViewsPerVisit:
		a.Value = rounded(per(v.pageviews), 2)
	}
	return a
}

// longestVisit is how long before its last event a visit can have started: only a bound for the
// primary key, the same as Plausible's.
const longestVisit = 7 * 24 * 3600

// visitsOf reads states of visits that were active in one of the windows. A state that was taken back is
// there twice, with opposite signs and the same times: sums over what was read are right whether or
// not ClickHouse has collapsed the two.
func (b *batch) visitsOf(columns ...string) reading {
	active := func(spans []span) string {
		first, last := spans[0].from, spans[0].to
		for _, s := range spans {
			first, last = min(first, s.from), max(last, s.to)
		}
		return fmt.Sprintf("start >= toDateTime(%d) AND timestamp >= toDateTime(%d) AND start < toDateTime(%d)", first-min(first, longestVisit), first, last)
	}
	return reading{
		table: "sessions_v2", where: "1", bound: active,
		within:  fmt.Sprintf("e.at >= w.from_time AND e.started < w.to_time AND e.started + %d >= w.from_time", longestVisit),
		columns: append([]string{"toUnixTimestamp(timestamp) AS at", "toUnixTimestamp(start) AS started"}, columns...),
	}
}

func (e *Events) askSessions(ctx context.Context, b *batch) error {
	entered := b.filters.pick(func(c *compiled) string { return c.enters }, "1")
	statement := fmt.Sprintf(`
		SELECT w.no AS no, sum(e.sign), sumIf(e.sign, %[1]s), sumIf(e.sign * e.is_bounce, %[1]s), sum(e.sign * toInt64(e.duration)), sum(e.sign * toInt64(e.pageviews))%[2]s
		GROUP BY no`, entered, b.rows(b.visitsOf("sign", "is_bounce", "duration", "pageviews")))
	return b.ask(ctx, "sessions", statement, func(rows driver.Rows) error {
		var no uint32
		var v visits
		if err := rows.Scan(&no, &v.visits, &v.entered, &v.bounces, &v.duration, &v.pageviews); err != nil {
			return err
		}
		b.results[no].visits = v
		return nil
	})
}
