package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// batch is the questions of one query, each as a window of an external table: of a site, with what
// events must be to count in it. One join of the rows with that table answers them all; a second one,
// which would send what windows have in common once, costs more to plan than it saves.
type batch struct {
	events  *Events
	slot    time.Time
	visits  bool // it is of visits, not of events
	goals   goalSet
	filters filterSet

	windows  []window
	windowNo map[window]uint32
	results  []result // of the windows
	reads    []siteSpan
	spans    [kinds][depths][]span // of the sites of each depth
	depthOf  map[siteKind]depth
	wanted   uint8 // what any window wants
	common   uint8 // what all want
}

// window is comparable: equal ones are measured once.
type window struct {
	site         int64
	goal, filter uint32
	from, to     uint32
	// Buckets are step seconds long and start at multiples of it, phase seconds later; the first one
	// starts at from. One bucket has all where step is unbroken.
	step, phase uint32
	by          uint8 // rankings: what of
	least       int64
}

// kind is whether windows have a goal.
type kind uint8

const (
	anyEvent kind = iota
	ofGoal
	kinds
)

type siteKind struct {
	site int64
	kind kind
}

func (w window) siteKind() siteKind {
	k := siteKind{w.site, anyEvent}
	if w.goal > 0 {
		k.kind = ofGoal
	}
	return k
}

// depth is how far back a site's rows are read, as deep as its deepest window needs. Rows of the last minutes
// lie in small parts of the table that are found by their time, those of a day in the day's part of the primary
// key; one deep window must not make the scan deep for other sites.
type depth uint8

const (
	minutes depth = iota
	hours
	day
	older
	depths
)

func depthOf(readFrom uint32, slot time.Time) depth {
	switch back := slot.Unix() - int64(readFrom); {
	case back <= 15*60:
		return minutes
	case back <= 2*3600:
		return hours
	case back <= 24*3600:
		return day
	}
	return older
}

const unbroken = math.MaxUint32

// What is measured of a window, as bits.
const (
	wantVisitors uint8 = 1 << iota
	wantVisits
	wantPageviews
	wantEvents
	wantLast
	wantFingerprints
)

// result is what was measured of a window.
type result struct {
	wants   uint8
	buckets []measured // where step is unbroken, at most one
	visits  visits
	ranking []trigger.Ranked
	more    int
	cells   []Cell
}

// measured is what was counted in a bucket.
type measured struct {
	start, last                         uint32
	visitors, visits, pageviews, events uint64
	fingerprints                        []uint64
}

func newBatch(e *Events, slot time.Time) *batch {
	return &batch{events: e, slot: slot, windowNo: map[window]uint32{}, common: math.MaxUint8}
}

// expect makes room for so many windows at once: to grow step by step was most of what add took.
func (b *batch) expect(windows int) {
	b.windows, b.results, b.reads = make([]window, 0, windows), make([]result, 0, windows), make([]siteSpan, 0, windows)
	b.windowNo = make(map[window]uint32, windows)
}

// add makes sure that the window is measured. Events from readFrom on are needed for it, the same for equal
// windows of a batch.
func (b *batch) add(q Question, readFrom uint32, w window, wants uint8) uint32 {
	w.site, w.goal, w.filter = q.SiteID, b.goals.add(q.Goal), b.filters.add(b.events, q.Filters, b.visits)
	no, known := b.windowNo[w]
	if !known {
		b.reads = append(b.reads, siteSpan{w.siteKind(), span{readFrom, w.to}})
		no = uint32(len(b.windows))
		b.windowNo[w] = no
		b.windows, b.results = append(b.windows, w), append(b.results, result{})
	}
	b.results[no].wants |= wants
	b.wanted |= wants
	return no
}

// settle is called before the query, when all windows and wants are known.
func (b *batch) settle() {
	for _, r := range b.results {
		b.common &= r.wants
	}
	b.depthOf = make(map[siteKind]depth, len(b.reads))
	for _, r := range b.reads {
		b.depthOf[r.siteKind] = max(b.depthOf[r.siteKind], depthOf(r.from, b.slot))
	}
	for _, r := range b.reads {
		d := b.depthOf[r.siteKind]
		b.spans[r.kind][d] = append(b.spans[r.kind][d], r.span)
	}
}

// aggregate fills in a form such as "uniq%s(e.user_id%s)": as it is if every window wants it, with
// a condition if some do. What none wants costs nothing.
func (b *batch) aggregate(want uint8, form, none string) string {
	switch {
	case b.wanted&want == 0:
		return none
	case b.common&want != 0:
		return fmt.Sprintf(form, "", "")
	}
	return fmt.Sprintf(form, "If", fmt.Sprintf(", bitAnd(w.wants, %d) != 0", want))
}

// bucket is the expression of the bucket's start, a constant where it is no question.
func (b *batch) bucket(at string) string {
	for _, w := range b.windows {
		if w.step != unbroken {
			return fmt.Sprintf("greatest(%[1]s - (%[1]s - w.phase) %% w.step, w.from_time)", at)
		}
	}
	return "0"
}

// reading is how rows are read for a batch.
type reading struct {
	table   string
	columns []string                  // that the scan reads besides those that goals and filters look at
	where   string                    // on the scanned rows
	bound   func(spans []span) string // that a row is in one of the spans, or near
	within  string                    // on e, a row, and w, a window: that the row is in its time
}

// rows is the part of a statement that has each row e of each window w. It ends within WHERE.
func (b *batch) rows(r reading) string {
	columns, conditions := append([]string{"site_id"}, r.columns...), []string{r.within}
	on := "e.site_id = w.site_id"
	if b.goals.any() {
		more, condition := b.goals.condition(b.events)
		columns, conditions = append(columns, more...), append(conditions, condition...)
		on += " AND e.as_name = w.name"
	}
	if b.filters.any() {
		columns, conditions = append(columns, b.filters.columns()...), append(conditions, b.filters.condition())
		if b.filters.asks() {
			columns = append(columns, "session_id")
		}
	}
	slices.Sort(columns)
	r.columns = slices.Compact(columns)
	return fmt.Sprintf(`
		FROM (%s
		) AS e
		INNER JOIN windows AS w ON %s
		WHERE %s`, b.scan(r), on, strings.Join(conditions, " AND "))
}

// asName is the name under which a row is joined with the windows of a kind: every one with those of any event.
var asName = [kinds]string{anyEvent: "''", ofGoal: "CAST(name AS String)"}

// scan reads the sites of each kind and depth by themselves: ClickHouse leaves out what lies in other times only where
// one time holds for all sites. But the last two hours are read once, for both kinds: to plan a scan costs
// ClickHouse 8 ms, and what is read too much is thrown away before it is joined.
func (b *batch) scan(r reading) string {
	var scans []string
	scan := func(name, where string) {
		columns := r.columns
		if b.goals.any() {
			columns = append(slices.Clone(columns), name+" AS as_name")
		}
		scans = append(scans, fmt.Sprintf(`
			SELECT %s FROM %s WHERE %s`, strings.Join(columns, ", "), r.table, where))
	}
	rows := [kinds]string{anyEvent: r.where, ofGoal: "name IN (SELECT name FROM windows)"}
	var shallow [kinds]string // that a row is one of the last two hours
	var recent []span
	for k := range kinds {
		near, far := b.spans[k][minutes], b.spans[k][hours]
		if len(near)+len(far) == 0 {
			continue
		}
		shallow[k] = fmt.Sprintf("%s AND %s", b.sites(k, "<=", hours), rows[k])
		if len(near) > 0 && len(far) > 0 {
			shallow[k] += fmt.Sprintf(" AND (%s OR %s)", r.bound(near), b.sites(k, "=", hours))
		}
		recent = slices.Concat(recent, near, far)
	}
	if shallow[anyEvent] != "" && shallow[ofGoal] != "" {
		name := fmt.Sprintf("arrayJoin(arrayConcat(if(%s, [%s], emptyArrayString()), if(%s, [%s], emptyArrayString())))",
			shallow[anyEvent], asName[anyEvent], shallow[ofGoal], asName[ofGoal])
		scan(name, fmt.Sprintf("site_id IN (SELECT site_id FROM windows WHERE depth <= %d) AND %s", hours, r.bound(recent)))
	} else {
		for k, where := range shallow {
			if where != "" {
				scan(asName[k], fmt.Sprintf("%s AND %s", where, r.bound(recent)))
			}
		}
	}
	for k := range kinds {
		for d := day; d < depths; d++ {
			if spans := b.spans[k][d]; len(spans) > 0 {
				scan(asName[k], fmt.Sprintf("%s AND %s AND %s", b.sites(k, "=", d), rows[k], r.bound(spans)))
			}
		}
	}
	return strings.Join(scans, " UNION ALL ")
}

// sites is that a row is of a site with windows of the kind and depth.
func (b *batch) sites(k kind, operator string, d depth) string {
	ofKind := ""
	if b.goals.any() {
		ofKind = [kinds]string{anyEvent: " AND name = ''", ofGoal: " AND name != ''"}[k]
	}
	return fmt.Sprintf("site_id IN (SELECT site_id FROM windows WHERE depth %s %d%s)", operator, d, ofKind)
}

// table is the windows, with more columns where a family needs them.
func (b *batch) table(more ...column) (*ext.Table, error) {
	columns := []column{
		{"no", "UInt32", func(no int) any { return uint32(no) }},
		{"site_id", "UInt64", func(no int) any { return uint64(b.windows[no].site) }},
		{"from_time", "UInt32", func(no int) any { return b.windows[no].from }},
		{"to_time", "UInt32", func(no int) any { return b.windows[no].to }},
		{"wants", "UInt8", func(no int) any { return b.results[no].wants }},
		{"step", "UInt32", func(no int) any { return b.windows[no].step }},
		{"phase", "UInt32", func(no int) any { return b.windows[no].phase }},
		{"depth", "UInt8", func(no int) any { return uint8(b.depthOf[b.windows[no].siteKind()]) }},
	}
	if b.goals.any() {
		columns = append(columns, b.goals.held(func(no int) uint32 { return b.windows[no].goal })...)
	}
	if b.filters.any() {
		columns = append(columns, b.filters.held(func(no int) uint32 { return b.windows[no].filter })...)
	}
	return externalTable("windows", len(b.windows), append(columns, more...))
}

// column is one of an external table: its name, its type, and its value in a row.
type column struct {
	name, kind string
	of         func(no int) any
}

// externalTable has so many rows of these columns.
func externalTable(name string, rows int, columns []column) (*ext.Table, error) {
	kinds := make([]func(*ext.Table) error, len(columns))
	for i, c := range columns {
		kinds[i] = ext.Column(c.name, chcolumn.Type(c.kind))
	}
	table, err := ext.NewTable(name, kinds...)
	row := make([]any, len(columns))
	for no := 0; no < rows && err == nil; no++ {
		for i, c := range columns {
			row[i] = c.of(no)
		}
		err = table.Append(row...)
	}
	if err != nil {
		return nil, fmt.Errorf("external table of %s: %w", name, err)
	}
	return table, nil
}

// ask runs a statement on the batch's windows.
func (b *batch) ask(ctx context.Context, family, statement string, scan func(driver.Rows) error, more ...column) error {
	table, err := b.table(more...)
	if err != nil {
		return err
	}
	return b.events.query(ctx, family, []*ext.Table{table}, b.withVisits(statement), scan)
}

// fewSpans is how many spans of time a scan is bounded by: the statement must not grow with the
// triggers, and a time in which a few windows have no interest costs little.
const fewSpans = 4

// times is the condition that an event is in one of the spans, or of a few that cover them.
func times(spans []span) string {
	parts := make([]string, 0, fewSpans)
	for _, s := range covering(spans) {
		parts = append(parts, fmt.Sprintf("timestamp >= toDateTime(%d) AND timestamp < toDateTime(%d)", s.from, s.to))
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

// span is half-open.
type span struct{ from, to uint32 }

type siteSpan struct {
	siteKind
	span
}

// covering is a few spans that cover all the given ones.
func covering(spans []span) []span {
	slices.SortFunc(spans, func(x, y span) int { return cmp.Compare(x.from, y.from) })
	var gaps []span
	end := spans[0].to
	for _, s := range spans {
		if s.from > end {
			gaps = append(gaps, span{end, s.from})
		}
		end = max(end, s.to)
	}
	slices.SortFunc(gaps, func(x, y span) int { return cmp.Compare(y.to-y.from, x.to-x.from) })
	gaps = gaps[:min(len(gaps), fewSpans-1)]
	slices.SortFunc(gaps, func(x, y span) int { return cmp.Compare(x.from, y.from) })
	covers, from := make([]span, 0, fewSpans), spans[0].from
	for _, gap := range gaps {
		covers, from = append(covers, span{from, gap.from}), gap.to
	}
	return append(covers, span{from, end})
}
