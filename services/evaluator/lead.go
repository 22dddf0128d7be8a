package evaluator

import (
	"context"
	"errors"
	"hash/crc32"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// terms are how long a replica that is not heard of keeps its leases, how often it is heard of,
// and how often each looks whether the shards are shared fairly.
type terms struct {
	ttl, renew, look time.Duration
}

// A lease outlives two missed renewals. The shards of a replica that died are taken, and evaluated
// without waiting for the next slot, 16 s after its last renewal, or when a slot that another
// is evaluating just then is done.
var leaseTerms = terms{ttl: 15 * time.Second, renew: 5 * time.Second, look: time.Second}

// task is a part of a replica's work. It returns when its context ends.
type task func(context.Context) error

// lead keeps the replica alive for the others while it does its tasks, until ctx ends. Then its
// shards are free at once.
func lead(ctx context.Context, own *shards, tasks ...task) error {
	for !own.renewed(ctx) { // nobody holds a shard without a heartbeat
		if !pause(ctx, own.terms.look) {
			return nil
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		wait := own.terms.renew
		for pause(groupCtx, wait) {
			wait = own.terms.renew
			if !own.renewed(groupCtx) {
				wait = own.terms.look
			}
		}
		return nil
	})
	for _, t := range tasks {
		group.Go(func() error { return t(groupCtx) })
	}
	return errors.Join(group.Wait(), own.resign(ctx))
}

// holding is a shard that this replica holds.
type holding struct {
	lease    postgres.Lease
	lastSlot time.Time
	states   map[string]*standing // of its triggers; nil: to be read before the next slot
	restored int                  // the reading of states that these are of
}

// shards are what this replica holds. One goroutine uses them, which takes or gives away shards
// only between two slots. That others have taken one is found by the next look or, because every
// write is fenced, by the commit.
type shards struct {
	store   *postgres.Store
	owner   string
	terms   terms
	log     *slog.Logger
	metrics *metrics
	held    map[int]*holding

	restored int // how often states were read
}

func newShards(store *postgres.Store, owner string, t terms, log *slog.Logger, m *metrics) *shards {
	return &shards{store: store, owner: owner, terms: t, log: log, metrics: m, held: map[int]*holding{}}
}

// renewed renews all leases. It may be called from any goroutine.
func (s *shards) renewed(ctx context.Context) bool {
	bounded, cancel := context.WithTimeoutCause(ctx, s.terms.renew, errors.New("the database did not answer in time"))
	defer cancel()
	err := s.store.Heartbeat(bounded, s.owner, s.terms.ttl)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("the leases cannot be renewed, it is tried again", "event", "lease", "error", err.Error())
	}
	return err == nil
}

// balance brings this replica towards its fair part: it gives away what it holds above that, or
// takes what is free. It reports whether shards were taken.
func (s *shards) balance(ctx context.Context) (grown bool, err error) {
	live, err := s.store.LiveReplicas(ctx)
	if err != nil {
		return false, err
	}
	leases, err := s.store.Leases(ctx, s.owner)
	if err != nil {
		return false, err
	}
	live = max(live, 1) // its own heartbeat may be late
	fair := (postgres.Shards + live - 1) / live
	if len(leases) > fair {
		surplus := leases[fair:]
		if err := s.store.ReleaseLeases(ctx, surplus); err != nil {
			return false, err
		}
		s.forget("released", surplus)
		leases = leases[:fair]
	}
	if len(leases) < fair {
		taken, err := s.store.TakeLeases(ctx, s.owner, fair-len(leases))
		if err != nil {
			return false, err
		}
		leases = append(leases, taken...)
	}
	return s.adopt(leases), nil
}

// adopt makes the leases in the database the ones held. It reports whether some are new.
func (s *shards) adopt(leases []postgres.Lease) (grown bool) {
	current := make(map[postgres.Lease]bool, len(leases))
	for _, l := range leases {
		current[l] = true
	}
	var lost, taken []postgres.Lease
	for _, h := range s.held {
		if !current[h.lease] {
			lost = append(lost, h.lease)
		}
	}
	s.forget("lost", lost)
	for _, l := range leases {
		if s.held[l.Shard] == nil {
			s.held[l.Shard] = &holding{lease: l}
			taken = append(taken, l)
		}
	}
	s.changed("taken", taken)
	return len(taken) > 0
}

// forget drops shards, which another replica has or will have.
func (s *shards) forget(change string, leases []postgres.Lease) {
	for _, l := range leases {
		delete(s.held, l.Shard)
	}
	s.changed(change, leases)
}

// resign frees all shards at once, even though ctx has ended.
func (s *shards) resign(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.store.Resign(bounded, s.owner); err != nil {
		return err
	}
	var all []postgres.Lease
	for _, h := range s.held {
		all = append(all, h.lease)
	}
	s.forget("released", all)
	return nil
}

// changed tells of all shards of a change in one line.
func (s *shards) changed(change string, leases []postgres.Lease) {
	if len(leases) == 0 {
		return
	}
	numbers := make([]int, len(leases))
	for i, l := range leases {
		numbers[i] = l.Shard
	}
	slices.Sort(numbers)
	s.log.Info("shards changed hands", "event", "lease", "change", change, "shards", numbers, "held", len(s.held), "owner", s.owner)
	s.metrics.leaseChanges.WithLabelValues(change).Add(float64(len(leases)))
	s.metrics.shardsHeld.Set(float64(len(s.held)))
}

// restore reads where the triggers of new shards stand after the shard's last slot. Only states
// that changed were written; the others stand as written, but were stepped up to that slot too.
func (s *shards) restore(ctx context.Context) error {
	var unknown []postgres.Lease
	for _, h := range s.held {
		if h.states == nil {
			unknown = append(unknown, h.lease)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	states := map[int]map[string]*standing{}
	lastSlots, err := s.store.Standings(ctx, unknown, func(shard int, id string, state trigger.State) {
		if states[shard] == nil {
			states[shard] = map[string]*standing{}
		}
		packed := packed(state, nil)
		states[shard][id] = &packed
	})
	if err != nil {
		return err
	}
	s.restored++
	var lost []postgres.Lease
	for _, l := range unknown {
		lastSlot, held := lastSlots[l.Shard]
		if !held {
			lost = append(lost, l)
			continue
		}
		h := s.held[l.Shard]
		h.lastSlot, h.states, h.restored = lastSlot, states[l.Shard], s.restored
		if h.states == nil {
			h.states = map[string]*standing{}
		}
		for _, state := range h.states {
			state.passed(lastSlot)
		}
	}
	s.forget("lost", lost)
	return nil
}

// doubt makes restore read everything anew: a commit may have succeeded although its answer was
// lost.
func (s *shards) doubt() {
	for _, h := range s.held {
		h.states = nil
	}
}

// due are the leases of the shards that were not evaluated for the slot, and the oldest slot
// that one of them was evaluated for; zero: none was.
func (s *shards) due(slot time.Time) (leases []postgres.Lease, since time.Time) {
	for shard := range postgres.Shards {
		h := s.held[shard]
		if h == nil || !slot.After(h.lastSlot) {
			continue
		}
		if !h.lastSlot.IsZero() && (since.IsZero() || h.lastSlot.Before(since)) {
			since = h.lastSlot
		}
		leases = append(leases, h.lease)
	}
	return leases, since
}

// state is the one that a trigger has in the database; nil: none.
func (s *shards) state(w *watched) *standing {
	if h := s.held[postgres.ShardOf(w.SiteID)]; w.restored != h.restored {
		w.standing, w.restored = h.states[w.ID], h.restored
	}
	return w.standing
}

// promptWrites is up to how many numbers that nothing depends on are written in every slot. Of more
// each is written once a minute, so that a slot of 10,000 busy triggers does not write 10,000 rows.
const promptWrites = 500

// changes are the states that are written after a slot. What a successor must know is written at once; that
// a slot passed is known from the lease. States that wait for their turn are marked.
func (r *round) changes(slot time.Time, interval time.Duration) (write []postgres.State) {
	var numbers []int
	for i := range r.turns {
		t := &r.turns[i]
		switch {
		case t.next == nil && (t.before == nil || !t.before.deferred):
		case t.next == nil: // only its turn to be written may have come
			t.next = r.after[0].keep(*t.before)
			t.next.deferred = false
			numbers = append(numbers, i)
		case t.before == nil || t.before.moved(*t.next):
			write = append(write, t.written())
		case t.before.deferred || !t.before.shows(*t.next):
			numbers = append(numbers, i)
		}
	}
	turns := max(1, int64(time.Minute/interval)) // slots
	for _, i := range numbers {
		t := &r.turns[i]
		if len(numbers) > promptWrites && int64(crc32.ChecksumIEEE([]byte(t.ID)))%turns != slot.Unix()/int64(interval/time.Second)%turns {
			t.next.deferred = true
			continue
		}
		write = append(write, t.written())
	}
	return write
}

func (t *turn) written() postgres.State {
	return postgres.State{TriggerID: t.ID, SiteID: t.SiteID, State: t.next.unpacked()}
}

// settle records what a slot's commit has written: due shards that it left out are lost, the
// states after the slot hold for the others.
func (s *shards) settle(due []postgres.Lease, written postgres.Result, r *round) {
	s.forget("lost", slices.DeleteFunc(slices.Clone(due), func(l postgres.Lease) bool { return slices.Contains(written.Leases, l) }))
	for _, l := range written.Leases {
		s.held[l.Shard].lastSlot = written.Slot
	}
	var watching [postgres.Shards]int
	for i := range r.turns {
		t := &r.turns[i]
		shard := postgres.ShardOf(t.SiteID)
		h := s.held[shard]
		if h == nil {
			continue
		}
		watching[shard]++
		switch {
		case t.passed:
			t.before.last = written.Slot.UnixMicro()
		case t.next == nil:
		case t.before != nil:
			*t.before = *t.next
		default: // the state of an earlier revision is replaced
			state := *t.next
			t.standing, h.states[t.ID] = &state, &state
		}
	}
	for _, l := range written.Leases {
		if h := s.held[l.Shard]; len(h.states) > watching[l.Shard] {
			h.leave(r.turns)
		}
	}
}

// leave forgets the states of triggers that are no longer watched.
func (h *holding) leave(turns []turn) {
	watched := make(map[string]bool, len(turns))
	for _, t := range turns {
		watched[t.ID] = true
	}
	maps.DeleteFunc(h.states, func(id string, _ *standing) bool { return !watched[id] })
}

// pause waits, and reports false if the context ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
