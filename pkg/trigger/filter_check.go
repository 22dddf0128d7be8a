package trigger

import (
	"fmt"
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

// CheckFilters refuses the filters that a condition cannot be measured with, with fields that
// start at "filters": a visit as a whole has no page, no name and no property of an event.
func CheckFilters(c Config, f Filters) []strict.Problem {
	if with, may := c.(isRate); may && with.rate() && f.NameGoals() {
		return []strict.Problem{{Field: "filters", Message: fmt.Sprintf("cannot use %s: the goal of a conversion rate is that of the config", goalDimension)}}
	}
	with, may := c.(looksAtVisits)
	if !may || with.ofVisits() == "" {
		return nil
	}
	var problems []strict.Problem
	for i, one := range f.List() {
		if dimension := eventDimension(one); dimension != "" {
			problems = append(problems, strict.Problem{
				Field:   fmt.Sprintf("filters[%d]", i),
				Message: fmt.Sprintf("cannot use %s: %s is a matter of whole visits, whose filters can only use visit: dimensions", dimension, with.ofVisits()),
			})
		}
	}
	return problems
}

// eventDimension is the first dimension of a filter that only an event has; empty: there is none.
func eventDimension(f Filter) string {
	if strings.HasPrefix(f.Dimension, "event:") {
		return f.Dimension
	}
	for _, inner := range f.Of {
		if dimension := eventDimension(inner); dimension != "" {
			return dimension
		}
	}
	return ""
}
