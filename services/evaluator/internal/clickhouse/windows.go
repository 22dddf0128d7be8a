package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// eventsOf reads what the batch wants to measure of events.
func (b *batch) eventsOf(columns ...string) reading {
	where := "name != 'engagement'"
	if b.wanted == wantPageviews && !b.goals.any() {
		where = "name = 'pageview'"
	}
	r := reading{
		table: "events_v2", where: where, bound: times, within: "e.at >= w.from_time AND e.at < w.to_time",
		columns: append([]string{"toUnixTimestamp(timestamp) AS at"}, columns...),
	}
	read := func(want uint8, columns ...string) {
		if b.wanted&want != 0 {
			r.columns = append(r.columns, columns...)
		}
	}
	read(wantVisitors, "user_id")
	read(wantVisits, "session_id")
	read(wantPageviews, "name = 'pageview' AS pageview")
	read(wantFingerprints, fingerprint)
	return r
}

// fingerprint tells conversions of a goal apart, as events have no id: when, and whose. Several of one visitor in the same
// second share it. To look at their pages and properties too would cost every slot a fifth of its query's time.
const fingerprint = "cityHash64(toUnixTimestamp(timestamp), user_id) AS fingerprint"

// askLasting asks for all of a site's visitors, visits or the last event, in windows that all end at
// the slot. Of a visitor only the last event matters, so visitors are grouped first. Between two
// starts of a site's windows they share their fate, so a state is kept for each such stretch, and a
// window is the union of all from its start on: the work does not grow with visitors times windows.
func (e *Events) askLasting(ctx context.Context, b *batch) error {
	b.scanTogether()
	keys := []string{"site_id"}
	var states, merged []string
	for _, counted := range []struct {
		want   uint8
		column string
	}{{wantVisitors, "user_id"}, {wantVisits, "session_id"}} {
		if b.wanted&counted.want == 0 {
			merged = append(merged, "toUInt64(0)")
			continue
		}
		keys = append(keys, counted.column)
		states = append(states, fmt.Sprintf("uniqState(m.%[1]s) AS %[1]ss", counted.column))
		merged = append(merged, fmt.Sprintf("uniqMerge(s.%ss) OVER later", counted.column))
	}
	by := strings.Join(keys, ", ")
	statement := fmt.Sprintf(`
		SELECT s.site, s.start, %s, max(s.last) OVER later
		FROM (
			SELECT %s
			FROM (
				SELECT %s, max(at) AS at
				FROM (%s
				)
				GROUP BY %s
			) AS m
			ASOF INNER JOIN windows AS w ON m.site_id = w.site_id AND m.at >= w.from_time
			GROUP BY site, start
		) AS s
		WINDOW later AS (PARTITION BY s.site ORDER BY s.start DESC)`,
		strings.Join(merged, ", "), strings.Join(append([]string{"m.site_id AS site, w.from_time AS start, max(m.at) AS last"}, states...), ", "),
		by, b.scan(b.eventsOf(keys...)), by)
	bySite := map[int64][]measured{}
	err := b.ask(ctx, "visitors", statement, func(rows driver.Rows) error {
		var site uint64
		var m measured
		if err := rows.Scan(&site, &m.start, &m.visitors, &m.visits, &m.last); err != nil {
			return err
		}
		bySite[int64(site)] = append(bySite[int64(site)], m)
		return nil
	})
	if err != nil {
		return err
	}
	for _, stretches := range bySite {
		slices.SortFunc(stretches, func(x, y measured) int { return cmp.Compare(x.start, y.start) })
	}
	for no, w := range b.windows {
		stretches := bySite[w.site]
		first, _ := slices.BinarySearchFunc(stretches, w.from, func(m measured, from uint32) int { return cmp.Compare(m.start, from) })
		b.results[no].buckets = stretches[first:min(first+1, len(stretches))] // a stretch in which nothing happened has no row
	}
	return nil
}

// measured is what is counted of the rows e of a window w, in the order in which askWindows reads it.
func (b *batch) measured() string {
	pageviews := "toUInt64(0)"
	if b.wanted&wantPageviews != 0 {
		pageviews = "countIf(e.pageview)"
	}
	return strings.Join([]string{
		b.aggregate(wantVisitors, "uniq%s(e.user_id%s)", "toUInt64(0)"),
		b.aggregate(wantVisits, "uniq%s(e.session_id%s)", "toUInt64(0)"),
		pageviews,
		"count()",
		"max(e.at)",
		b.aggregate(wantFingerprints, fmt.Sprintf("groupArray%%s(%d)(e.fingerprint%%s)", trigger.FingerprintCap), "emptyArrayUInt64()"),
	}, ", ")
}

func (e *Events) askWindows(ctx context.Context, b *batch) error {
	read := b.eventsOf()
	read.layered = true
	statement := fmt.Sprintf(`
		SELECT w.no AS no, toUInt32(%s) AS bucket, %s%s
		GROUP BY no, bucket`, b.bucket("e.at"), b.measured(), b.rows(read))
	return b.ask(ctx, "windows", statement, func(rows driver.Rows) error {
		var no uint32
		var m measured
		if err := rows.Scan(&no, &m.start, &m.visitors, &m.visits, &m.pageviews, &m.events, &m.last, &m.fingerprints); err != nil {
			return err
		}
		slices.Sort(m.fingerprints)
		b.results[no].buckets = append(b.results[no].buckets, m)
		return nil
	}, b.layerColumns()...)
}
