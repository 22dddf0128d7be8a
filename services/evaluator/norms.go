package evaluator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	// normSpan is the history that a norm rests on: eight of each hour of the week.
	normSpan = 8 * 7 * 24 * time.Hour

	// normSettling is how long after its end an hour is measured: rows come with a delay. normOverlap
	// is measured once more an hour later, for those that came later still.
	normSettling = 3 * time.Minute
	normOverlap  = 2 * time.Hour

	// normForgotten is when a series that nobody asks for is no longer refreshed. It stays in the
	// database for longer.
	normForgotten = 24 * time.Hour

	// normPortion bounds the cells of one query to 300 series of eight weeks, about 20 MB here; the
	// new hours of 130,000 series are one query.
	normPortion = 300 * int(normSpan/time.Hour)

	// normBatch is how many series are read back from the database together: 4 MB of days.
	normBatch = 300
)

// seriesKey tells series apart. It is comparable and made without encoding anything, because every
// trigger makes one in every slot.
type seriesKey struct {
	site    int64
	metric  trigger.Metric
	goal    trigger.GoalKey
	filters trigger.Filters
	length  time.Duration
}

func keyOf(q clickhouse.Question) seriesKey {
	return seriesKey{site: q.SiteID, metric: q.Metric, goal: q.Goal.Key(), filters: q.Filters, length: q.Window.To.Sub(q.Window.From)}
}

// normSeries is what a norm was asked for.
type normSeries struct {
	id       string              // in the database
	question clickhouse.Question // of any slot: what counts is the length of its window
	samples  int                 // windows an hour; 0: ClickHouse cannot measure it
	site     plausible.Site
	wantedAt time.Time // by ClickHouse's clock, as all times here

	norm    *trigger.Norm // nil: not known yet
	knownTo time.Time     // the hours that it rests on end here
}

func (s normSeries) of(site plausible.Site) bool {
	return s.site.StatsAt.Equal(site.StatsAt) && s.site.Timezone == site.Timezone
}

// countsFrom is the first hour whose windows lie completely after a time.
func (s normSeries) countsFrom(at time.Time) time.Time {
	first := at.Add(time.Hour - 1).Truncate(time.Hour)
	if length := s.question.Window.To.Sub(s.question.Window.From); length > time.Hour && !at.IsZero() {
		first = first.Add(length - time.Hour)
	}
	return first
}

// norms knows what is usual. It answers from memory, and keeps that fresh in the background: a norm is
// made of hourly cells in the own database, and only hours that are missing there are asked of
// ClickHouse, for all series together.
type norms struct {
	refresher
	events *clickhouse.Events
	store  *postgres.Store

	mutex  sync.Mutex
	now    time.Time // the newest slot that asked
	due    time.Time // the slot that closes a further hour
	wanted map[seriesKey]*normSeries
}

func newNorms(events *clickhouse.Events, store *postgres.Store, log *slog.Logger) *norms {
	return &norms{refresher: newRefresher("norms", log), events: events, store: store, wanted: map[seriesKey]*normSeries{}}
}

// of is the norm that a question asks for; nil while it is not known. It does no I/O.
func (n *norms) of(site plausible.Site, q clickhouse.Question) *trigger.Norm {
	key := keyOf(q)
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if q.Window.To.After(n.now) {
		n.now = q.Window.To
	}
	s, known := n.wanted[key]
	if !known {
		s = &normSeries{id: seriesID(q), question: q, site: site, samples: n.events.Samples(q)}
		n.wanted[key] = s
	}
	isNew := !known || !s.of(site)
	if isNew { // statistics that were reset make another history, another time zone other weeks
		s.site, s.norm, s.knownTo = site, nil, time.Time{}
	}
	s.wantedAt = n.now
	if s.samples > 0 && (isNew || !n.now.Before(n.due)) {
		n.wake()
	}
	return s.norm
}

// seriesID names a series in the database: what describes it may be long.
func seriesID(q clickhouse.Question) string {
	text, err := json.Marshal([]any{q.SiteID, q.Metric, q.Goal, q.Filters, q.Window.To.Sub(q.Window.From) / time.Second})
	if err != nil { // text and numbers: nothing that cannot be encoded
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// run refreshes the norms until ctx ends.
func (n *norms) run(ctx context.Context) error { return n.repeat(ctx, n.refresh) }

// measuring is a series that is brought up to date.
type measuring struct {
	wanted normSeries
	postgres.Baseline
	void bool // what is stored is of statistics that were reset
}

// refresh brings all series to the newest closed hour. Where ClickHouse fails, what is known holds on.
func (n *norms) refresh(ctx context.Context) error {
	stale, closed := n.stale()
	if len(stale) == 0 {
		return nil
	}
	ids := make([]string, len(stale))
	for i, s := range stale {
		ids[i] = s.id
	}
	stored, err := n.store.Baselines(ctx, ids)
	if err != nil {
		return err
	}
	bySpan := map[time.Duration][]measuring{}
	for _, s := range stale {
		m := measuring{wanted: s, Baseline: postgres.Baseline{Series: s.id, SiteID: s.question.SiteID, StatsFrom: s.site.StatsAt.UTC().Truncate(time.Microsecond)}}
		if b, isStored := stored[s.id]; isStored {
			m.void = !b.StatsFrom.Equal(m.StatsFrom)
			if !m.void {
				m.Baseline = b
			}
		}
		span := missing(m.KnownTo, closed)
		bySpan[span] = append(bySpan[span], m)
	}
	var failures []error
	for _, span := range slices.Sorted(maps.Keys(bySpan)) { // what is quickest first
		portion := normBatch
		if span > 0 {
			portion = normPortion / int(span/time.Hour)
		}
		for some := range slices.Chunk(bySpan[span], portion) {
			failures = append(failures, n.measure(ctx, some, span, closed))
		}
	}
	return errors.Join(failures...)
}

// stale copies the series that miss a closed hour, in the order of the database, and forgets those that
// nobody wants any more.
func (n *norms) stale() (stale []normSeries, closed time.Time) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	closed = n.now.Add(-normSettling).Truncate(time.Hour).UTC()
	n.due = closed.Add(time.Hour + normSettling)
	for key, s := range n.wanted {
		switch {
		case n.now.Sub(s.wantedAt) > normForgotten:
			delete(n.wanted, key)
		case s.samples > 0 && s.knownTo.Before(closed):
			stale = append(stale, *s)
		}
	}
	slices.SortFunc(stale, func(x, y normSeries) int { return cmp.Compare(x.id, y.id) })
	return stale, closed
}

// missing is how far back a series must be measured: one of a few spans, so that series that are known
// to different hours share a query.
func missing(knownTo, closed time.Time) time.Duration {
	behind := closed.Sub(knownTo)
	if behind <= 0 {
		return 0
	}
	for _, span := range []time.Duration{time.Hour + normOverlap, 26 * time.Hour, 8 * 24 * time.Hour} {
		if behind <= span-normOverlap {
			return span
		}
	}
	return normSpan
}

// measure asks ClickHouse for the span before the closed hour, adds it to what is stored, and forms the
// norms anew. If ClickHouse fails, series without a norm get that of what is stored.
func (n *norms) measure(ctx context.Context, some []measuring, span time.Duration, closed time.Time) error {
	var cells [][]clickhouse.Cell
	var failed error
	if span > 0 {
		questions := make([]clickhouse.Question, len(some))
		for i, m := range some {
			questions[i] = m.wanted.question
		}
		cells, failed = n.cells(ctx, questions, closed.Add(-span), closed)
	}
	if failed != nil {
		some = slices.DeleteFunc(some, func(m measuring) bool { return m.wanted.norm != nil || m.KnownTo.IsZero() })
	}
	for first := 0; first < len(some); first += normBatch {
		end := min(first+normBatch, len(some))
		batch := some[first:end]
		if span > 0 && failed == nil {
			if err := n.add(ctx, batch, cells[first:end], closed.Add(-span), closed); err != nil {
				return err
			}
		}
		if err := n.form(ctx, batch); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// cells asks once, or where that fails week by week: the visitors of eight weeks of a large site may be
// more than ClickHouse counts within a query's time limit.
func (n *norms) cells(ctx context.Context, questions []clickhouse.Question, from, to time.Time) ([][]clickhouse.Cell, error) {
	const week = 7 * 24 * time.Hour
	cells, err := n.events.Cells(ctx, questions, from, to)
	if err == nil || to.Sub(from) < normSpan {
		return cells, err
	}
	cells = make([][]clickhouse.Cell, len(questions))
	for ; from.Before(to); from = from.Add(week) {
		some, err := n.events.Cells(ctx, questions, from, from.Add(week))
		if err != nil {
			return nil, err
		}
		for i := range cells {
			cells[i] = append(cells[i], some[i]...)
		}
	}
	return cells, nil
}

// add puts the cells of the hours between "from" and "to" into the stored days. Hours without a cell
// are 0.
func (n *norms) add(ctx context.Context, batch []measuring, cells [][]clickhouse.Cell, from, to time.Time) error {
	var void, ids []string
	for _, m := range batch {
		switch {
		case m.void:
			void = append(void, m.Series)
		case !m.KnownTo.IsZero():
			ids = append(ids, m.Series)
		}
	}
	stored, err := n.store.BaselineDays(ctx, ids, from)
	if err != nil {
		return err
	}
	days := make(map[string]map[time.Time]*postgres.BaselineDay, len(batch))
	for _, m := range batch {
		days[m.Series] = map[time.Time]*postgres.BaselineDay{}
	}
	for _, d := range stored {
		for hour := range d.Sums {
			if at := d.Day.Add(time.Duration(hour) * time.Hour); !at.Before(from) && at.Before(to) {
				d.Sums[hour], d.Squares[hour] = 0, 0
			}
		}
		days[d.Series][d.Day] = &d
	}
	baselines := make([]postgres.Baseline, len(batch))
	for i := range batch {
		m := &batch[i]
		counting := m.wanted.countsFrom(m.StatsFrom)
		for _, c := range cells[i] {
			if c.Hour.Before(counting) || c.Sum == 0 {
				continue
			}
			if m.Began.IsZero() || c.Hour.Before(m.Began) {
				m.Began = c.Hour
			}
			day := c.Hour.Truncate(24 * time.Hour)
			d := days[m.Series][day]
			if d == nil {
				d = &postgres.BaselineDay{Series: m.Series, Day: day}
				days[m.Series][day] = d
			}
			d.Sums[c.Hour.Hour()], d.Squares[c.Hour.Hour()] = float32(c.Sum), float32(c.Squares)
		}
		m.KnownTo = to
		baselines[i] = m.Baseline
	}
	var changed []postgres.BaselineDay
	for _, ofSeries := range days {
		for _, d := range ofSeries {
			changed = append(changed, *d)
		}
	}
	return n.store.SaveBaselines(ctx, baselines, changed, void)
}

// form makes the norms of the stored days, and lets them be known.
func (n *norms) form(ctx context.Context, batch []measuring) error {
	ids := make([]string, len(batch))
	oldest := batch[0].KnownTo
	for i, m := range batch {
		ids[i] = m.Series
		if m.KnownTo.Before(oldest) {
			oldest = m.KnownTo
		}
	}
	stored, err := n.store.BaselineDays(ctx, ids, oldest.Add(-normSpan))
	if err != nil {
		return err
	}
	days := make(map[string][]postgres.BaselineDay, len(batch))
	for _, d := range stored {
		days[d.Series] = append(days[d.Series], d)
	}
	formed := make([]*trigger.Norm, len(batch))
	for i, m := range batch {
		formed[i] = m.norm(days[m.Series], zoneOf(m.wanted.site, n.log))
	}

	n.mutex.Lock()
	defer n.mutex.Unlock()
	for i, m := range batch {
		s := n.wanted[keyOf(m.wanted.question)]
		if s != nil && s.of(m.wanted.site) { // else there is another history by now
			s.norm, s.knownTo = formed[i], m.KnownTo
		}
	}
	return nil
}

// norm pools each hour of the week, in the site's zone, with its two neighbours. Hours before the first
// one that was not 0 do not count: the site may not have existed.
func (m measuring) norm(days []postgres.BaselineDay, zone *time.Location) *trigger.Norm {
	if m.Began.IsZero() {
		return &trigger.Norm{}
	}
	byDay := make(map[time.Time]*postgres.BaselineDay, len(days))
	for i, d := range days {
		byDay[d.Day] = &days[i]
	}
	since := m.KnownTo.Add(-normSpan)
	if m.Began.After(since) {
		since = m.Began
	}
	from := m.wanted.countsFrom(m.Began)
	if from.Before(since) {
		from = since
	}
	type pool struct{ samples, sum, squares float64 }
	var hours [trigger.HoursOfWeek]pool
	for at := from; at.Before(m.KnownTo); at = at.Add(time.Hour) {
		h := &hours[trigger.HourOfWeek(at, zone)]
		h.samples += float64(m.wanted.samples)
		if d := byDay[at.Truncate(24*time.Hour)]; d != nil {
			h.sum += float64(d.Sums[at.Hour()])
			h.squares += float64(d.Squares[at.Hour()])
		}
	}
	norm := &trigger.Norm{Days: int(m.KnownTo.Sub(since) / (24 * time.Hour))}
	for i := range hours {
		var p pool
		for _, neighbour := range []int{i + len(hours) - 1, i, i + 1} {
			h := hours[neighbour%len(hours)]
			p = pool{p.samples + h.samples, p.sum + h.sum, p.squares + h.squares}
		}
		if p.samples == 0 {
			continue
		}
		u := trigger.Usual{Samples: int32(p.samples), Mean: float32(p.sum / p.samples)}
		if p.samples > 1 {
			u.Variance = float32(max(0, (p.squares-p.sum*p.sum/p.samples)/(p.samples-1)))
		}
		norm.Hours[i] = u
	}
	return norm
}

// offhand is a norm for a question that nobody may ask again: the one that is known, or else one that is formed now and
// not kept.
func (n *norms) offhand(ctx context.Context, w watched, q clickhouse.Question, now time.Time) (*trigger.Norm, error) {
	n.mutex.Lock()
	if s := n.wanted[keyOf(q)]; s != nil && s.of(*w.site) && s.norm != nil {
		defer n.mutex.Unlock()
		return s.norm, nil
	}
	n.mutex.Unlock()
	m := measuring{wanted: normSeries{question: q, samples: n.events.Samples(q), site: *w.site}}
	if m.wanted.samples == 0 {
		return nil, nil //nolint:nilnil // as norms.of tells what is not known
	}
	m.StatsFrom, m.KnownTo = w.site.StatsAt, now.Add(-normSettling).Truncate(time.Hour).UTC()
	cells, err := n.cells(ctx, []clickhouse.Question{q}, m.KnownTo.Add(-normSpan), m.KnownTo)
	if err != nil {
		return nil, err
	}
	counting := m.wanted.countsFrom(m.StatsFrom)
	days := map[time.Time]*postgres.BaselineDay{}
	for _, c := range cells[0] {
		if c.Hour.Before(counting) || c.Sum == 0 {
			continue
		}
		if m.Began.IsZero() || c.Hour.Before(m.Began) {
			m.Began = c.Hour
		}
		day := c.Hour.Truncate(24 * time.Hour)
		if days[day] == nil {
			days[day] = &postgres.BaselineDay{Day: day}
		}
		days[day].Sums[c.Hour.Hour()], days[day].Squares[c.Hour.Hour()] = float32(c.Sum), float32(c.Squares)
	}
	list := make([]postgres.BaselineDay, 0, len(days))
	for _, d := range days {
		list = append(list, *d)
	}
	return m.norm(list, w.zone), nil
}
