package trigger

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFiltersThatVisitsCannotHaveAreRefused(t *testing.T) {
	const visits = `["is", "visit:country", ["EE"]]`
	for _, c := range []struct {
		typ             Type
		config, filters string
		want            []string
	}{
		{MetricThresholdType, `{"metric": "bounce_rate", "threshold": 70}`, `[]`, nil},
		{MetricThresholdType, `{"metric": "bounce_rate", "threshold": 70}`, `[` + visits + `]`, nil},
		{MetricThresholdType, `{"metric": "visitors", "threshold": 70}`, `[["is", "event:page", ["/"]]]`, nil},
		{MetricThresholdType, `{"metric": "visits", "threshold": 70}`, `[["is", "event:page", ["/"]]]`, nil},
		{MetricThresholdType, `{"metric": "bounce_rate", "threshold": 70}`, `[["is", "event:page", ["/"]], ` + visits + `, ["is", "event:props:plan", ["x"]]]`, []string{
			"filters[0]: cannot use event:page: bounce_rate is a matter of whole visits, whose filters can only use visit: dimensions",
			"filters[2]: cannot use event:props:plan: bounce_rate is a matter of whole visits, whose filters can only use visit: dimensions"}},
		{MetricChangeType, `{"metric": "visit_duration"}`, `[["not", ["or", [` + visits + `, ["contains", "event:name", ["a"]]]]]]`, []string{
			"filters[0]: cannot use event:name: visit_duration is a matter of whole visits, whose filters can only use visit: dimensions"}},
		{MetricChangeType, `{"metric": "views_per_visit"}`, `[["and", [` + visits + `]]]`, nil},
		{NewSourceType, `{"dimension": "entry_page"}`, `[["is", "event:hostname", ["a"]]]`, []string{
			"filters[0]: cannot use event:hostname: entry_page is a matter of whole visits, whose filters can only use visit: dimensions"}},
		{NewSourceType, `{}`, `[["is", "event:hostname", ["a"]]]`, nil},
		{VisitorSpikeType, `{}`, `[["is", "event:page", ["/"]]]`, nil},
		{PageviewMilestoneType, `{}`, `[["is", "event:page", ["/"]]]`, nil},
	} {
		config, problems := Parse(c.typ, json.RawMessage(c.config))
		require.Empty(t, problems, c.config)
		filters, problems := ParseFilters(json.RawMessage(c.filters))
		require.Empty(t, problems, c.filters)
		var found []string
		for _, problem := range CheckFilters(config, filters) {
			found = append(found, problem.Field+": "+problem.Message)
		}
		require.Equal(t, c.want, found, "%s with %s", c.config, c.filters)
	}
}
