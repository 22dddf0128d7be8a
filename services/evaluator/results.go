package evaluator

import (
	"compress/flate"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	// resultsRetention is how long it can be asked why a trigger did not fire.
	resultsRetention = 7 * 24 * time.Hour

	// resultsRound is how often each trigger's hour is written. In every slot a part of the triggers has
	// its turn: of 50,000, with slots of 10 seconds, 1,667.
	resultsRound = 5 * time.Minute

	// resultsGap is longer than the time between two slots of any trigger that is evaluated steadily.
	resultsGap = 6 * time.Minute
)

// remembered is a trigger's present hour, and the last one until it is written.
type remembered struct {
	turn     uint8 // of resultsRound's slots, the one in which it is written
	present  hourResults
	finished *hourResults
	dropped  bool // the trigger is no longer evaluated here
}

// results remembers what came of every trigger's slots, and writes it in turns in the background. What
// is not written when a replica dies is lost: up to resultsRound of it. States and firings never are.
type results struct {
	store    *postgres.Store
	log      *slog.Logger
	interval time.Duration
	turns    int64
	woken    chan struct{}

	mu       sync.Mutex
	newest   time.Time // slot
	triggers map[string]*remembered
}

func newResults(store *postgres.Store, interval time.Duration, log *slog.Logger) *results {
	return &results{
		store: store, log: log, interval: interval, turns: max(1, min(int64(resultsRound/interval), 256)), woken: make(chan struct{}, 1), triggers: map[string]*remembered{},
	}
}

// note remembers the slot's results of the shards that were committed.
func (r *results) note(slot time.Time, committed []postgres.Lease, of *round) {
	var isCommitted [postgres.Shards]bool
	for _, l := range committed {
		isCommitted[l.Shard] = true
	}
	hour, second := slot.Unix()/hourSeconds, uint16(slot.Unix()%hourSeconds)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range of.turns {
		t := &of.turns[i]
		if !isCommitted[postgres.ShardOf(t.SiteID)] || !t.due && t.problem == "" {
			continue
		}
		result := resultOf(t.after(), second, t.interval)
		if t.remembered == nil || t.remembered.dropped {
			t.remembered = r.triggers[t.ID]
		}
		m := t.remembered
		switch {
		case m == nil:
			r.triggers[t.ID] = &remembered{turn: uint8(int64(crc32.ChecksumIEEE([]byte(t.ID))) % r.turns), present: since(hour, result)}
		case slot.Sub(m.present.upto()) > resultsGap: // another replica may have evaluated it meanwhile: what it stored is read
			m.finished, m.present = nil, since(hour, result)
		case m.present.hour != hour:
			last := m.present
			m.finished, m.present = &last, since(hour, result)
			m.present.complete = true
		default:
			m.present.add(result)
		}
	}
	r.newest = slot
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// run writes in turns until ctx ends, and then everything, within two seconds.
func (r *results) run(ctx context.Context) error {
	var written time.Time // up to which slot
	for {
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer stop()
			r.report(last, r.write(last, func(uint8) bool { return true }))
			return nil
		case <-r.woken:
		}
		r.mu.Lock()
		newest := r.newest
		r.mu.Unlock()
		first, last := written.Unix()/int64(r.interval/time.Second)+1, newest.Unix()/int64(r.interval/time.Second)
		if written.IsZero() {
			first = last
		}
		r.report(ctx, r.write(ctx, func(turn uint8) bool { // or one that was missed, because writing took long
			behind := (last - int64(turn)) % r.turns
			return last-behind >= first
		}))
		written = newest
	}
}

func (r *results) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		r.log.Warn("results of slots were not written, it is tried again in 5 minutes", "event", "results", "error", err.Error())
	}
}

// write writes the hours of the triggers whose turn it is, and forgets those of triggers that are no
// longer evaluated here.
func (r *results) write(ctx context.Context, isDue func(turn uint8) bool) error {
	due := r.due(isDue)
	if err := r.completeStored(ctx, due); err != nil {
		return err
	}
	compressor, err := flate.NewWriter(io.Discard, flate.BestCompression)
	if err != nil {
		return fmt.Errorf("compress results: %w", err)
	}
	r.mu.Lock()
	var rows []postgres.SlotResults
	for _, id := range due {
		m := r.triggers[id]
		for _, h := range []*hourResults{m.finished, &m.present} {
			if h != nil {
				rows = append(rows, postgres.SlotResults{TriggerID: id, Hour: h.start(), Upto: h.upto(), Packed: h.packed(compressor)})
			}
		}
	}
	r.mu.Unlock()
	const portion = 5000
	for some := range slices.Chunk(rows, portion) {
		if err := r.store.WriteSlotResults(ctx, some); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		m := r.triggers[row.TriggerID]
		switch {
		case m.finished != nil && m.finished.upto().Equal(row.Upto): // and no further slot was noted meanwhile
			m.finished = nil
		case m.finished == nil && r.newest.Sub(row.Upto) > 2*resultsRound:
			m.dropped = true
			delete(r.triggers, row.TriggerID)
		}
	}
	return nil
}

func (r *results) due(isDue func(turn uint8) bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, m := range r.triggers {
		if isDue(m.turn) {
			ids = append(ids, id)
		}
	}
	return ids
}

// completeStored adds what a predecessor has stored of the hours in which this replica came to hold the
// triggers.
func (r *results) completeStored(ctx context.Context, ids []string) error {
	var incomplete []string
	oldest, newest := int64(math.MaxInt64), int64(0)
	r.mu.Lock()
	for _, id := range ids {
		m := r.triggers[id]
		for _, h := range []*hourResults{m.finished, &m.present} {
			if h != nil && !h.complete {
				incomplete = append(incomplete, id)
				oldest, newest = min(oldest, h.hour), max(newest, h.hour)
			}
		}
	}
	r.mu.Unlock()
	if len(incomplete) == 0 {
		return nil
	}
	rows, err := r.store.SlotResults(ctx, incomplete, time.Unix(oldest*hourSeconds, 0), time.Unix(newest*hourSeconds, 0))
	if err != nil {
		return err
	}
	stored := make(map[string]map[int64][]resultRun, len(rows))
	for _, row := range rows {
		runs, err := unpackHour(row.Packed)
		if err != nil {
			r.log.Warn("stored results of slots are replaced", "event", "results", "trigger_id", row.TriggerID, "hour", row.Hour, "error", err.Error())
		}
		if stored[row.TriggerID] == nil {
			stored[row.TriggerID] = map[int64][]resultRun{}
		}
		stored[row.TriggerID][row.Hour.Unix()/hourSeconds] = runs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range incomplete {
		m := r.triggers[id]
		for _, h := range []*hourResults{m.finished, &m.present} {
			if h != nil && !h.complete && h.hour >= oldest && h.hour <= newest {
				h.precede(stored[id][h.hour])
			}
		}
	}
	return nil
}

// known are copies of the hours of a trigger that are in memory.
func (r *results) known(id string) []hourResults {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.triggers[id]
	if m == nil {
		return nil
	}
	hours := []hourResults{m.present}
	if m.finished != nil {
		hours = append(hours, *m.finished)
	}
	for i := range hours {
		hours[i].closed = slices.Clone(hours[i].closed)
	}
	return hours
}

// between are the runs of a trigger in some hours, and the newest slot that is known of it.
func (r *results) between(ctx context.Context, id string, from, to time.Time) (byHour map[int64][]resultRun, until time.Time, err error) {
	known := r.known(id) // before the rows: what is written meanwhile is in both
	rows, err := r.store.SlotResults(ctx, []string{id}, from.Truncate(time.Hour), to)
	if err != nil {
		return nil, until, err
	}
	byHour = map[int64][]resultRun{}
	for _, row := range rows {
		if byHour[row.Hour.Unix()/hourSeconds], err = unpackHour(row.Packed); err != nil {
			return nil, until, err
		}
		until = row.Upto
	}
	for _, h := range known {
		byHour[h.hour] = spliced(byHour[h.hour], h.runs())
		if upto := h.upto(); upto.After(until) {
			until = upto
		}
	}
	return byHour, until, nil
}
