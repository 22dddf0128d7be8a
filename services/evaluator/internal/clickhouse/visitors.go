package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// SiteWindow is a span of one site's events. It is comparable: equal ones are asked once.
type SiteWindow struct {
	SiteID   int64
	From, To int64 // Unix seconds; From is inclusive, To is not
}

func earliest(windows []SiteWindow) time.Time {
	first := windows[0].From
	for _, w := range windows {
		first = min(first, w.From)
	}
	return time.Unix(first, 0)
}

func windowsTable(windows []SiteWindow) (*ext.Table, error) {
	table, err := ext.NewTable("windows",
		ext.Column("no", "UInt32"), ext.Column("site_id", "UInt64"), ext.Column("from_time", "UInt32"), ext.Column("to_time", "UInt32"))
	if err != nil {
		return nil, fmt.Errorf("table of windows: %w", err)
	}
	for no, w := range windows {
		if err := table.Append(uint32(no), uint64(w.SiteID), uint32(w.From), uint32(w.To)); err != nil {
			return nil, fmt.Errorf("table of windows: %w", err)
		}
	}
	return table, nil
}

// Visitors counts the unique visitors of each window, as the dashboard's current visitors do:
// uniq(user_id), without engagement rows. The result has the order of the windows; one without
// events has 0.
func (e *Events) Visitors(ctx context.Context, windows []SiteWindow, to time.Time) ([]int64, error) {
	const statement = `
		SELECT w.no, uniq(e.user_id)
		FROM (
			SELECT site_id, user_id, toUnixTimestamp(timestamp) AS at FROM events_v2
			WHERE site_id IN (SELECT site_id FROM windows) AND name != 'engagement'
			  AND timestamp >= toDateTime({from:UInt32}) AND timestamp < toDateTime({to:UInt32})
		) AS e
		INNER JOIN windows AS w ON e.site_id = w.site_id
		WHERE e.at >= w.from_time AND e.at < w.to_time
		GROUP BY w.no`
	table, err := windowsTable(windows)
	if err != nil {
		return nil, err
	}
	visitors := make([]int64, len(windows))
	err = e.query(ctx, "visitors", []*ext.Table{table}, statement, span(earliest(windows), to), func(rows driver.Rows) error {
		var no uint32
		var n uint64
		if err := rows.Scan(&no, &n); err != nil {
			return err
		}
		visitors[no] = int64(n)
		return nil
	})
	return visitors, err
}

// Ranking is a dimension's values with the most visitors.
type Ranking struct {
	Name     string
	Visitors int64
}

// Top is what stood out in a window.
type Top struct {
	Sources []Ranking // without direct traffic
	Pages   []Ranking
}

// Top ranks the sources and pages of each window, five of each, in the order of the windows.
func (e *Events) Top(ctx context.Context, windows []SiteWindow, to time.Time) ([]Top, error) {
	const statement = `
		SELECT no, value.1, value.2, visitors FROM (
			SELECT w.no AS no, arrayJoin([(0, e.referrer_source), (1, if(e.name = 'pageview', e.pathname, ''))]) AS value, uniq(e.user_id) AS visitors
			FROM (
				SELECT site_id, user_id, name, referrer_source, pathname, toUnixTimestamp(timestamp) AS at FROM events_v2
				WHERE site_id IN (SELECT site_id FROM windows) AND name != 'engagement'
				  AND timestamp >= toDateTime({from:UInt32}) AND timestamp < toDateTime({to:UInt32})
			) AS e
			INNER JOIN windows AS w ON e.site_id = w.site_id
			WHERE e.at >= w.from_time AND e.at < w.to_time
			GROUP BY no, value
		)
		WHERE value.2 != ''
		ORDER BY no, visitors DESC, value.2
		LIMIT 5 BY no, value.1`
	table, err := windowsTable(windows)
	if err != nil {
		return nil, err
	}
	tops := make([]Top, len(windows))
	err = e.query(ctx, "top", []*ext.Table{table}, statement, span(earliest(windows), to), func(rows driver.Rows) error {
		var no uint32
		var dimension uint8
		var name string
		var visitors uint64
		if err := rows.Scan(&no, &dimension, &name, &visitors); err != nil {
			return err
		}
		list := &tops[no].Sources
		if dimension == 1 {
			list = &tops[no].Pages
		}
		*list = append(*list, Ranking{Name: name, Visitors: int64(visitors)})
		return nil
	})
	return tops, err
}
