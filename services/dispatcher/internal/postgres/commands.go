package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// Command is what the api asks of the dispatchers.
type Command struct {
	ID         string
	Kind       string
	SiteID     int64
	SiteDomain string
	WebhookID  string
	DeliveryID string // of a test or a retry
	CreatedAt  time.Time
}

// maxOpen is how many commands OpenCommands reads at most.
const maxOpen = 100

// Commands are made by hand: even the whole history, which is read when no ids are given, is joined
// within milliseconds.
const openSQL = `
SELECT c.id, c.kind, c.site_id, c.site_domain, c.webhook_id, coalesce(c.delivery_id, ''), c.created_at
FROM commands c
WHERE NOT EXISTS (SELECT FROM command_progress p WHERE p.command_id = c.id)
  AND ($1::text[] IS NULL OR c.id = ANY($1))
ORDER BY c.created_at, c.id
LIMIT $2`

// OpenCommands reads commands that nobody has begun, the oldest first: of these, or of all if
// ids is nil. It tells whether there may be more.
func (s *Store) OpenCommands(ctx context.Context, ids []string) (open []Command, more bool, err error) {
	rows, err := s.pool.Query(ctx, openSQL, ids, maxOpen)
	if err != nil {
		return nil, false, wrap("read commands", err)
	}
	open, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Command])
	return open, len(open) == maxOpen, wrap("read commands", err)
}

// Ended tells how a command ended.
type Ended struct {
	Status string // done, failed or cancelled; empty: another dispatcher was first
	Error  string
}

// The row in command_progress and what it stands for commit together, so the command is obeyed
// once: a second dispatcher waits for the first, and finds the row.
const testSQL = `
WITH asked AS (
    SELECT c.*, CASE
        WHEN w.id IS NULL THEN 'the webhook was removed'
        WHEN NOT w.enabled THEN 'the webhook is paused'
        WHEN h.disabled_at > w.enabled_at THEN 'the webhook is disabled'
        ELSE '' END AS problem
    FROM commands c
    LEFT JOIN webhooks w ON w.id = c.webhook_id
    LEFT JOIN webhook_health h ON h.webhook_id = w.id
    WHERE c.id = $1
), begun AS (
    INSERT INTO command_progress (command_id, status, total, done, error, finished_at)
    SELECT id, CASE WHEN cancelled_at IS NOT NULL THEN 'cancelled' WHEN problem <> '' THEN 'failed' ELSE 'done' END,
           1, (cancelled_at IS NULL AND problem = '')::integer, problem, now()
    FROM asked
    ON CONFLICT DO NOTHING
    RETURNING status, error
), made AS (
    INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, next_attempt_at, payload)
    SELECT delivery_id, created_at, site_id, webhook_id, '{}', $2, 'waiting', now(), $3
    FROM asked, begun
    WHERE begun.status = 'done'
    ON CONFLICT DO NOTHING
)
SELECT status, error FROM begun`

// Test makes the delivery that a test asks for, due now.
func (s *Store) Test(ctx context.Context, c Command, messageType string, payload []byte) (Ended, error) {
	return s.end(ctx, "test", testSQL, c.ID, messageType, payload)
}

// A delivery that is claimed is being sent now, or will be when the lease of a dispatcher that died
// runs out: nothing more is owed.
const retrySQL = `
WITH asked AS (
    SELECT c.*, EXISTS (SELECT FROM webhooks w WHERE w.id = c.webhook_id) AS there
    FROM commands c
    WHERE c.id = $1
), wanted AS MATERIALIZED (
    SELECT d.id, d.slot
    FROM deliveries d
    WHERE d.id = $2 AND d.webhook_id = $3 AND d.status <> 'batched'
    FOR UPDATE
), judged AS (
    SELECT asked.*, CASE
        WHEN NOT there THEN 'the webhook was removed'
        WHEN NOT EXISTS (SELECT FROM wanted) THEN 'the delivery does not exist, or no longer'
        ELSE '' END AS problem
    FROM asked
), begun AS (
    INSERT INTO command_progress (command_id, status, total, done, error, finished_at)
    SELECT id, CASE WHEN cancelled_at IS NOT NULL THEN 'cancelled' WHEN problem <> '' THEN 'failed' ELSE 'done' END,
           1, (cancelled_at IS NULL AND problem = '')::integer, problem, now()
    FROM judged
    ON CONFLICT DO NOTHING
    RETURNING status, error
), made AS (
    UPDATE deliveries d
    SET status = 'waiting', finished_at = NULL, schedule_start = d.attempts, next_attempt_at = now()
    FROM wanted, begun
    WHERE begun.status = 'done' AND d.id = wanted.id AND d.slot = wanted.slot
      AND (d.claimed_until IS NULL OR d.claimed_until <= now())
)
SELECT status, error FROM begun`

// Retry makes a delivery due now, whatever became of it.
func (s *Store) Retry(ctx context.Context, c Command) (Ended, error) {
	return s.end(ctx, "retry", retrySQL, c.ID, c.DeliveryID, c.WebhookID)
}

func (s *Store) end(ctx context.Context, what, sql string, args ...any) (e Ended, err error) {
	err = s.pool.QueryRow(ctx, sql, args...).Scan(&e.Status, &e.Error)
	if errors.Is(err, pgx.ErrNoRows) {
		return Ended{}, nil
	}
	return e, wrap(what, err)
}

// StartRecovery makes a recovery one that runs: Recover does the rest.
func (s *Store) StartRecovery(ctx context.Context, c Command) error {
	_, err := s.pool.Exec(ctx, "INSERT INTO command_progress (command_id, status) VALUES ($1, 'running') ON CONFLICT DO NOTHING", c.ID)
	return wrap("start a recovery", err)
}

const failSQL = `
INSERT INTO command_progress AS p (command_id, status, error, finished_at) VALUES ($1, 'failed', $2, now())
ON CONFLICT (command_id) DO UPDATE SET status = 'failed', error = excluded.error, finished_at = now()
WHERE p.status = 'running'`

// FailCommand ends a command that can never be obeyed, with the reason in a sentence.
func (s *Store) FailCommand(ctx context.Context, id, reason string) error {
	_, err := s.pool.Exec(ctx, failSQL, id, reason)
	return wrap("fail a command", err)
}

// ForgetCommands removes the progress of commands that are gone, once it is old: a command that
// still exists would be obeyed again without it.
func (s *Store) ForgetCommands(ctx context.Context, keep time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		DELETE FROM command_progress p
		WHERE started_at < now() - $1::interval AND NOT EXISTS (SELECT FROM commands c WHERE c.id = p.command_id)`, keep)
	return wrap("forget commands", err)
}
