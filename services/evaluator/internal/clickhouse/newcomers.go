package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Candidate is a value of a dimension that may be new to its site.
type Candidate struct {
	SiteID    int64
	Dimension trigger.Dimension
	Value     string
	Since     time.Time // rows before do not count
}

// FirstSeen tells when each candidate was first seen; zero: never.
func (e *Events) FirstSeen(ctx context.Context, candidates []Candidate) ([]time.Time, error) {
	first := make([]time.Time, len(candidates))
	statement := e.eachDimension(len(candidates), func(no int) (trigger.Dimension, time.Time) { return candidates[no].Dimension, candidates[no].Since },
		func(of uint8, rows string) string {
			return fmt.Sprintf(`
		SELECT a.no AS no, '' AS value, toUInt32(min(r.at)) AS first
		FROM (%[2]s WHERE value IN (SELECT value FROM asked WHERE of = %[1]d)
		) AS r
		INNER JOIN asked AS a ON r.site_id = a.site_id AND r.value = a.value
		WHERE a.of = %[1]d AND r.at >= a.from_time
		GROUP BY no`, of, rows)
		})
	if statement == "" {
		return first, nil
	}
	asked, err := externalTable("asked", len(candidates), append(
		askedColumns(func(no int) History { c := candidates[no]; return History{c.SiteID, c.Dimension, c.Since} }),
		columnOf("value", "String", func(no int) string { return candidates[no].Value })))
	if err != nil {
		return nil, err
	}
	err = e.query(ctx, "first seen", []*ext.Table{asked}, statement, func(rows driver.Rows) error {
		return scanSeen(rows, func(no uint32, _ string, at time.Time) { first[no] = at })
	})
	return first, err
}

// History is a span of a site's values of a dimension.
type History struct {
	SiteID    int64
	Dimension trigger.Dimension
	From      time.Time // rows before do not count
}

// Values calls each for every value that one of the histories has before "to", with when it was first
// seen in it.
func (e *Events) Values(ctx context.Context, histories []History, to time.Time, each func(no int, value string, first time.Time)) error {
	statement := e.eachDimension(len(histories), func(no int) (trigger.Dimension, time.Time) { return histories[no].Dimension, histories[no].From },
		func(of uint8, rows string) string {
			return fmt.Sprintf(`
		SELECT a.no AS no, toString(r.value) AS value, toUInt32(min(r.at)) AS first
		FROM (%[2]s WHERE value != ''
		) AS r
		INNER JOIN asked AS a ON r.site_id = a.site_id
		WHERE a.of = %[1]d AND r.at >= a.from_time AND r.at < %[3]d
		GROUP BY no, value`, of, rows, seconds(to))
		})
	if statement == "" {
		return nil
	}
	asked, err := externalTable("asked", len(histories), askedColumns(func(no int) History { return histories[no] }))
	if err != nil {
		return err
	}
	return e.query(ctx, "values", []*ext.Table{asked}, statement, func(rows driver.Rows) error {
		return scanSeen(rows, func(no uint32, value string, first time.Time) { each(int(no), value, first) })
	})
}

func askedColumns(of func(no int) History) []column {
	return []column{
		columnOf("no", "UInt32", func(no int) uint32 { return uint32(no) }),
		columnOf("site_id", "UInt64", func(no int) uint64 { return uint64(of(no).SiteID) }),
		columnOf("of", "UInt8", func(no int) uint8 { return rankedBy[of(no).Dimension] }),
		columnOf("from_time", "UInt32", func(no int) uint32 { return seconds(of(no).From) }),
	}
}

func scanSeen(rows driver.Rows, seen func(no uint32, value string, first time.Time)) error {
	var no, first uint32
	var value string
	if err := rows.Scan(&no, &value, &first); err != nil {
		return err
	}
	seen(no, value, instant(first))
	return nil
}

// eachDimension is a statement with a part for each dimension that is asked for: a part reads that
// dimension's column alone, which matters where it reads all history. Entry pages are those of visits,
// by their start.
func (e *Events) eachDimension(count int, asked func(no int) (trigger.Dimension, time.Time), part func(of uint8, rows string) string) string {
	var dimensions []trigger.Dimension
	earliest := map[trigger.Dimension]time.Time{}
	for no := range count {
		dimension, from := asked(no)
		before, known := earliest[dimension]
		if !known {
			dimensions = append(dimensions, dimension)
		}
		if !known || from.Before(before) {
			earliest[dimension] = from
		}
	}
	var parts []string
	for _, dimension := range dimensions {
		of, from := rankedBy[dimension], seconds(earliest[dimension])
		sites := fmt.Sprintf("site_id IN (SELECT site_id FROM asked WHERE of = %d)", of)
		if of == ofEntryPage {
			if e.sessions {
				parts = append(parts, part(of, fmt.Sprintf(`
			SELECT site_id, toUnixTimestamp(start) AS at, entry_page AS value
			FROM (SELECT site_id, start, entry_page FROM sessions_v2 WHERE %s AND start >= toDateTime(%d))`, sites, from)))
			}
			continue
		}
		for _, r := range ranked {
			if r.of == of {
				parts = append(parts, part(of, fmt.Sprintf(`
			SELECT e.site_id AS site_id, toUnixTimestamp(e.timestamp) AS at, %s AS value
			FROM (SELECT site_id, timestamp, %s FROM events_v2 WHERE %s AND timestamp >= toDateTime(%d) AND name != 'engagement') AS e`,
					r.value, strings.Join(r.columns, ", "), sites, from)))
			}
		}
	}
	return strings.Join(parts, " UNION ALL ")
}
