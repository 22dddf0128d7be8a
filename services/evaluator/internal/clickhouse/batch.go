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
	reads    []span   // of each window, the times of the rows that it needs
	spans    [scans][]span
	named    [scans]bool // some windows of the scan have a goal
	nameless [scans]bool // some have none
	wanted   uint8       // what any window wants
	common   uint8       // what all want
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

// A layer is rows that are joined with windows by themselves. Rows of the last two hours are read by one scan, in layers by
// how long ago they happened: a window of five minutes does not meet an hour's rows only to refuse them. What reaches
// further back has a scan and a layer of its own, with its rows as new as they may be.
type layer uint8

const (
	minutes layer = iota
	halfHour
	twoHours
	day
	older
)

// recentLayers end so many seconds before the slot.
var recentLayers = [...]int64{minutes: 5 * 60, halfHour: 30 * 60, twoHours: 2 * 3600}

const daySeconds = 24 * 3600

// layerOf is where a row of that time lies, or how deep a window reaches that begins then.
func layerOf(at uint32, slot time.Time) layer {
	back := slot.Unix() - int64(at)
	for l, end := range recentLayers {
		if back <= end {
			return layer(l)
		}
	}
	if back <= daySeconds {
		return day
	}
	return older
}

// scan is how rows are read: one scan has all that is recent, another for each layer below.
type scan uint8

const (
	recentScan scan = iota
	dayScan
	olderScan
	scans
)

func scanOf(l layer) scan { return scan(max(l, twoHours) - twoHours) }

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
	b.windows, b.results, b.reads = make([]window, 0, windows), make([]result, 0, windows), make([]span, 0, windows)
	b.windowNo = make(map[window]uint32, windows)
}

// add makes sure that the window is measured. Events from readFrom on are needed for it, the same for equal
// windows of a batch.
func (b *batch) add(q Question, readFrom uint32, w window, wants uint8) uint32 {
	w.site, w.goal, w.filter = q.SiteID, b.goals.add(q.Goal), b.filters.add(b.events, q.Filters, b.visits)
	no, known := b.windowNo[w]
	if !known {
		b.reads = append(b.reads, span{readFrom, w.to})
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
	for no, r := range b.reads {
		of := scanOf(layerOf(r.from, b.slot))
		b.spans[of] = append(b.spans[of], r)
		if b.windows[no].goal > 0 {
			b.named[of] = true
		} else {
			b.nameless[of] = true
		}
	}
}

// layersOf are those whose rows a window needs.
func (b *batch) layersOf(no int) []uint8 {
	first, last := layerOf(max(b.reads[no].to, 1)-1, b.slot), layerOf(b.reads[no].from, b.slot)
	if last > twoHours {
		return []uint8{uint8(last)}
	}
	var list []uint8
	for l := first; l <= last; l++ {
		list = append(list, uint8(l))
	}
	return list
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
	layered bool                      // worth it where there are many windows
}

// rows is the part of a statement that has each row e of each window w. It ends within WHERE.
func (b *batch) rows(r reading) string {
	windows, on, with, conditions := "windows", "e.site_id = w.site_id", b.scanned, []string{r.within, "e.scan = w.scan"}
	if r.layered {
		windows, on, with = b.layered(), "e.key = w.key", b.layer
		conditions = []string{r.within, "e.site_id = w.site_id", "e.layer = w.layer"}
	}
	if b.goals.any() {
		more, condition := b.goals.condition(b.events)
		r.columns, conditions = append(append(r.columns, "name"), more...), append(append(conditions, "if(w.name = '', e.name != 'engagement', e.name = w.name)"), condition...)
	}
	if b.filters.any() {
		r.columns, conditions = append(r.columns, b.filters.columns()...), append(conditions, b.filters.condition())
		if b.filters.asks() {
			r.columns = append(r.columns, "session_id")
		}
	}
	return fmt.Sprintf(`
		FROM (%s
		) AS e
		INNER JOIN %s AS w ON %s
		WHERE %s`, b.scan(r, with), windows, on, strings.Join(conditions, " AND "))
}

// scanned is what rows of a scan have for the join.
func (b *batch) scanned(s scan) []string { return []string{fmt.Sprintf("toUInt8(%d) AS scan", s)} }

// layered is the windows, each as often as it has layers. What must be equal in rows and windows is hashed to one
// number, which is joined faster than columns, and compared afterwards.
func (b *batch) layered() string {
	key := "cityHash64(site_id, layer)"
	if b.goals.any() {
		key = "cityHash64(site_id, layer, name != '', name)"
	}
	return fmt.Sprintf("(SELECT *, arrayJoin(layers) AS layer, %s AS key FROM windows)", key)
}

// layer is what rows of a scan have for that join. One that windows of any event and of goals look at is there twice.
func (b *batch) layer(s scan) []string {
	l := fmt.Sprintf("toUInt8(%d)", layer(s)+twoHours)
	if s == recentScan {
		l = fmt.Sprintf("multiIf(at >= %d, %d, at >= %d, %d, %d)", b.slot.Unix()-recentLayers[minutes], minutes, b.slot.Unix()-recentLayers[halfHour], halfHour, twoHours)
	}
	const nameless, named = "cityHash64(site_id, layer, 0, '')", "cityHash64(site_id, layer, 1, name)"
	key := fmt.Sprintf("arrayJoin([%s, %s])", nameless, named)
	switch {
	case !b.goals.any():
		key = "cityHash64(site_id, layer)"
	case !b.named[s]:
		key = nameless
	case !b.nameless[s]:
		key = named
	}
	return []string{l + " AS layer", key + " AS key"}
}

// scan reads the rows that windows need, with further columns that may differ by scan.
func (b *batch) scan(r reading, more func(scan) []string) string {
	columns := append([]string{"site_id"}, r.columns...)
	slices.Sort(columns)
	columns = slices.Clip(slices.Compact(columns)) // of each scan the same, in the same places
	var parts []string
	for s, spans := range b.spans {
		if len(spans) == 0 {
			continue
		}
		parts = append(parts, fmt.Sprintf(`
			SELECT %s FROM %s WHERE site_id IN (SELECT site_id FROM windows WHERE scan = %d) AND %s AND %s`,
			strings.Join(append(columns, more(scan(s))...), ", "), r.table, s, b.where(r, scan(s)), r.bound(spans)))
	}
	return strings.Join(parts, " UNION ALL ")
}

// where is which rows of a scan count, in any window.
func (b *batch) where(r reading, s scan) string {
	switch {
	case !b.named[s]:
		return r.where
	case !b.nameless[s]:
		return "name IN (SELECT name FROM windows)"
	case b.goals.scrolls():
		return fmt.Sprintf("(%s OR site_id IN (SELECT site_id FROM windows WHERE name = 'engagement'))", r.where)
	}
	return r.where
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
		{"scan", "UInt8", func(no int) any { return uint8(scanOf(layerOf(b.reads[no].from, b.slot))) }},
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
