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

// Version tells forms of a trigger's row apart: the transaction that wrote it.
type Version uint32

// Unreadable is a stored trigger that this program cannot evaluate, as one of a type that a
// newer version brought.
type Unreadable struct {
	ID       string
	Problems []strict.Problem
}

// Versions tells of each enabled trigger its id, which is valid during the call, and the version of its
// row, in the order of the ids' bytes. Triggers of paused webhooks are evaluated too: their firings are
// kept for when the webhook returns.
func (s *Store) Versions(ctx context.Context, each func(id []byte, version Version)) error {
	rows, err := s.pool.Query(ctx, `SELECT id, xmin FROM triggers WHERE enabled ORDER BY id COLLATE "C"`)
	if err != nil {
		return fmt.Errorf("read versions of triggers: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var version uint32
		if err := rows.Scan(nil, &version); err != nil {
			return fmt.Errorf("read versions of triggers: %w", err)
		}
		each(rows.RawValues()[0], Version(version))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read versions of triggers: %w", err)
	}
	return nil
}

// Triggers reads those of some triggers that are enabled. What equal ones have in common they share: it
// must not be changed.
func (s *Store) Triggers(ctx context.Context, ids []string, each func(t trigger.Trigger, version Version), unreadable func(Unreadable)) error {
	const statement = `
		SELECT id, xmin, webhook_id, site_id, type, name, config, filters, cooldown_seconds, notify_resolved, revision, revised_at
		FROM triggers WHERE enabled AND id = ANY ($1)`
	rows, err := s.pool.Query(ctx, statement, ids)
	if err != nil {
		return fmt.Errorf("read triggers: %w", err)
	}
	known := parsed{configs: map[string]trigger.Config{}, filters: map[string]trigger.Filters{}, texts: map[string]string{}}
	var t trigger.Trigger
	var version uint32
	var config, filters json.RawMessage
	var cooldown int64
	_, err = pgx.ForEachRow(rows, []any{
		&t.ID, &version, &t.WebhookID, &t.SiteID, &t.Type, &t.Name, &config, &filters, &cooldown, &t.Options.NotifyResolved, &t.Revision, &t.RevisedAt,
	}, func() error {
		var problems []strict.Problem
		if t.Config, t.Options.Filters, problems = known.parse(t.Type, config, filters); len(problems) > 0 {
			unreadable(Unreadable{ID: t.ID, Problems: problems})
			return nil
		}
		t.WebhookID, t.Type, t.Name = known.text(t.WebhookID), trigger.Type(known.text(string(t.Type))), known.text(t.Name)
		t.Options.Cooldown, t.RevisedAt = time.Duration(cooldown)*time.Second, t.RevisedAt.UTC()
		each(t, Version(version))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read triggers: %w", err)
	}
	return nil
}

// parsed is what was read of triggers. Many have the same config, most often the default one: it is parsed
// once and held once.
type parsed struct {
	configs map[string]trigger.Config
	filters map[string]trigger.Filters
	texts   map[string]string
}

func (p parsed) parse(of trigger.Type, config, filters json.RawMessage) (trigger.Config, trigger.Filters, []strict.Problem) {
	key := string(of) + string(config)
	c, knownConfig := p.configs[key]
	f, knownFilters := p.filters[string(filters)]
	var problems, faults []strict.Problem
	if !knownConfig {
		if c, problems = trigger.Parse(of, config); len(problems) == 0 {
			p.configs[key] = c
		}
	}
	if !knownFilters {
		if f, faults = trigger.ParseFilters(filters); len(faults) == 0 {
			p.filters[string(filters)] = f
		}
	}
	return c, f, append(problems, faults...)
}

func (p parsed) text(s string) string {
	if known, ok := p.texts[s]; ok {
		return known
	}
	p.texts[s] = s
	return s
}
