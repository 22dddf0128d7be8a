package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Waiting is jumped through webhook by webhook, so that the cost is that of the webhooks that
// have waiting rows, not of the rows. LIMIT keeps to one probe of the index for each of them.
const surveySQL = `
WITH RECURSIVE waiting(webhook_id) AS (
    (SELECT d.webhook_id FROM deliveries d WHERE d.status = 'waiting' ORDER BY d.webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM deliveries d WHERE d.status = 'waiting' AND d.webhook_id > waiting.webhook_id ORDER BY d.webhook_id LIMIT 1)
    FROM waiting WHERE waiting.webhook_id IS NOT NULL
)
SELECT waiting.webhook_id, w.id IS NULL
FROM waiting LEFT JOIN webhooks w ON w.id = waiting.webhook_id LEFT JOIN webhook_health h ON h.webhook_id = w.id
WHERE waiting.webhook_id IS NOT NULL
  AND (w.id IS NULL
       OR w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true)
          AND (SELECT true FROM deliveries d WHERE d.webhook_id = w.id AND d.status = 'waiting' AND d.next_attempt_at IS NULL LIMIT 1))`

// Survey finds, among the webhooks for which deliveries wait, those that were removed, and the
// enabled ones for which some are held.
func (s *Store) Survey(ctx context.Context) (removed, held []string, err error) {
	rows, err := s.pool.Query(ctx, surveySQL)
	if err != nil {
		return nil, nil, wrap("survey waiting deliveries", err)
	}
	var id string
	var gone bool
	_, err = pgx.ForEachRow(rows, []any{&id, &gone}, func() error {
		if gone {
			removed = append(removed, id)
		} else {
			held = append(held, id)
		}
		return nil
	})
	return removed, held, wrap("survey waiting deliveries", err)
}

// sweepRows is how many rows one sweep touches, so that a webhook with a long queue does not
// hold locks for long. Callers repeat until a sweep finds fewer.
const sweepRows = 5000

// Rows that another dispatcher is sending or sweeping are left alone: their outcome decides,
// and the next sweep sees it.
const cancelRemovedSQL = `
UPDATE deliveries d
SET status = 'cancelled', next_attempt_at = NULL, claimed_until = NULL, finished_at = now(),
    last_error = 'the webhook was removed'
FROM (
    SELECT d.id, d.slot
    FROM deliveries d
    WHERE d.status = 'waiting' AND (d.claimed_until IS NULL OR d.claimed_until <= now())
      AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.id = d.webhook_id)
      AND d.webhook_id = ANY($1)
    LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
) AS orphaned
WHERE d.id = orphaned.id AND d.slot = orphaned.slot`

// CancelRemoved ends what waits for those of the webhooks that no longer exist. It tells whether
// there may be more.
func (s *Store) CancelRemoved(ctx context.Context, ids []string) (cancelled int64, more bool, err error) {
	tag, err := s.pool.Exec(ctx, cancelRemovedSQL, ids, sweepRows)
	return tag.RowsAffected(), tag.RowsAffected() == sweepRows, wrap("cancel deliveries of removed webhooks", err)
}

const circuitsSQL = `
SELECT count(*) FILTER (WHERE circuit_open_until > now()), count(*) FILTER (WHERE circuit_open_until <= now())
FROM webhook_health WHERE circuit_open_until IS NOT NULL`

// Circuits counts the webhooks that get nothing for now, and those whose next delivery is a probe.
func (s *Store) Circuits(ctx context.Context) (open, halfOpen int, err error) {
	err = s.pool.QueryRow(ctx, circuitsSQL).Scan(&open, &halfOpen)
	return open, halfOpen, wrap("count open circuits", err)
}
