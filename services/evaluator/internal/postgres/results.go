package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// SlotResults is what came of a trigger's slots in an hour of the clock, packed.
type SlotResults struct {
	TriggerID string
	Hour      time.Time // its start
	Upto      time.Time // the newest slot
	Packed    []byte
}

// WriteSlotResults writes hours of triggers, unless what is stored reaches further: an owner that was
// replaced does not undo what its successor wrote. The rows are written in the order of their keys, so
// that two replicas that meet wait for each other.
func (s *Store) WriteSlotResults(ctx context.Context, results []SlotResults) error {
	const statement = `
		INSERT INTO slot_results (trigger_id, hour, upto, results)
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::bytea[]) AS r (id, hour) ORDER BY r.id, r.hour
		ON CONFLICT (trigger_id, hour) DO UPDATE SET upto = excluded.upto, results = excluded.results
		WHERE slot_results.upto < excluded.upto`
	if len(results) == 0 {
		return nil
	}
	ids, hours, upto, packed := make([]string, len(results)), make([]time.Time, len(results)), make([]time.Time, len(results)), make([][]byte, len(results))
	for i, r := range results {
		ids[i], hours[i], upto[i], packed[i] = r.TriggerID, r.Hour, r.Upto, r.Packed
	}
	if _, err := s.pool.Exec(ctx, statement, ids, hours, upto, packed); err != nil {
		return fmt.Errorf("write results of slots: %w", err)
	}
	return nil
}

// SlotResults reads the hours of triggers that begin from a time to another, both included, the oldest
// first.
func (s *Store) SlotResults(ctx context.Context, triggerIDs []string, from, to time.Time) ([]SlotResults, error) {
	const statement = `
		SELECT trigger_id, hour, upto, results FROM slot_results
		WHERE trigger_id = ANY ($1) AND hour >= $2 AND hour <= $3 ORDER BY trigger_id, hour`
	rows, err := s.pool.Query(ctx, statement, triggerIDs, from, to)
	if err != nil {
		return nil, fmt.Errorf("read results of slots: %w", err)
	}
	results, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r SlotResults, err error) {
		err = row.Scan(&r.TriggerID, &r.Hour, &r.Upto, &r.Packed)
		r.Hour, r.Upto = r.Hour.UTC(), r.Upto.UTC()
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read results of slots: %w", err)
	}
	return results, nil
}

// RemoveOldSlotResults deletes hours that began so long ago.
func (s *Store) RemoveOldSlotResults(ctx context.Context, age time.Duration) error {
	if _, err := s.pool.Exec(ctx, "DELETE FROM slot_results WHERE hour < now() - $1::interval", age); err != nil {
		return fmt.Errorf("remove old results of slots: %w", err)
	}
	return nil
}

// TriggerState reads where a trigger stands, as it was last written. It reports false if it was
// never evaluated.
func (s *Store) TriggerState(ctx context.Context, triggerID string) (state trigger.State, evaluated bool, err error) {
	const statement = `
		SELECT revision, status, value, threshold, since, last_evaluated_at, last_fired_at, explanation
		FROM trigger_states WHERE trigger_id = $1`
	var lastFired *time.Time
	err = s.pool.QueryRow(ctx, statement, triggerID).Scan(&state.Revision, &state.Status, &state.Value, &state.Threshold, &state.Since,
		&state.LastSlot, &lastFired, &state.Explanation)
	if errors.Is(err, pgx.ErrNoRows) {
		return state, false, nil
	}
	if err != nil {
		return state, false, fmt.Errorf("read the state of a trigger: %w", err)
	}
	state.Since, state.LastSlot = state.Since.UTC(), state.LastSlot.UTC()
	state.LastFiredAt = known(lastFired)
	return state, true, nil
}
