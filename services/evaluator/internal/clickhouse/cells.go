package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Cell is what was measured in an hour of the clock: in the windows of a length that divides the
// hour, or in the one window of some hours that ends with it.
type Cell struct {
	Hour    time.Time // its start
	Samples int       // windows of the hour
	Sum     float64   // of their values
	Squares float64
}

const hour = 3600

// cellHours is the longest window in hours that cells know.
const cellHours = 24

// samplesOf is how many windows of this length in seconds an hour has; 0 means that such windows have
// no cells.
func samplesOf(length uint32) int {
	switch {
	case length == 0:
		return 0
	case length <= hour && hour%length == 0:
		return int(hour / length)
	case length > hour && length <= cellHours*hour && length%hour == 0:
		return 1
	}
	return 0
}

// Samples is how many windows of its length the Cells of a question have in an hour; 0: it has no
// cells.
func (e *Events) Samples(q Question) int {
	if q.Metric.OfSessions() || q.Metric == trigger.ConversionRate || e.Lacks(q.Question) != "" {
		return 0
	}
	return samplesOf(seconds(q.Window.To) - min(seconds(q.Window.From), seconds(q.Window.To)))
}

// Cells measures the hours from "from" to "to", both whole, of each question: windows as long as its
// own, of visitors, visits, pageviews or events. An hour that is left out had no events: its windows
// are all 0. Other questions have no cells: of other metrics, or with lengths that neither divide an
// hour nor are up to cellHours whole ones.
func (e *Events) Cells(ctx context.Context, questions []Question, from, to time.Time) ([][]Cell, error) {
	var parts []part
	err := e.withoutBroken(ctx, questions, func() error {
		p := &plan{events: e, slot: to}
		parts = p.placeCells(questions, from, to)
		return p.runCells(ctx, from, to)
	})
	if err != nil {
		return nil, err
	}
	cells := make([][]Cell, len(questions))
	for i, part := range parts {
		cells[i] = part.result().cells
	}
	return cells, nil
}

func (p *plan) placeCells(questions []Question, from, to time.Time) []part {
	parts := make([]part, len(questions))
	for i, q := range questions {
		length := seconds(q.Window.To) - min(seconds(q.Window.From), seconds(q.Window.To))
		if p.events.Samples(q) == 0 || !from.Before(to) {
			continue
		}
		start := seconds(from)
		w := window{from: start - min(start, max(length, hour)-hour), to: seconds(to), step: min(length, hour), by: wantsOf(q), least: int64(max(length, hour) / hour)}
		parts[i] = p.placeNumber(q, w, w.by)
	}
	return parts
}

func (p *plan) runCells(ctx context.Context, from, to time.Time) error {
	if b := p.batches[windows]; b != nil {
		b.settle()
		return p.events.askCells(ctx, b, from, to)
	}
	return nil
}

// askCells measures in three steps: pieces of an hour or less; of them, the windows, in each of which
// up to cellHours pieces come together without counting a visitor twice; and sums of the windows by
// hour, so that 56 days of five-minute windows come back as 1344 rows and not as 16128.
func (e *Events) askCells(ctx context.Context, b *batch, from, to time.Time) error {
	var pieces, values []string
	piece := func(want uint8, state, merged string) {
		if b.wanted&want != 0 {
			pieces = append(pieces, fmt.Sprintf(state, want))
			values = append(values, fmt.Sprintf("kind = %d, toFloat64(%s)", want, merged))
		}
	}
	piece(wantVisitors, "uniqStateIf(e.user_id, w.of = %d) AS visitors", "uniqMerge(visitors)")
	piece(wantVisits, "uniqStateIf(e.session_id, w.of = %d) AS visits", "uniqMerge(visits)")
	piece(wantPageviews, "countIf(e.pageview AND w.of = %d) AS pageviews", "sum(pageviews)")
	piece(wantEvents, "countIf(w.of = %d) AS events", "sum(events)")
	read := b.eventsOf()
	read.layered = true
	statement := fmt.Sprintf(`
		SELECT no, intDiv(at, %[1]d) * %[1]d AS hour, sum(value), sum(value * value)
		FROM (
			SELECT no, at, multiIf(%[2]s, 0.) AS value
			FROM (
				SELECT *, toUInt32(piece + %[1]d * arrayJoin(range(
				       toUInt32(intDiv(greatest(piece, %[6]d) - piece, %[1]d)), toUInt32(least(pieces, intDiv(%[7]d - piece + %[1]d - 1, %[1]d)))))) AS at
				FROM (
					SELECT w.no AS no, toUInt32(%[3]s) AS piece, any(w.of) AS kind, any(w.hours) AS pieces, %[4]s%[5]s
					GROUP BY no, piece
				)
			)
			GROUP BY no, kind, at
		)
		GROUP BY no, hour
		HAVING hour >= %[6]d AND hour < %[7]d`,
		hour, strings.Join(values, ", "), b.bucket("e.at"), strings.Join(pieces, ", "), b.rows(read), from.Unix(), to.Unix())
	err := b.ask(ctx, "cells", statement, func(rows driver.Rows) error {
		var no uint32
		var at uint64
		var c Cell
		if err := rows.Scan(&no, &at, &c.Sum, &c.Squares); err != nil {
			return err
		}
		c.Hour, c.Samples = instant(uint32(at)), 1
		if b.windows[no].least == 1 {
			c.Samples = samplesOf(b.windows[no].step)
		}
		b.results[no].cells = append(b.results[no].cells, c)
		return nil
	}, append(b.layerColumns(), columnOf("of", "UInt8", func(no int) uint8 { return b.windows[no].by }), columnOf("hours", "UInt32", func(no int) uint32 { return uint32(b.windows[no].least) }))...)
	for _, r := range b.results {
		slices.SortFunc(r.cells, func(x, y Cell) int { return cmp.Compare(x.Hour.Unix(), y.Hour.Unix()) })
	}
	return err
}
