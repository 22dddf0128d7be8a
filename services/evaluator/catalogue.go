package evaluator

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// watched is a trigger with what Plausible says of its site and goal.
type watched struct {
	trigger.Trigger
	version postgres.Version
	site    *plausible.Site // shared by its triggers; nil: it no longer exists
	zone    *time.Location
	goal    *trigger.Goal   // resolved
	filters trigger.Filters // resolved: with what the goals that they name count
	problem string          // why it cannot be evaluated; a sentence, or empty

	// What the loop keeps of it, so that a slot does not look up each trigger by its id.
	standing   *standing
	restored   int // the reading of states that this is one of
	remembered *remembered
}

func (w *watched) setting() trigger.Setting {
	s := trigger.Setting{Options: w.Options, Goal: w.goal, Zone: w.zone, RevisedAt: w.RevisedAt}
	s.Filters = w.filters
	if w.site != nil {
		s.StatsFrom = w.site.StatsAt
	}
	return s
}

// catalogue is the cache of all enabled triggers. It is brought up to date after a change was announced,
// and every minute, which covers a lost announcement and changes in Plausible. Only rows that changed are
// read again.
type catalogue struct {
	store     *postgres.Store
	directory *plausible.Directory
	log       *slog.Logger
	stale     atomic.Bool
	loadedAt  time.Time
	triggers  []*watched                   // by id
	lacks     func(trigger.Filters) string // what ClickHouse has no column for: a sentence, or empty
}

const catalogueAge = time.Minute

func newCatalogue(store *postgres.Store, directory *plausible.Directory, lacks func(trigger.Filters) string, log *slog.Logger) *catalogue {
	return &catalogue{store: store, directory: directory, lacks: lacks, log: log}
}

// drop makes the next read load everything anew. It may be called from any goroutine.
func (c *catalogue) drop() { c.stale.Store(true) }

// read returns the triggers. If they cannot be loaded, those known before hold on.
func (c *catalogue) read(ctx context.Context) ([]*watched, error) {
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

func (c *catalogue) load(ctx context.Context) ([]*watched, error) {
	triggers, changed, err := c.unchanged(ctx)
	if err != nil {
		return nil, err
	}
	if len(changed) > 0 {
		err := c.store.Triggers(ctx, changed,
			func(t trigger.Trigger, version postgres.Version) {
				triggers = append(triggers, &watched{Trigger: t, version: version})
			},
			func(u postgres.Unreadable) {
				c.log.Error("a stored trigger cannot be evaluated", "trigger_id", u.ID, "problems", u.Problems)
			})
		if err != nil {
			return nil, err
		}
		slices.SortFunc(triggers, func(x, y *watched) int { return strings.Compare(x.ID, y.ID) })
	}
	return triggers, c.resolveAll(ctx, triggers)
}

// unchanged are the triggers whose rows are as they were read, and the ids of those that must be read.
func (c *catalogue) unchanged(ctx context.Context) (same []*watched, changed []string, err error) {
	known := c.triggers
	same = make([]*watched, 0, len(known))
	err = c.store.Versions(ctx, func(id []byte, version postgres.Version) {
		for len(known) > 0 && known[0].ID < string(id) { // it is gone
			known = known[1:]
		}
		if len(known) > 0 && known[0].ID == string(id) && known[0].version == version {
			same = append(same, known[0])
			return
		}
		changed = append(changed, string(id))
	})
	return same, changed, err
}

// resolveAll brings to all triggers what Plausible says now.
func (c *catalogue) resolveAll(ctx context.Context, triggers []*watched) error {
	p, err := c.surroundings(ctx, triggers)
	if err != nil {
		return err
	}
	for _, w := range triggers {
		c.resolve(w, p)
	}
	return nil
}

// surroundings are what Plausible says, each site and goal once.
type surroundings struct {
	sites map[int64]*plausible.Site
	goals map[int64]surroundingGoal
	named map[int64][]trigger.NamedGoal // by site, of those whose filters name goals
}

// surroundings asks for what the triggers need.
func (c *catalogue) surroundings(ctx context.Context, triggers []*watched) (surroundings, error) {
	siteIDs, goalIDs, naming := map[int64]bool{}, map[int64]bool{}, map[int64]bool{}
	for _, w := range triggers {
		siteIDs[w.SiteID] = true
		if goal := trigger.GoalOf(w.Config); goal != nil && goal.ID != 0 {
			goalIDs[goal.ID] = true
		}
		if w.Options.Filters.NameGoals() {
			naming[w.SiteID] = true
		}
	}
	sites, err := c.directory.Sites(ctx, slices.Collect(maps.Keys(siteIDs)))
	if err != nil {
		return surroundings{}, err
	}
	goals, err := c.directory.Goals(ctx, slices.Collect(maps.Keys(goalIDs)))
	if err != nil {
		return surroundings{}, err
	}
	p := surroundings{sites: make(map[int64]*plausible.Site, len(sites)), goals: make(map[int64]surroundingGoal, len(goals)), named: map[int64][]trigger.NamedGoal{}}
	for id, site := range sites {
		p.sites[id] = &site
	}
	for id, g := range goals {
		described := g.Described()
		p.goals[id] = surroundingGoal{g.SiteID, &described}
	}
	if len(naming) > 0 {
		bySite, err := c.directory.GoalsBySite(ctx, slices.Collect(maps.Keys(naming)))
		if err != nil {
			return surroundings{}, err
		}
		for id, goals := range bySite {
			p.named[id] = plausible.Named(goals)
		}
	}
	return p, nil
}

type surroundingGoal struct {
	siteID int64
	goal   *trigger.Goal
}

func (c *catalogue) resolve(w *watched, p surroundings) {
	w.site, w.goal, w.problem = p.sites[w.SiteID], trigger.GoalOf(w.Config), ""
	if w.site == nil {
		w.problem = "The site no longer exists in Plausible."
		return
	}
	w.zone = zoneOf(*w.site, c.log)
	if w.goal != nil && w.goal.ID != 0 {
		found, exists := p.goals[w.goal.ID]
		if !exists || found.siteID != w.SiteID {
			w.problem = fmt.Sprintf("The goal %d no longer exists in Plausible.", w.goal.ID)
			return
		}
		w.goal = found.goal
	}
	var problems []strict.Problem
	if w.filters, problems = w.Options.Filters.WithGoals(p.named[w.SiteID]); len(problems) > 0 {
		w.problem = "A filter " + problems[0].Message + "."
		return
	}
	w.problem = c.lacks(w.filters)
}
