package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
)

// Delivery is a row of deliveries, written by the dispatcher.
type Delivery struct {
	ID            string     `db:"id"`
	Slot          time.Time  `db:"slot"`
	Status        string     `db:"status"`
	Type          string     `db:"type"`
	TriggerID     *string    `db:"trigger_id"`
	FiringIDs     []string   `db:"firing_ids"`
	Attempts      int        `db:"attempts"`
	NextAttemptAt *time.Time `db:"next_attempt_at"`
	LastError     string     `db:"last_error"`
	CreatedAt     time.Time  `db:"created_at"`
	FinishedAt    *time.Time `db:"finished_at"`
}

// Attempt is a row of attempts.
type Attempt struct {
	Number          int             `db:"number"`
	StartedAt       time.Time       `db:"started_at"`
	DurationMS      float64         `db:"duration_ms"`
	RequestHeaders  json.RawMessage `db:"request_headers"`
	StatusCode      *int            `db:"status_code"`
	ResponseHeaders json.RawMessage `db:"response_headers"`
	ResponseBody    string          `db:"response_body"`
	Timings         json.RawMessage `db:"timings"`
	Error           string          `db:"error"`
}

// DeliveryFilter narrows a history; nil fields let everything through. From and To are held
// against the slot, the time that the message itself carries: From belongs to the span, To does not.
type DeliveryFilter struct {
	Status, TriggerID, Type *string
	From, To                *time.Time
}

const selectDelivery = `
	SELECT id, slot, CASE status WHEN 'gathering' THEN 'waiting' ELSE status END AS status, type, trigger_id, firing_ids, attempts, next_attempt_at, last_error, created_at, finished_at
	FROM deliveries WHERE webhook_id = $1`

// A firing that waits for others is waiting; one that went with others is in the batch's delivery.
const deliveryFilter = `
	AND status <> 'batched' AND ($5::text IS NULL OR status = $5 OR $5 = 'waiting' AND status = 'gathering') AND ($6::text IS NULL OR trigger_id = $6) AND ($7::text IS NULL OR type = $7)
	AND ($8::timestamptz IS NULL OR slot >= $8) AND ($9::timestamptz IS NULL OR slot < $9)`

// Deliveries reads a page of a webhook's history, ordered by slot.
func (s *Store) Deliveries(ctx context.Context, siteID int64, webhookID string, f DeliveryFilter, page Page) ([]Delivery, Around, error) {
	if err := s.requireWebhook(ctx, siteID, webhookID); err != nil {
		return nil, Around{}, err
	}
	at, id, limit := page.arguments()
	rows, err := s.db(ctx).Query(ctx, selectDelivery+deliveryFilter+page.tail("slot", "id"),
		webhookID, at, id, limit, f.Status, f.TriggerID, f.Type, f.From, f.To)
	if err != nil {
		return nil, Around{}, wrap("list deliveries", err)
	}
	deliveries, err := pgx.CollectRows(rows, pgx.RowToStructByName[Delivery])
	if err != nil {
		return nil, Around{}, wrap("list deliveries", err)
	}
	deliveries, around := cut(page, deliveries, func(d Delivery) Position { return Position{d.Slot, d.ID} })
	return deliveries, around, nil
}

const selectPayload = `SELECT payload FROM deliveries WHERE id = $1 AND slot = $2`

const selectAttempts = `
	SELECT number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings, error
	FROM attempts WHERE delivery_id = $1 AND slot = $2 ORDER BY number`

// Delivery reads one delivery of a webhook with its payload and its attempts, oldest first. The id of
// a firing that went with others finds the batch's delivery.
func (s *Store) Delivery(ctx context.Context, siteID int64, webhookID, id string) (Delivery, []byte, []Attempt, error) {
	fail := func(err error) (Delivery, []byte, []Attempt, error) {
		return Delivery{}, nil, nil, wrap("read delivery", err)
	}
	if err := s.requireWebhook(ctx, siteID, webhookID); err != nil {
		return Delivery{}, nil, nil, err
	}
	rows, err := s.db(ctx).Query(ctx, selectDelivery+`
		AND id = (SELECT coalesce(b.batch_id, b.id) FROM deliveries b WHERE b.webhook_id = $1 AND b.id = $2 ORDER BY b.slot DESC LIMIT 1)
		ORDER BY slot DESC LIMIT 1`, webhookID, id)
	if err != nil {
		return fail(err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Delivery])
	if err != nil {
		return fail(err)
	}
	var payload []byte
	if err := s.db(ctx).QueryRow(ctx, selectPayload, d.ID, d.Slot).Scan(&payload); err != nil {
		return fail(err)
	}
	rows, err = s.db(ctx).Query(ctx, selectAttempts, d.ID, d.Slot)
	if err != nil {
		return fail(err)
	}
	attempts, err := pgx.CollectRows(rows, pgx.RowToStructByName[Attempt])
	if err != nil {
		return fail(err)
	}
	return d, payload, attempts, nil
}
