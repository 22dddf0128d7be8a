package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Condition is what counts as a conversion, and since when.
type Condition struct {
	SiteID int64
	Goal   trigger.Goal // resolved: without an id
	From   time.Time    // inclusive
	// Each asks for the conversions bucket by bucket, with fingerprints to tell them apart;
	// otherwise for one number of the whole window.
	Each bool
}

// Conversions is the answer to a Condition.
type Conversions struct {
	Count    int64 // for a scroll goal, of sessions
	Visitors int64
	Buckets  []trigger.Bucket // with Each: in order of time
}

// awayTime is after how long without reading that far a session counts again for a scroll goal
// with Each: the pause that ends a session in Plausible too.
const awayTime = 30 * time.Minute

// How a path is matched.
const (
	anyPath = iota
	exactPath
	prefixPath
	patternPath
)

// pathCondition translates a goal's page path. A path with * becomes Plausible's anchored
// pattern, in which | stays an alternative; the usual "…*" at the end needs no pattern.
func pathCondition(path string) (kind uint8, text string) {
	switch {
	case path == "":
		return anyPath, ""
	case !strings.Contains(path, "*"):
		return exactPath, path
	case !strings.Contains(path, "|") && strings.Index(path, "*") == len(strings.TrimRight(path, "*")):
		return prefixPath, strings.TrimRight(path, "*")
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(path), `\|`, `|`)
	pattern = strings.ReplaceAll(pattern, `\*\*`, `.*`)
	return patternPath, "^" + strings.ReplaceAll(pattern, `\*`, `.*`) + "$"
}

// noScroll marks a condition that is none of scrolling: greater than every depth.
const noScroll = 101

// conditionsTable has a row for each condition; wanted, where given, holds the fingerprints
// whose conversions are asked for.
func conditionsTable(conditions []Condition, wanted [][]uint64) (*ext.Table, error) {
	table, err := ext.NewTable("conditions",
		ext.Column("no", "UInt32"), ext.Column("site_id", "UInt64"), ext.Column("name", "String"),
		ext.Column("path_kind", "UInt8"), ext.Column("path", "String"), ext.Column("scroll", "UInt8"),
		ext.Column("prop_keys", "Array(String)"), ext.Column("prop_values", "Array(String)"),
		ext.Column("each", "UInt8"), ext.Column("from_time", "UInt32"), ext.Column("read_from", "UInt32"),
		ext.Column("wanted", "Array(UInt64)"))
	if err != nil {
		return nil, fmt.Errorf("table of conditions: %w", err)
	}
	for no, c := range conditions {
		kind, path := pathCondition(c.Goal.PagePath)
		name, scroll := c.Goal.EventName, uint8(noScroll)
		switch {
		case c.Goal.Scroll():
			name, scroll = "engagement", uint8(*c.Goal.ScrollThreshold)
		case name == "":
			name = "pageview"
		}
		keys, values := make([]string, 0, len(c.Goal.CustomProps)), make([]string, 0, len(c.Goal.CustomProps))
		for key, value := range c.Goal.CustomProps {
			keys, values = append(keys, key), append(values, value)
		}
		var each uint8
		if c.Each {
			each = 1
		}
		var fingerprints []uint64
		if wanted != nil {
			fingerprints = wanted[no]
		}
		if err := table.Append(uint32(no), uint64(c.SiteID), name, kind, path, scroll, keys, values,
			each, uint32(c.From.Unix()), uint32(c.readFrom().Unix()), fingerprints); err != nil {
			return nil, fmt.Errorf("table of conditions: %w", err)
		}
	}
	return table, nil
}

// readFrom is where the events that a condition needs begin: a session that already read that
// far before the window is not new in it.
func (c Condition) readFrom() time.Time {
	if c.Each && c.Goal.Scroll() {
		return c.From.Add(-awayTime)
	}
	return c.From
}

// matching selects the events that meet a condition, grouped to what counts once: with "each" a
// row by its fingerprint, for a scroll goal a session, else a visitor. %s is the scroll depth's
// expression and further columns.
const matching = `
	SELECT c.no AS no, any(c.each) AS each, any(c.from_time) AS from_time,
	       multiIf(c.scroll <= 100, e.session_id, c.each = 1, e.fingerprint, e.user_id) AS counted_once,
	       toUnixTimestamp(min(e.timestamp)) AS at,
	       if(any(c.scroll) <= 100, 1, count()) AS n,
	       any(e.user_id) AS user_id%[2]s
	FROM (
		SELECT site_id, name, timestamp, user_id, session_id, pathname, referrer_source, country_code,
		       meta.key AS keys, meta.value AS vals, %[1]s AS depth,
		       cityHash64(timestamp, user_id, session_id, pathname, meta.key, meta.value) AS fingerprint
		FROM events_v2
		WHERE site_id IN (SELECT site_id FROM conditions) AND name IN (SELECT name FROM conditions)
		  AND timestamp >= toDateTime({from:UInt32}) AND timestamp < toDateTime({to:UInt32})
	) AS e
	INNER JOIN conditions AS c ON e.site_id = c.site_id AND e.name = c.name
	WHERE toUnixTimestamp(e.timestamp) >= c.read_from
	  AND multiIf(c.path_kind = 0, true, c.path_kind = 1, e.pathname = c.path, c.path_kind = 2, startsWith(e.pathname, c.path), match(e.pathname, c.path))
	  AND (c.scroll > 100 OR (e.depth <= 100 AND e.depth >= c.scroll))
	  AND arrayAll((k, v) -> has(e.keys, k) AND e.vals[indexOf(e.keys, k)] = v, c.prop_keys, c.prop_values)
	GROUP BY no, counted_once`

func (e *Events) matching(columns string) string {
	depth := "toUInt8(255)" // what a row without the measurement has
	if e.scrollDepth {
		depth = "scroll_depth"
	}
	return fmt.Sprintf(matching, depth, columns)
}

func earliestRead(conditions []Condition) time.Time {
	first := conditions[0].readFrom()
	for _, c := range conditions {
		if from := c.readFrom(); from.Before(first) {
			first = from
		}
	}
	return first
}

// Conversions counts what meets each condition before "to". Buckets are as long as the interval
// and aligned to it, but for the first, which starts at the condition's From. The result has
// the order of the conditions.
func (e *Events) Conversions(ctx context.Context, conditions []Condition, to time.Time, interval time.Duration) ([]Conversions, error) {
	statement := fmt.Sprintf(`
		SELECT no, each, if(each = 1, greatest(intDiv(at, {interval:UInt32}) * {interval:UInt32}, from_time), 0) AS bucket,
		       sum(n), uniq(user_id), groupArray(%d)(if(each = 1, (counted_once, toUInt32(n)), (toUInt64(0), toUInt32(0)))) AS members
		FROM (%s)
		WHERE at >= from_time
		GROUP BY no, each, bucket
		ORDER BY no, bucket`, trigger.FingerprintCap, e.matching(""))
	table, err := conditionsTable(conditions, nil)
	if err != nil {
		return nil, err
	}
	parameters := span(earliestRead(conditions), to)
	parameters["interval"] = fmt.Sprint(int(interval.Seconds()))
	answers := make([]Conversions, len(conditions))
	err = e.query(ctx, "conversions", []*ext.Table{table}, statement, parameters, func(rows driver.Rows) error {
		var no uint32
		var each uint8
		var bucket, n, visitors uint64
		var members [][]any
		if err := rows.Scan(&no, &each, &bucket, &n, &visitors, &members); err != nil {
			return err
		}
		answer := &answers[no]
		answer.Count += int64(n)
		answer.Visitors += int64(visitors)
		if each == 1 {
			answer.Buckets = append(answer.Buckets, trigger.Bucket{
				Start: time.Unix(int64(bucket), 0).UTC(), Count: int64(n), Fingerprints: fingerprints(members),
			})
		}
		return nil
	})
	return answers, err
}

// fingerprints repeats each member as often as it occurs, up to the cap.
func fingerprints(members [][]any) []uint64 {
	var all []uint64
	for _, member := range members {
		fingerprint, times := member[0].(uint64), member[1].(uint32)
		for range times {
			if len(all) == trigger.FingerprintCap {
				break
			}
			all = append(all, fingerprint)
		}
	}
	slices.Sort(all)
	return all
}

// ListedConversions is how many conversions a firing lists.
const ListedConversions = 10

// Conversion is one conversion, as its event has it.
type Conversion struct {
	At      time.Time
	Page    string
	Source  string
	Country string
	Props   map[string]string
}

// List reads the conversions with the wanted fingerprints, the newest first, up to
// ListedConversions for each condition.
func (e *Events) List(ctx context.Context, conditions []Condition, wanted [][]uint64, to time.Time) ([][]Conversion, error) {
	statement := fmt.Sprintf(`
		SELECT no, at, counted_once, page, source, country, keys, vals
		FROM (%s)
		WHERE has(wanted, counted_once) AND at >= from_time
		ORDER BY no, at DESC, counted_once
		LIMIT %d BY no`, e.matching(`,
	       any(c.wanted) AS wanted,
	       argMin(e.pathname, e.timestamp) AS page, argMin(e.referrer_source, e.timestamp) AS source,
	       toString(argMin(e.country_code, e.timestamp)) AS country,
	       argMin(e.keys, e.timestamp) AS keys, argMin(e.vals, e.timestamp) AS vals`), ListedConversions)
	table, err := conditionsTable(conditions, wanted)
	if err != nil {
		return nil, err
	}
	lists := make([][]Conversion, len(conditions))
	err = e.query(ctx, "list", []*ext.Table{table}, statement, span(earliestRead(conditions), to), func(rows driver.Rows) error {
		var no, at uint32
		var fingerprint uint64
		var c Conversion
		var keys, values []string
		if err := rows.Scan(&no, &at, &fingerprint, &c.Page, &c.Source, &c.Country, &keys, &values); err != nil {
			return err
		}
		c.At = time.Unix(int64(at), 0).UTC()
		c.Country = strings.Trim(c.Country, "\x00") // unknown is two NUL bytes
		for i, key := range keys {
			if c.Props == nil {
				c.Props = map[string]string{}
			}
			c.Props[key] = values[i]
		}
		for _, f := range wanted[no] { // equal rows of one second share a fingerprint: each is listed
			if f == fingerprint && len(lists[no]) < ListedConversions {
				lists[no] = append(lists[no], c)
			}
		}
		return nil
	})
	return lists, err
}
