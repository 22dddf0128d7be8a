package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// holdingLeases begins a transaction that locks rows of leases. Whoever is paused within one (a suspended machine, a frozen
// container) would keep its shards from all others for as long as its connection stands, so the server ends it first: well
// within the time that leases outlive their owner's last heartbeat.
var holdingLeases = pgx.TxOptions{BeginQuery: "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '5s'"}

// Standings reads how far the leases' shards were evaluated by anyone, by shard, and hands over the states
// of their triggers; a shard that nobody has evaluated yet has the zero time. A shard that has another
// owner by now is missing. A commit of the same owner that still runs, because its answer was lost, is
// waited for.
func (s *Store) Standings(ctx context.Context, leases []Lease, each func(shard int, triggerID string, state trigger.State)) (lastSlots map[int]time.Time, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, holdingLeases, func(tx pgx.Tx) error {
		if lastSlots, err = lockStandings(ctx, tx, leases); err != nil {
			return err
		}
		return readStates(ctx, tx, slices.Collect(maps.Keys(lastSlots)), each)
	})
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	return lastSlots, nil
}

func lockStandings(ctx context.Context, tx pgx.Tx, leases []Lease) (map[int]time.Time, error) {
	const statement = `
		SELECT shard, last_slot FROM evaluator_leases
		WHERE (shard, owner, epoch) IN (SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[])) FOR UPDATE`
	rows, err := tx.Query(ctx, statement, leaseColumns(leases)...)
	if err != nil {
		return nil, err
	}
	lastSlots := map[int]time.Time{}
	var shard int
	var lastSlot *time.Time
	_, err = pgx.ForEachRow(rows, []any{&shard, &lastSlot}, func() error {
		lastSlots[shard] = known(lastSlot)
		return nil
	})
	return lastSlots, err
}

func readStates(ctx context.Context, tx pgx.Tx, shards []int, each func(shard int, triggerID string, state trigger.State)) error {
	const statement = `
		SELECT site_shard(t.site_id), s.trigger_id, s.revision, s.status, s.value, s.threshold, s.since,
		       s.last_evaluated_at, s.last_fired_at, s.explanation, s.machine
		FROM trigger_states s JOIN triggers t ON t.id = s.trigger_id WHERE site_shard(t.site_id) = ANY ($1)`
	rows, err := tx.Query(ctx, statement, shards)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var shard int
		var id string
		var state trigger.State
		var lastFired *time.Time
		err := rows.Scan(&shard, &id, &state.Revision, &state.Status, &state.Value, &state.Threshold, &state.Since,
			&state.LastSlot, &lastFired, &state.Explanation, &state.Machine)
		if err != nil {
			return err
		}
		state.Since, state.LastSlot, state.LastFiredAt = state.Since.UTC(), state.LastSlot.UTC(), known(lastFired)
		each(shard, id, state)
	}
	return rows.Err()
}

// State is where a trigger stands after a slot.
type State struct {
	TriggerID string
	SiteID    int64
	trigger.State
}

// Result is what a slot came to.
type Result struct {
	Leases  []Lease // of the shards that were evaluated
	Slot    time.Time
	States  []State // those that changed
	Firings []Firing
}

// of is the part of a result that belongs to some shards.
func (r Result) of(shards []int) Result {
	r.Leases = slices.DeleteFunc(slices.Clone(r.Leases), func(l Lease) bool { return !slices.Contains(shards, l.Shard) })
	r.States = slices.DeleteFunc(slices.Clone(r.States), func(s State) bool { return !slices.Contains(shards, ShardOf(s.SiteID)) })
	r.Firings = slices.DeleteFunc(slices.Clone(r.Firings), func(f Firing) bool { return !slices.Contains(shards, ShardOf(f.SiteID)) })
	return r
}

const (
	fence = `
		UPDATE evaluator_leases SET last_slot = $4
		WHERE (shard, owner, epoch) IN (SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[]))
		RETURNING shard`

	upsertStates = `
		INSERT INTO trigger_states (trigger_id, revision, status, value, threshold, since, last_evaluated_at, last_fired_at, explanation, machine)
		SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::float8[], $5::float8[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::jsonb[])
		ON CONFLICT (trigger_id) DO UPDATE SET
			revision = excluded.revision, status = excluded.status, value = excluded.value, threshold = excluded.threshold, since = excluded.since,
			last_evaluated_at = excluded.last_evaluated_at, last_fired_at = excluded.last_fired_at, explanation = excluded.explanation, machine = excluded.machine`

	insertFirings = `
		INSERT INTO firings (id, slot, site_id, webhook_id, trigger_id, trigger_type, type, payload, trace_context, pending)
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::text[], $10::json[])
		ON CONFLICT (id, slot) DO NOTHING`
)

// Commit writes the changed states and the firings of a slot in one transaction, fenced by the
// epochs of the leases, and returns what it has written: the part of the shards that still have
// this owner. If none has, it writes nothing and returns ErrFenced.
func (s *Store) Commit(ctx context.Context, r Result) (written Result, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, holdingLeases, func(tx pgx.Tx) error {
		// The update locks the leases' rows: who wants to take them over waits for this commit.
		rows, err := tx.Query(ctx, fence, append(leaseColumns(r.Leases), r.Slot)...)
		if err != nil {
			return fmt.Errorf("commit slot: %w", err)
		}
		held, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return fmt.Errorf("commit slot: %w", err)
		}
		if len(held) == 0 {
			return ErrFenced
		}
		written = r
		if len(held) < len(r.Leases) {
			written = r.of(held)
		}
		return write(ctx, tx, written)
	})
	if err != nil {
		return Result{}, err
	}
	return written, nil
}

func write(ctx context.Context, tx pgx.Tx, r Result) error {
	batch := &pgx.Batch{}
	if len(r.States) > 0 {
		arguments, err := stateColumns(r.States)
		if err != nil {
			return err
		}
		batch.Queue(upsertStates, arguments...)
	}
	if len(r.Firings) > 0 {
		batch.Queue(insertFirings, firingColumns(r.Firings)...)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("commit slot: %w", err)
	}
	return nil
}

func stateColumns(states []State) ([]any, error) {
	n := len(states)
	ids, revisions, statuses := make([]string, 0, n), make([]int32, 0, n), make([]string, 0, n)
	values, thresholds := make([]*float64, 0, n), make([]*float64, 0, n)
	since, slots, fired := make([]time.Time, 0, n), make([]time.Time, 0, n), make([]*time.Time, 0, n)
	explanations, machines := make([]string, 0, n), make([]string, 0, n)
	for _, state := range states {
		machine, err := json.Marshal(state.Machine)
		if err != nil {
			return nil, fmt.Errorf("encode the state of trigger %s: %w", state.TriggerID, err)
		}
		var lastFired *time.Time
		if !state.LastFiredAt.IsZero() {
			lastFired = &state.LastFiredAt
		}
		ids, revisions, statuses = append(ids, state.TriggerID), append(revisions, int32(state.Revision)), append(statuses, string(state.Status))
		values, thresholds = append(values, state.Value), append(thresholds, state.Threshold)
		since, slots, fired = append(since, state.Since), append(slots, state.LastSlot), append(fired, lastFired)
		explanations, machines = append(explanations, state.Explanation), append(machines, string(machine))
	}
	return []any{ids, revisions, statuses, values, thresholds, since, slots, fired, explanations, machines}, nil
}

// RemoveOrphanStates deletes the states of triggers that are gone.
func (s *Store) RemoveOrphanStates(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, "DELETE FROM trigger_states s WHERE NOT EXISTS (SELECT FROM triggers t WHERE t.id = s.trigger_id)")
	if err != nil {
		return fmt.Errorf("remove states of removed triggers: %w", err)
	}
	return nil
}
