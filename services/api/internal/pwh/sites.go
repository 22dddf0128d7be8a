package pwh

import (
	"bytes"
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
	list, err := read[struct {
		TriggerTypes []describedType `json:"trigger_types"`
	}](api.ListTriggerTypes(ctx))
	if err != nil || s.machine(list.raw) {
		return err
	}
	t := newTable("TYPE", "FIRES WHEN")
	for _, described := range list.value.TriggerTypes {
		if string(described.Type) == c.Type {
			s.showType(described)
			return nil
		}
		t.row(string(described.Type), described.Description)
	}
	if c.Type != "" {
		return usage("there is no trigger type %q: pwh types lists them", clean(c.Type))
	}
	t.print(s.out, "There are no trigger types.")
	return nil
}

type describedType struct {
	client.TriggerTypeDescription
	Schema schema `json:"schema"`
}

// schema is what a table tells of a config's JSON Schema.
type schema struct {
	Type        string          `json:"type"`
	Description string          `json:"description"`
	Default     json.RawMessage `json:"default"`
	Enum        []string        `json:"enum"`
	Minimum     *float64        `json:"minimum"`
	Maximum     *float64        `json:"maximum"`
	Items       *schema         `json:"items"`
	AnyOf       []schema        `json:"anyOf"`
	Properties  properties      `json:"properties"`
	Required    []string        `json:"required"`
}

// properties are fields in the order of the api, which is that of a form.
type properties []property

type property struct {
	name string
	schema
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *properties) UnmarshalJSON(raw []byte) error {
	read := json.NewDecoder(bytes.NewReader(raw))
	if _, err := read.Token(); err != nil {
		return err
	}
	for read.More() {
		name, err := read.Token()
		if err != nil {
			return err
		}
		field := property{name: fmt.Sprint(name)}
		if err := read.Decode(&field.schema); err != nil {
			return err
		}
		*p = append(*p, field)
	}
	return nil
}

func (s *session) showType(described describedType) {
	s.out.printf("%s: %s\n\n", described.Type, clean(described.Description))
	t := newTable("FIELD", "DEFAULT", "VALUES")
	described.Schema.fields(t, "")
	t.print(s.out, "It has no fields.")
}

// fields lists the fields of a field behind it.
func (c schema) fields(t *table, path string) {
	for _, field := range c.Properties {
		fallback := none
		switch {
		case slices.Contains(c.Required, field.name):
			fallback = "required"
		case field.Default != nil:
			fallback = strings.Trim(string(field.Default), `"`)
		}
		t.row(path+field.name, fallback, field.values())
		t.note(field.Description)
		field.fields(t, path+field.name+".")
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
