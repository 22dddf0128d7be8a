package clickhouse

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/ext"
	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// batch is the questions of one query. They are taken apart into cohorts, the sets of a site's
// events that meet a goal and filters, and windows, the spans of time in which a cohort is measured.
// A filter is so applied once to an event, for however many windows; and what is expensive to send,
// goals and filters, is sent once.
type batch struct {
	events  *Events
	goals   goalSet
	filters filterSet

	cohorts  []cohort
	cohortNo map[cohortKey]uint32
	windows  []window
	windowNo map[window]uint32
	results  []result // of the windows
	reads    []span
	wanted   uint8 // what any window wants
	common   uint8 // what all want
}

type cohortKey struct {
	site         int64
	goal, filter uint32
}

type cohort struct {
	cohortKey
	from, to uint32
}

// window is comparable: equal ones are measured once.
type window struct {
	cohort   uint32
	from, to uint32
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

func newBatch(e *Events) *batch {
	return &batch{events: e, cohortNo: map[cohortKey]uint32{}, windowNo: map[window]uint32{}, common: math.MaxUint8}
}

// add makes sure that the window is measured. Events from readFrom on are needed for it.
func (b *batch) add(q Question, readFrom uint32, w window, wants uint8) uint32 {
	key := cohortKey{site: q.SiteID, goal: b.goals.add(q.Goal), filter: b.filters.add(b.events, q.Filters)}
	c, known := b.cohortNo[key]
	if !known {
		c = uint32(len(b.cohorts))
		b.cohortNo[key] = c
		b.cohorts = append(b.cohorts, cohort{key, readFrom, w.to})
	}
	b.reads = append(b.reads, span{readFrom, w.to})
	b.cohorts[c].from, b.cohorts[c].to = min(b.cohorts[c].from, readFrom), max(b.cohorts[c].to, w.to)
	w.cohort = c
	no, known := b.windowNo[w]
	if !known {
		no = uint32(len(b.windows))
		b.windowNo[w] = no
		b.windows, b.results = append(b.windows, w), append(b.results, result{})
	}
	b.results[no].wants |= wants
	b.wanted |= wants
	return no
}

// settle is called before the query, when all wants are known.
func (b *batch) settle() {
	for _, r := range b.results {
		b.common &= r.wants
	}
}

// plain tells that a cohort is all of a site's events, so that nothing must be matched.
func (b *batch) plain() bool { return !b.goals.any() && !b.filters.any() }

// aggregate fills in a form such as "uniq%s(m.user_id%s)": as it is if every window wants it, with
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
	columns []string // that the scan reads besides the keys
	where   string   // on the scanned rows
	within  string   // on e, a row, and c, a cohort: that the row is in its time
	out     []string // of e
}

// matched selects the rows of each cohort.
func (b *batch) matched(r reading) string {
	if b.plain() {
		return fmt.Sprintf(`
		SELECT %s
		FROM (SELECT site_id, %s FROM %s WHERE site_id IN (SELECT cohort FROM windows) AND %s) AS e`,
			strings.Join(append([]string{"e.site_id AS cohort"}, r.out...), ", "), strings.Join(r.columns, ", "), r.table, r.where)
	}
	columns, conditions := append([]string{"site_id"}, r.columns...), []string{r.within}
	of, join := []string{"k.cohort AS cohort, k.site_id AS site_id, k.from_time AS from_time, k.to_time AS to_time"}, ""
	on := "e.site_id = c.site_id"
	where := "site_id IN (SELECT site_id FROM cohorts) AND " + r.where
	if b.goals.any() {
		columns = append(columns, "name")
		on += " AND e.name = c.name"
		where += " AND name IN (SELECT name FROM goals)"
		join += " INNER JOIN goals AS g ON k.goal = g.goal"
		more, condition := b.goals.condition(b.events)
		columns, of = append(columns, more...), append(of, b.goals.columns())
		conditions = append(conditions, condition)
	}
	if b.filters.any() {
		columns = append(columns, b.filters.columns()...)
		join += " INNER JOIN filters AS f ON k.filter = f.filter"
		of = append(of, "f.shape AS shape, f.vals AS vals")
		conditions = append(conditions, b.filters.condition())
	}
	slices.Sort(columns)
	return fmt.Sprintf(`
		SELECT %s
		FROM (SELECT %s FROM %s WHERE %s) AS e
		INNER JOIN (SELECT %s FROM cohorts AS k%s) AS c ON %s
		WHERE %s`,
		strings.Join(append([]string{"c.cohort AS cohort"}, r.out...), ", "), strings.Join(slices.Compact(columns), ", "), r.table, where,
		strings.Join(of, ", "), join, on, strings.Join(conditions, " AND "))
}

// tables are the external tables that the statement of matched, and windows, name.
func (b *batch) tables(windows *ext.Table, err error) ([]*ext.Table, error) {
	all := []*ext.Table{windows}
	if err != nil || b.plain() {
		return all, err
	}
	makers := []func() (*ext.Table, error){b.cohortsTable}
	if b.goals.any() {
		makers = append(makers, b.goals.table)
	}
	if b.filters.any() {
		makers = append(makers, b.filters.table)
	}
	for _, maker := range makers {
		table, err := maker()
		if err != nil {
			return nil, err
		}
		all = append(all, table)
	}
	return all, nil
}

func (b *batch) cohortsTable() (*ext.Table, error) {
	columns := []column{{"cohort", "UInt64"}, {"site_id", "UInt64"}, {"goal", "UInt32"}, {"filter", "UInt32"}, {"from_time", "UInt32"}, {"to_time", "UInt32"}}
	return externalTable("cohorts", len(b.cohorts), columns, func(no int) []any {
		c := b.cohorts[no]
		return []any{uint64(no), uint64(c.site), c.goal, c.filter, c.from, c.to}
	})
}

type column struct{ name, kind string }

// windowsTable has a row for each window, with more columns where a family needs them. In a plain
// batch a cohort is named by its site.
func (b *batch) windowsTable(more []column, values func(no int) []any) (*ext.Table, error) {
	columns := append([]column{{"no", "UInt32"}, {"cohort", "UInt64"}, {"from_time", "UInt32"}, {"to_time", "UInt32"},
		{"wants", "UInt8"}, {"step", "UInt32"}, {"phase", "UInt32"}}, more...)
	plain, row := b.plain(), make([]any, 0, len(columns))
	return externalTable("windows", len(b.windows), columns, func(no int) []any {
		w := b.windows[no]
		named := uint64(w.cohort)
		if plain {
			named = uint64(b.cohorts[w.cohort].site)
		}
		row = append(row[:0], uint32(no), named, w.from, w.to, b.results[no].wants, w.step, w.phase)
		if values != nil {
			row = append(row, values(no)...)
		}
		return row
	})
}

// externalTable has so many rows of these columns.
func externalTable(name string, rows int, columns []column, row func(no int) []any) (*ext.Table, error) {
	of := make([]func(*ext.Table) error, len(columns))
	for i, c := range columns {
		of[i] = ext.Column(c.name, chcolumn.Type(c.kind))
	}
	table, err := ext.NewTable(name, of...)
	for no := 0; no < rows && err == nil; no++ {
		err = table.Append(row(no)...)
	}
	if err != nil {
		return nil, fmt.Errorf("external table of %s: %w", name, err)
	}
	return table, nil
}

// fewSpans is how many spans of time a scan is bounded by: the statement must not grow with the
// triggers, and a time in which a few windows have no interest costs little.
const fewSpans = 8

// times is the condition that the column lies in a time that a window needs, leaving out the longest
// times that none does: last week's windows need no scan of the week.
func (b *batch) times(column string) string {
	parts := make([]string, 0, fewSpans)
	for _, s := range covering(b.reads) {
		parts = append(parts, fmt.Sprintf("%[1]s >= toDateTime(%[2]d) AND %[1]s < toDateTime(%[3]d)", column, s.from, s.to))
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
