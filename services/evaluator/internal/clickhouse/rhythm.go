package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Beat is a minute in which some site had an event: the first and the last of them.
type Beat struct {
	First, Last time.Time
}

// Rhythm is when the sites, taken together, had events after an instant: the minutes in their order,
// and how many sites there were. It reads two columns; a week is at most 10,080 minutes. Events that
// a wrong clock dates in the future are left out.
func (e *Events) Rhythm(ctx context.Context, after time.Time) (beats []Beat, sites int, err error) {
	statement := fmt.Sprintf(`
		SELECT toUnixTimestamp(min(timestamp)), toUnixTimestamp(max(timestamp)), uniq(site_id)
		FROM events_v2
		WHERE timestamp > toDateTime(%[1]d) AND toDate(timestamp) >= toDate(toDateTime(%[1]d)) AND timestamp <= now()
		GROUP BY intDiv(toUnixTimestamp(timestamp), 60) AS minute WITH ROLLUP
		ORDER BY grouping(minute), minute`, max(after.Unix(), 0))
	err = e.query(ctx, "rhythm", nil, statement, func(rows driver.Rows) error {
		var first, last uint32
		var n uint64
		err := rows.Scan(&first, &last, &n)
		beats, sites = append(beats, Beat{First: instant(first), Last: instant(last)}), int(n)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return beats[:max(len(beats)-1, 0)], sites, nil // the last row is the total
}
