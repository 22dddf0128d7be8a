package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// SystemEvent is something that operators should know. Its id is derived from facts.
type SystemEvent struct {
	ID      string
	Kind    string
	At      time.Time
	Payload []byte // a JSON object
}

// AddSystemEvents puts events into their outbox and returns the ids of those that were not there:
// another replica, or an earlier life of this one, may have noticed the same.
func (s *Store) AddSystemEvents(ctx context.Context, events []SystemEvent) (added []string, err error) {
	const statement = `
		INSERT INTO system_events (id, kind, at, payload)
		SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::jsonb[])
		ON CONFLICT (id) DO NOTHING RETURNING id`
	n := len(events)
	ids, kinds, times, payloads := make([]string, n), make([]string, n), make([]time.Time, n), make([]string, n)
	for i, e := range events {
		ids[i], kinds[i], times[i], payloads[i] = e.ID, e.Kind, e.At, string(e.Payload)
	}
	rows, err := s.pool.Query(ctx, statement, ids, kinds, times, payloads)
	if err != nil {
		return nil, fmt.Errorf("write system events: %w", err)
	}
	if added, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return nil, fmt.Errorf("write system events: %w", err)
	}
	return added, nil
}

// UnpublishedSystemEvents reads events that wait in the outbox for JetStream, the oldest first.
func (s *Store) UnpublishedSystemEvents(ctx context.Context, limit int) ([]SystemEvent, error) {
	rows, err := s.pool.Query(ctx, "SELECT id, kind, at, payload FROM system_events WHERE published_at IS NULL ORDER BY at, id LIMIT $1", limit)
	if err != nil {
		return nil, fmt.Errorf("read the outbox of system events: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SystemEvent])
	if err != nil {
		return nil, fmt.Errorf("read the outbox of system events: %w", err)
	}
	return events, nil
}

// MarkSystemEventsPublished records what JetStream has stored.
func (s *Store) MarkSystemEventsPublished(ctx context.Context, ids []string) error {
	if _, err := s.pool.Exec(ctx, "UPDATE system_events SET published_at = now() WHERE id = ANY ($1) AND published_at IS NULL", ids); err != nil {
		return fmt.Errorf("mark system events published: %w", err)
	}
	return nil
}

// UnansweredSystemEvents reads the events of a kind after which no event of the other kind with
// the same data.since came: what began and is not known to have ended.
func (s *Store) UnansweredSystemEvents(ctx context.Context, kind, answer string) ([]SystemEvent, error) {
	const statement = `
		SELECT id, kind, at, payload FROM system_events e
		WHERE kind = $1 AND NOT EXISTS (
			SELECT FROM system_events a WHERE a.kind = $2 AND a.payload->'data'->'since' = e.payload->'data'->'since')
		ORDER BY at, id`
	rows, err := s.pool.Query(ctx, statement, kind, answer)
	if err != nil {
		return nil, fmt.Errorf("read unanswered system events: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SystemEvent])
	if err != nil {
		return nil, fmt.Errorf("read unanswered system events: %w", err)
	}
	return events, nil
}

// Outage is a span in which no site had an event: Began is the last event before it, Ended the
// first after it, or zero while it lasts.
type Outage struct {
	Began, Ended time.Time
}

// RecordOutages writes outages, and the ends of those that lasted. Of two ends the earlier one holds:
// rows of an outage may come late.
func (s *Store) RecordOutages(ctx context.Context, outages []Outage) error {
	const statement = `
		INSERT INTO ingestion_outages AS o (began, ended)
		SELECT began, min(ended) FROM unnest($1::timestamptz[], $2::timestamptz[]) AS given (began, ended) GROUP BY began
		ON CONFLICT (began) DO UPDATE SET ended = least(o.ended, excluded.ended)
		WHERE o.ended IS DISTINCT FROM least(o.ended, excluded.ended)`
	began, ended := make([]time.Time, len(outages)), make([]*time.Time, len(outages))
	for i, o := range outages {
		began[i] = o.Began
		if !o.Ended.IsZero() {
			ended[i] = &outages[i].Ended
		}
	}
	if _, err := s.pool.Exec(ctx, statement, began, ended); err != nil {
		return fmt.Errorf("record outages of ingestion: %w", err)
	}
	return nil
}

// Outages reads those that last or ended since then, the oldest first.
func (s *Store) Outages(ctx context.Context, since time.Time) ([]Outage, error) {
	rows, err := s.pool.Query(ctx, "SELECT began, ended FROM ingestion_outages WHERE ended IS NULL OR ended > $1 ORDER BY began", since)
	if err != nil {
		return nil, fmt.Errorf("read outages of ingestion: %w", err)
	}
	outages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Outage, err error) {
		var ended *time.Time
		if err := row.Scan(&o.Began, &ended); err != nil {
			return Outage{}, err
		}
		if o.Began = o.Began.UTC(); ended != nil {
			o.Ended = ended.UTC()
		}
		return o, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read outages of ingestion: %w", err)
	}
	return outages, nil
}

// RemoveOldSystemEvents deletes what is older than keep: published events, and outages that ended.
func (s *Store) RemoveOldSystemEvents(ctx context.Context, keep time.Duration) error {
	batch := &pgx.Batch{}
	batch.Queue("DELETE FROM system_events WHERE published_at IS NOT NULL AND at < now() - $1::interval", keep)
	batch.Queue("DELETE FROM ingestion_outages WHERE ended < now() - $1::interval", keep)
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("remove old system events: %w", err)
	}
	return nil
}
