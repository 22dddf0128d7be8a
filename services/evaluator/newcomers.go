package evaluator

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	seenEvery     = time.Hour      // how often the values since are read
	seenOverlap   = 2 * time.Hour  // is read once more: rows may have become visible late
	seenForgotten = 24 * time.Hour // when a dimension that nobody asks for is no longer read

	// How many dimensions of sites are read by one query: few for the first time, when all their values
	// pass through memory, and many for the few values of an hour.
	seenHistories = 50
	seenPortion   = 5000

	// seenShortest is the shortest span that a history is divided into where ClickHouse does not read
	// all of it within a query's time limit.
	seenShortest = 7 * 24 * time.Hour

	// seenCache bounds the values in memory; so many take up to 40 MB.
	seenCache = 1_000_000
)

// seenDimension is what is known of a dimension of a site.
type seenDimension struct {
	statsFrom time.Time        // of the site; rows before do not count
	knownTo   time.Time        // values before are in the database; zero: they are not
	tooLong   bool             // for ClickHouse to look through within a slot, so that knownTo is waited for
	wantedAt  time.Time        // by ClickHouse's clock
	first     map[uint64]int64 // when values that were asked for were first seen, in Unix seconds, by their hash
}

// newcomers tells values that a site has never seen from others. All values that a site has ever seen
// are in the own database, as hashes; an hourly refresh adds those since. So ClickHouse is asked only
// for candidates that are not there, and only for the rows since the last refresh. Memory holds what
// was asked for.
type newcomers struct {
	refresher
	events *clickhouse.Events
	store  *postgres.Store

	mutex  sync.Mutex
	now    time.Time // the newest slot that asked
	due    time.Time // the slot that starts the next refresh
	wanted map[postgres.SiteDimension]*seenDimension
	cached int // values in memory
}

func newNewcomers(events *clickhouse.Events, store *postgres.Store, log *slog.Logger) *newcomers {
	return &newcomers{refresher: newRefresher("newcomers", log), events: events, store: store, wanted: map[postgres.SiteDimension]*seenDimension{}}
}

// run reads in the background what sites have seen, until ctx ends.
func (n *newcomers) run(ctx context.Context) error { return n.repeat(ctx, n.refresh) }

// candidate is a value that a ranking has.
type candidate struct {
	postgres.SeenValue
	value              string
	statsFrom, knownTo time.Time // of its dimension
	tooLong            bool
}

// keep removes from the rankings of questions for newcomers what their sites have seen before the
// window. statsFrom has, by site, when its statistics begin; none: all rows count.
func (n *newcomers) keep(ctx context.Context, questions []clickhouse.Question, answers []trigger.Answer, statsFrom map[int64]time.Time) error {
	unknown := n.remembered(questions, answers, statsFrom)
	if len(unknown) > 0 {
		if err := n.look(ctx, unknown); err != nil {
			return err
		}
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.remember(unknown)
	for i, q := range questions {
		if q.Ask != trigger.AskNewcomers {
			continue
		}
		seen, a := n.wanted[dimensionOf(q)].first, &answers[i]
		var kept []trigger.Ranked
		for _, r := range a.Ranking {
			if first, known := seen[hashOf(r.Name)]; known && first >= q.Window.From.Unix() {
				kept = append(kept, r)
			}
		}
		more := max(0, len(kept)-trigger.RankingCap)
		a.Ranking, a.More = kept[:len(kept)-more], more
	}
	return nil
}

// knows tells whether what a site has seen of a dimension was looked through: until then nothing is new.
func (n *newcomers) knows(of postgres.SiteDimension) bool {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	d := n.wanted[of]
	return d != nil && (!d.knownTo.IsZero() || !d.tooLong)
}

func dimensionOf(q clickhouse.Question) postgres.SiteDimension {
	return postgres.SiteDimension{SiteID: q.SiteID, Dimension: q.By}
}

// hashOf is the same in every release: it is stored.
func hashOf(value string) uint64 {
	sum := sha256.Sum256([]byte(value))
	return binary.BigEndian.Uint64(sum[:])
}

// remembered returns the candidates that are not in memory, each once.
func (n *newcomers) remembered(questions []clickhouse.Question, answers []trigger.Answer, statsFrom map[int64]time.Time) (unknown []candidate) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if n.cached > seenCache {
		for _, d := range n.wanted {
			clear(d.first)
		}
		n.cached = 0
	}
	asked := map[postgres.SiteDimension]map[uint64]bool{}
	for i, q := range questions {
		if q.Ask != trigger.AskNewcomers {
			continue
		}
		if q.Window.To.After(n.now) {
			n.now = q.Window.To
		}
		of, since := dimensionOf(q), statsFrom[q.SiteID].UTC().Truncate(time.Microsecond)
		d := n.wanted[of]
		if d == nil || !d.statsFrom.Equal(since) {
			if d != nil {
				n.cached -= len(d.first)
			}
			d = &seenDimension{statsFrom: since, first: map[uint64]int64{}}
			n.wanted[of] = d
			n.wake()
		}
		d.wantedAt = n.now
		if asked[of] == nil {
			asked[of] = map[uint64]bool{}
		}
		for _, r := range answers[i].Ranking {
			hash := hashOf(r.Name)
			if _, known := d.first[hash]; known || asked[of][hash] {
				continue
			}
			asked[of][hash] = true
			c := candidate{value: r.Name, statsFrom: d.statsFrom, knownTo: d.knownTo, tooLong: d.tooLong}
			c.SiteDimension, c.Hash = of, hash
			unknown = append(unknown, c)
		}
	}
	if !n.now.Before(n.due) {
		n.wake()
	}
	return unknown
}

// remember adds what was found to memory.
func (n *newcomers) remember(found []candidate) {
	for _, c := range found {
		d := n.wanted[c.SiteDimension]
		if d.knownTo.IsZero() {
			d.knownTo = c.knownTo
		}
		d.tooLong = d.tooLong || c.tooLong
		if !c.First.IsZero() {
			d.first[c.Hash] = c.First.Unix()
			n.cached++
		}
	}
}

// look finds out when the candidates were first seen: in the database, and for those that are not there
// in ClickHouse. A dimension whose history is not in the database yet is looked through; where that
// fails, the slot does not wait for it, and nothing of the dimension is new until run has read it.
func (n *newcomers) look(ctx context.Context, unknown []candidate) error {
	if err := n.lookHere(ctx, unknown); err != nil {
		return err
	}
	var recent, ever []int
	for i, c := range unknown {
		switch {
		case !c.First.IsZero() || c.knownTo.IsZero() && c.tooLong:
		case c.knownTo.IsZero():
			ever = append(ever, i)
		default:
			recent = append(recent, i)
		}
	}
	if len(recent) > 0 {
		if err := n.lookThere(ctx, unknown, recent); err != nil {
			return err
		}
	}
	if len(ever) > 0 {
		if err := n.lookThere(ctx, unknown, ever); err != nil {
			if ctx.Err() != nil {
				return err
			}
			n.log.Warn("what is new on some sites is not known yet", "event", "newcomers", "candidates", len(ever), "error", err.Error())
			for _, i := range ever {
				unknown[i].tooLong = true
			}
		}
	}
	return nil
}

// lookHere looks into the own database.
func (n *newcomers) lookHere(ctx context.Context, unknown []candidate) error {
	unread := map[postgres.SiteDimension]bool{}
	for _, c := range unknown {
		if c.knownTo.IsZero() {
			unread[c.SiteDimension] = true
		}
	}
	if len(unread) > 0 { // the first question in this life: perhaps an earlier one has read it
		seen, err := n.store.Seen(ctx, slices.Collect(maps.Keys(unread)))
		if err != nil {
			return err
		}
		for i, c := range unknown {
			if s, isStored := seen[c.SiteDimension]; isStored && c.knownTo.IsZero() && s.StatsFrom.Equal(c.statsFrom) {
				unknown[i].knownTo = s.KnownTo
			}
		}
	}
	var stored []postgres.SeenValue
	var places []int
	for i, c := range unknown {
		if !c.knownTo.IsZero() {
			stored, places = append(stored, c.SeenValue), append(places, i)
		}
	}
	if len(stored) == 0 {
		return nil
	}
	if err := n.store.FirstSeen(ctx, stored); err != nil {
		return err
	}
	for k, v := range stored {
		unknown[places[k]].First = v.First
	}
	return nil
}

// lookThere looks into ClickHouse, where need be in all history of the sites.
func (n *newcomers) lookThere(ctx context.Context, unknown []candidate, places []int) error {
	asked := make([]clickhouse.Candidate, len(places))
	for k, i := range places {
		c := unknown[i]
		since := c.statsFrom
		if back := c.knownTo.Add(-seenOverlap); back.After(since) {
			since = back
		}
		asked[k] = clickhouse.Candidate{SiteID: c.SiteID, Dimension: c.Dimension, Value: c.value, Since: since}
	}
	first, err := n.events.FirstSeen(ctx, asked)
	if err != nil {
		return err
	}
	for k, i := range places {
		unknown[i].First = first[k]
	}
	return nil
}

// reading is a dimension of a site whose values are brought up to date.
type reading struct {
	postgres.Seen
	from time.Time
	void bool // what is stored is of statistics that were reset
}

// refresh reads the values of all dimensions that are asked for up to the newest slot: at first all
// history, then what came since.
func (n *newcomers) refresh(ctx context.Context) error {
	of, to := n.stale()
	if len(of) == 0 {
		return nil
	}
	dimensions := make([]postgres.SiteDimension, len(of))
	for i, s := range of {
		dimensions[i] = s.SiteDimension
	}
	stored, err := n.store.Seen(ctx, dimensions)
	if err != nil {
		return err
	}
	var fresh, further []reading
	for _, s := range of {
		known, isStored := stored[s.SiteDimension]
		r := reading{Seen: s, from: s.StatsFrom, void: isStored && !known.StatsFrom.Equal(s.StatsFrom)}
		if !isStored || r.void {
			fresh = append(fresh, r)
			continue
		}
		if back := known.KnownTo.Add(-seenOverlap); back.After(r.from) {
			r.from = back
		}
		further = append(further, r)
	}
	var failures []error
	for some := range slices.Chunk(further, seenPortion) {
		failures = append(failures, n.read(ctx, some, to))
	}
	for some := range slices.Chunk(fresh, seenHistories) {
		failures = append(failures, n.read(ctx, some, to))
	}
	return errors.Join(failures...)
}

// stale are the dimensions to read, those that were never read at once and all others each hour, and
// the slot up to which.
func (n *newcomers) stale() (of []postgres.Seen, to time.Time) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if !n.now.Before(n.due) {
		n.due = n.now.Add(seenEvery)
	}
	for dimension, d := range n.wanted {
		switch {
		case n.now.Sub(d.wantedAt) > seenForgotten:
			n.cached -= len(d.first)
			delete(n.wanted, dimension)
		case n.now.Sub(d.knownTo) >= seenEvery:
			of = append(of, postgres.Seen{SiteDimension: dimension, StatsFrom: d.statsFrom, KnownTo: n.now.UTC()})
		}
	}
	return of, n.now.UTC()
}

// read stores the values that were seen before "to".
func (n *newcomers) read(ctx context.Context, some []reading, to time.Time) error {
	var values []postgres.SeenValue
	histories := make([]clickhouse.History, len(some))
	from := to
	for i, r := range some {
		histories[i] = clickhouse.History{SiteID: r.SiteID, Dimension: r.Dimension, From: r.from}
		if r.from.Before(from) {
			from = r.from
		}
	}
	err := n.values(ctx, histories, from, to, func(no int, value string, first time.Time) {
		values = append(values, postgres.SeenValue{SiteDimension: some[no].SiteDimension, Hash: hashOf(value), First: first})
	})
	if err != nil {
		return err
	}
	var void []postgres.SiteDimension
	seen := make([]postgres.Seen, len(some))
	for i, r := range some {
		seen[i] = r.Seen
		if r.void {
			void = append(void, r.SiteDimension)
		}
	}
	if err := n.store.SaveSeen(ctx, seen, values, void); err != nil {
		return err
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, r := range some {
		if d := n.wanted[r.SiteDimension]; d != nil && d.statsFrom.Equal(r.StatsFrom) {
			d.knownTo = to
		}
	}
	return nil
}

// values reads histories between two times at once, or where that fails in halves.
func (n *newcomers) values(ctx context.Context, histories []clickhouse.History, from, to time.Time, each func(no int, value string, first time.Time)) error {
	err := n.events.Values(ctx, histories, to, each)
	if epoch := time.Unix(0, 0); from.Before(epoch) {
		from = epoch
	}
	if err == nil || to.Sub(from) < 2*seenShortest || ctx.Err() != nil {
		return err
	}
	return n.halves(ctx, histories, from, to, each)
}

func (n *newcomers) halves(ctx context.Context, histories []clickhouse.History, from, to time.Time, each func(no int, value string, first time.Time)) error {
	middle := from.Add(to.Sub(from) / 2).Truncate(time.Second)
	if err := n.values(ctx, histories, from, middle, each); err != nil {
		return err
	}
	later := slices.Clone(histories)
	for i := range later {
		if later[i].From.Before(middle) {
			later[i].From = middle
		}
	}
	return n.values(ctx, later, middle, to, each)
}
