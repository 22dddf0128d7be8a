package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Gatherer is a webhook for which firings gather, and how far they are.
type Gatherer struct {
	WebhookID string
	Ready     bool          // there are enough for a batch, or the oldest has waited long enough
	Wait      time.Duration // else until it has
	Ends      bool          // the webhook wants no batches any more, or it was removed
}

// Webhooks are jumped through one by one, as in surveySQL.
const findGatherersSQL = `
WITH RECURSIVE gathering(webhook_id) AS (
    (SELECT d.webhook_id FROM deliveries d WHERE d.status = 'gathering' ORDER BY d.webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM deliveries d WHERE d.status = 'gathering' AND d.webhook_id > gathering.webhook_id ORDER BY d.webhook_id LIMIT 1)
    FROM gathering WHERE gathering.webhook_id IS NOT NULL
)
SELECT webhook_id FROM gathering WHERE webhook_id IS NOT NULL`

// FindGatherers reads the webhooks for which firings gather.
func (s *Store) FindGatherers(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, findGatherersSQL)
	if err != nil {
		return nil, wrap("look for gathering firings", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, wrap("look for gathering firings", err)
}

const gatherersSQL = `
SELECT a.id, coalesce(head.n >= w.batch_max_size OR head.until <= now(), false), coalesce(greatest(head.until - now(), interval '0'), interval '0'), w.batch_max_size IS NULL
FROM unnest($1::text[]) AS a(id)
LEFT JOIN webhooks w ON w.id = a.id
CROSS JOIN LATERAL (
    SELECT count(*) AS n, min(d.created_at) + make_interval(secs => w.batch_max_wait_seconds) AS until
    FROM (SELECT d.created_at FROM deliveries d WHERE d.webhook_id = a.id AND d.status = 'gathering'
          ORDER BY d.created_at, d.id LIMIT coalesce(w.batch_max_size, 1)) AS d
) AS head
WHERE head.n > 0`

// Gatherers tells how far each of these webhooks is; nothing gathers for those that are left out.
func (s *Store) Gatherers(ctx context.Context, webhookIDs []string) ([]Gatherer, error) {
	rows, err := s.pool.Query(ctx, gatherersSQL, webhookIDs)
	if err != nil {
		return nil, wrap("look at gathering firings", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Gatherer])
	return all, wrap("look at gathering firings", err)
}

// Batch is the delivery that brings some firings together.
type Batch struct {
	ID      string
	Slot    time.Time
	Firings int // of the gathered ones, the first so many
	Payload []byte
}

// What another dispatcher is batching is left to it.
const gatheredSQL = `
SELECT d.id, d.slot, d.site_id, d.payload, d.created_at + make_interval(secs => w.batch_max_wait_seconds) <= now(), w.batch_max_size, now()
FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id
WHERE d.webhook_id = $1 AND d.status = 'gathering' AND w.batch_max_size IS NOT NULL
ORDER BY d.created_at, d.id
LIMIT (SELECT batch_max_size FROM webhooks WHERE id = $1)
FOR UPDATE OF d SKIP LOCKED`

const batchedSQL = `
UPDATE deliveries d SET status = 'batched', batch_id = $3, finished_at = now()
FROM unnest($1::text[], $2::timestamptz[]) AS m(id, slot)
WHERE d.id = m.id AND d.slot = m.slot`

// Batch makes one delivery, due now, of the webhook's oldest gathering firings, if they are enough or
// the first has waited for long enough; compose makes it of them. A firing is in one batch whatever
// happens: its row and the batch's change together.
func (s *Store) Batch(ctx context.Context, webhookID string, compose func(gathered []Delivery, now time.Time) Batch) (made bool, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, gatheredSQL, webhookID)
		if err != nil {
			return err
		}
		var (
			gathered []Delivery
			one      Delivery
			due      bool // any of them
			overdue  bool
			size     int
			now      time.Time
		)
		_, err = pgx.ForEachRow(rows, []any{&one.ID, &one.Slot, &one.SiteID, &one.Payload, &overdue, &size, &now}, func() error {
			gathered = append(gathered, one)
			one.Payload = nil
			due = due || overdue
			return nil
		})
		if err != nil || len(gathered) == 0 || !due && len(gathered) < size {
			return err
		}
		b := compose(gathered, now)
		keys := make([]Key, b.Firings)
		for i := range keys {
			keys[i] = Key{gathered[i].ID, gathered[i].Slot}
		}
		ids, slots := columns(keys)
		if _, err := tx.Exec(ctx, `
			INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, next_attempt_at, payload)
			VALUES ($1, $2, $3, $4, $5, 'batch', 'waiting', now(), $6)`, b.ID, b.Slot, gathered[0].SiteID, webhookID, ids, b.Payload); err != nil {
			return err
		}
		made = true
		_, err = tx.Exec(ctx, batchedSQL, ids, slots, b.ID)
		return err
	})
	return made && err == nil, wrap("make a batch", err)
}

// What gathered for a webhook that wants no batches any more is held for it, each for itself; the
// sweep cancels what is held for one that was removed.
const scatterSQL = `
UPDATE deliveries d SET status = 'waiting'
FROM (
    SELECT d.id, d.slot FROM deliveries d
    WHERE d.webhook_id = $1 AND d.status = 'gathering'
      AND NOT EXISTS (SELECT FROM webhooks w WHERE w.id = d.webhook_id AND w.batch_max_size IS NOT NULL)
    LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
) AS gathering
WHERE d.id = gathering.id AND d.slot = gathering.slot`

// Scatter gives up gathering for a webhook. It tells whether there may be more.
func (s *Store) Scatter(ctx context.Context, webhookID string) (more bool, err error) {
	tag, err := s.pool.Exec(ctx, scatterSQL, webhookID, sweepRows)
	return tag.RowsAffected() == sweepRows, wrap("give up gathering", err)
}
