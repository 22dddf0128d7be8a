package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
)

// Command is what the dispatchers are asked for. They keep its progress.
type Command struct {
	ID         string
	SiteID     int64
	SiteDomain string
	WebhookID  string
	Kind       string   // one of pkg/stream's
	DeliveryID string   // of a retry, and of a test the one to be made
	Recovery   Recovery // of a recover
}

// Recovery is which deliveries of a webhook are sent again.
type Recovery struct {
	Since  time.Time `db:"since"` // of their slots
	Until  time.Time `db:"until"`
	Status string    `db:"status"`          // in which they ended
	Rate   *float64  `db:"rate_per_second"` // nil: the dispatchers' own
}

// keepCommands is how long it can be looked up what was asked for.
const keepCommands = 90 * 24 * time.Hour

const (
	forgetCommands = `DELETE FROM commands WHERE webhook_id = $1 AND created_at < now() - $2::interval`
	insertCommand  = `
		INSERT INTO commands (id, site_id, site_domain, webhook_id, kind, delivery_id, since, until, status, rate_per_second)
		VALUES ($1, $2, $3, $4, $5, nullif($6, ''), $7, $8, nullif($9, ''), $10)`
	// A recovery that nobody has begun yet runs as well.
	isRecovering = `
		SELECT EXISTS (SELECT FROM commands c LEFT JOIN command_progress p ON p.command_id = c.id
		WHERE c.webhook_id = $1 AND c.kind = 'recover' AND c.cancelled_at IS NULL AND coalesce(p.status, 'running') = 'running')`
)

// Ask stores a command; a message then wakes the dispatchers, and a sweep of theirs finds it if the
// message is lost. Of a webhook one recovery runs at a time: ErrBusy.
func (s *Store) Ask(ctx context.Context, c Command) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := readWebhook(ctx, tx, c.SiteID, c.WebhookID, " FOR UPDATE OF w"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, forgetCommands, c.WebhookID, keepCommands); err != nil {
			return wrap("forget commands", err)
		}
		var since, until *time.Time
		if c.Kind == stream.RecoverCommand {
			var busy bool
			if err := tx.QueryRow(ctx, isRecovering, c.WebhookID).Scan(&busy); err != nil {
				return wrap("look for a recovery", err)
			}
			if busy {
				return ErrBusy
			}
			since, until = &c.Recovery.Since, &c.Recovery.Until
		}
		_, err := tx.Exec(ctx, insertCommand, c.ID, c.SiteID, c.SiteDomain, c.WebhookID, c.Kind, c.DeliveryID, since, until, c.Recovery.Status, c.Recovery.Rate)
		return wrap("store a command", err)
	})
}

// RecoveryProgress is how far the dispatchers have come with a recovery.
type RecoveryProgress struct {
	ID string `db:"id"`
	Recovery
	State      string     `db:"state"` // waiting, running, done, cancelled or failed
	Total      *int64     `db:"total"` // nil: not counted yet, or too many to be
	Done       int64      `db:"done"`
	Error      string     `db:"error"`
	CreatedAt  time.Time  `db:"created_at"`
	FinishedAt *time.Time `db:"finished_at"`
}

const (
	selectRecovery = `
		SELECT c.id, c.since, c.until, c.status, c.rate_per_second, coalesce(p.status, 'waiting') AS state, p.total, coalesce(p.done, 0) AS done,
		       coalesce(p.error, '') AS error, c.created_at, p.finished_at
		FROM commands c LEFT JOIN command_progress p ON p.command_id = c.id
		WHERE c.site_id = $1 AND c.webhook_id = $2 AND c.id = $3 AND c.kind = 'recover'`
	cancelRecovery = `
		UPDATE commands SET cancelled_at = coalesce(cancelled_at, now()) WHERE site_id = $1 AND webhook_id = $2 AND id = $3 AND kind = 'recover'`
)

// Recovery reads a recovery of a webhook.
func (s *Store) Recovery(ctx context.Context, siteID int64, webhookID, id string) (RecoveryProgress, error) {
	rows, err := s.db(ctx).Query(ctx, selectRecovery, siteID, webhookID, id)
	if err != nil {
		return RecoveryProgress{}, wrap("read a recovery", err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[RecoveryProgress])
	return p, wrap("read a recovery", err)
}

// CancelRecovery asks the dispatchers to go no further. One that has ended stays as it is.
func (s *Store) CancelRecovery(ctx context.Context, siteID int64, webhookID, id string) error {
	tag, err := s.db(ctx).Exec(ctx, cancelRecovery, siteID, webhookID, id)
	if err == nil && tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return wrap("cancel a recovery", err)
}
