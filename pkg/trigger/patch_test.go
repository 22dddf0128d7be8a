package trigger

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// patched is a stored config with a merge patch, as the API makes it.
func patched(t *testing.T, kind Type, stored, patch string) (Config, []strict.Problem) {
	t.Helper()
	var merge func(base, changes map[string]any) map[string]any
	merge = func(base, changes map[string]any) map[string]any {
		base = maps.Clone(base)
		for name, value := range changes {
			inner, isObject := value.(map[string]any)
			of, wasObject := base[name].(map[string]any)
			switch {
			case value == nil:
				delete(base, name)
			case isObject && wasObject:
				base[name] = merge(of, inner)
			default:
				base[name] = value
			}
		}
		return base
	}
	var base, changes map[string]any
	require.NoError(t, json.Unmarshal([]byte(mustJSON(parsed(t, kind, stored))), &base))
	require.NoError(t, json.Unmarshal([]byte(patch), &changes))
	return ParsePatched(kind, json.RawMessage(mustJSON(merge(base, changes))), json.RawMessage(patch))
}

// What a patch says stands; what was stored and means nothing beside it goes.
func TestWhatIsStoredYieldsToAPatch(t *testing.T) {
	const counted = `{"goal": {"goal_id": 3}, "mode": "threshold", "measure": "visitors", "threshold": 5, "renotify_seconds": 600}`
	for _, c := range []struct {
		t                    Type
		stored, patch, canon string
	}{
		{TrackingSilenceType, `{}`, `{"minutes": 5}`, `{"minutes": 5}`},
		{TrackingSilenceType, `{"sensitivity": "high", "keep_firing_seconds": 60}`, `{"minutes": 5}`, `{"minutes": 5, "keep_firing_seconds": 60}`},
		{TrackingSilenceType, `{"minutes": 5}`, `{"minutes": "auto"}`, `{"minutes": "auto", "sensitivity": "medium"}`},
		{TrackingSilenceType, `{"minutes": 5}`, `{"minutes": "auto", "sensitivity": "low"}`, `{"minutes": "auto", "sensitivity": "low"}`},
		{GoalAchievedType, counted, `{"mode": "each"}`, `{"goal": {"goal_id": 3}, "mode": "each", "measure": "conversions"}`},
		{GoalAchievedType, counted, `{"mode": null}`, `{"goal": {"goal_id": 3}, "mode": "each", "measure": "conversions"}`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"mode": "threshold", "threshold": 7}`, `{"goal": {"goal_id": 3}, "mode": "threshold", "measure": "conversions", "threshold": 7, "window_seconds": 3600}`},
		{GoalAchievedType, `{"goal": {"page_path": "/a", "scroll_threshold": 50, "custom_props": {"a": "b"}}}`, `{"goal": {"goal_id": 3}}`, `{"goal": {"goal_id": 3}, "mode": "each", "measure": "conversions"}`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"goal": {"event_name": "Signup"}}`, `{"goal": {"event_name": "Signup"}, "mode": "each", "measure": "conversions"}`},
		{GoalAchievedType, `{"goal": {"event_name": "A", "custom_props": {"a": "b"}}}`, `{"goal": {"event_name": "B"}}`, `{"goal": {"event_name": "B", "custom_props": {"a": "b"}}, "mode": "each", "measure": "conversions"}`},
		{VisitorSpikeType, `{"threshold": 3, "renotify_seconds": 600}`, `{"renotify_seconds": 0}`, `{"threshold": 3, "window_seconds": 300}`},
		{VisitorSpikeType, `{"threshold": 3, "renotify_seconds": 600, "max_renotify": 2}`, `{"renotify_seconds": null}`, `{"threshold": 3, "window_seconds": 300}`},
		{VisitorSpikeType, `{"threshold": 3, "for_seconds": 60}`, `{"min_breaches": 2, "of_slots": 3}`, `{"threshold": 3, "window_seconds": 300, "min_breaches": 2, "of_slots": 3}`},
		{VisitorSpikeType, `{"threshold": 3, "min_breaches": 2, "of_slots": 3}`, `{"for_seconds": 60}`, `{"threshold": 3, "window_seconds": 300, "for_seconds": 60}`},
		{VisitorSpikeType, `{"threshold": 3, "min_breaches": 2, "of_slots": 3}`, `{"for_seconds": 0}`, `{"threshold": 3, "window_seconds": 300, "min_breaches": 2, "of_slots": 3}`},
		{VisitorSpikeType, `{"threshold": 3, "min_breaches": 2, "of_slots": 3}`, `{"min_breaches": 0}`, `{"threshold": 3, "window_seconds": 300}`},
		{VisitorSpikeType, `{}`, `{"threshold": 100}`, `{"threshold": 100, "window_seconds": 300, "sensitivity": "medium"}`}, // what it does not name stays
		{PageviewMilestoneType, `{"milestones": [5, 6]}`, `{"every": 10}`, `{"every": 10, "period": "all_time"}`},
		{PageviewMilestoneType, `{"every": 10, "period": "day"}`, `{"milestones": [5]}`, `{"milestones": [5], "period": "day"}`},
		{MetricThresholdType, `{"metric": "conversion_rate", "goal": {"goal_id": 3}, "threshold": 2, "min_volume": 50}`, `{"metric": "pageviews"}`, `{"metric": "pageviews", "operator": ">=", "threshold": 2, "window_seconds": 3600}`},
		{MetricChangeType, `{"goal": {"goal_id": 3}}`, `{"metric": "bounce_rate"}`, `{"metric": "bounce_rate", "direction": "any", "percent": 50, "baseline": "previous_period", "min_volume": 20, "window_seconds": 3600}`},
	} {
		config, problems := patched(t, c.t, c.stored, c.patch)
		require.Empty(t, problems, "%s %s with %s", c.t, c.stored, c.patch)
		require.JSONEq(t, c.canon, mustJSON(config), "%s %s with %s", c.t, c.stored, c.patch)
		again, problems := Parse(c.t, json.RawMessage(mustJSON(config)))
		require.Empty(t, problems)
		require.Equal(t, config, again)
	}
}

// What a patch itself says must have a meaning, and values that contradict each other are no matter
// of who wrote first: a number of the owner's is never replaced silently.
func TestAPatchIsJudgedAsAWhole(t *testing.T) {
	for _, c := range []struct {
		t                      Type
		stored, patch, problem string
	}{
		{TrackingSilenceType, `{}`, `{"minutes": 5, "sensitivity": "high"}`, `config.sensitivity: belongs to "minutes": "auto"`},
		{TrackingSilenceType, `{"minutes": 5}`, `{"sensitivity": "high"}`, `config.sensitivity: belongs to "minutes": "auto"`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"threshold": 7}`, `config.threshold: belongs to mode "threshold"; mode "each" fires for every conversion`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"goal": {"event_name": "A", "page_path": "/"}}`, `config.goal: must have exactly one of goal_id, event_name and page_path`},
		{GoalAchievedType, `{"goal": {"goal_id": 3}}`, `{"goal": {"custom_props": {"a": "b"}}}`, `config.goal: goal_id stands alone: the goal itself says what else it needs`},
		{VisitorSpikeType, `{"threshold": 3}`, `{"max_renotify": 2}`, `config.max_renotify: needs renotify_seconds`},
		{VisitorSpikeType, `{"threshold": 3, "window_seconds": 420}`, `{"sensitivity": "high"}`, `config.window_seconds: must divide an hour, or be whole hours, to be compared with the hours of the week`},
		{PageviewMilestoneType, `{}`, `{"milestones": [5], "every": 10}`, `config.every: cannot be combined with milestones`},
		{MetricThresholdType, `{"threshold": 100, "recovery_threshold": 80}`, `{"threshold": 50}`, `config.recovery_threshold: must be on the safe side of the threshold`},
		{MetricThresholdType, `{"metric": "pageviews", "threshold": 2}`, `{"goal": {"goal_id": 3}}`, `config.goal: belongs to the metrics visitors, events and conversion_rate`},
	} {
		_, problems := patched(t, c.t, c.stored, c.patch)
		require.Len(t, problems, 1, "%s %s with %s", c.t, c.stored, c.patch)
		require.Equal(t, c.problem, problems[0].Field+": "+problems[0].Message)
	}
}
