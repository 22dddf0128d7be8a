package trigger

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseFillsInDefaults(t *testing.T) {
	const signup = `{"goal":{"event_name":"Signup"}`
	for _, c := range []struct {
		t         Type
		in, canon string
	}{
		{VisitorSpikeType, ``, `{"threshold":10,"window_seconds":300,"sensitivity":"medium"}`},
		{VisitorSpikeType, `{}`, `{"threshold":10,"window_seconds":300,"sensitivity":"medium"}`},
		{VisitorSpikeType, `{"threshold": null, "window_seconds": 60}`, `{"threshold":10,"window_seconds":60,"sensitivity":"medium"}`},
		{VisitorSpikeType, `{"threshold": 3, "window_seconds": 60}`, `{"threshold":3,"window_seconds":60}`},
		{VisitorSpikeType, `{"threshold": 3, "sensitivity": "high"}`, `{"threshold":3,"window_seconds":300,"sensitivity":"high"}`},
		{VisitorSpikeType, `{"sensitivity": "off"}`, `{"threshold":10,"window_seconds":300}`},
		{VisitorSpikeType, `{"threshold": 1000000000, "window_seconds": 86400}`, `{"threshold":1000000000,"window_seconds":86400}`},
		{VisitorSpikeType, `{"threshold": 3, "renotify_seconds": 600}`, `{"threshold":3,"window_seconds":300,"renotify_seconds":600,"max_renotify":10}`},
		{VisitorSpikeType, `{"threshold": 3, "min_breaches": 2, "of_slots": 2, "keep_firing_seconds": 30}`, `{"threshold":3,"window_seconds":300,"min_breaches":2,"of_slots":2,"keep_firing_seconds":30}`},
		{VisitorDropType, `{}`, `{"threshold":1,"window_seconds":43200,"sensitivity":"medium"}`},
		{VisitorDropType, `{"threshold": 7, "window_seconds": 90}`, `{"threshold":7,"window_seconds":90}`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"goal":{"goal_id":3},"mode":"each","measure":"conversions"}`},
		{GoalAchievedType, `{"goal": {"event_name": " Signup ", "custom_props": {"b": "", "a": "ü\n"}}, "measure": null}`,
			`{"goal":{"event_name":"Signup","custom_props":{"a":"ü\n","b":""}},"mode":"each","measure":"conversions"}`},
		{GoalAchievedType, `{"goal": {"page_path": "/a*", "scroll_threshold": 0}, "mode": "threshold", "measure": "visitors"}`,
			`{"goal":{"page_path":"/a*","scroll_threshold":0},"mode":"threshold","measure":"visitors","threshold":10,"window_seconds":3600}`},
		{PageviewMilestoneType, `{}`, `{"period":"all_time"}`},
		{PageviewMilestoneType, `{"milestones": [5, 1, 5, 3], "period": "day", "page_path": "/a"}`, `{"milestones":[1,3,5],"period":"day","page_path":"/a"}`},
		{PageviewMilestoneType, `{"milestones": [], "every": 7, "period": "month"}`, `{"every":7,"period":"month"}`},
		{MetricThresholdType, `{"threshold": 0}`, `{"metric":"visitors","operator":"\u003e=","threshold":0,"window_seconds":3600}`},
		{MetricThresholdType, `{"threshold": 0.5, "metric": "bounce_rate", "operator": "<", "recovery_threshold": 1, "min_volume": 9}`,
			`{"metric":"bounce_rate","operator":"\u003c","threshold":0.5,"recovery_threshold":1,"window_seconds":3600,"min_volume":9}`},
		{MetricChangeType, `{}`, `{"metric":"visitors","direction":"any","percent":50,"baseline":"previous_period","min_volume":20,"window_seconds":3600}`},
		{TrackingSilenceType, `{}`, `{"minutes":"auto","sensitivity":"medium"}`},
		{TrackingSilenceType, `{"minutes": "auto", "sensitivity": "low"}`, `{"minutes":"auto","sensitivity":"low"}`},
		{TrackingSilenceType, `{"minutes": 30}`, `{"minutes":30}`},
		{GoalSilenceType, signup + `}`, signup + `,"sensitivity":"medium"}`},
		{NewSourceType, `{}`, `{"dimension":"source","min_visitors":5,"window_seconds":1800}`},
		{NotFoundBurstType, `{}`, `{"event_name":"404","threshold":10,"window_seconds":300}`},
	} {
		config, problems := Parse(c.t, json.RawMessage(c.in))
		require.Empty(t, problems, c.in)
		canon := mustJSON(config)
		require.Equal(t, c.canon, canon)
		again, problems := Parse(c.t, json.RawMessage(canon))
		require.Empty(t, problems, canon)
		require.Equal(t, config, again, "what is stored is read back as it was")
		require.NotEmpty(t, config.Title("Signup"))
	}
}

func TestParseNamesEveryProblem(t *testing.T) {
	unknownType := []string{"type: must be one of goal_achieved, goal_silence, metric_change, metric_threshold, new_source, not_found_burst, pageview_milestone, tracking_silence, visitor_drop, visitor_spike"}
	event := func(fields string) string { return `{"goal": {"event_name": "A", ` + fields + `}}` }
	for _, c := range []struct {
		t    Type
		in   string
		want []string
	}{
		{"visitor_flood", `{}`, unknownType},
		{"", `{}`, unknownType},
		{VisitorSpikeType, `[]`, []string{"config: must be an object"}},
		{VisitorSpikeType, `null`, []string{"config: must be an object"}},
		{VisitorSpikeType, `{"threshold": 0, "window_seconds": 59, "z": 1, "Threshold": 1}`, []string{
			"config.threshold: must be at least 1", "config.window_seconds: must be at least 60", "config.Threshold: is not a known field", "config.z: is not a known field"}},
		{VisitorSpikeType, `{"threshold": 1000000001, "window_seconds": 86401}`, []string{
			"config.threshold: must be at most 1000000000", "config.window_seconds: must be at most 86400"}},
		{VisitorSpikeType, `{"threshold": "10", "window_seconds": 99999999999999999999}`, []string{
			"config.threshold: must be a whole number", "config.window_seconds: must be a whole number"}},
		{VisitorSpikeType, `{"window_seconds": 420, "sensitivity": "extreme", "for_seconds": -1, "keep_firing_seconds": 86401}`, []string{
			"config.sensitivity: must be one of medium, low, high, off", "config.for_seconds: must be at least 0", "config.keep_firing_seconds: must be at most 86400",
			"config.window_seconds: must divide an hour, or be whole hours, to be compared with the hours of the week"}},
		{VisitorSpikeType, `{"for_seconds": 60, "min_breaches": 3, "of_slots": 2, "renotify_seconds": 59, "max_renotify": 1001}`, []string{
			"config.max_renotify: must be at most 1000", "config.for_seconds: cannot be combined with min_breaches", "config.of_slots: must be at least min_breaches", "config.renotify_seconds: must be 0 or at least 60"}},
		{VisitorSpikeType, `{"of_slots": 61, "max_renotify": 3}`, []string{
			"config.of_slots: must be at most 60", "config.of_slots: needs min_breaches", "config.max_renotify: needs renotify_seconds"}},
		{VisitorSpikeType, `{"for_seconds": 60, "min_breaches": 2, "of_slots": 2}`, []string{"config.for_seconds: cannot be combined with min_breaches"}},
		{VisitorDropType, `{"threshold": 0, "window_seconds": 5400, "sensitivity": "low", "percent": 5}`, []string{
			"config.threshold: must be at least 1", "config.window_seconds: must divide an hour, or be whole hours, to be compared with the hours of the week", "config.percent: is not a known field"}},
		{PageviewMilestoneType, `{"milestones": [0], "every": 0, "period": "week", "page_path": "a"}`, []string{
			"config.milestones: must have whole numbers from 1 to 1000000000000000", "config.every: must be at least 1", "config.period: must be one of all_time, month, day", "config.page_path: must start with /"}},
		{PageviewMilestoneType, `{"milestones": [null, 1], "page_path": ""}`, []string{"config.milestones: must have whole numbers from 1 to 1000000000000000", "config.page_path: must not be empty"}},
		{PageviewMilestoneType, `{"milestones": 5}`, []string{"config.milestones: must be a list"}},
		{PageviewMilestoneType, `{"milestones": [5], "every": 5}`, []string{"config.every: cannot be combined with milestones"}},
		{MetricThresholdType, `{}`, []string{"config.threshold: is required"}},
		{MetricThresholdType, `{"metric": "exit_rate", "operator": "=", "threshold": -1, "recovery_threshold": "x", "min_volume": -1}`, []string{
			"config.metric: must be one of visitors, visits, pageviews, events, conversion_rate, bounce_rate, visit_duration, views_per_visit", "config.operator: must be one of >=, >, <, <=",
			"config.threshold: must be at least 0", "config.recovery_threshold: must be a number", "config.min_volume: must be at least 0"}},
		{MetricThresholdType, `{"metric": "conversion_rate", "threshold": 5, "recovery_threshold": 6}`, []string{
			"config.goal: is required for conversion_rate", "config.recovery_threshold: must be on the safe side of the threshold"}},
		{MetricThresholdType, `{"metric": "visits", "operator": "<", "threshold": 5, "recovery_threshold": 4, "goal": {"goal_id": 1}, "min_volume": 1}`, []string{
			"config.goal: belongs to the metrics visitors, events and conversion_rate", "config.recovery_threshold: must be on the safe side of the threshold", "config.min_volume: belongs to rates and means"}},
		{MetricChangeType, `{"direction": "down", "percent": 101, "baseline": "same_hour_of_week", "metric": "views_per_visit", "window_seconds": 420, "min_volume": 0}`, []string{
			"config.min_volume: must be at least 1", "config.window_seconds: must divide an hour, or be whole hours, to be compared with the hours of the week",
			`config.baseline: "same_hour_of_week" belongs to visitors, visits, pageviews and events`, `config.percent: must be at most 100 for direction "down"`}},
		{MetricChangeType, `{"percent": 0.5, "direction": "left"}`, []string{"config.direction: must be one of any, up, down", "config.percent: must be at least 1"}},
		{TrackingSilenceType, `{"minutes": 0}`, []string{`config.minutes: must be "auto" or a whole number from 1 to 1440`}},
		{TrackingSilenceType, `{"minutes": "never", "sensitivity": "off"}`, []string{`config.minutes: must be "auto" or a whole number from 1 to 1440`, "config.sensitivity: must be one of medium, low, high"}},
		{TrackingSilenceType, `{"minutes": 5, "sensitivity": "low"}`, []string{`config.sensitivity: belongs to "minutes": "auto"`}},
		{GoalSilenceType, `{"sensitivity": 1}`, []string{
			`config.goal: is required: {"goal_id": …}, {"event_name": …}, {"page_path": …} or {"page_path": …, "scroll_threshold": …}`, "config.sensitivity: must be one of medium, low, high"}},
		{NewSourceType, `{"dimension": "page", "min_visitors": 0, "window_seconds": 1, "for_seconds": 5}`, []string{
			"config.dimension: must be one of source, referrer, utm_campaign, country, entry_page", "config.min_visitors: must be at least 1", "config.window_seconds: must be at least 60", "config.for_seconds: is not a known field"}},
		{NotFoundBurstType, `{"event_name": "", "threshold": 0}`, []string{"config.event_name: must not be empty", "config.threshold: must be at least 1"}},
		{GoalAchievedType, `{"goal": []}`, []string{"config.goal: must be an object", "config.goal: must have exactly one of goal_id, event_name and page_path"}},
		{GoalAchievedType, `{"goal": {}}`, []string{"config.goal: must have exactly one of goal_id, event_name and page_path"}},
		{GoalAchievedType, `{"goal": {"goal_id": 1, "event_name": "A"}}`, []string{"config.goal: must have exactly one of goal_id, event_name and page_path"}},
		{GoalAchievedType, `{"goal": {"goal_id": 1, "scroll_threshold": 5}}`, []string{"config.goal: goal_id stands alone: the goal itself says what else it needs"}},
		{GoalAchievedType, `{"goal": {"goal_id": 0}}`, []string{"config.goal.goal_id: must be at least 1", "config.goal: must have exactly one of goal_id, event_name and page_path"}},
		{GoalAchievedType, `{"goal": {"event_name": "pageview"}}`, []string{"config.goal: event_name must be a custom event; use page_path for pages"}},
		{GoalAchievedType, `{"goal": {"event_name": "a\u0000b"}}`, []string{"config.goal.event_name: must not contain control characters"}},
		{GoalAchievedType, `{"goal": {"event_name": "` + strings.Repeat("ü", 121) + `"}}`, []string{"config.goal.event_name: must have at most 120 characters"}},
		{GoalAchievedType, `{"goal": {"page_path": "blog"}}`, []string{"config.goal: page_path must start with /"}},
		{GoalAchievedType, `{"goal": {"page_path": "/\u0001"}}`, []string{"config.goal.page_path: must not contain control characters"}},
		{GoalAchievedType, event(`"scroll_threshold": 5`), []string{"config.goal: scroll_threshold needs page_path"}},
		{GoalAchievedType, event(`"scroll_threshold": 101`), []string{"config.goal.scroll_threshold: must be at most 100", "config.goal: scroll_threshold needs page_path"}},
		{GoalAchievedType, event(`"custom_props": []`), []string{"config.goal.custom_props: must be an object of text values"}},
		{GoalAchievedType, event(`"custom_props": {"a": 1}`), []string{"config.goal.custom_props: must be an object of text values"}},
		{GoalAchievedType, event(`"custom_props": {"a": null}`), []string{"config.goal.custom_props: must be an object of text values"}},
		{GoalAchievedType, event(`"custom_props": {"a": "\u0000"}`), []string{"config.goal.custom_props: must not contain control characters"}},
		{GoalAchievedType, event(`"custom_props": {"": "x"}`), []string{"config.goal.custom_props: must have names of 1 to 300 characters and values of at most 2000"}},
		{GoalAchievedType, event(`"custom_props": {"a": "", "b": "", "c": "", "d": ""}`), []string{"config.goal.custom_props: must have at most 3 properties"}},
		{GoalAchievedType, event(`"currency": "EUR"`), []string{"config.goal.currency: is not a known field"}},
		{GoalAchievedType, `{"goal": {"goal_id": 1}, "mode": "sometimes", "measure": 7}`, []string{
			"config.mode: must be one of each, threshold", "config.measure: must be one of conversions, visitors"}},
		{GoalAchievedType, `{"goal": {"goal_id": 1}, "threshold": 5, "window_seconds": 60, "measure": "visitors"}`, []string{
			`config.threshold: belongs to mode "threshold"; mode "each" fires for every conversion`,
			`config.window_seconds: belongs to mode "threshold"; mode "each" fires for every conversion`,
			`config.measure: "visitors" belongs to mode "threshold"; mode "each" counts conversions`}},
	} {
		_, problems := Parse(c.t, json.RawMessage(c.in))
		var lines []string
		for _, p := range problems {
			lines = append(lines, p.Field+": "+p.Message)
		}
		require.Equal(t, c.want, lines, c.in)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"threshold": 5}`, `{"goal": {"event_name": "A", "custom_props": {"a": "b"}}}`, `{"goal": {"page_path": "/*", "scroll_threshold": 5}, "mode": "threshold"}`, `{"milestones": [3, 1]}`, `{"minutes": 5, "renotify_seconds": 60}`, `[`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for _, kind := range Types() {
			config, problems := Parse(kind, json.RawMessage(raw))
			if len(problems) > 0 {
				continue
			}
			canon, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			if again, problems := Parse(kind, canon); len(problems) > 0 || fmt.Sprintf("%#v", mustJSON(again)) != fmt.Sprintf("%#v", string(canon)) {
				t.Fatalf("%q became %s, which is read as %s (%v)", raw, canon, mustJSON(again), problems)
			}
		}
	})
}

func mustJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
