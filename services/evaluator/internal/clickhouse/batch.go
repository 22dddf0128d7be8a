package clickhouse

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// batch is the questions of one query, each as a window of an external table: of a site, with what
// events must be to count in it. One join of the rows (rows.go) with that table answers them all; a second one,
// which would send what windows have in common once, costs more to plan than it saves.
type batch struct {
	events  *Events
	slot    time.Time
	visits  bool // it is of visits, not of events
	goals   goalSet
	filters filterSet

	windows    []window
	windowNo   map[window]uint32
	results    []result       // of the windows
	reads      []span         // of each window, the times of the rows that it needs
	spans      [layers][]span // of each scan
	shallowest layer          // scan; windows that are not as deep are read by it
	named      [layers]bool   // some windows of the scan have a goal
	nameless   [layers]bool   // some have none
	wanted     uint8          // what any window wants
	common     uint8          // what all want
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
		scan := b.scanOf(no)
		b.spans[scan] = append(b.spans[scan], r)
		if b.windows[no].goal > 0 {
			b.named[scan] = true
		} else {
			b.nameless[scan] = true
		}
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

// table is the windows, with more columns where a family needs them.
func (b *batch) table(more ...column) (*ext.Table, error) {
	columns := []column{
		columnOf("no", "UInt32", func(no int) uint32 { return uint32(no) }),
		columnOf("site_id", "UInt64", func(no int) uint64 { return uint64(b.windows[no].site) }),
		columnOf("from_time", "UInt32", func(no int) uint32 { return b.windows[no].from }),
		columnOf("to_time", "UInt32", func(no int) uint32 { return b.windows[no].to }),
		columnOf("wants", "UInt8", func(no int) uint8 { return b.results[no].wants }),
		columnOf("step", "UInt32", func(no int) uint32 { return b.windows[no].step }),
		columnOf("phase", "UInt32", func(no int) uint32 { return b.windows[no].phase }),
		columnOf("scan", "UInt8", func(no int) uint8 { return uint8(b.scanOf(no)) }),
	}
	if b.goals.any() {
		columns = append(columns, b.goals.held(func(no int) uint32 { return b.windows[no].goal })...)
	}
	if b.filters.any() {
		columns = append(columns, b.filters.held(func(no int) uint32 { return b.windows[no].filter })...)
	}
	return externalTable("windows", len(b.windows), append(columns, more...))
}

// column is one of an external table: its name, its type, and its values in so many rows.
type column struct {
	name, kind string
	values     func(rows int) any // a slice
}

// columnOf has a value for each row. They are handed over together: one by one, each number would be on the heap for itself.
func columnOf[T any](name, kind string, of func(no int) T) column {
	return column{name, kind, func(rows int) any {
		values := make([]T, rows)
		for no := range values {
			values[no] = of(no)
		}
		return values
	}}
}

// externalTable has so many rows of these columns.
func externalTable(name string, rows int, columns []column) (*ext.Table, error) {
	kinds := make([]func(*ext.Table) error, len(columns))
	for i, c := range columns {
		kinds[i] = ext.Column(c.name, chcolumn.Type(c.kind))
	}
	table, err := ext.NewTable(name, kinds...)
	for i := 0; i < len(columns) && err == nil; i++ {
		_, err = table.Block().Columns[i].Append(columns[i].values(rows))
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
	return b.events.query(ctx, family, []*ext.Table{table}, statement, scan)
}
