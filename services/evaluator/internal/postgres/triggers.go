package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

const selectTriggers = `
	SELECT id, webhook_id, site_id, type, name, config, filters, cooldown_seconds, notify_resolved, revision, revised_at
	FROM triggers WHERE enabled`

// Unreadable is a stored trigger that this program cannot evaluate, as one of a type that a
// newer version brought.
type Unreadable struct {
	ID       string
	Problems []strict.Problem
}

// Triggers reads all enabled triggers. Those of paused webhooks are evaluated too: their firings
// are kept for when the webhook returns.
func (s *Store) Triggers(ctx context.Context) ([]trigger.Trigger, []Unreadable, error) {
	rows, err := s.pool.Query(ctx, selectTriggers)
	if err != nil {
		return nil, nil, fmt.Errorf("read triggers: %w", err)
	}
	var triggers []trigger.Trigger
	var unreadable []Unreadable
	var t trigger.Trigger
	var config, filters json.RawMessage
	var cooldown int64
	_, err = pgx.ForEachRow(rows, []any{
		&t.ID, &t.WebhookID, &t.SiteID, &t.Type, &t.Name, &config, &filters, &cooldown, &t.Options.NotifyResolved, &t.Revision, &t.RevisedAt,
	}, func() error {
		parsed, problems := trigger.Parse(t.Type, config)
		passing, faults := trigger.ParseFilters(filters)
		if problems = append(problems, faults...); len(problems) > 0 {
			unreadable = append(unreadable, Unreadable{ID: t.ID, Problems: problems})
			return nil
		}
		t.Config, t.Options.Filters, t.Options.Cooldown = parsed, passing, time.Duration(cooldown)*time.Second
		t.RevisedAt = t.RevisedAt.UTC()
		triggers = append(triggers, t)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read triggers: %w", err)
	}
	return triggers, unreadable, nil
}
