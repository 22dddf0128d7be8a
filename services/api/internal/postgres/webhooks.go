package postgres

import (
	"context"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// Webhook is a row of webhooks with its triggers, and with what the dispatcher says of it.
type Webhook struct {
	ID             string            `db:"id"`
	SiteID         int64             `db:"site_id"`
	URL            string            `db:"url"`
	Description    string            `db:"description"`
	Enabled        bool              `db:"enabled"`
	Headers        map[string]string `db:"headers"`
	TimeoutSeconds int               `db:"timeout_seconds"`
	Format         string            `db:"format"`
	Template       string            `db:"template"`              // empty: the format has none
	RateLimit      *float64          `db:"rate_limit_per_second"` // nil: none
	BatchSize      *int              `db:"batch_max_size"`        // nil: no batches
	BatchWait      *int              `db:"batch_max_wait_seconds"`
	CreatedAt      time.Time         `db:"created_at"`
	UpdatedAt      time.Time         `db:"updated_at"`

	SwitchedOff    bool       `db:"switched_off"` // by the dispatcher, after the owner enabled it
	DisabledReason string     `db:"disabled_reason"`
	FailingSince   *time.Time `db:"failing_since"` // nil: its last attempt was answered well, or there was none

	// Enable asks a change to switch the webhook on: also one that the dispatcher switched off,
	// where Enabled was true all the time.
	Enable bool `db:"-"`

	Triggers []Trigger `db:"-"` // oldest first: in the order of the body that made them
}

const selectWebhook = `
	SELECT w.id, w.site_id, w.url, w.description, w.enabled, w.headers, w.timeout_seconds, w.format, w.template, w.rate_limit_per_second, w.batch_max_size, w.batch_max_wait_seconds, w.created_at, w.updated_at,
	       coalesce(h.disabled_at > w.enabled_at, false) AS switched_off,
	       coalesce(h.disabled_reason, '') AS disabled_reason,
	       h.failing_since
	FROM webhooks w LEFT JOIN webhook_health h ON h.webhook_id = w.id
	WHERE w.site_id = $1`

// Webhooks reads a page of a site's webhooks.
func (s *Store) Webhooks(ctx context.Context, siteID int64, page Page) ([]Webhook, Around, error) {
	at, id, limit := arguments(page)
	rows, err := s.db(ctx).Query(ctx, selectWebhook+tail(page, "w.created_at", "w.id"), siteID, at, id, limit)
	if err != nil {
		return nil, Around{}, wrap("list webhooks", err)
	}
	webhooks, err := pgx.CollectRows(rows, pgx.RowToStructByName[Webhook])
	if err != nil {
		return nil, Around{}, wrap("list webhooks", err)
	}
	webhooks, around := database.Cut(page, webhooks, func(w Webhook) Position { return Position{w.CreatedAt, w.ID} })
	return webhooks, around, addTriggers(ctx, s.db(ctx), webhooks)
}

// Webhook reads one webhook.
func (s *Store) Webhook(ctx context.Context, siteID int64, id string) (Webhook, error) {
	return readWebhook(ctx, s.db(ctx), siteID, id, "")
}

func readWebhook(ctx context.Context, db querier, siteID int64, id, locked string) (Webhook, error) {
	rows, err := db.Query(ctx, selectWebhook+" AND w.id = $2"+locked, siteID, id)
	if err != nil {
		return Webhook{}, wrap("read webhook", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Webhook])
	if err != nil {
		return Webhook{}, wrap("read webhook", err)
	}
	one := []Webhook{found}
	err = addTriggers(ctx, db, one)
	return one[0], err
}

// The count would be wrong if two were created at the same time: one waits for the other.
const (
	lockSite      = `SELECT pg_advisory_xact_lock(hashtextextended('webhooks of site ' || $1::bigint, 0))`
	countWebhooks = `SELECT count(*) FROM webhooks WHERE site_id = $1`
	insertWebhook = `
		INSERT INTO webhooks (id, site_id, url, description, enabled, headers, timeout_seconds, format, template, rate_limit_per_second, batch_max_size, batch_max_wait_seconds)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
	insertSealed = `INSERT INTO webhook_secrets (webhook_id, sealed) VALUES ($1, $2)`
)

// CreateWebhook stores a new webhook with its sealed secret and its triggers, unless the site
// already has limit webhooks: ErrFull.
func (s *Store) CreateWebhook(ctx context.Context, w Webhook, sealed []byte, limit int) (Webhook, error) {
	var created Webhook
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockSite, w.SiteID); err != nil {
			return wrap("lock the site", err)
		}
		var existing int
		if err := tx.QueryRow(ctx, countWebhooks, w.SiteID).Scan(&existing); err != nil {
			return wrap("count webhooks", err)
		}
		if existing >= limit {
			return ErrFull
		}
		if _, err := tx.Exec(ctx, insertWebhook, w.ID, w.SiteID, w.URL, w.Description, w.Enabled, w.Headers, w.TimeoutSeconds, w.Format, w.Template, w.RateLimit, w.BatchSize, w.BatchWait); err != nil {
			return wrap("create webhook", err)
		}
		if _, err := tx.Exec(ctx, insertSealed, w.ID, sealed); err != nil {
			return wrap("create the webhook's secret", err)
		}
		if _, err := saveTriggers(ctx, tx, w, nil); err != nil {
			return err
		}
		var err error
		created, err = readWebhook(ctx, tx, w.SiteID, w.ID, "")
		return err
	})
	return created, err
}

// Changes are what others must hear of.
type Changes struct {
	Webhook  bool
	Triggers []string // created, changed or removed
}

// A disabling may carry the dispatcher's clock, which may be ahead of the database's.
const updateWebhook = `
	UPDATE webhooks w SET url = $3, description = $4, headers = $6, timeout_seconds = $7, format = $9, template = $10, rate_limit_per_second = $11,
	       batch_max_size = $12, batch_max_wait_seconds = $13, updated_at = now(), enabled = $5,
	       enabled_at = CASE WHEN $5 AND NOT w.enabled OR $8
	           THEN greatest(now(), (SELECT h.disabled_at FROM webhook_health h WHERE h.webhook_id = w.id)) ELSE w.enabled_at END
	WHERE site_id = $1 AND id = $2`

// ChangeWebhook replaces a webhook and its triggers by what change makes of them. Changes of one
// webhook happen one after the other, so that change sees what it replaces; its error cancels.
func (s *Store) ChangeWebhook(ctx context.Context, siteID int64, id string, change func(Webhook) (Webhook, error)) (Webhook, Changes, error) {
	var changed Webhook
	var changes Changes
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		current, err := readWebhook(ctx, tx, siteID, id, " FOR UPDATE OF w")
		if err != nil {
			return err
		}
		next, err := change(current)
		if err != nil {
			return err
		}
		renew := next.Enable && next.Enabled && current.SwitchedOff
		if renew || next.settings() != current.settings() || !maps.Equal(next.Headers, current.Headers) {
			changes.Webhook = true
			_, err := tx.Exec(ctx, updateWebhook, siteID, id, next.URL, next.Description, next.Enabled, next.Headers, next.TimeoutSeconds, renew, next.Format, next.Template, next.RateLimit, next.BatchSize, next.BatchWait)
			if err != nil {
				return wrap("change webhook", err)
			}
		}
		if changes.Triggers, err = saveTriggers(ctx, tx, next, current.Triggers); err != nil {
			return err
		}
		changed, err = readWebhook(ctx, tx, siteID, id, "")
		return err
	})
	return changed, changes, err
}

// settings is what can be compared with ==.
func (w Webhook) settings() any {
	return struct {
		rate                               float64
		url, description, format, template string
		enabled                            bool
		timeout, batchSize, batchWait      int
	}{orZero(w.RateLimit), w.URL, w.Description, w.Format, w.Template, w.Enabled, w.TimeoutSeconds, orZero(w.BatchSize), orZero(w.BatchWait)}
}

func orZero[N int | float64](n *N) N {
	if n == nil {
		return 0
	}
	return *n
}

const deleteWebhook = `DELETE FROM webhooks WHERE site_id = $1 AND id = $2`

// RemoveWebhook deletes a webhook with its secrets and triggers, whose ids it returns, unless check refuses.
// Its deliveries stay: the dispatcher cancels those that wait.
func (s *Store) RemoveWebhook(ctx context.Context, siteID int64, id string, check func(Webhook) error) ([]string, error) {
	var triggers []string
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		w, err := readWebhook(ctx, tx, siteID, id, " FOR UPDATE OF w")
		if err != nil {
			return err
		}
		if err := check(w); err != nil {
			return err
		}
		for _, t := range w.Triggers {
			triggers = append(triggers, t.ID)
		}
		_, err = tx.Exec(ctx, deleteWebhook, siteID, id)
		return wrap("remove webhook", err)
	})
	return triggers, err
}
