package clickhouse

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// layer is how long ago a row happened, as the join with windows knows it: a window of five minutes is not to meet all
// rows of an hour only to refuse them. Windows that reach further back than two hours have a layer, and a scan, of their own, with
// rows of every age.
type layer uint8

const (
	minutes layer = iota
	halfHour
	twoHours
	day
	older
	layers
)

// recentLayers end so many seconds before the slot.
var recentLayers = [...]int64{minutes: 5 * 60, halfHour: 30 * 60, twoHours: 2 * 3600}

const daySeconds = 24 * 3600

// layerOf is the layer of a row of that time, and the deepest of a window that begins then.
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

// oldest is the deepest layer that a window reaches.
func (b *batch) oldest(no int) layer { return layerOf(b.reads[no].from, b.slot) }

// newest is the first layer whose rows a window needs.
func (b *batch) newest(no int) layer {
	if oldest := b.oldest(no); oldest > twoHours {
		return oldest
	}
	return layerOf(max(b.reads[no].to, 1)-1, b.slot)
}

// scanOf is the scan that has a window's rows, by its deepest layer: one reads the last two hours, and each layer below has
// its own. One scan for all would be as deep as the deepest window, for every site.
func (b *batch) scanOf(no int) layer { return max(b.oldest(no), twoHours, b.shallowest) }

// scanTogether has windows of two hours read a day of their sites, where no more of them are that shallow than reach back a
// day: one more scan takes 8 of a query's 35 ms, most of them to plan it. Not for a join in layers.
func (b *batch) scanTogether() {
	if few := b.spans[twoHours]; len(few) <= len(b.spans[day]) {
		b.shallowest, b.spans[twoHours], b.spans[day] = day, nil, append(b.spans[day], few...)
	}
}

// layerColumns are what a table of windows must have for a join in layers.
func (b *batch) layerColumns() []column {
	return []column{
		columnOf("newest", "UInt8", func(no int) uint8 { return uint8(b.newest(no)) }),
		columnOf("oldest", "UInt8", func(no int) uint8 { return uint8(b.oldest(no)) }),
	}
}

// reading is how rows are read for a batch.
type reading struct {
	table   string
	columns []string                  // that the scan reads besides those that goals and filters look at
	where   string                    // on the scanned rows
	bound   func(spans []span) string // that a row is in one of the spans, or near
	within  string                    // on e, a row, and w, a window: that the row is in its time
	layered bool                      // they are joined in layers: worth its planning where there are many windows
}

// rows is the part of a statement that has each row e of each window w. It ends within WHERE.
func (b *batch) rows(r reading) string {
	windows, on, conditions := "windows", "e.site_id = w.site_id", []string{r.within, "e.scan = w.scan"}
	if r.layered {
		windows, on, conditions = b.layered(), "e.key = w.key", []string{r.within, "e.site_id = w.site_id"}
	}
	if b.goals.any() {
		if !r.layered {
			r.columns, conditions = append(r.columns, "name"), append(conditions, "if(w.name = '', e.name != 'engagement', e.name = w.name)")
		}
		more, condition := b.goals.condition(b.events)
		r.columns, conditions = append(r.columns, more...), append(conditions, condition...)
	}
	visits := ""
	if b.filters.any() {
		r.columns, conditions = append(r.columns, b.filters.columns()...), append(conditions, b.filters.condition())
		if b.filters.asks() {
			r.columns, visits = append(r.columns, "session_id"), b.visitsThat()
		}
	}
	return fmt.Sprintf(`
		FROM (%s
		) AS e
		INNER JOIN %s AS w ON %s %s
		WHERE %s`, b.scan(r), windows, on, visits, strings.Join(conditions, " AND "))
}

// layered is the windows, each as often as it has layers. Site, layer and name are hashed to one number, which is joined
// faster than they are. Of what was hashed only the site is compared afterwards: by chance two names have the same number
// once in 10 ** 19 pairs, and whoever would make up such a name could as well send the goal's.
func (b *batch) layered() string {
	key := "cityHash64(site_id, layer)"
	if b.goals.any() {
		key = "cityHash64(site_id, layer, name != '', name)"
	}
	return fmt.Sprintf("(SELECT *, toUInt8(arrayJoin(range(newest, oldest + 1))) AS layer, %s AS key FROM windows)", key)
}

// joined is what rows of a scan have for the join.
func (b *batch) joined(r reading, scan layer) []string {
	if !r.layered {
		return []string{fmt.Sprintf("toUInt8(%d) AS scan", scan)}
	}
	l := fmt.Sprintf("toUInt8(%d)", scan)
	if scan == twoHours {
		l = fmt.Sprintf("multiIf(at >= %d, %d, at >= %d, %d, %d)", b.slot.Unix()-recentLayers[minutes], minutes, b.slot.Unix()-recentLayers[halfHour], halfHour, twoHours)
	}
	const nameless, named = "cityHash64(site_id, layer, 0, '')", "cityHash64(site_id, layer, 1, name)"
	key := fmt.Sprintf("arrayJoin([%s, %s])", nameless, named) // windows of any event and of goals look at the row
	if b.goals.scrolls() {
		key = fmt.Sprintf("arrayJoin(if(name = 'engagement', [%[2]s], [%[1]s, %[2]s]))", nameless, named)
	}
	switch {
	case !b.goals.any():
		key = "cityHash64(site_id, layer)"
	case !b.named[scan]:
		key = nameless
	case !b.nameless[scan]:
		key = named
	}
	return []string{l + " AS layer", key + " AS key"}
}

// scan reads the rows that windows need.
func (b *batch) scan(r reading) string {
	columns := append([]string{"site_id"}, r.columns...)
	slices.Sort(columns)
	columns = slices.Clip(slices.Compact(columns)) // of each scan the same, in the same places
	var parts []string
	for no, spans := range b.spans {
		if len(spans) == 0 {
			continue
		}
		scan := layer(no)
		parts = append(parts, fmt.Sprintf(`
			SELECT %s FROM %s WHERE site_id IN (SELECT site_id FROM windows WHERE scan = %d) AND %s AND %s`,
			strings.Join(append(columns, b.joined(r, scan)...), ", "), r.table, scan, b.where(r, scan), r.bound(spans)))
	}
	return strings.Join(parts, " UNION ALL ")
}

// where is which rows of a scan count, in any window. Conversions are few: of sites that want nothing else, ClickHouse finds them
// by their names in the primary key. Of what is recent there is little to leave out, and each set costs 4 ms to plan.
func (b *batch) where(r reading, scan layer) string {
	switch {
	case !b.named[scan]:
		return r.where
	case !b.nameless[scan]:
		return "name IN (SELECT name FROM windows)"
	case scan > twoHours:
		return fmt.Sprintf("(%s AND site_id IN (SELECT site_id FROM windows WHERE scan = %[2]d AND name = '') OR name IN (SELECT name FROM windows WHERE scan = %[2]d AND name != ''))", r.where, scan)
	case b.goals.scrolls():
		return fmt.Sprintf("(%s OR site_id IN (SELECT site_id FROM windows WHERE name = 'engagement'))", r.where)
	}
	return r.where
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
