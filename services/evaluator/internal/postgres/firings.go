package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Firing is one in the outbox. It waits there until its message is complete.
type Firing struct {
	trigger.Firing
	Pending []byte // what its context is asked with, as JSON; nil: the message is complete
}

func firingColumns(firings []Firing) []any {
	n := len(firings)
	ids, slots, sites := make([]string, n), make([]time.Time, n), make([]int64, n)
	webhooks, triggers, triggerTypes := make([]string, n), make([]string, n), make([]string, n)
	types, payloads, traces, pending := make([]string, n), make([][]byte, n), make([]string, n), make([]*string, n)
	for i, f := range firings {
		ids[i], slots[i], sites[i] = f.ID, f.Slot, f.SiteID
		webhooks[i], triggers[i], triggerTypes[i] = f.WebhookID, f.TriggerID, string(f.TriggerType)
		types[i], payloads[i], traces[i] = f.Type, f.Payload, f.TraceContext
		if f.Pending != nil {
			text := string(f.Pending)
			pending[i] = &text
		}
	}
	return []any{ids, slots, sites, webhooks, triggers, triggerTypes, types, payloads, traces, pending}
}

// Incomplete reads firings of the owner's shards that wait in the outbox for their context, the oldest first.
func (s *Store) Incomplete(ctx context.Context, owner string, limit int) ([]Firing, error) {
	return s.waiting(ctx, "pending IS NOT NULL", owner, limit)
}

// Unpublished reads complete firings of the owner's shards that wait in the outbox for JetStream, the
// oldest first.
func (s *Store) Unpublished(ctx context.Context, owner string, limit int) ([]Firing, error) {
	return s.waiting(ctx, "pending IS NULL", owner, limit)
}

func (s *Store) waiting(ctx context.Context, where, owner string, limit int) ([]Firing, error) {
	statement := `
		SELECT id, slot, site_id, webhook_id, trigger_id, trigger_type, type, payload, trace_context, pending
		FROM firings
		WHERE published_at IS NULL AND ` + where + ` AND site_shard(site_id) IN (SELECT shard FROM evaluator_leases WHERE owner = $1)
		ORDER BY slot, id LIMIT $2`
	rows, err := s.pool.Query(ctx, statement, owner, limit)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	firings, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f Firing, err error) {
		err = row.Scan(&f.ID, &f.Slot, &f.SiteID, &f.WebhookID, &f.TriggerID, &f.TriggerType, &f.Type, &f.Payload, &f.TraceContext, &f.Pending)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return firings, nil
}

// Complete writes the payloads of firings that were incomplete. Whoever comes second changes nothing: a payload that may
// have been published stays as it is.
func (s *Store) Complete(ctx context.Context, firings []Firing) error {
	const statement = `
		UPDATE firings f SET payload = c.payload, pending = NULL
		FROM unnest($1::text[], $2::timestamptz[], $3::bytea[]) AS c (id, slot, payload)
		WHERE f.id = c.id AND f.slot = c.slot AND f.pending IS NOT NULL`
	ids, slots, payloads := make([]string, len(firings)), make([]time.Time, len(firings)), make([][]byte, len(firings))
	for i, f := range firings {
		ids[i], slots[i], payloads[i] = f.ID, f.Slot, f.Payload
	}
	if _, err := s.pool.Exec(ctx, statement, ids, slots, payloads); err != nil {
		return fmt.Errorf("complete firings: %w", err)
	}
	return nil
}

// Published is a firing that JetStream has stored.
type Published struct {
	ID       string
	Slot     time.Time
	Sequence uint64 // in the stream
}

// MarkPublished records what JetStream has stored.
func (s *Store) MarkPublished(ctx context.Context, published []Published) error {
	const statement = `
		UPDATE firings f SET published_at = now(), stream_seq = p.seq
		FROM unnest($1::text[], $2::timestamptz[], $3::bigint[]) AS p (id, slot, seq)
		WHERE f.id = p.id AND f.slot = p.slot AND f.published_at IS NULL`
	ids, slots, sequences := make([]string, len(published)), make([]time.Time, len(published)), make([]int64, len(published))
	for i, p := range published {
		ids[i], slots[i], sequences[i] = p.ID, p.Slot, int64(p.Sequence)
	}
	if _, err := s.pool.Exec(ctx, statement, ids, slots, sequences); err != nil {
		return fmt.Errorf("mark published: %w", err)
	}
	return nil
}

// ConfirmDelivered marks the published firings that have a delivery row: nothing is left to do
// for them.
func (s *Store) ConfirmDelivered(ctx context.Context) error {
	const statement = `
		UPDATE firings f SET confirmed_at = now() FROM deliveries d
		WHERE f.published_at IS NOT NULL AND f.confirmed_at IS NULL AND d.id = f.id AND d.slot = f.slot`
	if _, err := s.pool.Exec(ctx, statement); err != nil {
		return fmt.Errorf("confirm firings: %w", err)
	}
	return nil
}

// Unconfirmed reads firings that were published longer ago than age and have no delivery row.
func (s *Store) Unconfirmed(ctx context.Context, age time.Duration, limit int) ([]Published, error) {
	const statement = `
		SELECT id, slot, stream_seq FROM firings
		WHERE published_at < now() - $1::interval AND confirmed_at IS NULL ORDER BY published_at LIMIT $2`
	rows, err := s.pool.Query(ctx, statement, age, limit)
	if err != nil {
		return nil, fmt.Errorf("read unconfirmed firings: %w", err)
	}
	unconfirmed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Published])
	if err != nil {
		return nil, fmt.Errorf("read unconfirmed firings: %w", err)
	}
	return unconfirmed, nil
}

// Unpublish returns firings to the outbox, to be published again with the same ids.
func (s *Store) Unpublish(ctx context.Context, firings []Published) error {
	const statement = `
		UPDATE firings f SET published_at = NULL, stream_seq = NULL
		FROM unnest($1::text[], $2::timestamptz[]) AS p (id, slot)
		WHERE f.id = p.id AND f.slot = p.slot AND f.confirmed_at IS NULL`
	ids, slots := make([]string, len(firings)), make([]time.Time, len(firings))
	for i, p := range firings {
		ids[i], slots[i] = p.ID, p.Slot
	}
	if _, err := s.pool.Exec(ctx, statement, ids, slots); err != nil {
		return fmt.Errorf("return firings to the outbox: %w", err)
	}
	return nil
}
