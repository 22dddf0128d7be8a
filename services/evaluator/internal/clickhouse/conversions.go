package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
	properties   uint8  // how many
	keys, values string // lists
}

// goalSet is the distinct goals of one query. Its first is none: any event.
type goalSet struct {
	pointers map[*trigger.Goal]uint32 // most questions share a trigger's goal
	nos      map[trigger.GoalKey]uint32
	list     []goal
}

func (s *goalSet) any() bool { return len(s.list) > 1 }

func (s *goalSet) add(g *trigger.Goal) uint32 {
	if len(s.list) == 0 {
		s.list = []goal{{scroll: noScroll}}
	}
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
	made := goal{name: g.EventName, pathKind: kind, path: path, scroll: noScroll}
	switch {
	case g.Scroll():
		made.name, made.scroll = "engagement", uint8(*g.ScrollThreshold)
	case g.EventName == "":
		made.name = "pageview"
	}
	keys := slices.Sorted(maps.Keys(g.CustomProps))
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = g.CustomProps[key]
	}
	made.properties, made.keys, made.values = uint8(len(keys)), packedList(keys), packedList(values)
	return made
}

// condition is on e, an event with the goal's name, and w, and needs these columns of events. What no
// goal has is not looked at, nor held.
func (s *goalSet) condition(e *Events) (columns, conditions []string) {
	if s.paths() {
		columns = append(columns, "pathname")
		conditions = append(conditions, fmt.Sprintf("multiIf(w.path_kind = %d, 1, w.path_kind = %d, e.pathname = w.path, w.path_kind = %d, startsWith(e.pathname, w.path), match(e.pathname, w.path))",
			anyPath, exactPath, prefixPath))
	}
	if s.scrolls() {
		columns = append(columns, e.scrollDepth()+" AS scrolled")
		conditions = append(conditions, "(w.scroll > 100 OR (e.scrolled <= 100 AND e.scrolled >= w.scroll))")
	}
	if s.properties() {
		columns = append(columns, "meta.key AS prop_keys", "meta.value AS prop_values")
		conditions = append(conditions, fmt.Sprintf("(w.properties = 0 OR arrayAll((k, v) -> has(e.prop_keys, k) AND e.prop_values[indexOf(e.prop_keys, k)] = v, %s, %s))",
			unpackedList("w.keys"), unpackedList("w.texts")))
	}
	return columns, conditions
}

// scrollDepth is the column of how far was read, or what rows without the measurement have.
func (e *Events) scrollDepth() string {
	if e.has("events_v2", "scroll_depth") {
		return "scroll_depth"
	}
	return "toUInt8(255)"
}

func (s *goalSet) paths() bool {
	return slices.ContainsFunc(s.list, func(g goal) bool { return g.pathKind != anyPath })
}

func (s *goalSet) scrolls() bool {
	return slices.ContainsFunc(s.list, func(g goal) bool { return g.scroll != noScroll })
}

func (s *goalSet) properties() bool {
	return slices.ContainsFunc(s.list, func(g goal) bool { return g.properties > 0 })
}

// held is the goals as columns of windows, whose goal goalOf tells.
func (s *goalSet) held(goalOf func(no int) uint32) []column {
	of := func(no int) *goal { return &s.list[goalOf(no)] }
	columns := []column{columnOf("name", "String", func(no int) string { return of(no).name })}
	if s.paths() {
		columns = append(columns, columnOf("path_kind", "UInt8", func(no int) uint8 { return of(no).pathKind }), columnOf("path", "String", func(no int) string { return of(no).path }))
	}
	if s.scrolls() {
		columns = append(columns, columnOf("scroll", "UInt8", func(no int) uint8 { return of(no).scroll }))
	}
	if s.properties() {
		columns = append(columns, columnOf("properties", "UInt8", func(no int) uint8 { return of(no).properties }),
			columnOf("keys", "String", func(no int) string { return of(no).keys }), columnOf("texts", "String", func(no int) string { return of(no).values }))
	}
	return columns
}

// awaySeconds is after how long without reading that far a session counts again for a scroll goal
// in buckets: the pause that ends a session in Plausible too.
const awaySeconds = 30 * 60

// sinceAway is that a row is in the time of a window of scrolling.
var sinceAway = fmt.Sprintf("e.at + %d >= w.from_time AND e.at < w.to_time", awaySeconds)

// askScrolls finds the sessions that reached a scroll goal: when first, since awaySeconds before the
// window. A session that already read that far before the window is not new in it.
func (e *Events) askScrolls(ctx context.Context, b *batch) error {
	b.wanted |= wantVisits
	read := b.eventsOf()
	read.within = sinceAway
	statement := fmt.Sprintf(`
		SELECT w.no AS no, toUInt32(%s) AS bucket, count(), groupArray(%d)(w.session_id)
		FROM (
			SELECT w.no AS no, any(w.from_time) AS from_time, any(w.step) AS step, any(w.phase) AS phase, e.session_id AS session_id, min(e.at) AS first%s
			GROUP BY no, session_id
			HAVING first >= from_time
		) AS w
		GROUP BY no, bucket`, b.bucket("w.first"), trigger.FingerprintCap, b.rows(read))
	return b.ask(ctx, "scrolls", statement, func(rows driver.Rows) error {
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
// to ListedConversions for each question, and no more of a fingerprint than are wanted: where others of the
// same visitor and second were told before, it may be those. It takes one query, and one more for scroll goals.
func (e *Events) List(ctx context.Context, questions []Question, wanted [][]uint64) ([][]Conversion, error) {
	lists := make([][]Conversion, len(questions))
	for _, scroll := range []bool{false, true} {
		b, of := newBatch(e, latest(questions)), []int{}
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
		b.settle()
		if err := e.list(ctx, b, scroll, of, wanted, lists); err != nil {
			return nil, err
		}
	}
	return lists, nil
}

func (e *Events) list(ctx context.Context, b *batch, scroll bool, of []int, wanted [][]uint64, lists [][]Conversion) error {
	read, id := b.eventsOf(), "e.fingerprint"
	read.columns = append(read.columns, "pathname", "meta.key AS prop_keys", "meta.value AS prop_values", "referrer_source", "country_code")
	if scroll {
		read.within, id = sinceAway, "e.session_id"
	}
	// A session reaches its goal once, when it first reads that far. Of other conversions each row is one.
	first, once := "e.at", ""
	value := func(column string) string { return column }
	if scroll {
		first, once = "min(e.at)", "GROUP BY no, id HAVING first >= any(w.from_time)"
		value = func(column string) string { return fmt.Sprintf("argMin(%s, e.at)", column) }
	}
	statement := fmt.Sprintf(`
		SELECT w.no AS no, %[1]s AS id, %[2]s AS first, %[3]s AS page, %[4]s, %[5]s, %[6]s, %[7]s%[8]s AND has(w.wanted, %[1]s)
		%[9]s
		ORDER BY no, first DESC, id, page
		LIMIT %[10]d BY no`,
		id, first, value("e.pathname"), value("e.referrer_source"), value("toString(e.country_code)"), value("e.prop_keys"), value("e.prop_values"),
		b.rows(read), once, trigger.FingerprintCap)
	missing := make([]map[uint64]int, len(b.windows))
	for no, i := range of {
		missing[no] = map[uint64]int{}
		for _, f := range wanted[i] {
			missing[no][f]++
		}
	}
	return b.ask(ctx, "list", statement, func(rows driver.Rows) error {
		var no, at uint32
		var id uint64
		var c Conversion
		var keys, values []string
		if err := rows.Scan(&no, &id, &at, &c.Page, &c.Source, &c.Country, &keys, &values); err != nil {
			return err
		}
		if i := of[no]; missing[no][id] > 0 && len(lists[i]) < ListedConversions {
			missing[no][id]--
			c.At = instant(at)
			c.Country = strings.Trim(c.Country, "\x00") // unknown is two NUL bytes
			for k, key := range keys {
				if c.Props == nil {
					c.Props = map[string]string{}
				}
				c.Props[key] = values[k]
			}
			lists[i] = append(lists[i], c)
		}
		return nil
	}, columnOf("wanted", "Array(UInt64)", func(no int) []uint64 { return wanted[of[no]] }))
}
