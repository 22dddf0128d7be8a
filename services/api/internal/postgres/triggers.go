package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Trigger is a row of triggers with its state.
type Trigger struct {
	ID              string          `db:"id"`
	WebhookID       string          `db:"webhook_id"`
	Type            trigger.Type    `db:"type"`
	Name            string          `db:"name"`
	Enabled         bool            `db:"enabled"`
	Config          json.RawMessage `db:"config"`
	Filters         json.RawMessage `db:"filters"`
	CooldownSeconds int             `db:"cooldown_seconds"`
	NotifyResolved  bool            `db:"notify_resolved"`
	Revision        int             `db:"revision"`
	RevisedAt       time.Time       `db:"revised_at"`
	CreatedAt       time.Time       `db:"created_at"`
	UpdatedAt       time.Time       `db:"updated_at"`

	State *State `db:"state"` // nil: this revision was not evaluated yet
}

// State is where a trigger stands, as the evaluator left it.
type State struct {
	Status          trigger.Status `json:"status"`
	Value           *float64       `json:"value"`
	Threshold       *float64       `json:"threshold"`
	Since           time.Time      `json:"since"`
	LastEvaluatedAt time.Time      `json:"last_evaluated_at"`
	LastFiredAt     *time.Time     `json:"last_fired_at"`
	Explanation     string         `json:"explanation"`
}

// The state of an earlier revision says nothing about this one. The evaluator writes a state
// only when it changes: up to which slot the others were evaluated stands in the shard's lease.
const selectTrigger = `
	SELECT t.id, t.webhook_id, t.type, t.name, t.enabled, t.config, t.filters, t.cooldown_seconds, t.notify_resolved,
	       t.revision, t.revised_at, t.created_at, t.updated_at,
	       CASE WHEN s.trigger_id IS NOT NULL THEN jsonb_build_object(
	           'status', s.status, 'value', s.value, 'threshold', s.threshold, 'since', s.since,
	           'last_evaluated_at', CASE WHEN t.enabled THEN greatest(s.last_evaluated_at, l.last_slot) ELSE s.last_evaluated_at END,
	           'last_fired_at', s.last_fired_at, 'explanation', s.explanation) END AS state
	FROM triggers t LEFT JOIN trigger_states s ON s.trigger_id = t.id AND s.revision = t.revision
	     LEFT JOIN evaluator_leases l ON l.shard = site_shard(t.site_id)`

// Triggers reads a page of a webhook's triggers.
func (s *Store) Triggers(ctx context.Context, siteID int64, webhookID string, page Page) ([]Trigger, Around, error) {
	if err := s.requireWebhook(ctx, siteID, webhookID); err != nil {
		return nil, Around{}, err
	}
	at, id, limit := arguments(page)
	rows, err := s.db(ctx).Query(ctx, selectTrigger+" WHERE t.webhook_id = $1"+tail(page, "t.created_at", "t.id"), webhookID, at, id, limit)
	if err != nil {
		return nil, Around{}, wrap("list triggers", err)
	}
	triggers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Trigger])
	if err != nil {
		return nil, Around{}, wrap("list triggers", err)
	}
	triggers, around := database.Cut(page, triggers, func(t Trigger) Position { return Position{t.CreatedAt, t.ID} })
	return triggers, around, nil
}

// Trigger reads one trigger.
func (s *Store) Trigger(ctx context.Context, siteID int64, webhookID, id string) (Trigger, error) {
	rows, err := s.db(ctx).Query(ctx, selectTrigger+" WHERE t.site_id = $1 AND t.webhook_id = $2 AND t.id = $3", siteID, webhookID, id)
	if err != nil {
		return Trigger{}, wrap("read trigger", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Trigger])
	return found, wrap("read trigger", err)
}

const findWebhook = `SELECT id FROM webhooks WHERE site_id = $1 AND id = $2`

// requireWebhook tells a webhook without rows from one that the site does not have.
func (s *Store) requireWebhook(ctx context.Context, siteID int64, id string) error {
	return wrap("find webhook", s.db(ctx).QueryRow(ctx, findWebhook, siteID, id).Scan(&id))
}

// addTriggers reads the triggers of several webhooks at once.
func addTriggers(ctx context.Context, db querier, webhooks []Webhook) error {
	if len(webhooks) == 0 {
		return nil
	}
	ids, place := make([]string, len(webhooks)), make(map[string]*Webhook, len(webhooks))
	for i := range webhooks {
		ids[i], place[webhooks[i].ID] = webhooks[i].ID, &webhooks[i]
	}
	rows, err := db.Query(ctx, selectTrigger+" WHERE t.webhook_id = ANY ($1) ORDER BY t.created_at, t.id", ids)
	if err != nil {
		return wrap("read triggers", err)
	}
	triggers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Trigger])
	if err != nil {
		return wrap("read triggers", err)
	}
	for _, t := range triggers {
		w := place[t.WebhookID]
		w.Triggers = append(w.Triggers, t)
	}
	return nil
}

const (
	deleteTriggers = `DELETE FROM triggers WHERE webhook_id = $1 AND id = ANY ($2)`

	// Triggers of one body get times of their own, so that they keep its order.
	insertTrigger = `
		INSERT INTO triggers (id, webhook_id, site_id, type, name, enabled, config, filters, cooldown_seconds, notify_resolved, created_at, updated_at)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, at, at FROM (SELECT now() + $11::integer * interval '1 microsecond' AS at)`

	updateTrigger = `
		UPDATE triggers SET type = $3, name = $4, enabled = $5, config = $6, filters = $7, cooldown_seconds = $8, notify_resolved = $9,
		       revision = $10, revised_at = CASE WHEN revision < $10 THEN now() ELSE revised_at END, updated_at = now()
		WHERE webhook_id = $1 AND id = $2`
)

// saveTriggers makes the rows of a webhook's triggers equal to w.Triggers where current is what
// they are now, and returns the ids of those that it touched.
func saveTriggers(ctx context.Context, tx pgx.Tx, w Webhook, current []Trigger) ([]string, error) {
	existing := make(map[string]Trigger, len(current))
	for _, t := range current {
		existing[t.ID] = t
	}
	var touched []string
	batch := &pgx.Batch{}
	for i, t := range w.Triggers {
		old, known := existing[t.ID]
		delete(existing, t.ID)
		switch {
		case !known:
			batch.Queue(insertTrigger, t.ID, w.ID, w.SiteID, t.Type, t.Name, t.Enabled, t.Config, t.Filters, t.CooldownSeconds, t.NotifyResolved, i)
		case t.settings() != old.settings():
			batch.Queue(updateTrigger, w.ID, t.ID, t.Type, t.Name, t.Enabled, t.Config, t.Filters, t.CooldownSeconds, t.NotifyResolved, t.Revision)
		default:
			continue
		}
		touched = append(touched, t.ID)
	}
	var gone []string
	for id := range existing {
		gone = append(gone, id)
	}
	if len(gone) > 0 {
		batch.Queue(deleteTriggers, w.ID, gone)
	}
	if batch.Len() == 0 {
		return nil, nil
	}
	return append(touched, gone...), wrap("save triggers", tx.SendBatch(ctx, batch).Close())
}

// settings is what can be compared with ==. A changed type, config or filters raise the revision,
// so that stands for them.
func (t Trigger) settings() any {
	return struct {
		name                    string
		enabled, notifyResolved bool
		cooldown, revision      int
	}{t.Name, t.Enabled, t.NotifyResolved, t.CooldownSeconds, t.Revision}
}
