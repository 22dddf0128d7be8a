package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// States reads where every trigger stands.
func (s *Store) States(ctx context.Context) (map[string]trigger.State, error) {
	const statement = `
		SELECT trigger_id, revision, status, value, threshold, since, last_evaluated_at, last_fired_at, explanation, machine
		FROM trigger_states`
	rows, err := s.pool.Query(ctx, statement)
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	states := map[string]trigger.State{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var id string
		var state trigger.State
		var lastFired *time.Time
		err := row.Scan(&id, &state.Revision, &state.Status, &state.Value, &state.Threshold, &state.Since, &state.LastSlot, &lastFired, &state.Explanation, &state.Machine)
		state.Since, state.LastSlot = state.Since.UTC(), state.LastSlot.UTC()
		if lastFired != nil {
			state.LastFiredAt = lastFired.UTC()
		}
		states[id] = state
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	return states, nil
}

// Result is what a slot came to.
type Result struct {
	Lease   Lease
	Slot    time.Time
	States  map[string]trigger.State // those that changed, by trigger
	Firings []trigger.Firing
}

const (
	fence = `UPDATE evaluator_leases SET last_slot = $4 WHERE shard = $1 AND owner = $2 AND epoch = $3`

	upsertStates = `
		INSERT INTO trigger_states (trigger_id, revision, status, value, threshold, since, last_evaluated_at, last_fired_at, explanation, machine)
		SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::float8[], $5::float8[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::jsonb[])
		ON CONFLICT (trigger_id) DO UPDATE SET
			revision = excluded.revision, status = excluded.status, value = excluded.value, threshold = excluded.threshold, since = excluded.since,
			last_evaluated_at = excluded.last_evaluated_at, last_fired_at = excluded.last_fired_at, explanation = excluded.explanation, machine = excluded.machine`

	insertFirings = `
		INSERT INTO firings (id, slot, site_id, webhook_id, trigger_id, trigger_type, type, payload, trace_context)
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::text[])
		ON CONFLICT (id, slot) DO NOTHING`
)

// Commit writes the changed states and the firings of a slot in one transaction of one round
// trip, fenced by the lease's epoch. It returns ErrFenced, and writes nothing, if the lease
// has another owner by now.
func (s *Store) Commit(ctx context.Context, r Result) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// The update locks the lease's row: who takes it over waits for this commit.
		tag, err := tx.Exec(ctx, fence, r.Lease.Shard, r.Lease.Owner, r.Lease.Epoch, r.Slot)
		if err != nil {
			return fmt.Errorf("commit slot: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return ErrFenced
		}
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
	})
}

func stateColumns(states map[string]trigger.State) ([]any, error) {
	n := len(states)
	ids, revisions, statuses := make([]string, 0, n), make([]int32, 0, n), make([]string, 0, n)
	values, thresholds := make([]*float64, 0, n), make([]*float64, 0, n)
	since, slots, fired := make([]time.Time, 0, n), make([]time.Time, 0, n), make([]*time.Time, 0, n)
	explanations, machines := make([]string, 0, n), make([]string, 0, n)
	for id, state := range states {
		machine, err := json.Marshal(state.Machine)
		if err != nil {
			return nil, fmt.Errorf("encode the state of trigger %s: %w", id, err)
		}
		var lastFired *time.Time
		if !state.LastFiredAt.IsZero() {
			lastFired = &state.LastFiredAt
		}
		ids, revisions, statuses = append(ids, id), append(revisions, int32(state.Revision)), append(statuses, string(state.Status))
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
