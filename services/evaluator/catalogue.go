package evaluator

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// watched is a trigger with what Plausible says of its site and goal.
type watched struct {
	trigger.Trigger
	site    plausible.Site
	setting trigger.Setting
	problem string // why it cannot be evaluated; a sentence, or empty
}

// catalogue is the cache of all enabled triggers. It is read again after a change was announced,
// and every minute, which covers a lost announcement and changes in Plausible.
type catalogue struct {
	store     *postgres.Store
	directory *plausible.Directory
	log       *slog.Logger
	stale     atomic.Bool
	loadedAt  time.Time
	triggers  []watched
	lacks     func(trigger.Filters) string // what ClickHouse has no column for: a sentence, or empty
}

const catalogueAge = time.Minute

func newCatalogue(store *postgres.Store, directory *plausible.Directory, lacks func(trigger.Filters) string, log *slog.Logger) *catalogue {
	return &catalogue{store: store, directory: directory, lacks: lacks, log: log}
}

// drop makes the next read load everything anew. It may be called from any goroutine.
func (c *catalogue) drop() { c.stale.Store(true) }

// read returns the triggers. If they cannot be loaded, those known before hold on.
func (c *catalogue) read(ctx context.Context) ([]watched, error) {
	if !c.loadedAt.IsZero() && time.Since(c.loadedAt) < catalogueAge && !c.stale.Load() {
		return c.triggers, nil
	}
	c.stale.Store(false) // before loading: a change during the load is loaded next time
	triggers, err := c.load(ctx)
	if err != nil {
		c.stale.Store(true)
		if c.loadedAt.IsZero() {
			return nil, err
		}
		c.log.Warn("the triggers cannot be read again, those known before hold on", "error", err.Error())
		return c.triggers, nil
	}
	c.triggers, c.loadedAt = triggers, time.Now()
	return triggers, nil
}

func (c *catalogue) load(ctx context.Context) ([]watched, error) {
	triggers, unreadable, err := c.store.Triggers(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range unreadable {
		c.log.Error("a stored trigger cannot be evaluated", "trigger_id", u.ID, "problems", u.Problems)
	}
	siteIDs, goalIDs := map[int64]bool{}, map[int64]bool{}
	for _, t := range triggers {
		siteIDs[t.SiteID] = true
		if goal := trigger.GoalOf(t.Config); goal != nil && goal.ID != 0 {
			goalIDs[goal.ID] = true
		}
	}
	sites, err := c.directory.Sites(ctx, slices.Collect(maps.Keys(siteIDs)))
	if err != nil {
		return nil, err
	}
	goals, err := c.directory.Goals(ctx, slices.Collect(maps.Keys(goalIDs)))
	if err != nil {
		return nil, err
	}
	all := make([]watched, len(triggers))
	for i, t := range triggers {
		all[i] = c.resolve(t, sites, goals)
	}
	return all, nil
}

func (c *catalogue) resolve(t trigger.Trigger, sites map[int64]plausible.Site, goals map[int64]plausible.Goal) watched {
	w := watched{Trigger: t, setting: trigger.Setting{Options: t.Options, RevisedAt: t.RevisedAt}}
	site, exists := sites[t.SiteID]
	if !exists {
		w.problem = "The site no longer exists in Plausible."
		return w
	}
	w.site, w.setting.StatsFrom, w.setting.Zone = site, site.StatsAt, zoneOf(site, c.log)
	w.setting.Goal = trigger.GoalOf(t.Config)
	if goal := w.setting.Goal; goal != nil && goal.ID != 0 {
		found, exists := goals[goal.ID]
		if !exists || found.SiteID != t.SiteID {
			w.problem = fmt.Sprintf("The goal %d no longer exists in Plausible.", goal.ID)
			return w
		}
		w.setting.Goal = &trigger.Goal{
			EventName: found.EventName, PagePath: found.PagePath, ScrollThreshold: found.ScrollThreshold, CustomProps: found.CustomProps,
		}
	}
	w.problem = c.lacks(t.Options.Filters)
	return w
}
