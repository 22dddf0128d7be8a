package trigger

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// Filters is a list of conditions that all must hold, in the grammar of Plausible's Stats API v2:
// ["is", "visit:country", ["EE"]], with "and", "or" and "not" around others. It is comparable by
// its canonical text.
type Filters struct {
	canonical string // a JSON list; empty: none
}

// Filter is a condition on an event: one of the two forms.
type Filter struct {
	// A comparison of a dimension with values, of which one must fit.
	Operator      string // is, contains, matches, matches_wildcard: the negations are Not; of ScrollDepth: at_least
	Dimension     string // as in the Stats API: event:page, visit:country, event:props:plan
	Values        []string
	CaseSensitive bool
	Not           bool // also of the second form

	// A combination, where it is not empty.
	Any  bool // one of them must hold; otherwise all
	Done bool // of one: an event of the same visit must meet it, this one or another
	Of   []Filter
}

// Empty tells whether every event passes.
func (f Filters) Empty() bool { return f.canonical == "" }

// String is the canonical JSON.
func (f Filters) String() string {
	if f.Empty() {
		return "[]"
	}
	return f.canonical
}

// MarshalJSON implements json.Marshaler.
func (f Filters) MarshalJSON() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalJSON implements json.Unmarshaler, for what MarshalJSON wrote: also for filters that WithGoals made, which ParseFilters
// refuses.
func (f *Filters) UnmarshalJSON(raw []byte) error {
	r := &filterReader{}
	list := r.list("filters", raw, 0)
	if len(r.problems) > 0 {
		return fmt.Errorf("%s %s", r.problems[0].Field, r.problems[0].Message)
	}
	*f = filtersOf(list)
	return nil
}

// List parses the filters, all of which must hold.
func (f Filters) List() []Filter {
	if f.Empty() {
		return nil
	}
	return (&filterReader{}).list("", json.RawMessage(f.canonical), 0)
}

// Dimensions are those that the filters look at, each once, in alphabetical order.
func (f Filters) Dimensions() []string {
	var found []string
	var walk func([]Filter)
	walk = func(list []Filter) {
		for _, one := range list {
			if one.Dimension != "" {
				found = append(found, one.Dimension)
			}
			walk(one.Of)
		}
	}
	walk(f.List())
	slices.Sort(found)
	return slices.Compact(found)
}

// The limits of filters: generous for people, bounded for the shared queries.
const (
	maxFilters      = 10
	maxFilterDepth  = 4
	maxFilterValues = 100
)

// filterDimensions are those of an event and its visit, and goals, which WithGoals makes such of. Of the
// Stats API's they leave out the names of countries, regions and cities, which Plausible's own filters do
// not use either.
var filterDimensions = []string{
	"event:page", "event:hostname", "event:name", goalDimension,
	"visit:source", "visit:channel", "visit:referrer", "visit:utm_medium", "visit:utm_source", "visit:utm_campaign",
	"visit:utm_content", "visit:utm_term", "visit:device", "visit:browser", "visit:browser_version", "visit:os",
	"visit:os_version", "visit:country", "visit:region", "visit:city", "visit:entry_page", "visit:exit_page",
}

// OfVisitAlone tells whether only the visit as a whole knows the dimension, and none of its events.
func OfVisitAlone(dimension string) bool {
	return dimension == "visit:entry_page" || dimension == "visit:exit_page"
}

// ScrollDepth is the dimension, in per cent, that WithGoals makes scroll goals of. Nobody can write it.
const ScrollDepth = "event:scroll_depth"

// ParseFilters reads a trigger's filters and reports every problem with fields that start at "filters".
func ParseFilters(raw json.RawMessage) (Filters, []strict.Problem) {
	if len(raw) == 0 || string(raw) == "null" {
		return Filters{}, nil
	}
	r := &filterReader{limited: true}
	list := r.list("filters", raw, 0)
	if len(r.problems) > 0 {
		return Filters{}, r.problems
	}
	return filtersOf(list), nil
}

func filtersOf(list []Filter) Filters {
	if len(list) == 0 {
		return Filters{}
	}
	parts := make([]any, len(list))
	for i, f := range list {
		parts[i] = f.grammar()
	}
	canonical, err := json.Marshal(parts)
	if err != nil { // texts and lists: nothing that cannot be encoded
		panic(err)
	}
	return Filters{canonical: string(canonical)}
}

// WithoutProperties are the filters that choose a conversion rate's visitors: Plausible does not
// apply those on properties there, which only the converting events have.
func (f Filters) WithoutProperties() Filters {
	return filtersOf(slices.DeleteFunc(f.List(), func(one Filter) bool { return strings.HasPrefix(one.Dimension, "event:props:") }))
}

// grammar is the filter as the Stats API writes it.
func (f Filter) grammar() any {
	if len(f.Of) > 0 {
		inner := make([]any, len(f.Of))
		for i, one := range f.Of {
			inner[i] = one.grammar()
		}
		word := "and"
		if f.Any {
			word = "or"
		}
		var combined any = []any{word, inner}
		if !f.Any && len(f.Of) == 1 { // of "not" and "has_done"
			combined = inner[0]
		}
		switch {
		case f.Done && f.Not:
			return []any{"has_not_done", combined}
		case f.Done:
			return []any{"has_done", combined}
		case f.Not:
			return []any{"not", combined}
		}
		return combined
	}
	operator := f.Operator
	if f.Not {
		operator += "_not"
	}
	comparison := []any{operator, f.Dimension, f.Values}
	if !f.CaseSensitive {
		comparison = append(comparison, map[string]bool{"case_sensitive": false})
	}
	return comparison
}

// filterReader reads the grammar. Limited is what people write; what was made of goals may be larger.
type filterReader struct {
	limited  bool
	done     bool // within "has_done"
	problems []strict.Problem
}

func (r *filterReader) list(path string, raw json.RawMessage, depth int) []Filter {
	refuse := func(format string, arguments ...any) {
		r.problems = append(r.problems, strict.Problem{Field: path, Message: fmt.Sprintf(format, arguments...)})
	}
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil {
		refuse("must be a list of filters such as [\"is\", \"visit:country\", [\"EE\"]]")
		return nil
	}
	if r.limited && len(elements) > maxFilters {
		refuse("must have at most %d filters", maxFilters)
		return nil
	}
	filters := make([]Filter, 0, len(elements))
	for i, element := range elements {
		if f, ok := r.filter(fmt.Sprintf("%s[%d]", path, i), element, depth); ok {
			filters = append(filters, f)
		}
	}
	return filters
}

func (r *filterReader) filter(path string, raw json.RawMessage, depth int) (Filter, bool) {
	refuse := func(format string, arguments ...any) (Filter, bool) {
		r.problems = append(r.problems, strict.Problem{Field: path, Message: fmt.Sprintf(format, arguments...)})
		return Filter{}, false
	}
	var parts []json.RawMessage
	var operator string
	if json.Unmarshal(raw, &parts) != nil || len(parts) < 2 || json.Unmarshal(parts[0], &operator) != nil {
		return refuse("must be a filter such as [\"is\", \"visit:country\", [\"EE\"]]")
	}
	if r.limited && depth >= maxFilterDepth {
		return refuse("must be nested at most %d levels deep", maxFilterDepth)
	}
	switch operator {
	case "and", "or":
		if len(parts) != 2 {
			return refuse("%q needs one list of filters", operator)
		}
		before := len(r.problems)
		inner := r.list(path, parts[1], depth+1)
		if len(r.problems) > before {
			return Filter{}, false
		}
		if len(inner) == 0 {
			return refuse("%q needs at least one filter", operator)
		}
		return Filter{Any: operator == "or", Of: inner}, true
	case "not":
		if len(parts) != 2 {
			return refuse("\"not\" needs one filter")
		}
		inner, ok := r.filter(path, parts[1], depth+1)
		return Filter{Not: true, Of: []Filter{inner}}, ok
	case "has_done", "has_not_done":
		switch {
		case len(parts) != 2:
			return refuse("%q needs one filter", operator)
		case r.done:
			return refuse("%q cannot stand within another one", operator)
		}
		r.done = true
		inner, ok := r.filter(path, parts[1], depth+1)
		r.done = false
		return Filter{Not: operator == "has_not_done", Done: true, Of: []Filter{inner}}, ok
	}
	return r.comparison(operator, parts, refuse)
}

func (r *filterReader) comparison(operator string, parts []json.RawMessage, refuse func(string, ...any) (Filter, bool)) (Filter, bool) {
	f := Filter{Operator: strings.TrimSuffix(operator, "_not"), Not: strings.HasSuffix(operator, "_not"), CaseSensitive: true}
	made := !r.limited && f.Operator == "at_least"
	if !made && !slices.Contains([]string{"is", "contains", "matches", "matches_wildcard"}, f.Operator) {
		return refuse("the operator must be one of is, is_not, contains, contains_not, matches, matches_not, matches_wildcard, matches_wildcard_not, and, or, not, has_done, has_not_done")
	}
	if len(parts) < 3 || len(parts) > 4 {
		return refuse("must have an operator, a dimension and a list of values")
	}
	if json.Unmarshal(parts[1], &f.Dimension) != nil || !knownDimension(f.Dimension) && !made {
		return refuse("the dimension must be one of %s, event:props:<name>", strings.Join(filterDimensions, ", "))
	}
	if r.done && OfVisitAlone(f.Dimension) {
		return refuse("%s cannot stand within has_done, which is about an event: put it beside", f.Dimension)
	}
	if f.Dimension == goalDimension && f.Operator != "is" && f.Operator != "contains" {
		return refuse("%s takes is, is_not, contains and contains_not, with the names of goals", goalDimension)
	}
	var values []any
	if json.Unmarshal(parts[2], &values) != nil || len(values) == 0 || len(values) > maxFilterValues {
		return refuse("needs a list of 1 to %d values", maxFilterValues)
	}
	for _, value := range values {
		text, isText := value.(string)
		if number, isNumber := value.(float64); isNumber && f.Dimension == "visit:city" {
			text, isText = strconv.FormatFloat(number, 'f', -1, 64), true
		}
		if !isText || len(text) > 2000 || strings.ContainsRune(text, 0) {
			return refuse("the values must be texts of at most 2000 bytes")
		}
		if _, err := regexp.Compile(text); f.Operator == "matches" && err != nil {
			return refuse("%q is not a regular expression", text)
		}
		f.Values = append(f.Values, text)
	}
	if len(parts) == 4 {
		var inner []strict.Problem
		o := strict.Read("", parts[3], &inner)
		f.CaseSensitive = o.Boolean("case_sensitive", true)
		o.End()
		if len(inner) > 0 {
			return refuse("the modifiers can only be {\"case_sensitive\": true or false}")
		}
	}
	return f, true
}

func knownDimension(dimension string) bool {
	if name, isProperty := strings.CutPrefix(dimension, "event:props:"); isProperty {
		return name != "" && len(name) <= 300 && !strings.ContainsRune(name, 0)
	}
	return slices.Contains(filterDimensions, dimension)
}
