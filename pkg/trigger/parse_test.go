package trigger

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseFillsInDefaults(t *testing.T) {
	for _, c := range []struct {
		t         Type
		in, canon string
	}{
		{VisitorSpikeType, ``, `{"threshold":10,"window_seconds":300}`},
		{VisitorSpikeType, `{}`, `{"threshold":10,"window_seconds":300}`},
		{VisitorSpikeType, `{"threshold": null, "window_seconds": 60}`, `{"threshold":10,"window_seconds":60}`},
		{VisitorSpikeType, `{"threshold": 1000000000, "window_seconds": 86400}`, `{"threshold":1000000000,"window_seconds":86400}`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"goal":{"goal_id":3},"mode":"each","measure":"conversions"}`},
		{GoalAchievedType, `{"goal": {"event_name": " Signup ", "custom_props": {"b": "", "a": "ü\n"}}, "measure": null}`,
			`{"goal":{"event_name":"Signup","custom_props":{"a":"ü\n","b":""}},"mode":"each","measure":"conversions"}`},
		{GoalAchievedType, `{"goal": {"page_path": "/a*", "scroll_threshold": 0}, "mode": "threshold", "measure": "visitors"}`,
			`{"goal":{"page_path":"/a*","scroll_threshold":0},"mode":"threshold","measure":"visitors","threshold":10,"window_seconds":3600}`},
	} {
		config, problems := Parse(c.t, json.RawMessage(c.in))
		require.Empty(t, problems, c.in)
		canon, err := json.Marshal(config)
		require.NoError(t, err)
		require.Equal(t, c.canon, string(canon))
	}
}

func TestParseNamesEveryProblem(t *testing.T) {
	event := func(fields string) string { return `{"goal": {"event_name": "A", ` + fields + `}}` }
	for _, c := range []struct {
		t    Type
		in   string
		want []string
	}{
		{"visitor_drop", `{}`, []string{"type: must be one of goal_achieved, visitor_spike"}},
		{"", `{}`, []string{"type: must be one of goal_achieved, visitor_spike"}},
		{VisitorSpikeType, `[]`, []string{"config: must be an object"}},
		{VisitorSpikeType, `null`, []string{"config: must be an object"}},
		{VisitorSpikeType, `{"threshold": 0, "window_seconds": 59, "z": 1, "Threshold": 1}`, []string{
			"config.threshold: must be at least 1", "config.window_seconds: must be at least 60", "config.Threshold: is not a known field", "config.z: is not a known field"}},
		{VisitorSpikeType, `{"threshold": 1000000001, "window_seconds": 86401}`, []string{
			"config.threshold: must be at most 1000000000", "config.window_seconds: must be at most 86400"}},
		{VisitorSpikeType, `{"threshold": "10", "window_seconds": 99999999999999999999}`, []string{
			"config.threshold: must be a whole number", "config.window_seconds: must be a whole number"}},
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

func TestParseFillsInTheDefaults(t *testing.T) {
	config, problems := Parse(VisitorSpikeType, []byte(`{"threshold": 5}`))
	require.Empty(t, problems)
	require.Equal(t, &VisitorSpike{Threshold: 5, WindowSeconds: 300}, config)
}

// What is stored is read back as it was.
func TestCanonicalFormIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, _ := anyConfig(t)
		kind := rapid.SampledFrom(Types()).Draw(t, "type")
		config, problems := Parse(kind, raw)
		if len(problems) > 0 {
			return
		}
		canon, err := json.Marshal(config)
		require.NoError(t, err)
		again, problems := Parse(kind, canon)
		require.Empty(t, problems, "%s", canon)
		require.Equal(t, config, again)
	})
}

func anyConfig(t *rapid.T) (json.RawMessage, error) {
	fields := map[string]any{}
	maybe := func(into map[string]any, name string, values ...any) {
		if rapid.Bool().Draw(t, name+"?") {
			into[name] = rapid.SampledFrom(values).Draw(t, name)
		}
	}
	goal := map[string]any{}
	switch rapid.IntRange(0, 3).Draw(t, "goal") {
	case 0:
		goal["goal_id"] = rapid.Int64Range(1, 1<<62).Draw(t, "id")
	case 1:
		goal["event_name"] = rapid.String().Draw(t, "event")
		if rapid.Bool().Draw(t, "props?") {
			goal["custom_props"] = rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "props")
		}
	case 2:
		goal["page_path"] = "/" + rapid.String().Draw(t, "path")
		maybe(goal, "scroll_threshold", 0, 50, 100, 101)
	}
	maybe(fields, "goal", goal)
	maybe(fields, "mode", ModeEach, ModeThreshold, nil)
	maybe(fields, "measure", MeasureConversions, MeasureVisitors)
	maybe(fields, "threshold", 1, 5, 1_000_000_000, nil)
	maybe(fields, "window_seconds", 60, 300, 86400)
	return json.Marshal(fields)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"threshold": 5}`, `{"goal": {"event_name": "A", "custom_props": {"a": "b"}}}`, `{"goal": {"page_path": "/*", "scroll_threshold": 5}, "mode": "threshold"}`, `[`} {
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
