package pwh

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

// page is which part of a list is asked for.
type page struct {
	Limit int    `default:"50" help:"How many to show, at most 100."`
	After string `placeholder:"CURSOR" help:"Go on after a page; it ends with its cursor."`
}

func (p page) cursor() *string {
	if p.After == "" {
		return nil
	}
	return &p.After
}

// goOn tells how to see the rest of a list.
func (s *session) goOn(meta client.Meta) {
	if meta.After != nil {
		s.say("There are more: --after %s", *meta.After)
	}
}

type sitesCommand struct{ page }

func (c *sitesCommand) Run(ctx context.Context, s *session) error {
	api, err := s.withKey()
	if err != nil {
		return err
	}
	list, err := read[client.SiteList](api.ListSites(ctx, &client.ListSitesParams{Limit: &c.Limit, After: c.cursor()}))
	if err != nil || s.machine(list.raw) {
		return err
	}
	t := newTable("ID", "ROLE", "TIME ZONE", "DOMAIN")
	for _, site := range list.value.Sites {
		t.row(strconv.FormatInt(site.ID, 10), site.Role, site.Timezone, site.Domain)
	}
	t.print(s.out, "The key can see no site.")
	s.goOn(list.value.Meta)
	return nil
}

type goalsCommand struct{ page }

func (c *goalsCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	list, err := read[client.GoalList](api.ListGoals(ctx, site, &client.ListGoalsParams{Limit: &c.Limit, After: c.cursor()}))
	if err != nil || s.machine(list.raw) {
		return err
	}
	t := newTable("ID", "KIND", "NAME")
	for _, goal := range list.value.Goals {
		kind := "event"
		switch {
		case goal.ScrollThreshold != nil:
			kind = fmt.Sprintf("scroll %d %%", *goal.ScrollThreshold)
		case goal.PagePath != nil:
			kind = "page"
		}
		t.row(strconv.FormatInt(goal.ID, 10), kind, goal.DisplayName)
		for _, name := range slices.Sorted(maps.Keys(goal.CustomProps)) {
			t.note(name + " = " + goal.CustomProps[name])
		}
	}
	t.print(s.out, "The site has no goals.")
	s.goOn(list.value.Meta)
	return nil
}

type typesCommand struct {
	Type string `arg:"" optional:"" help:"Show the fields of this one."`
}

func (c *typesCommand) Run(ctx context.Context, s *session) error {
	api, err := s.withoutKey()
	if err != nil {
		return err
	}
	list, err := read[client.TriggerTypeList](api.ListTriggerTypes(ctx))
	if err != nil || s.machine(list.raw) {
		return err
	}
	t := newTable("TYPE", "FIRES WHEN")
	for _, described := range list.value.TriggerTypes {
		if string(described.Type) == c.Type {
			return s.showType(described)
		}
		t.row(string(described.Type), described.Description)
	}
	if c.Type != "" {
		return usage("there is no trigger type %q: pwh types lists them", clean(c.Type))
	}
	t.print(s.out, "There are no trigger types.")
	return nil
}

// schema is what a table tells of a config's JSON Schema.
type schema struct {
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Default     json.RawMessage   `json:"default"`
	Enum        []string          `json:"enum"`
	Minimum     *float64          `json:"minimum"`
	Maximum     *float64          `json:"maximum"`
	Items       *schema           `json:"items"`
	AnyOf       []schema          `json:"anyOf"`
	Properties  map[string]schema `json:"properties"`
	Required    []string          `json:"required"`
}

func (s *session) showType(described client.TriggerTypeDescription) error {
	raw, err := json.Marshal(described.Schema)
	if err != nil {
		return err
	}
	var config schema
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("the schema of %s cannot be read: %w", described.Type, err)
	}
	s.out.printf("%s: %s\n\n", described.Type, clean(described.Description))
	t := newTable("FIELD", "DEFAULT", "VALUES")
	config.fields(t, "")
	t.print(s.out, "It has no fields.")
	return nil
}

// fields lists those that are required first, and the fields of a field behind it.
func (c schema) fields(t *table, path string) {
	names := slices.SortedFunc(maps.Keys(c.Properties), func(a, b string) int {
		if required := slices.Contains(c.Required, a); required != slices.Contains(c.Required, b) {
			if required {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		field := c.Properties[name]
		fallback := none
		switch {
		case slices.Contains(c.Required, name):
			fallback = "required"
		case field.Default != nil:
			fallback = strings.Trim(string(field.Default), `"`)
		}
		t.row(path+name, fallback, field.values())
		t.note(field.Description)
		field.fields(t, path+name+".")
	}
}

func (c schema) values() string {
	switch {
	case len(c.Enum) > 0:
		return strings.Join(c.Enum, ", ")
	case len(c.AnyOf) > 0:
		var either []string
		for _, one := range c.AnyOf {
			either = append(either, one.values())
		}
		return strings.Join(either, ", or ")
	case c.Items != nil:
		return "list of " + c.Items.values()
	case c.Minimum != nil && c.Maximum != nil:
		return c.Type + " from " + number(*c.Minimum) + " to " + number(*c.Maximum)
	}
	return c.Type
}
