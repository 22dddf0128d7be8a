package api

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// roleOperator is the operator's token's, which Plausible does not know.
const roleOperator plausible.Role = "operator"

// The cursors of Plausible's lists.
var (
	byDomain = cursors[string]{
		write: func(domain string) string { return domain },
		read: func(text string) (string, bool) {
			return text, utf8.ValidString(text) && !strings.ContainsRune(text, 0)
		},
	}
	byNumber = cursors[int64]{
		write: func(id int64) string { return strconv.FormatInt(id, 10) },
		read: func(text string) (int64, bool) {
			id, err := strconv.ParseInt(text, 10, 64)
			return id, err == nil
		},
	}
)

// ListSites implements rest.StrictServerInterface.
func (a *api) ListSites(ctx context.Context, request rest.ListSitesRequestObject) (rest.ListSitesResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := byDomain.page(request.Params.Limit, request.Params.After, request.Params.Before, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	list := a.directory.SitesOf
	if a.isOperator(by.key) {
		list = func(ctx context.Context, _ string, page database.Page[string]) ([]plausible.SiteRole, database.Around[string], error) {
			return a.directory.AllSites(ctx, page)
		}
	}
	sites, around, err := list(ctx, by.key, page)
	if err != nil {
		return nil, directoryError(ctx, err)
	}
	views := make([]rest.Site, len(sites))
	for i, s := range sites {
		role, canChange := s.Role, s.Role.CanChange()
		if a.isOperator(by.key) {
			role, canChange = roleOperator, true
		}
		views[i] = viewSite(s.Site, role, canChange)
	}
	return rest.ListSites200JSONResponse{Sites: views, Meta: byDomain.meta(page, around)}, nil
}

// ShowSite implements rest.StrictServerInterface.
func (a *api) ShowSite(ctx context.Context, _ rest.ShowSiteRequestObject) (rest.ShowSiteResponseObject, error) {
	by := callOf(ctx)
	return rest.ShowSite200JSONResponse(viewSite(by.site, by.role, by.canChange)), nil
}

func viewSite(s plausible.Site, role plausible.Role, canChange bool) rest.Site {
	return rest.Site{ID: s.ID, Domain: s.Domain, Timezone: s.Timezone, Role: string(role), CanChange: canChange}
}

// ListGoals implements rest.StrictServerInterface.
func (a *api) ListGoals(ctx context.Context, request rest.ListGoalsRequestObject) (rest.ListGoalsResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := byNumber.page(request.Params.Limit, request.Params.After, request.Params.Before, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	goals, around, err := a.directory.GoalsOf(ctx, by.site.ID, page)
	if err != nil {
		return nil, directoryError(ctx, err)
	}
	views := make([]rest.Goal, len(goals))
	for i, g := range goals {
		views[i] = rest.Goal{
			ID: g.ID, DisplayName: g.DisplayName, EventName: orNull(g.EventName), PagePath: orNull(g.PagePath),
			ScrollThreshold: g.ScrollThreshold, CustomProps: g.CustomProps,
		}
		if g.CustomProps == nil {
			views[i].CustomProps = map[string]string{}
		}
	}
	return rest.ListGoals200JSONResponse{Goals: views, Meta: byNumber.meta(page, around)}, nil
}
