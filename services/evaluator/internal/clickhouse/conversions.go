package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// noScroll marks a goal that is none of scrolling: greater than every depth.
const noScroll = 101

// goal is what an event must be to be a conversion.
type goal struct {
	name         string
	pathKind     uint8
	path         string
	scroll       uint8
	keys, values []string
}

// goalSet is the distinct goals of one query. A batch has a goal in every cohort, or in none.
type goalSet struct {
	pointers map[*trigger.Goal]uint32 // most questions share a trigger's goal
	nos      map[trigger.GoalKey]uint32
	list     []goal
}

func (s *goalSet) any() bool { return len(s.list) > 0 }

func (s *goalSet) add(g *trigger.Goal) uint32 {
	if g == nil {
		return 0
	}
	if no, known := s.pointers[g]; known {
		return no
	}
	if s.nos == nil {
		s.pointers, s.nos = map[*trigger.Goal]uint32{}, map[trigger.GoalKey]uint32{}
	}
	key := g.Key()
	no, known := s.nos[key]
	if !known {
		no = uint32(len(s.list))
		s.nos[key], s.list = no, append(s.list, newGoal(*g))
	}
	s.pointers[g] = no
	return no
}

func newGoal(g trigger.Goal) goal {
	kind, path := pathCondition(g.PagePath)
	made := goal{name: g.EventName, pathKind: kind, path: path, scroll: noScroll, keys: []string{}, values: []string{}}
	switch {
	case g.Scroll():
		made.name, made.scroll = "engagement", uint8(*g.ScrollThreshold)
	case g.EventName == "":
		made.name = "pageview"
	}
	for _, key := range slices.Sorted(maps.Keys(g.CustomProps)) {
		made.keys, made.values = append(made.keys, key), append(made.values, g.CustomProps[key])
	}
	return made
}

// columns are those of the table of goals, g, that condition needs of c.
func (s *goalSet) columns() string {
	return "g.name AS name, g.path_kind AS path_kind, g.path AS path, g.scroll AS scroll, g.keys AS keys, g.texts AS texts"
}

// condition is on e, an event with the goal's name, and c, and needs these columns of events. What no
// goal has is not looked at.
func (s *goalSet) condition(e *Events) (columns []string, condition string) {
	condition = "1"
	if slices.ContainsFunc(s.list, func(g goal) bool { return g.pathKind != anyPath }) {
		columns = append(columns, "pathname")
		condition += fmt.Sprintf(" AND multiIf(c.path_kind = %d, 1, c.path_kind = %d, e.pathname = c.path, c.path_kind = %d, startsWith(e.pathname, c.path), match(e.pathname, c.path))",
			anyPath, exactPath, prefixPath)
	}
	if slices.ContainsFunc(s.list, func(g goal) bool { return g.scroll != noScroll }) {
		depth := "toUInt8(255)" // what a row without the measurement has
		if e.has("events_v2", "scroll_depth") {
			depth = "scroll_depth"
		}
		columns = append(columns, depth+" AS depth")
		condition += " AND (c.scroll > 100 OR (e.depth <= 100 AND e.depth >= c.scroll))"
	}
	if slices.ContainsFunc(s.list, func(g goal) bool { return len(g.keys) > 0 }) {
		columns = append(columns, "meta.key AS prop_keys", "meta.value AS prop_values")
		condition += " AND arrayAll((k, v) -> has(e.prop_keys, k) AND e.prop_values[indexOf(e.prop_keys, k)] = v, c.keys, c.texts)"
	}
	return columns, condition
}

func (s *goalSet) table() (*ext.Table, error) {
	columns := []column{{"goal", "UInt32"}, {"name", "String"}, {"path_kind", "UInt8"}, {"path", "String"}, {"scroll", "UInt8"}, {"keys", "Array(String)"}, {"texts", "Array(String)"}}
	return externalTable("goals", len(s.list), columns, func(no int) []any {
		g := s.list[no]
		return []any{uint32(no), g.name, g.pathKind, g.path, g.scroll, g.keys, g.values}
	})
}

func (e *Events) askConversions(ctx context.Context, b *batch) error {
	return e.measure(ctx, "conversions", b, b.matched(b.eventsOf("1")))
}

// awaySeconds is after how long without reading that far a session counts again for a scroll goal
// in buckets: the pause that ends a session in Plausible too.
const awaySeconds = 30 * 60

// askScrolls finds the sessions that reached a scroll goal: when first, since awaySeconds before the
// window. A session that already read that far before the window is not new in it.
func (e *Events) askScrolls(ctx context.Context, b *batch) error {
	b.wanted |= wantVisits
	statement := fmt.Sprintf(`
		SELECT w.no AS no, toUInt32(%s) AS bucket, count(), groupArray(%d)(r.session_id)
		FROM (
			SELECT w.no AS reached, m.session_id AS session_id, min(m.at) AS first
			FROM (%s
			) AS m
			INNER JOIN windows AS w ON m.cohort = w.cohort
			WHERE m.at + %d >= w.from_time AND m.at < w.to_time
			GROUP BY reached, session_id
		) AS r
		INNER JOIN windows AS w ON r.reached = w.no
		WHERE r.first >= w.from_time
		GROUP BY no, bucket`, b.bucket("r.first"), trigger.FingerprintCap, b.matched(b.eventsOf("1")), awaySeconds)
	tables, err := b.tables(b.windowsTable(nil, nil))
	if err != nil {
		return err
	}
	return e.query(ctx, "scrolls", tables, statement, func(rows driver.Rows) error {
		var no uint32
		var m measured
		if err := rows.Scan(&no, &m.start, &m.events, &m.fingerprints); err != nil {
			return err
		}
		slices.Sort(m.fingerprints)
		b.results[no].buckets = append(b.results[no].buckets, m)
		return nil
	})
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

// List reads the conversions with the wanted fingerprints, which AskEach told, the newest first, up
// to ListedConversions for each question. It takes one query, and one more for scroll goals.
func (e *Events) List(ctx context.Context, questions []Question, wanted [][]uint64) ([][]Conversion, error) {
	lists := make([][]Conversion, len(questions))
	for _, scroll := range []bool{false, true} {
		b, of := newBatch(e), []int{}
		for i, q := range questions {
			w := window{from: seconds(q.Window.From), to: seconds(q.Window.To), step: unbroken, least: int64(i)} // each question a window of its own
			if q.Goal == nil || q.Goal.Scroll() != scroll || e.Lacks(q.Question) != "" || w.from >= w.to {
				continue
			}
			readFrom, wants := w.from, wantFingerprints
			if scroll {
				readFrom, wants = w.from-min(w.from, awaySeconds), wantVisits
			}
			b.add(q, readFrom, w, wants)
			of = append(of, i)
		}
		if len(of) == 0 {
			continue
		}
		if err := e.list(ctx, b, scroll, of, wanted, lists); err != nil {
			return nil, err
		}
	}
	return lists, nil
}

func (e *Events) list(ctx context.Context, b *batch, scroll bool, of []int, wanted [][]uint64, lists [][]Conversion) error {
	table, err := b.windowsTable([]column{{"wanted", "Array(UInt64)"}}, func(no int) []any { return []any{wanted[of[no]]} })
	tables, err := b.tables(table, err)
	if err != nil {
		return err
	}
	read := b.eventsOf("1")
	read.columns = append(read.columns, "pathname", "meta.key AS prop_keys", "meta.value AS prop_values", "referrer_source", "country_code")
	row := "e.pathname AS page, e.referrer_source AS source, toString(e.country_code) AS country, e.prop_keys AS keys, e.prop_values AS texts"
	read.out = append(read.out, row)
	slices.Sort(read.columns)
	read.columns = slices.Compact(read.columns)
	id, times := "fingerprint", "m.at >= w.from_time"
	if scroll {
		id, times = "session_id", fmt.Sprintf("m.at + %d >= w.from_time", awaySeconds)
	}
	statement := fmt.Sprintf(`
		SELECT no, first, id, page, source, country, keys, texts
		FROM (
			SELECT w.no AS no, m.%[1]s AS id, any(w.from_time) AS since, min(m.at) AS first,
			       argMin(m.page, m.at) AS page, argMin(m.source, m.at) AS source, argMin(m.country, m.at) AS country,
			       argMin(m.keys, m.at) AS keys, argMin(m.texts, m.at) AS texts
			FROM (%[2]s
			) AS m
			INNER JOIN windows AS w ON m.cohort = w.cohort
			WHERE %[3]s AND m.at < w.to_time AND has(w.wanted, m.%[1]s)
			GROUP BY no, id
		)
		WHERE first >= since
		ORDER BY no, first DESC, id
		LIMIT %[4]d BY no`, id, b.matched(read), times, ListedConversions)
	return e.query(ctx, "list", tables, statement, func(rows driver.Rows) error {
		var no, at uint32
		var fingerprint uint64
		var c Conversion
		var keys, values []string
		if err := rows.Scan(&no, &at, &fingerprint, &c.Page, &c.Source, &c.Country, &keys, &values); err != nil {
			return err
		}
		c.At = instant(at)
		c.Country = strings.Trim(c.Country, "\x00") // unknown is two NUL bytes
		for i, key := range keys {
			if c.Props == nil {
				c.Props = map[string]string{}
			}
			c.Props[key] = values[i]
		}
		i := of[no]
		for _, f := range wanted[i] { // equal rows of one second share a fingerprint: each is listed
			if f == fingerprint && len(lists[i]) < ListedConversions {
				lists[i] = append(lists[i], c)
			}
		}
		return nil
	})
}
