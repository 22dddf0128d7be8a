package trigger

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// Filters name goals as Plausible's Stats API does, by their display names. What a goal counts is found
// out when the filters are used, so that they follow the goal.

const goalDimension = "event:goal"

// NamedGoal is a goal of a site under the name that filters know.
type NamedGoal struct {
	Name string
	Goal Goal // described: without an id
}

// NameGoals tells whether the filters name goals, for WithGoals to look up.
func (f Filters) NameGoals() bool { return strings.Contains(f.canonical, `"`+goalDimension+`"`) }

// WithGoals are the filters with what the site's goals count instead of their names. A name that no goal
// has is a problem, and so is a scroll goal but for has_done: how far a page was read stands in rows of
// its own, which are no events that a metric counts.
func (f Filters) WithGoals(goals []NamedGoal) (Filters, []strict.Problem) {
	if !f.NameGoals() {
		return f, nil
	}
	var problems []strict.Problem
	list := f.List()
	for i, one := range list {
		var refused string
		list[i], refused = one.withGoals(goals, false)
		if refused != "" {
			problems = append(problems, strict.Problem{Field: fmt.Sprintf("filters[%d]", i), Message: refused})
		}
	}
	if len(problems) > 0 {
		return Filters{}, problems
	}
	return filtersOf(list), nil
}

func (f Filter) withGoals(goals []NamedGoal, done bool) (Filter, string) {
	if len(f.Of) > 0 {
		inner := slices.Clone(f.Of)
		for i, one := range inner {
			var refused string
			if inner[i], refused = one.withGoals(goals, done || f.Done); refused != "" {
				return f, refused
			}
		}
		f.Of = inner
		return f, ""
	}
	if f.Dimension != goalDimension {
		return f, ""
	}
	either := Filter{Any: true, Not: f.Not}
	for _, value := range f.Values {
		found := false
		for _, g := range goals {
			if !f.names(g.Name, value) {
				continue
			}
			if g.Goal.Scroll() && !done {
				return f, fmt.Sprintf("cannot use the goal %q but with has_done: it is about how far a page was read", g.Name)
			}
			found = true
			either.Of = append(either.Of, g.Goal.filter())
		}
		if !found && f.Operator == "is" {
			return f, fmt.Sprintf("names the goal %q, which the site does not have", value)
		}
	}
	if len(either.Of) == 0 { // no event has an empty name
		either.Of = []Filter{{Operator: "is", Dimension: "event:name", Values: []string{""}, CaseSensitive: true}}
	}
	return either, ""
}

// names tells whether a value of a filter on goals means the goal of this name.
func (f Filter) names(name, value string) bool {
	if !f.CaseSensitive {
		name, value = strings.ToLower(name), strings.ToLower(value)
	}
	if f.Operator == "contains" {
		return strings.Contains(name, value)
	}
	return name == value
}

// filter is the events that a goal counts.
func (g Goal) filter() Filter {
	is := func(dimension, value string) Filter {
		return Filter{Operator: "is", Dimension: dimension, Values: []string{value}, CaseSensitive: true}
	}
	var parts []Filter
	if g.EventName != "" {
		parts = append(parts, is("event:name", g.EventName))
	} else {
		path := is("event:page", g.PagePath)
		if strings.Contains(g.PagePath, "*") {
			path.Operator = "matches_wildcard"
		}
		if g.Scroll() {
			depth := is(ScrollDepth, strconv.Itoa(*g.ScrollThreshold))
			depth.Operator = "at_least"
			parts = append(parts, is("event:name", "engagement"), path, depth)
		} else {
			parts = append(parts, is("event:name", "pageview"), path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.CustomProps)) {
		parts = append(parts, is("event:props:"+name, g.CustomProps[name]))
	}
	return Filter{Of: parts}
}
