package trigger

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

var namedGoals = []NamedGoal{
	{"Signup", Goal{EventName: "Signup"}},
	{"Purchase business", Goal{EventName: "Purchase", CustomProps: map[string]string{"seats": "5", "plan": "business"}}},
	{"Visit /pricing", Goal{PagePath: "/pricing"}},
	{"Visit /blog/*", Goal{PagePath: "/blog/*"}},
	{"Read the blog", Goal{PagePath: "/blog/*", ScrollThreshold: pointer(75)}},
}

func TestFiltersTakeWhatGoalsCount(t *testing.T) {
	const (
		signup   = `["and",[["is","event:name",["Signup"]]]]`
		purchase = `["and",[["is","event:name",["Purchase"]],["is","event:props:plan",["business"]],["is","event:props:seats",["5"]]]]`
		pricing  = `["and",[["is","event:name",["pageview"]],["is","event:page",["/pricing"]]]]`
		blog     = `["and",[["is","event:name",["pageview"]],["matches_wildcard","event:page",["/blog/*"]]]]`
		read     = `["and",[["is","event:name",["engagement"]],["matches_wildcard","event:page",["/blog/*"]],["at_least","event:scroll_depth",["75"]]]]`
		nothing  = `["is","event:name",[""]]`
	)
	for written, want := range map[string]string{
		`[["is","event:goal",["Signup"]]]`:                                            `[["or",[` + signup + `]]]`,
		`[["is_not","event:goal",["Signup","Visit /pricing"]]]`:                       `[["not",["or",[` + signup + `,` + pricing + `]]]]`,
		`[["is","event:goal",["Purchase business"]]]`:                                 `[["or",[` + purchase + `]]]`,
		`[["contains","event:goal",["Visit"]]]`:                                       `[["or",[` + pricing + `,` + blog + `]]]`,
		`[["contains_not","event:goal",["nowhere"]]]`:                                 `[["not",["or",[` + nothing + `]]]]`,
		`[["is","event:goal",["SIGNUP"],{"case_sensitive":false}]]`:                   `[["or",[` + signup + `]]]`,
		`[["is","visit:country",["EE"]],["is","event:goal",["Signup"]]]`:              `[["is","visit:country",["EE"]],["or",[` + signup + `]]]`,
		`[["or",[["not",["is","event:goal",["Signup"]]],["is","event:page",["/"]]]]]`: `[["or",[["not",["or",[` + signup + `]]],["is","event:page",["/"]]]]]`,
		`[["is","event:name",["event:goal"]]]`:                                        `[["is","event:name",["event:goal"]]]`,
		`[["has_done",["is","event:goal",["Read the blog"]]]]`:                        `[["has_done",["or",[` + read + `]]]]`,
		`[["has_not_done",["is","event:goal",["Signup"]]]]`:                           `[["has_not_done",["or",[` + signup + `]]]]`,
	} {
		f, problems := ParseFilters(json.RawMessage(written))
		require.Empty(t, problems, written)
		resolved, problems := f.WithGoals(namedGoals)
		require.Empty(t, problems, written)
		require.JSONEq(t, strings.ReplaceAll(want, `["and",[["is","event:name",["Signup"]]]]`, `["is","event:name",["Signup"]]`), resolved.String(), written)
		require.NotContains(t, resolved.String(), `"event:goal",`, written)
		require.Equal(t, resolved, filtersOf(resolved.List()), "what was made is read as the same")
		var stored Filters
		require.NoError(t, json.Unmarshal([]byte(mustJSON(resolved)), &stored))
		require.Equal(t, resolved, stored)
		again, problems := resolved.WithGoals(nil)
		require.Empty(t, problems)
		require.Equal(t, resolved, again)
	}
}

func TestFiltersCannotNameWhatIsNotThere(t *testing.T) {
	for written, want := range map[string][]strict.Problem{
		`[["is","event:page",["/"]],["is","event:goal",["Signup","Nothing"]]]`: {{Field: "filters[1]", Message: `names the goal "Nothing", which the site does not have`}},
		`[["is","event:goal",["signup"]],["is","event:goal",["Nothing"]]]`: {
			{Field: "filters[0]", Message: `names the goal "signup", which the site does not have`}, {Field: "filters[1]", Message: `names the goal "Nothing", which the site does not have`},
		},
		`[["not",["is","event:goal",["Read the blog"]]]]`: {{Field: "filters[0]", Message: `cannot use the goal "Read the blog" but with has_done: it is about how far a page was read`}},
		`[["contains","event:goal",["blog"]]]`:            {{Field: "filters[0]", Message: `cannot use the goal "Read the blog" but with has_done: it is about how far a page was read`}},
	} {
		f, problems := ParseFilters(json.RawMessage(written))
		require.Empty(t, problems, written)
		resolved, problems := f.WithGoals(namedGoals)
		require.Equal(t, want, problems, written)
		require.True(t, resolved.Empty())
	}
}

// TestGoalsMayMakeFiltersLarge: what people write is bounded, not what becomes of it.
func TestGoalsMayMakeFiltersLarge(t *testing.T) {
	var goals []NamedGoal
	for n := range 40 {
		goals = append(goals, NamedGoal{fmt.Sprint("Goal ", n), Goal{EventName: fmt.Sprint("Event ", n), CustomProps: map[string]string{"plan": "x"}}})
	}
	f, problems := ParseFilters(json.RawMessage(`[["not",["or",[["not",["contains","event:goal",["Goal"]]]]]]]`))
	require.Empty(t, problems)
	resolved, problems := f.WithGoals(goals)
	require.Empty(t, problems)
	require.Equal(t, resolved, filtersOf(resolved.List()))
	require.Equal(t, 40, strings.Count(resolved.String(), "Event "))
	require.Equal(t, []string{"event:name", "event:props:plan"}, resolved.Dimensions())
}

func TestRatesHaveTheirOwnGoal(t *testing.T) {
	f, problems := ParseFilters(json.RawMessage(`[["is","event:goal",["Signup"]]]`))
	require.Empty(t, problems)
	for _, c := range []Config{&MetricThreshold{Metric: ConversionRate}, &MetricChange{Metric: ConversionRate}} {
		require.Equal(t, "filters", CheckFilters(c, f)[0].Field)
	}
	for _, metric := range []Metric{BounceRate, Visitors} {
		require.Empty(t, CheckFilters(&MetricThreshold{Metric: metric}, f))
	}
	require.Empty(t, CheckFilters(&VisitorSpike{}, f))

	f, problems = ParseFilters(json.RawMessage(`[["has_done",["is","event:goal",["Signup"]]]]`))
	require.Empty(t, problems)
	require.Empty(t, CheckFilters(&MetricThreshold{Metric: ConversionRate}, f), "another goal of the same visit")
}
