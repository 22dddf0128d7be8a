package postgres

import "context"

// sweepRows is how many rows one sweep touches, so that a webhook with a long queue does not
// hold locks for long. Callers repeat until a sweep finds fewer.
const sweepRows = 5000

// Rows that another dispatcher is sending or sweeping are left alone: their outcome decides,
// and the next sweep sees it.
const releaseHeldSQL = `
UPDATE deliveries d
SET next_attempt_at = now()
FROM (
    SELECT d.id, d.slot
    FROM deliveries d
    JOIN webhooks w ON w.id = d.webhook_id
    LEFT JOIN webhook_health h ON h.webhook_id = w.id
    WHERE d.status = 'waiting' AND d.next_attempt_at IS NULL
      AND w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true)
      AND ($1::text[] IS NULL OR d.webhook_id = ANY($1))
    LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
) AS held
WHERE d.id = held.id AND d.slot = held.slot`

// ReleaseHeld makes due what was held for webhooks that are enabled again: of these, or of
// all if ids is nil. It tells whether there may be more.
func (s *Store) ReleaseHeld(ctx context.Context, ids []string) (released int64, more bool, err error) {
	return s.sweep(ctx, "release held deliveries", releaseHeldSQL, ids)
}

const cancelRemovedSQL = `
UPDATE deliveries d
SET status = 'cancelled', next_attempt_at = NULL, claimed_until = NULL, finished_at = now(),
    last_error = 'the webhook was removed'
FROM (
    SELECT d.id, d.slot
    FROM deliveries d
    WHERE d.status = 'waiting' AND (d.claimed_until IS NULL OR d.claimed_until <= now())
      AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.id = d.webhook_id)
      AND ($1::text[] IS NULL OR d.webhook_id = ANY($1))
    LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
) AS orphaned
WHERE d.id = orphaned.id AND d.slot = orphaned.slot`

// CancelRemoved ends what waits for webhooks that no longer exist: of these, or of all if ids
// is nil. It tells whether there may be more.
func (s *Store) CancelRemoved(ctx context.Context, ids []string) (cancelled int64, more bool, err error) {
	return s.sweep(ctx, "cancel deliveries of removed webhooks", cancelRemovedSQL, ids)
}

func (s *Store) sweep(ctx context.Context, what, sql string, ids []string) (int64, bool, error) {
	tag, err := s.pool.Exec(ctx, sql, ids, sweepRows)
	return tag.RowsAffected(), tag.RowsAffected() == sweepRows, wrap(what, err)
}
