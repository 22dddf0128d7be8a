package trigger

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFiltersHaveACanonicalForm(t *testing.T) {
	for raw, want := range map[string]string{
		``: `[]`, `null`: `[]`, `[]`: `[]`,
		`[["is", "visit:country", ["EE", "LV"]]]`:                                                  `[["is","visit:country",["EE","LV"]]]`,
		`[ ["contains_not", "event:page", ["/a"], {"case_sensitive": true}] ]`:                     `[["contains_not","event:page",["/a"]]]`,
		`[["matches", "event:props:plan", ["^a.*"], {"case_sensitive": false}]]`:                   `[["matches","event:props:plan",["^a.*"],{"case_sensitive":false}]]`,
		`[["matches_wildcard_not", "event:page", ["/blog/**"], {}]]`:                               `[["matches_wildcard_not","event:page",["/blog/**"]]]`,
		`[["is", "visit:city", [588409, "2950159"]]]`:                                              `[["is","visit:city",["588409","2950159"]]]`,
		`[["and", [["is", "visit:os", ["Mac"]]]], ["or", [["is", "visit:os", ["Mac"]]]]]`:          `[["is","visit:os",["Mac"]],["or",[["is","visit:os",["Mac"]]]]]`,
		`[["not", ["or", [["is", "visit:os", ["Mac"]], ["is_not", "event:hostname", ["a.ee"]]]]]]`: `[["not",["or",[["is","visit:os",["Mac"]],["is_not","event:hostname",["a.ee"]]]]]]`,
		`[["not", ["not", ["is", "visit:os", [""]]]]]`:                                             `[["not",["not",["is","visit:os",[""]]]]]`,
		`[["has_done", ["is", "event:goal", ["A"]]], ["is", "visit:exit_page", ["/"]]]`:            `[["has_done",["is","event:goal",["A"]]],["is","visit:exit_page",["/"]]]`,
		`[["not", ["has_not_done", ["or", [["is", "visit:os", ["Mac"]]]]]]]`:                       `[["not",["has_not_done",["or",[["is","visit:os",["Mac"]]]]]]]`,
	} {
		filters, problems := ParseFilters(json.RawMessage(raw))
		require.Empty(t, problems, raw)
		require.Equal(t, want, filters.String())
		require.Equal(t, want, mustJSON(filters))
		require.Equal(t, want == "[]", filters.Empty())
	}
	filters, _ := ParseFilters(json.RawMessage(`[["is", "visit:os", ["Mac"]], ["not", ["or", [["is", "visit:os", ["Mac"]], ["is", "event:props:a", ["b"]]]]]]`))
	require.Equal(t, []string{"event:props:a", "visit:os"}, filters.Dimensions())
	require.Equal(t, []Filter{
		{Operator: "is", Dimension: "visit:os", Values: []string{"Mac"}, CaseSensitive: true},
		{Not: true, Of: []Filter{{Any: true, Of: []Filter{
			{Operator: "is", Dimension: "visit:os", Values: []string{"Mac"}, CaseSensitive: true},
			{Operator: "is", Dimension: "event:props:a", Values: []string{"b"}, CaseSensitive: true},
		}}}},
	}, filters.List())
}

func TestFiltersAreRefused(t *testing.T) {
	operators := "the operator must be one of is, is_not, contains, contains_not, matches, matches_not, matches_wildcard, matches_wildcard_not, and, or, not, has_done, has_not_done"
	dimensions := "the dimension must be one of " + strings.Join(filterDimensions, ", ") + ", event:props:<name>"
	values := "needs a list of 1 to 100 values"
	texts := "the values must be texts of at most 2000 bytes"
	many := func(n int, one string) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	is := `["is", "visit:os", ["Mac"]]`
	for raw, want := range map[string]string{
		`{}`:               `filters: must be a list of filters such as ["is", "visit:country", ["EE"]]`,
		`["is"]`:           `filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`,
		`[[]]`:             `filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`,
		`[[1, 2]]`:         `filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`,
		many(11, is):       `filters: must have at most 10 filters`,
		`[["and", []]]`:    `filters[0]: "and" needs at least one filter`,
		`[["or", 5]]`:      `filters[0]: must be a list of filters such as ["is", "visit:country", ["EE"]]`,
		`[["or", [], []]]`: `filters[0]: "or" needs one list of filters`,
		`[["not", 1, 2]]`:  `filters[0]: "not" needs one filter`,
		`[["not", 1]]`:     `filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`,
		`[["and", [["not", ["or", [["not", ` + is + `]]]]]]]`: `filters[0][0][0]: must be nested at most 4 levels deep`,
		`[["has_done"]]`:                                               `filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`,
		`[["has_done", ` + is + `, ` + is + `]]`:                       `filters[0]: "has_done" needs one filter`,
		`[["has_not_done", []]]`:                                       `filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`,
		`[["has_done", ["not", ["has_not_done", ` + is + `]]]]`:        `filters[0]: "has_not_done" cannot stand within another one`,
		`[["has_done", ["or", [["is", "visit:entry_page", ["/"]]]]]]`:  `filters[0][0]: visit:entry_page cannot stand within has_done, which is about an event: put it beside`,
		`[["has_done", ["and", [["not", ["has_done", ` + is + `]]]]]]`: `filters[0][0]: "has_done" cannot stand within another one`,
		`[["at_least", "event:scroll_depth", ["5"]]]`:                  `filters[0]: ` + operators,
		`[["is", "event:scroll_depth", ["5"]]]`:                        `filters[0]: ` + dimensions,
		`[["equals", "visit:os", ["Mac"]]]`:                            `filters[0]: ` + operators,
		`[["is", "visit:os"]]`:                                         `filters[0]: must have an operator, a dimension and a list of values`,
		`[["is", "visit:os", ["a"], {}, 1]]`:                           `filters[0]: must have an operator, a dimension and a list of values`,
		`[["is", "event:goals", ["A"]]]`:                               `filters[0]: ` + dimensions,
		`[["is", 5, ["A"]]]`:                                           `filters[0]: ` + dimensions,
		`[["is", "event:props:", ["A"]]]`:                              `filters[0]: ` + dimensions,
		`[["is", "event:props:a\u0000", ["A"]]]`:                       `filters[0]: ` + dimensions,
		`[["is", "visit:os", []]]`:                                     `filters[0]: ` + values,
		`[["is", "visit:os", "Mac"]]`:                                  `filters[0]: ` + values,
		`[["is", "visit:os", ` + many(101, `"a"`) + `]]`:               `filters[0]: ` + values,
		`[["is", "visit:os", [5]]]`:                                    `filters[0]: ` + texts,
		`[["is", "visit:os", ["a\u0000"]]]`:                            `filters[0]: ` + texts,
		`[["is", "visit:os", ["` + strings.Repeat("a", 2001) + `"]]]`:  `filters[0]: ` + texts,
		`[["matches", "visit:os", ["("]]]`:                             `filters[0]: "(" is not a regular expression`,
		`[["is", "visit:os", ["a"], {"case_sensitive": 1}]]`:           `filters[0]: the modifiers can only be {"case_sensitive": true or false}`,
		`[["is", "visit:os", ["a"], {"x": 1}]]`:                        `filters[0]: the modifiers can only be {"case_sensitive": true or false}`,
		`[["is", "visit:os", []], ` + is + `, ["is", "x", 1]]`:         `filters[0]: ` + values + "\n" + `filters[2]: ` + dimensions,
	} {
		filters, problems := ParseFilters(json.RawMessage(raw))
		var lines []string
		for _, p := range problems {
			lines = append(lines, p.Field+": "+p.Message)
		}
		require.Equal(t, want, strings.Join(lines, "\n"), raw)
		require.True(t, filters.Empty())
	}
}

func anyFilter(depth int, done bool) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		switch {
		case depth > 0 && kind <= 1:
			word := []string{"and", "or"}[kind]
			return []any{word, rapid.SliceOfN(anyFilter(depth-1, done), 1, 3).Draw(t, word)}
		case depth > 0 && kind == 2:
			return []any{"not", anyFilter(depth-1, done).Draw(t, "not")}
		case depth > 0 && kind == 3 && !done:
			return []any{rapid.SampledFrom([]string{"has_done", "has_not_done"}).Draw(t, "done"), anyFilter(depth-1, true).Draw(t, "what")}
		}
		dimensions := append([]string{"event:props:<ü>"}, filterDimensions...)
		if done {
			dimensions = slices.DeleteFunc(dimensions, OfVisitAlone)
		}
		dimension, operators := rapid.SampledFrom(dimensions).Draw(t, "dimension"), []string{"is", "contains", "matches_wildcard"}
		if dimension == goalDimension {
			operators = operators[:2]
		}
		operator := rapid.SampledFrom(operators).Draw(t, "operator") + rapid.SampledFrom([]string{"", "_not"}).Draw(t, "negation")
		comparison := []any{operator, dimension,
			rapid.SliceOfN(rapid.StringMatching(`[a-zõ<>&"\\ ]{0,5}`), 1, 3).Draw(t, "values")}
		if rapid.Bool().Draw(t, "modifier?") {
			comparison = append(comparison, map[string]bool{"case_sensitive": rapid.Bool().Draw(t, "case")})
		}
		return comparison
	})
}

func TestTheCanonicalFormIsReadAsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filters, problems := ParseFilters(json.RawMessage(mustJSON(rapid.SliceOfN(anyFilter(3, false), 0, 4).Draw(t, "filters"))))
		require.Empty(t, problems)
		again, problems := ParseFilters(json.RawMessage(filters.String()))
		require.Empty(t, problems)
		require.Equal(t, filters, again)
		require.Equal(t, filters.List(), again.List())
		var stored Filters
		require.NoError(t, json.Unmarshal([]byte(mustJSON(filters)), &stored))
		require.Equal(t, filters, stored)
	})
	require.ErrorContains(t, json.Unmarshal([]byte(`[["is", "visit:country"]]`), new(Filters)), "filters[0]")
}

func FuzzParseFilters(f *testing.F) {
	f.Add(`[["has_not_done", ["or", [["is", "event:goal", ["A"]]]]], ["is", "visit:entry_page", ["/"]]]`)
	f.Add(`[["not", ["or", [["is", "visit:os", ["Mac"]], ["matches", "event:page", ["^/a"], {"case_sensitive": false}]]]]]`)
	f.Fuzz(func(t *testing.T, raw string) {
		filters, problems := ParseFilters(json.RawMessage(raw))
		if again, more := ParseFilters(json.RawMessage(filters.String())); len(problems) == 0 && (len(more) > 0 || again != filters) {
			t.Fatalf("%q became %s, which is read as %s (%v)", raw, filters, again, more)
		}
	})
}
