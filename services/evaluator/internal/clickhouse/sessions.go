package clickhouse

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// visits is the sums over a window's visits.
type visits struct{ visits, bounces, duration, pageviews int64 }

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
		a.Value = max(rounded(per(v.bounces)*100, 0), 0)
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
func (b *batch) visitsOf(columns, out []string) reading {
	first, last := b.reads[0].from, b.reads[0].to
	for _, s := range b.reads {
		first, last = min(first, s.from), max(last, s.to)
	}
	return reading{
		table: "sessions_v2",
		where: fmt.Sprintf("start >= toDateTime(%d) AND timestamp >= toDateTime(%d) AND start < toDateTime(%d)",
			first-min(first, longestVisit), first, last),
		within:  "e.at >= c.from_time AND e.started < c.to_time",
		columns: append([]string{"toUnixTimestamp(timestamp) AS at", "toUnixTimestamp(start) AS started"}, columns...),
		out:     append([]string{"e.at AS at", "e.started AS started"}, out...),
	}
}

func (e *Events) askSessions(ctx context.Context, b *batch) error {
	statement := fmt.Sprintf(`
		SELECT w.no AS no, sum(m.sign), sum(m.sign * m.is_bounce), sum(m.sign * toInt64(m.duration)), sum(m.sign * toInt64(m.pageviews))
		FROM (%s
		) AS m
		INNER JOIN windows AS w ON m.cohort = w.cohort
		WHERE m.at >= w.from_time AND m.started < w.to_time AND m.started + %d >= w.from_time
		GROUP BY no`, b.matched(b.visitsOf([]string{"sign", "is_bounce", "duration", "pageviews"},
		[]string{"e.sign AS sign", "e.is_bounce AS is_bounce", "e.duration AS duration", "e.pageviews AS pageviews"})), longestVisit)
	tables, err := b.tables(b.windowsTable(nil, nil))
	if err != nil {
		return err
	}
	return e.query(ctx, "sessions", tables, statement, func(rows driver.Rows) error {
		var no uint32
		var v visits
		if err := rows.Scan(&no, &v.visits, &v.bounces, &v.duration, &v.pageviews); err != nil {
			return err
		}
		b.results[no].visits = v
		return nil
	})
}
