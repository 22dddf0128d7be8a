package postgres

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Pace bounds the recoveries.
type Pace struct {
	Rate  float64       // deliveries in a second, of one that names no rate
	Span  time.Duration // what a batch makes due, it makes due within so long
	Count time.Duration // a total that takes longer to count stays unknown
}

// Step is what Recover did.
type Step struct {
	CommandID string // empty: nothing was to be done
	WebhookID string
	Status    string // of the command by now
	Made      int    // deliveries that were made due
}

// job is a recovery as it stands.
type job struct {
	id, webhookID      string
	status             Status // of what it recovers
	since, until       time.Time
	askedAt            time.Time
	rate               float64
	cancelled, removed bool
	cursorSlot         *time.Time // nil: not counted yet
	cursorID           string
}

// The row's lock is the lease: it ends with the transaction, also that of a dispatcher that died. A
// cancelled one does not wait for its next batch.
const jobSQL = `
SELECT p.command_id, c.webhook_id, c.status, c.since, c.until, c.created_at, coalesce(c.rate_per_second, $1),
       c.cancelled_at IS NOT NULL, NOT EXISTS (SELECT FROM webhooks w WHERE w.id = c.webhook_id), p.cursor_slot, p.cursor_id
FROM command_progress p JOIN commands c ON c.id = p.command_id
WHERE p.status = 'running' AND (p.next_batch_at <= now() OR c.cancelled_at IS NOT NULL)
ORDER BY p.next_batch_at
LIMIT 1
FOR UPDATE OF p SKIP LOCKED`

// Recover takes one step of the recovery that has waited longest, in one transaction: it counts its
// deliveries, makes a batch of them due, or ends it. Any dispatcher may take any step, and a crash
// undoes the one that it interrupts. On an error the step names the recovery, if it came so far.
func (s *Store) Recover(ctx context.Context, pace Pace) (step Step, err error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return Step{}, wrap("recover deliveries", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // of what was committed it does nothing
	var j job
	err = tx.QueryRow(ctx, jobSQL, pace.Rate).Scan(&j.id, &j.webhookID, &j.status, &j.since, &j.until, &j.askedAt, &j.rate,
		&j.cancelled, &j.removed, &j.cursorSlot, &j.cursorID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Step{}, nil
	}
	if err != nil {
		return Step{}, wrap("take a recovery", err)
	}
	step = Step{CommandID: j.id, WebhookID: j.webhookID, Status: "running"}
	switch {
	case j.cancelled:
		step.Status = "cancelled"
		err = finish(ctx, tx, j.id, step.Status, "")
	case j.removed:
		step.Status = "failed"
		err = finish(ctx, tx, j.id, step.Status, "the webhook was removed")
	case j.cursorSlot == nil:
		err = count(ctx, tx, j, pace.Count)
	default:
		err = batch(ctx, tx, j, pace.Span, &step)
	}
	if err == nil {
		err = tx.Commit(ctx)
	}
	return step, wrap("recover deliveries", err)
}

func finish(ctx context.Context, tx pgx.Tx, id, status, reason string) error {
	_, err := tx.Exec(ctx, "UPDATE command_progress SET status = $2, error = $3, finished_at = now() WHERE command_id = $1", id, status, reason)
	return err
}

// What a recovery is about is settled when it is asked for: what ends so later, also because it was
// made due and failed again, is not. The status is spelled, so that a reused plan can use the index
// of those that are few.
const (
	countSQL = `
SELECT count(*) FROM deliveries
WHERE webhook_id = $1 AND status = '{status}' AND slot >= $2 AND slot < $3 AND finished_at <= $4`

	batchSQL = `
WITH chosen AS (
    SELECT id, slot FROM deliveries
    WHERE webhook_id = $1 AND status = '{status}' AND slot >= $2 AND slot < $3 AND finished_at <= $4 AND (slot, id) > ($5, $6)
    ORDER BY slot, id
    LIMIT $7
    FOR UPDATE
), placed AS (
    SELECT id, slot, row_number() OVER (ORDER BY slot, id) - 1 AS place FROM chosen
), made AS (
    UPDATE deliveries d
    SET status = 'waiting', finished_at = NULL, schedule_start = d.attempts, next_attempt_at = now() + placed.place / $8::float8 * interval '1 second'
    FROM placed
    WHERE d.id = placed.id AND d.slot = placed.slot
    RETURNING d.id, d.slot
)
SELECT slot, id, count(*) OVER () FROM made ORDER BY slot DESC, id DESC LIMIT 1`
)

// count notes how many deliveries the recovery is about. A webhook can have hundreds of millions:
// to know that is not worth holding up the others.
func count(ctx context.Context, tx pgx.Tx, j job, longest time.Duration) error {
	var total *int64
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('statement_timeout', $1, true)", strconv.FormatInt(max(longest.Milliseconds(), 1), 10)); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, spell(countSQL, j.status), j.webhookID, j.since, j.until, j.askedAt).Scan(&total); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SET LOCAL statement_timeout TO DEFAULT")
		return err
	})
	if isTimeout(err) {
		total, err = nil, nil
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE command_progress SET total = $2, cursor_slot = $3 WHERE command_id = $1", j.id, total, j.since)
	return err
}

// isTimeout tells that the server ended a statement for its time.
func isTimeout(err error) bool {
	var ended *pgconn.PgError
	return errors.As(err, &ended) && ended.Code == "57014"
}

// batch makes the next deliveries due, spread by the rate, and moves the cursor behind them.
func batch(ctx context.Context, tx pgx.Tx, j job, span time.Duration, step *Step) error {
	wanted := int(min(max(math.Ceil(j.rate*span.Seconds()), 1), sweepRows))
	var lastSlot time.Time
	var lastID string
	err := tx.QueryRow(ctx, spell(batchSQL, j.status), j.webhookID, j.since, j.until, j.askedAt, *j.cursorSlot, j.cursorID, wanted, j.rate).
		Scan(&lastSlot, &lastID, &step.Made)
	if errors.Is(err, pgx.ErrNoRows) {
		step.Status = "done"
		return finish(ctx, tx, j.id, step.Status, "")
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE command_progress
		SET done = done + $2, cursor_slot = $3, cursor_id = $4, next_batch_at = now() + $2 / $5::float8 * interval '1 second'
		WHERE command_id = $1`, j.id, step.Made, lastSlot, lastID, j.rate)
	return err
}

func spell(sql string, s Status) string { return strings.Replace(sql, "{status}", string(s), 1) }

// UntilNextBatch is how long it is until a running recovery has something to do; idle if none runs.
func (s *Store) UntilNextBatch(ctx context.Context, idle time.Duration) (wait time.Duration, err error) {
	err = s.pool.QueryRow(ctx, "SELECT coalesce(min(next_batch_at) - now(), $1) FROM command_progress WHERE status = 'running'", idle).Scan(&wait)
	return wait, wrap("look for recoveries", err)
}

// PostponeRecovery lets others go before one whose step failed.
func (s *Store) PostponeRecovery(ctx context.Context, id string, wait time.Duration) error {
	_, err := s.pool.Exec(ctx, "UPDATE command_progress SET next_batch_at = now() + $2::interval WHERE command_id = $1 AND status = 'running'", id, wait)
	return wrap("postpone a recovery", err)
}
