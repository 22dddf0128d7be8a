package trigger

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFiltersThatAskTooMuchOfVisitsAreRefused(t *testing.T) {
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
		{MetricThresholdType, `{"metric": "bounce_rate", "threshold": 70}`, `[["is", "event:page", ["/"]], ` + visits + `, ["is", "event:props:plan", ["x"]], ["is", "visit:exit_page", ["/"]]]`, nil},
		{MetricThresholdType, `{"metric": "bounce_rate", "threshold": 70}`, `[` + visits + `, ["or", [["is", "visit:exit_page", ["/"]], ["is", "event:page", ["/a"]]]]]`, []string{
			"filters[1]: cannot use event:page and visit:exit_page in one filter: bounce_rate is a matter of whole visits; make it two filters"}},
		{MetricChangeType, `{"metric": "visit_duration"}`, `[["not", ["and", [["has_done", ["is", "event:page", ["/"]]], ["or", [` + visits + `, ["contains", "event:name", ["a"]]]]]]]]`, []string{
			"filters[0]: cannot use event:name and has_done in one filter: visit_duration is a matter of whole visits; make it two filters"}},
		{MetricChangeType, `{"metric": "visitors"}`, `[["or", [["is", "visit:exit_page", ["/"]], ["is", "event:page", ["/a"]]]]]`, nil},
		{MetricChangeType, `{"metric": "views_per_visit"}`, `[["and", [` + visits + `, ["is", "event:page", ["/"]]]]]`, nil},
		{NewSourceType, `{"dimension": "entry_page"}`, `[["or", [["is", "event:hostname", ["a"]], ["has_not_done", ["is", "event:goal", ["A"]]]]]]`, []string{
			"filters[0]: cannot use event:hostname and has_done in one filter: entry_page is a matter of whole visits; make it two filters"}},
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
