package evaluator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	// rhythmSpan is how far back the usual pauses between events are looked for. Past outages are
	// kept for as long: the longest windows compare two days with each other.
	rhythmSpan = 7 * 24 * time.Hour

	// learningAge is how old the history must be before its pauses say anything.
	learningAge = 2 * 24 * time.Hour

	// learningPatience holds until then. Two sites or more that have no event for 10 minutes are
	// few and small: that some low number is not concluded in time harms them least.
	learningPatience = 10 * time.Minute

	// Events come in batches, every 5 s by default: a pause of less than 2 minutes may be a slow
	// insert. After 6 hours a whole day's trade is affected, however quiet the nights are.
	leastPatience, mostPatience = 2 * time.Minute, 6 * time.Hour

	// farAhead is how much newer than the slot an event must be for its clock to be doubted. What is less
	// may be the time since the slot.
	farAhead = 2 * time.Minute

	// leastSites is how many must have events before their common silence says something of
	// ingestion. That of one alone is its own.
	leastSites = 2
)

// patienceOf is for how long all sites together may have no events before ingestion counts as silent:
// twice the second longest of the daily longest pauses. The longest may be an outage itself.
func patienceOf(beats []clickhouse.Beat) time.Duration {
	if len(beats) == 0 || beats[len(beats)-1].Last.Sub(beats[0].First) < learningAge {
		return learningPatience
	}
	// Days are counted back from the newest event, so that none is a part of one. A pause belongs
	// to the day of its end; a day within a pause has none.
	end := beats[len(beats)-1].Last
	longest := map[time.Duration]time.Duration{}
	for i := range beats[1:] {
		day := end.Sub(beats[i+1].First) / (24 * time.Hour)
		longest[day] = max(longest[day], beats[i+1].First.Sub(beats[i].Last))
	}
	pauses := make([]time.Duration, 0, len(longest))
	for _, pause := range longest {
		pauses = append(pauses, pause)
	}
	slices.Sort(pauses)
	usual := pauses[max(len(pauses)-2, 0)]
	return min(max(2*usual, leastPatience), mostPatience)
}

// pausesOf are the spans without events that last for patience or longer.
func pausesOf(beats []clickhouse.Beat, patience time.Duration) []postgres.Outage {
	var pauses []postgres.Outage
	for i := range beats[min(1, len(beats)):] {
		if pause := (postgres.Outage{Began: beats[i].Last, Ended: beats[i+1].First}); pause.Ended.Sub(pause.Began) >= patience {
			pauses = append(pauses, pause)
		}
	}
	return pauses
}

// ingestion tells a site's silence from that of Plausible's ingestion: no site has events then, and
// nothing can be concluded from any low number. What it knows is derived from the events alone, so
// replicas agree; what it tells is committed under ids and keys that are such facts too.
//
// The goroutine that evaluates slots calls observe and view, another one run.
type ingestion struct {
	events  *clickhouse.Events
	store   *postgres.Store
	system  *system
	log     *slog.Logger
	metrics *metrics

	newest        time.Time // event that was seen, without those that a wrong clock dates in the future
	loaded, tried bool      // the outages known before; the rhythm
	untold        []finding // what is not committed yet, in its order

	mu       sync.Mutex
	learned  bool
	patience time.Duration
	sites    int               // that had events in the week before the newest one
	began    time.Time         // of the outage that lasts: the newest event then; zero: none does
	doubtful bool              // before the rhythm is known: it may be silent
	outages  []postgres.Outage // past ones
}

// finding is an event with the outages that are its reason.
type finding struct {
	event   postgres.SystemEvent
	outages []postgres.Outage
}

func newIngestion(events *clickhouse.Events, store *postgres.Store, s *system, log *slog.Logger, m *metrics) *ingestion {
	return &ingestion{events: events, store: store, system: s, log: log, metrics: m, patience: learningPatience}
}

// observe judges the newest event of all sites, as it was when the slot was closed; zero: there is none.
// It asks ClickHouse only at the first slot, when events come in again and where one is dated in the
// future, and writes only when something changes. What fails is tried again at the next slot.
func (i *ingestion) observe(ctx context.Context, slot, newest time.Time) {
	newest, err := i.undoubted(ctx, slot, newest)
	if err != nil {
		i.warn(ctx, "find the newest event", err)
		return
	}
	if !newest.IsZero() {
		i.metrics.ingestionLag.Set(max(slot.Sub(newest).Seconds(), 0))
	}
	if !i.loaded {
		if err := i.load(ctx, slot); err != nil {
			i.warn(ctx, "read past outages", err)
			return
		}
	}
	if !i.tried { // afterwards it is run's business: an installation may be too large for the query
		i.tried = true
		if err := i.learn(ctx); err != nil {
			i.warn(ctx, "learn the rhythm", err)
		}
	}
	began, silent, ended := i.judge(slot, newest)
	switch {
	case ended:
		if err := i.resumed(ctx, began, newest); err != nil {
			i.warn(ctx, "find the end of the silence", err)
		}
	case silent:
		if err := i.silent(began, slot); err != nil {
			i.warn(ctx, "tell of the silence", err)
		}
	}
	i.tell(ctx)
}

// undoubted is the newest event without those that a wrong clock dates in the future: they would hide every
// silence until then.
func (i *ingestion) undoubted(ctx context.Context, slot, newest time.Time) (time.Time, error) {
	if newest.Sub(slot) > farAhead {
		after := slot.Add(-rhythmSpan)
		if i.newest.After(after) {
			after = i.newest
		}
		beats, _, err := i.events.Rhythm(ctx, after)
		if err != nil {
			return time.Time{}, err
		}
		newest = i.newest
		if len(beats) > 0 {
			newest = beats[len(beats)-1].Last
		}
	}
	i.newest = newest
	return newest, nil
}

// warn tells of a task that failed and is tried again.
func (i *ingestion) warn(ctx context.Context, task string, err error) {
	if ctx.Err() == nil {
		i.log.Warn("whether ingestion is silent cannot be fully judged, it is tried again", "event", "ingestion", "task", task, "error", err.Error())
	}
}

// load reads what was known before this replica started.
func (i *ingestion) load(ctx context.Context, slot time.Time) error {
	known, err := i.store.Outages(ctx, slot.Add(-rhythmSpan))
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, o := range known {
		switch {
		case !o.Ended.IsZero():
			i.outages = append(i.outages, o)
		case i.began.IsZero(): // of several the first: its end is found together with those of the others
			i.began = o.Began
		}
	}
	i.loaded = true
	return nil
}

// judge tells whether an outage has just begun or ended, and when it began.
func (i *ingestion) judge(slot, newest time.Time) (began time.Time, silent, ended bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	long := !newest.IsZero() && slot.Sub(newest) >= i.patience
	i.doubtful = !i.learned && long
	long = long && i.learned && i.sites >= leastSites
	switch {
	case i.began.IsZero() && long:
		i.began = newest
		return i.began, true, false
	case !i.began.IsZero() && !long && newest.After(i.began):
		return i.began, false, true
	}
	return i.began, false, false
}

// silent takes note of an outage that lasts.
func (i *ingestion) silent(began, slot time.Time) error {
	i.mu.Lock()
	patience, sites := i.patience, i.sites
	i.mu.Unlock()
	event, err := systemEvent(ingestionSilent, instantOf(began), slot,
		fmt.Sprintf("None of the %d sites has had an event for %s, more than the usual pauses allow (%s): nothing is concluded from silence or low numbers until events come in again.",
			sites, inWords(slot.Sub(began)), inWords(patience)),
		systemData{"since": began, "patience_seconds": int(patience.Seconds()), "sites": sites})
	i.untold = append(i.untold, finding{event, []postgres.Outage{{Began: began}}})
	return err
}

// resumed finds out when events came in again, and takes note of it. Rows may have come late and
// divide the outage, or fill it.
func (i *ingestion) resumed(ctx context.Context, began, newest time.Time) error {
	after := began
	if reach := newest.Add(-rhythmSpan); after.Before(reach) { // nobody looked for longer than that
		after = reach
	}
	beats, _, err := i.events.Rhythm(ctx, after)
	if err != nil {
		return err
	}
	if len(beats) == 0 {
		return nil // the events were removed again
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	ended := beats[0].First
	outages := []postgres.Outage{{Began: began, Ended: ended}}
	for _, later := range pausesOf(beats, i.patience) {
		outages, ended = append(outages, later), later.Ended
	}
	event, err := systemEvent(ingestionResumed, instantOf(began), ended,
		fmt.Sprintf("Events come in again, after %s without any of any site.", inWords(ended.Sub(began))),
		systemData{"since": began, "until": ended})
	if err != nil {
		return err
	}
	i.outages, i.began = append(i.outages, outages...), time.Time{}
	i.untold = append(i.untold, finding{event, outages})
	return nil
}

// tell commits what was found. The event comes first: an outage that is recorded was told.
func (i *ingestion) tell(ctx context.Context) {
	silent := 0.0
	if _, now := i.silentSince(); now {
		silent = 1
	}
	i.metrics.ingestionSilent.Set(silent)
	for len(i.untold) > 0 {
		if !i.system.attempt(ctx, i.untold[0].event) {
			return
		}
		if err := i.store.RecordOutages(ctx, i.untold[0].outages); err != nil {
			i.warn(ctx, "record an outage", err)
			return
		}
		i.untold = i.untold[1:]
	}
}

// silentSince is the last event before the outage that lasts, if one does.
func (i *ingestion) silentSince() (time.Time, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.began, !i.began.IsZero()
}

// sight is what one moment knows of ingestion.
type sight struct {
	silent   bool // now, or nobody knows
	patience time.Duration
	outages  []postgres.Outage
	sighted  time.Time // when the newest outage ended
}

func (i *ingestion) view() sight {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := sight{silent: !i.began.IsZero() || i.doubtful, patience: i.patience, outages: slices.Clone(i.outages)}
	for _, o := range s.outages {
		if o.Ended.After(s.sighted) {
			s.sighted = o.Ended
		}
	}
	return s
}

// blind tells whether ingestion is silent now, or was for a part of the window that is longer than
// its usual pauses.
func (s sight) blind(w trigger.Window) bool {
	return s.silent || slices.ContainsFunc(s.outages, func(o postgres.Outage) bool { return within(o, w) > s.patience })
}

// judges tells whether it is known of the past when ingestion was silent. Of one site alone it is not.
func (i *ingestion) judges() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.learned && i.sites >= leastSites
}

// within is how much of a window lies in an outage that is over; not positive: none.
func within(o postgres.Outage, w trigger.Window) time.Duration {
	from, to := w.From, w.To
	if o.Began.After(from) {
		from = o.Began
	}
	if o.Ended.Before(to) {
		to = o.Ended
	}
	return to.Sub(from)
}

// learn finds out how long the pauses of all sites together usually are, and which outages there were
// while no replica looked, as when the whole machine was down. It looks at the week before the newest
// event, so that an outage does not wear out what is known.
func (i *ingestion) learn(ctx context.Context) error {
	now, newest, err := i.events.Now(ctx)
	if err != nil {
		return err
	}
	if newest.After(now) {
		newest = now
	}
	beats, sites, err := i.events.Rhythm(ctx, newest.Add(-rhythmSpan))
	if err != nil {
		return err
	}
	patience := patienceOf(beats)
	var outages []postgres.Outage
	i.metrics.ingestionPatience.Set(0)
	if sites >= leastSites {
		outages = pausesOf(beats, patience)
		i.metrics.ingestionPatience.Set(patience.Seconds())
	}
	i.mu.Lock()
	i.learned, i.patience, i.sites, i.doubtful = true, patience, sites, false
	for _, o := range i.outages {
		if o.Ended.After(newest) { // it ended while the query ran
			outages = append(outages, o)
		}
	}
	i.outages = outages
	i.mu.Unlock()
	i.log.Info("the rhythm of ingestion", "event", "ingestion", "sites", sites, "patience_seconds", int(patience.Seconds()), "outages", len(outages))
	return i.store.RecordOutages(ctx, outages)
}

// run learns anew each hour, or each minute while it fails.
func (i *ingestion) run(ctx context.Context) error {
	wait := time.Minute // the first slot learns itself
	for pause(ctx, wait) {
		wait = time.Hour
		if err := i.learn(ctx); err != nil {
			i.warn(ctx, "learn the rhythm", err)
			wait = time.Minute
		}
	}
	return nil
}
