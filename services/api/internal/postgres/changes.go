package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// Change is who changed what, and when: a row of the audit.
type Change struct {
	ID        string    `db:"id"`
	At        time.Time `db:"at"`
	SiteID    int64     `db:"site_id"`
	Operation string    `db:"operation"` // of the document
	WebhookID *string   `db:"webhook_id"`
	ObjectID  *string   `db:"object_id"` // what of the webhook, where it was not the webhook itself
	Fields    []string  `db:"fields"`    // that the body named
	UserID    *int64    `db:"user_id"`   // in Plausible; nil: the operator
	KeyPrefix *string   `db:"key_prefix"`
	RequestID string    `db:"request_id"`
}

// keepChanges is how long it can be looked up who changed what.
const keepChanges = 365 * 24 * time.Hour

const (
	forgetChanges = `
		DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < now() - $1::interval ORDER BY at LIMIT 10 FOR UPDATE SKIP LOCKED)`
	insertChange = `
		INSERT INTO audit (id, site_id, operation, webhook_id, object_id, fields, user_id, key_prefix, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	selectChanges = `
		SELECT id, at, site_id, operation, webhook_id, object_id, fields, user_id, key_prefix, request_id FROM audit WHERE site_id = $1`
)

// Record writes down a change, within the transaction that makes it. Old rows go with new ones.
func (s *Store) Record(ctx context.Context, c Change) error {
	batch := &pgx.Batch{}
	batch.Queue(forgetChanges, keepChanges)
	batch.Queue(insertChange, c.ID, c.SiteID, c.Operation, c.WebhookID, c.ObjectID, c.Fields, c.UserID, c.KeyPrefix, c.RequestID)
	return wrap("record a change", s.db(ctx).SendBatch(ctx, batch).Close())
}

// Changes reads a page of what was changed of a site.
func (s *Store) Changes(ctx context.Context, siteID int64, page Page) ([]Change, Around, error) {
	at, id, limit := arguments(page)
	rows, err := s.db(ctx).Query(ctx, selectChanges+tail(page, "at", "id"), siteID, at, id, limit)
	if err != nil {
		return nil, Around{}, wrap("list changes", err)
	}
	changes, err := pgx.CollectRows(rows, pgx.RowToStructByName[Change])
	if err != nil {
		return nil, Around{}, wrap("list changes", err)
	}
	changes, around := database.Cut(page, changes, func(c Change) Position { return Position{c.At, c.ID} })
	return changes, around, nil
}
