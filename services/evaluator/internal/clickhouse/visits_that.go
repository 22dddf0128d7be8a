package clickhouse

import (
	"fmt"
	"slices"
	"strings"
)

// longestStay is how long before a window a visit can have begun for what it did then to be known: also a
// bound for the scan.
const longestStay = 24 * 3600

// visitsThat joins to each row e of a window w its visit v, with the numbers of what it meets of all that the window's filters
// ask of visits. It is made by one more scan of the sites that need it, however many filters ask, and it is named once:
// ClickHouse plans a table as often as a statement names it, and with a hundred filters planning took seconds.
func (b *batch) visitsThat() string {
	var parts []string
	if part := b.askedOf(true, ""); part != "" {
		parts = append(parts, part)
	}
	// States of a visit that were taken back cancel out.
	if part := b.askedOf(false, "GROUP BY no, ask, visit HAVING sum(e.sign) > 0"); part != "" {
		parts = append(parts, part)
	}
	return fmt.Sprintf("LEFT JOIN (SELECT no, visit, groupUniqArray(ask) AS asks FROM (%s\n) GROUP BY no, visit) AS v ON w.no = v.no AND e.session_id = v.visit", strings.Join(parts, " UNION ALL "))
}

// askedOf is the part of events, or of visits' states; empty: nothing is asked of them.
func (b *batch) askedOf(events bool, group string) string {
	var shapes []string
	asking := make([]bool, len(b.filters.shapes))
	columns := []string{"site_id", "session_id"}
	for shape, c := range b.filters.shapes {
		for _, a := range c.asks {
			if a.events == events {
				asking[shape], columns = true, append(columns, a.columns...)
			}
		}
		if asking[shape] {
			shapes = append(shapes, fmt.Sprint(shape))
		}
	}
	if len(shapes) == 0 {
		return ""
	}
	asked := b.filters.pick(func(c *compiled) string {
		var conditions []string
		for no, a := range c.asks {
			switch {
			case a.events != events:
			case a.inWindow:
				conditions = append(conditions, fmt.Sprintf("if(%s AND e.at >= w.from_time, %d, 0)", a.condition, no+1))
			default:
				conditions = append(conditions, fmt.Sprintf("if(%s, %d, 0)", a.condition, no+1))
			}
		}
		if len(conditions) == 0 {
			return ""
		}
		return "[" + strings.Join(conditions, ", ") + "]"
	}, "emptyArrayUInt8()")
	var spans []span
	for _, w := range b.windows {
		if asking[b.filters.shapeOf[w.filter]] {
			spans = append(spans, span{w.from - min(w.from, longestStay), w.to})
		}
	}
	read := reading{table: "events_v2", bound: times, within: "e.at < w.to_time", columns: []string{"toUnixTimestamp(timestamp) AS at"}}
	if !events {
		read = b.visitsOf("sign")
		read.within = "e.started < w.to_time"
	}
	columns = append(columns, read.columns...)
	slices.Sort(columns)
	return fmt.Sprintf(`
		SELECT w.no AS no, arrayJoin(arrayFilter(a -> a > 0, %s)) AS ask, e.session_id AS visit
		FROM (SELECT %s FROM %s WHERE site_id IN (SELECT site_id FROM windows WHERE %[4]s) AND %[5]s) AS e
		INNER JOIN windows AS w ON e.site_id = w.site_id
		WHERE w.%[4]s AND %[6]s AND e.at + %[7]d >= w.from_time
		%[8]s`,
		asked, strings.Join(slices.Compact(columns), ", "), read.table, "shape IN ("+strings.Join(shapes, ", ")+")", read.bound(spans), read.within, longestStay, group)
}
