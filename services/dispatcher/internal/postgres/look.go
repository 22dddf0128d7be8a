package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Webhook is a webhook as the dispatcher needs it. Its secrets are still sealed.
type Webhook struct {
	ID             string
	URL            string
	Headers        []byte // a JSON object
	TimeoutSeconds int
	Enabled        bool       // by its owner, and not disabled since by what its receiver did
	FailedAt       *time.Time // about when an attempt failed; nil: the last one since it was enabled did not
	CircuitOpen    bool       // no request but a probe
	Limited        bool       // it has a rate
	Batched        bool       // it gets firings together
	Format         string
	Template       string // of the format custom
	Sealed         [][]byte
}

// The rows of a batch that exist already. LATERAL keeps to one index probe for each, in the
// one partition that its slot names, whatever the planner believes about the tables' sizes.
const knownSQL = `
SELECT m.id, m.slot
FROM unnest($1::text[], $2::timestamptz[]) AS m(id, slot)
CROSS JOIN LATERAL (SELECT 1 FROM deliveries d WHERE d.id = m.id AND d.slot = m.slot OFFSET 0) AS d`

const webhooksSQL = `
SELECT w.id, w.url, w.headers, w.timeout_seconds,
       w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true) AS enabled,
       CASE WHEN h.failing_since > w.enabled_at THEN coalesce(h.failed_at, h.failing_since) END AS failed_at,
       h.circuit_open_until IS NOT NULL AS circuit_open,
       w.rate_limit_per_second IS NOT NULL AS limited,
       w.batch_max_size IS NOT NULL AS batched,
       w.format, w.template,
       ARRAY(SELECT s.sealed FROM webhook_secrets s
             WHERE s.webhook_id = w.id AND (s.expires_at IS NULL OR s.expires_at > now())
             ORDER BY s.created_at DESC, s.id DESC) AS sealed
FROM webhooks w LEFT JOIN webhook_health h ON h.webhook_id = w.id
WHERE w.id = ANY($1::text[])`

// Look tells which deliveries have a row, and loads webhooks; a webhook that does not exist
// is missing from the answer.
func (s *Store) Look(ctx context.Context, keys []Key, webhookIDs []string) (map[Key]bool, []Webhook, error) {
	ids, slots := columns(keys)
	known := make(map[Key]bool)
	var webhooks []Webhook

	batch := &pgx.Batch{}
	batch.Queue(knownSQL, ids, slots).Query(func(rows pgx.Rows) error {
		var k Key
		_, err := pgx.ForEachRow(rows, []any{&k.ID, &k.Slot}, func() error {
			known[Key{k.ID, k.Slot.UTC()}] = true
			return nil
		})
		return err
	})
	if len(webhookIDs) > 0 {
		batch.Queue(webhooksSQL, webhookIDs).Query(func(rows pgx.Rows) (err error) {
			webhooks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Webhook])
			return err
		})
	}
	err := s.pool.SendBatch(ctx, batch).Close()
	return known, webhooks, wrap("look for deliveries and webhooks", err)
}

// Webhooks loads webhooks; one that does not exist is missing from the answer.
func (s *Store) Webhooks(ctx context.Context, ids []string) ([]Webhook, error) {
	rows, err := s.pool.Query(ctx, webhooksSQL, ids)
	if err != nil {
		return nil, wrap("load webhooks", err)
	}
	webhooks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Webhook])
	return webhooks, wrap("load webhooks", err)
}
