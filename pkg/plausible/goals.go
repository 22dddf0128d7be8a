package plausible

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Goal is a goal of a site. Exactly one of EventName and PagePath is set.
type Goal struct {
	ID              int64
	SiteID          int64
	DisplayName     string
	EventName       string
	PagePath        string // may contain * wildcards
	ScrollThreshold *int   // percent; nil: not a scroll goal
	CustomProps     map[string]string
}

// selectGoals leaves out rows that are neither an event's nor a page's, and takes those that are
// both for an event's, as Plausible does: old rows may break the rule, which is NOT VALID there.
func (d *Directory) selectGoals() string {
	columns := []string{"id", "site_id", "coalesce(event_name, '')", "CASE WHEN event_name IS NULL THEN page_path ELSE '' END"}
	optional := func(has bool, column, otherwise string) {
		if !has {
			column = otherwise
		}
		columns = append(columns, column)
	}
	optional(d.features.displayName, "display_name", "coalesce(event_name, 'Visit ' || page_path)")
	optional(d.features.scrollGoals, "nullif(scroll_threshold, -1)", "NULL::smallint")
	optional(d.features.customProps, "custom_props", "'{}'::jsonb")
	return "SELECT " + strings.Join(columns, ", ") + " FROM goals WHERE coalesce(event_name, page_path) IS NOT NULL"
}

// Goals reads the goals with the given ids; those that no longer exist are missing in the map.
func (d *Directory) Goals(ctx context.Context, ids []int64) (map[int64]Goal, error) {
	goals, err := d.goals(ctx, d.selectGoals()+" AND id = ANY ($1)", ids)
	if err != nil {
		return nil, err
	}
	byID := make(map[int64]Goal, len(goals))
	for _, g := range goals {
		byID[g.ID] = g
	}
	return byID, nil
}

// GoalsBySite reads all goals of the given sites, of each by their ids; a site has at most a thousand.
func (d *Directory) GoalsBySite(ctx context.Context, siteIDs []int64) (map[int64][]Goal, error) {
	goals, err := d.goals(ctx, d.selectGoals()+" AND site_id = ANY ($1) ORDER BY id", siteIDs)
	if err != nil {
		return nil, err
	}
	bySite := map[int64][]Goal{}
	for _, g := range goals {
		bySite[g.SiteID] = append(bySite[g.SiteID], g)
	}
	return bySite, nil
}

// Described is what the goal counts, as triggers describe goals.
func (g Goal) Described() trigger.Goal {
	return trigger.Goal{EventName: g.EventName, PagePath: g.PagePath, ScrollThreshold: g.ScrollThreshold, CustomProps: g.CustomProps}
}

// Named are goals as filters name them.
func Named(goals []Goal) []trigger.NamedGoal {
	named := make([]trigger.NamedGoal, len(goals))
	for i, g := range goals {
		named[i] = trigger.NamedGoal{Name: g.DisplayName, Goal: g.Described()}
	}
	return named
}

// GoalsOf lists the goals of a site, newest first. The page's positions are ids.
func (d *Directory) GoalsOf(ctx context.Context, siteID int64, page database.Page[int64]) ([]Goal, database.Around[int64], error) {
	end, arguments := tail(page, "id", true, []any{siteID})
	goals, err := d.goals(ctx, d.selectGoals()+" AND site_id = $1"+end, arguments...)
	if err != nil {
		return nil, database.Around[int64]{}, err
	}
	goals, around := database.Cut(page, goals, func(g Goal) int64 { return g.ID })
	return goals, around, nil
}

func (d *Directory) goals(ctx context.Context, query string, arguments ...any) ([]Goal, error) {
	rows, err := d.pool.Query(ctx, query, arguments...)
	if err != nil {
		return nil, fmt.Errorf("read goals: %w", err)
	}
	goals, err := pgx.CollectRows(rows, scanGoal)
	if err != nil {
		return nil, fmt.Errorf("read goals: %w", err)
	}
	return goals, nil
}

func scanGoal(row pgx.CollectableRow) (Goal, error) {
	var g Goal
	err := row.Scan(&g.ID, &g.SiteID, &g.EventName, &g.PagePath, &g.DisplayName, &g.ScrollThreshold, &g.CustomProps)
	g.EventName, g.PagePath = strings.TrimSpace(g.EventName), strings.TrimSpace(g.PagePath)
	return g, err
}
