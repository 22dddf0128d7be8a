package trigger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// looksAtVisits is a config that may measure whole visits instead of their events.
type looksAtVisits interface {
	// ofVisits names what is measured of whole visits; empty: nothing.
	ofVisits() string
}

func (c *MetricThreshold) ofVisits() string { return ofVisits(c.Metric) }
func (c *MetricChange) ofVisits() string    { return ofVisits(c.Metric) }

func ofVisits(m Metric) string {
	if m.OfSessions() {
		return string(m)
	}
	return ""
}

// isRate is a config whose goal says already which conversions are meant.
type isRate interface{ rate() bool }

func (c *MetricThreshold) rate() bool { return c.Metric == ConversionRate }
func (c *MetricChange) rate() bool    { return c.Metric == ConversionRate }

func (c *NewSource) ofVisits() string {
	if c.Dimension == ByEntryPage {
		return string(c.Dimension)
	}
	return ""
}

// CheckFilters refuses the filters that a condition cannot be measured with, with fields that start at
// "filters". Of a visit as a whole, a filter asks either whether it has an event such as this, or what
// itself is: one filter that does both would leave open what "not" and "or" mean.
func CheckFilters(c Config, f Filters) []strict.Problem {
	if with, may := c.(isRate); may && with.rate() && slices.ContainsFunc(f.List(), Filter.namesGoalOfEvent) {
		return []strict.Problem{{Field: "filters", Message: fmt.Sprintf("cannot use %s: the goal of a conversion rate is that of the config; for another goal of the same visit there is has_done", goalDimension)}}
	}
	with, may := c.(looksAtVisits)
	if !may || with.ofVisits() == "" {
		return nil
	}
	var problems []strict.Problem
	for i, one := range f.List() {
		if ofEvent, ofVisit := one.Sides(); ofEvent != "" && ofVisit != "" {
			problems = append(problems, strict.Problem{
				Field:   fmt.Sprintf("filters[%d]", i),
				Message: fmt.Sprintf("cannot use %s and %s in one filter: %s is a matter of whole visits; make it two filters", ofEvent, ofVisit, with.ofVisits()),
			})
		}
	}
	return problems
}

// Sides are the first dimension of the filter that only an event has, and the first one, or has_done, that
// only its visit knows; empty: there is none.
func (f Filter) Sides() (ofEvent, ofVisit string) {
	switch {
	case f.Done:
		return "", "has_done"
	case OfVisitAlone(f.Dimension):
		return "", f.Dimension
	case strings.HasPrefix(f.Dimension, "event:"):
		return f.Dimension, ""
	}
	for _, inner := range f.Of {
		event, visit := inner.Sides()
		ofEvent, ofVisit = cmp.Or(ofEvent, event), cmp.Or(ofVisit, visit)
	}
	return ofEvent, ofVisit
}

// namesGoalOfEvent tells whether the filter asks whether the event itself is a conversion.
func (f Filter) namesGoalOfEvent() bool {
	return f.Dimension == goalDimension || !f.Done && slices.ContainsFunc(f.Of, Filter.namesGoalOfEvent)
}
