package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// The kinds of facts about a webhook's health that others are told.
const (
	WebhookFailing  = "webhook.failing"
	WebhookDisabled = "webhook.disabled"
)

// HealthRule says when a webhook that fails is disabled.
type HealthRule struct {
	WarnAfter    time.Duration // of nothing but failed attempts
	DisableAfter time.Duration // of nothing but failed attempts
	Notice       time.Duration // at least so long after the warning
}

// A webhook is disabled for attempts that failed, and not for time that passed without any. Each
// condition is looked at again when the row is locked, so one that has recovered meanwhile stays.
const disableSQL = `
UPDATE webhook_health h
SET disabled_at = now(), updated_at = now(),
    disabled_reason = format('all attempts have failed since %s UTC, the last one because %s',
        to_char(h.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), h.last_error)
FROM webhooks w, webhook_events e
WHERE w.id = h.webhook_id AND w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true)
  AND h.failing_since > w.enabled_at AND h.failed_at >= h.failing_since + $1::interval
  AND e.webhook_id = h.webhook_id AND e.kind = 'webhook.failing' AND e.at = h.failing_since AND e.created_at <= now() - $2::interval
RETURNING h.webhook_id`

// DisableFailing disables the webhooks that the rule is about, and returns them.
func (s *Store) DisableFailing(ctx context.Context, rule HealthRule) ([]string, error) {
	rows, err := s.pool.Query(ctx, disableSQL, rule.DisableAfter, rule.Notice)
	if err != nil {
		return nil, wrap("disable failing webhooks", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, wrap("disable failing webhooks", err)
}

// HealthFact is something about a webhook's health that the site's other webhooks and operators
// are to be told.
type HealthFact struct {
	WebhookID      string
	SiteID         int64
	Kind           string
	At             time.Time // when it became so
	Now            time.Time // by the database's clock
	FailingSince   time.Time
	LastError      string
	DisabledReason string
	Payload        []byte // of its newest delivery that waits, or else is dead, or was delivered; nil: there is none
}

const (
	isFailing  = `h.failing_since > w.enabled_at AND h.failed_at >= h.failing_since + $1::interval AND w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true)`
	isDisabled = `h.disabled_at > w.enabled_at`

	untoldSQL = `
WITH facts AS (
    SELECT h.*, w.site_id, 'webhook.failing' AS kind, h.failing_since AS at
    FROM webhook_health h JOIN webhooks w ON w.id = h.webhook_id
    WHERE ` + isFailing + `
    UNION ALL
    SELECT h.*, w.site_id, 'webhook.disabled', h.disabled_at
    FROM webhook_health h JOIN webhooks w ON w.id = h.webhook_id
    WHERE ` + isDisabled + `
)
SELECT f.webhook_id, f.site_id, f.kind, f.at, now(), coalesce(f.failing_since, f.at), f.last_error, f.disabled_reason,
       coalesce((SELECT d.payload FROM deliveries d WHERE d.webhook_id = f.webhook_id AND d.finished_at IS NULL ORDER BY d.slot DESC, d.id DESC LIMIT 1),
                (SELECT d.payload FROM deliveries d WHERE d.webhook_id = f.webhook_id AND d.status = 'dead' ORDER BY d.slot DESC, d.id DESC LIMIT 1),
                (SELECT d.payload FROM deliveries d WHERE d.webhook_id = f.webhook_id AND d.status = 'delivered' ORDER BY d.slot DESC, d.id DESC LIMIT 1))
FROM facts f
WHERE NOT EXISTS (SELECT FROM webhook_events e WHERE e.webhook_id = f.webhook_id AND e.kind = f.kind AND e.at = f.at)
ORDER BY f.at, f.webhook_id
LIMIT 100`
)

// Untold reads facts that nobody has told.
func (s *Store) Untold(ctx context.Context, rule HealthRule) ([]HealthFact, error) {
	rows, err := s.pool.Query(ctx, untoldSQL, rule.WarnAfter)
	if err != nil {
		return nil, wrap("look for failing webhooks", err)
	}
	facts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[HealthFact])
	return facts, wrap("look for failing webhooks", err)
}

// Notice is the message that tells a fact.
type Notice struct {
	ID         string
	Payload    []byte
	DeliveryID func(webhookID string) string // of its delivery to that webhook
}

// The health's row is locked, so that what is told is still so.
const tellSQL = `
INSERT INTO webhook_events (webhook_id, kind, at, id, payload, created_at)
SELECT h.webhook_id, $3::text, $4::timestamptz, $5::text, $6::bytea, $7::timestamptz
FROM webhook_health h JOIN webhooks w ON w.id = h.webhook_id
WHERE h.webhook_id = $2
  AND CASE $3 WHEN 'webhook.failing' THEN h.failing_since = $4 AND ` + isFailing + ` ELSE h.disabled_at = $4 AND ` + isDisabled + ` END
FOR UPDATE OF h
ON CONFLICT DO NOTHING`

// Tell makes the fact's event, and a delivery of it to each other webhook of the site that is
// enabled, together; it returns their ids by their webhooks'. False means that it is told already, or so no longer.
func (s *Store) Tell(ctx context.Context, f HealthFact, n Notice, rule HealthRule) (told bool, made map[string]string, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, tellSQL, rule.WarnAfter, f.WebhookID, f.Kind, f.At, n.ID, n.Payload, f.Now)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		told = true
		rows, err := tx.Query(ctx, `
			SELECT w.id FROM webhooks w LEFT JOIN webhook_health h ON h.webhook_id = w.id
			WHERE w.site_id = $1 AND w.id <> $2 AND w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true)`, f.SiteID, f.WebhookID)
		if err != nil {
			return err
		}
		others, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(others) == 0 {
			return err
		}
		ids := make([]string, len(others))
		made = make(map[string]string, len(others))
		for i, webhookID := range others {
			ids[i] = n.DeliveryID(webhookID)
			made[webhookID] = ids[i]
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, next_attempt_at, payload)
			SELECT id, $3, $4, webhook_id, '{}', $5, 'waiting', now(), $6
			FROM unnest($1::text[], $2::text[]) AS o(id, webhook_id)
			ON CONFLICT DO NOTHING`, ids, others, f.Now, f.SiteID, f.Kind, n.Payload)
		return err
	})
	if err != nil {
		return false, nil, wrap("tell of a webhook's health", err)
	}
	return told, made, nil
}

// WebhookEvent is one that waits to be published to operators.
type WebhookEvent struct {
	WebhookID string
	Kind      string
	At        time.Time
	ID        string
	Payload   []byte
}

// UnpublishedEvents reads events that wait in the outbox for JetStream, the oldest first.
func (s *Store) UnpublishedEvents(ctx context.Context) ([]WebhookEvent, error) {
	rows, err := s.pool.Query(ctx, "SELECT webhook_id, kind, at, id, payload FROM webhook_events WHERE published_at IS NULL ORDER BY created_at LIMIT 100")
	if err != nil {
		return nil, wrap("read the outbox of events", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[WebhookEvent])
	return events, wrap("read the outbox of events", err)
}

// MarkEventPublished notes that JetStream has stored it.
func (s *Store) MarkEventPublished(ctx context.Context, e WebhookEvent) error {
	_, err := s.pool.Exec(ctx, "UPDATE webhook_events SET published_at = now() WHERE webhook_id = $1 AND kind = $2 AND at = $3", e.WebhookID, e.Kind, e.At)
	return wrap("mark an event published", err)
}

// ForgetEvents removes old events. One whose fact still holds stays: without it, it would be told again.
func (s *Store) ForgetEvents(ctx context.Context, keep time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		DELETE FROM webhook_events e
		WHERE created_at < now() - $1::interval AND published_at IS NOT NULL AND NOT EXISTS (
			SELECT FROM webhook_health h JOIN webhooks w ON w.id = h.webhook_id
			WHERE h.webhook_id = e.webhook_id AND e.at IN (h.failing_since, h.disabled_at))`, keep)
	return wrap("forget events", err)
}
