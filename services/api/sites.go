package api

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// roleOperator is what a site's list shows for the operator's token.
const roleOperator = "operator"

// ListSites implements rest.StrictServerInterface.
func (a *api) ListSites(ctx context.Context, request rest.ListSitesRequestObject) (rest.ListSitesResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := plausible.Page[string]{Limit: readLimit(request.Params.Limit, &problems)}
	page.After, page.Before = readCursors(request.Params.After, request.Params.Before, decodeDomain, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	list := a.directory.SitesOf
	if a.isOperator(by.key) {
		list = func(ctx context.Context, _ string, page plausible.Page[string]) ([]plausible.SiteRole, plausible.Around[string], error) {
			return a.directory.AllSites(ctx, page)
		}
	}
	sites, around, err := list(ctx, by.key, page)
	if err != nil {
		return nil, directoryError(ctx, err)
	}
	views := make([]rest.Site, len(sites))
	for i, s := range sites {
		views[i] = rest.Site{ID: s.ID, Domain: s.Domain, Timezone: s.Timezone, Role: string(s.Role)}
		if a.isOperator(by.key) {
			views[i].Role = roleOperator
		}
	}
	return rest.ListSites200JSONResponse{Sites: views, Meta: rest.Meta{
		After: encodeDomain(around.After), Before: encodeDomain(around.Before), Limit: page.Limit,
	}}, nil
}

func encodeDomain(domain *string) *string {
	if domain == nil {
		return nil
	}
	return new(base64.RawURLEncoding.EncodeToString([]byte(*domain)))
}

func decodeDomain(text string) (string, bool) {
	domain, err := base64.RawURLEncoding.DecodeString(text)
	return string(domain), err == nil && utf8.Valid(domain) && !strings.ContainsRune(string(domain), 0)
}

// ListGoals implements rest.StrictServerInterface.
func (a *api) ListGoals(ctx context.Context, request rest.ListGoalsRequestObject) (rest.ListGoalsResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := plausible.Page[int64]{Limit: readLimit(request.Params.Limit, &problems)}
	page.After, page.Before = readCursors(request.Params.After, request.Params.Before, decodeNumber, &problems)
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
	return rest.ListGoals200JSONResponse{Goals: views, Meta: rest.Meta{
		After: encodeNumber(around.After), Before: encodeNumber(around.Before), Limit: page.Limit,
	}}, nil
}

func encodeNumber(id *int64) *string {
	if id == nil {
		return nil
	}
	return new(base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(*id, 10))))
}

func decodeNumber(text string) (int64, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return 0, false
	}
	id, err := strconv.ParseInt(string(raw), 10, 64)
	return id, err == nil
}
