package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestTriggerLivesFromCreationToRemoval(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.announced()
	created := w.owner(201, "POST", "/"+id+"/triggers", fmt.Sprintf(`{"type": "goal_achieved", "config": {"goal": {"goal_id": %d}, "mode": "threshold"},
		"cooldown_seconds": 60, "notify_resolved": true, "filters": []}`, w.demo.Goals.Signup))
	tr := created.id(t)
	path := "/" + id + "/triggers/" + tr
	require.Regexp(t, `^tr_[a-z2-7]{26}$`, tr)
	require.Equal(t, "/api/sites/demo.example.com/webhooks"+path, created.header.Get("Location"))
	require.Equal(t, []string{"changed.trigger." + tr}, w.announced(), "the webhook itself has not changed")

	shown := w.owner(200, "GET", path, "")
	require.JSONEq(t, created.text, shown.text)
	require.JSONEq(t, fmt.Sprintf(`{"id": %q, "type": "goal_achieved", "name": "Signup: 10 conversions in 1h", "enabled": true,
		"config": {"goal": {"goal_id": %d}, "mode": "threshold", "measure": "conversions", "threshold": 10, "window_seconds": 3600},
		"filters": [], "cooldown_seconds": 60, "notify_resolved": true, "created_at": %[3]q, "updated_at": %[3]q,
		"state": {"status": "pending", "value": null, "threshold": null, "since": %[3]q, "last_evaluated_at": null, "last_fired_at": null, "explanation": "Not evaluated yet."}}`,
		tr, w.demo.Goals.Signup, shown.json(t, "created_at")), shown.text)

	w.owner(204, "DELETE", path, "")
	require.Equal(t, []string{"changed.trigger." + tr}, w.announced())
	for method, body := range map[string]string{"GET": "", "PUT": spike, "PATCH": "{}", "DELETE": ""} {
		require.JSONEq(t, notFound, w.owner(404, method, path, body).text)
	}
}

func TestOnlyAnotherConditionStartsAnew(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	tr := created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	path := "/" + created.id(t) + "/triggers/" + tr
	revision := func() (n int) {
		require.NoError(t, w.own.QueryRow(t.Context(), "SELECT revision FROM triggers").Scan(&n))
		return n
	}
	revisedNow := func() (now bool) {
		require.NoError(t, w.own.QueryRow(t.Context(), "SELECT revised_at = updated_at FROM triggers").Scan(&now))
		return now
	}
	w.announced()
	for _, step := range []struct {
		method, body string
		revision     int
	}{
		{"PATCH", `{"name": "N"}`, 1},
		{"PATCH", `{"cooldown_seconds": 5, "notify_resolved": true}`, 1},
		{"PATCH", `{"config": {"threshold": 100}}`, 1}, // as it was
		{"PATCH", `{"config": {"window_seconds": 300}}`, 1},
		{"PATCH", `{"enabled": false}`, 1},
		{"PATCH", `{"enabled": true}`, 2},
		{"PATCH", `{"enabled": null}`, 2},
		{"PATCH", `{"config": {"threshold": 101}}`, 3},
		{"PATCH", `{"config": {"threshold": null}}`, 4},
		{"PUT", `{"type": "visitor_spike"}`, 4},
		{"PUT", `{"type": "visitor_spike", "config": {"window_seconds": 600}}`, 5},
		{"PATCH", `{"type": "goal_achieved", "config": {"goal": {"event_name": "A", "custom_props": {"a": "1", "b": "2"}}}}`, 6},
		{"PATCH", `{"config": {"goal": {"custom_props": {"a": null}}}}`, 7},
		{"PATCH", `{"filters": [["is", "visit:country", ["EE"]]]}`, 8},
		{"PATCH", `{"filters": [["is", "visit:country", ["EE"], {"case_sensitive": true}]]}`, 8}, // says the same
		{"PATCH", `{"name": "M"}`, 8},
		{"PATCH", `{"filters": [["is", "visit:country", ["EE", "DE"]]]}`, 9},
		{"PUT", `{"type": "goal_achieved", "config": {"goal": {"event_name": "A", "custom_props": {"b": "2"}}}}`, 10},
		{"PATCH", `{"filters": null}`, 10},
	} {
		before := revision()
		a := w.owner(200, step.method, path, step.body)
		require.Equal(t, step.revision, revision(), step.body)
		if step.revision > before {
			require.True(t, revisedNow(), step.body)
			require.Equal(t, "pending", a.json(t, "state.status"), step.body)
		}
	}
	require.Equal(t, map[string]any{"event_name": "A", "custom_props": map[string]any{"b": "2"}}, w.owner(200, "GET", path, "").json(t, "config.goal"))
}

// Stored configs are complete, so a patch of one field meets defaults that nobody wrote.
func TestAPatchNeedsOnlyWhatItChanges(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [{"type": "tracking_silence"}]}`)
	path := "/" + created.id(t) + "/triggers/" + created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	for _, step := range [][2]string{
		{`{"config": {"minutes": 5}}`, `{"minutes": 5}`},
		{`{"cooldown_seconds": 60}`, `{"minutes": 5}`},
		{`{"config": null}`, `{"minutes": "auto", "sensitivity": "medium"}`},
		{`{"type": "goal_achieved", "config": {"goal": {"event_name": "A"}, "mode": "threshold"}}`,
			`{"goal": {"event_name": "A"}, "mode": "threshold", "measure": "conversions", "threshold": 10, "window_seconds": 3600}`},
		{fmt.Sprintf(`{"config": {"mode": "each", "goal": {"goal_id": %d}}}`, w.demo.Goals.Signup),
			fmt.Sprintf(`{"goal": {"goal_id": %d}, "mode": "each", "measure": "conversions"}`, w.demo.Goals.Signup)},
	} {
		a := w.owner(200, "PATCH", path, step[0])
		require.JSONEq(t, step[1], string(mustMarshal(a.json(t, "config"))), step[0])
	}
	a := w.owner(422, "PATCH", path, `{"config": {"threshold": 5}}`)
	require.Equal(t, "config.threshold", a.json(t, "errors").([]any)[0].(map[string]any)["field"])
}

func TestNamesFollowTheConfigUntilTheyAreGiven(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	path := "/" + created.id(t) + "/triggers/" + created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	for _, step := range [][3]string{
		{"PATCH", `{"config": {"threshold": 7, "window_seconds": 5400}}`, "Visitor spike: 7 in 1h30m"},
		{"PATCH", `{"name": "Mine"}`, "Mine"},
		{"PATCH", `{"config": {"threshold": 8}}`, "Mine"},
		{"PATCH", `{"name": null}`, "Visitor spike: 8 in 1h30m"},
		{"PUT", fmt.Sprintf(`{"type": "goal_achieved", "config": {"goal": {"goal_id": %d}}}`, w.demo.Goals.Pricing), "Visit /pricing: every conversion"},
		{"PATCH", `{"config": {"goal": {"goal_id": null, "page_path": "/` + strings.Repeat("ü", 300) + `"}}}`, "Visit /" + strings.Repeat("ü", 192) + "…"},
	} {
		require.Equal(t, step[2], w.owner(200, step[0], path, step[1]).json(t, "name"), step[1])
	}
}

// minimal are the least bodies of the types, with what they are canonically.
var minimal = []struct{ typ, config, canonical, name string }{
	{"goal_achieved", `{"goal": {"event_name": "Signup"}}`, `{"goal": {"event_name": "Signup"}, "mode": "each", "measure": "conversions"}`, "Signup: every conversion"},
	{"goal_silence", `{"goal": {"page_path": "/pricing"}}`, `{"goal": {"page_path": "/pricing"}, "sensitivity": "medium"}`, "Visit /pricing: no conversions"},
	{"metric_change", `{}`, `{"metric": "visitors", "direction": "any", "percent": 50, "baseline": "previous_period", "min_volume": 20, "window_seconds": 3600}`, "visitors ±50% in 1h"},
	{"metric_threshold", `{"threshold": 1000}`, `{"metric": "visitors", "operator": ">=", "threshold": 1000, "window_seconds": 3600}`, "visitors >= 1000 in 1h"},
	{"new_source", `{}`, `{"dimension": "source", "min_visitors": 5, "window_seconds": 1800}`, "New source with 5 visitors"},
	{"not_found_burst", `{}`, `{"event_name": "404", "threshold": 10, "window_seconds": 300}`, "Pages not found: 10 in 5m"},
	{"pageview_milestone", `{}`, `{"period": "all_time"}`, "Page view milestone"},
	{"tracking_silence", `{}`, `{"minutes": "auto", "sensitivity": "medium"}`, "Tracking silent for unusually long"},
	{"visitor_drop", `{}`, `{"threshold": 1, "window_seconds": 43200, "sensitivity": "medium"}`, "Visitor drop: below 1 in 12h"},
	{"visitor_spike", `{}`, `{"threshold": 10, "window_seconds": 300, "sensitivity": "medium"}`, "Visitor spike: 10 in 5m"},
}

func TestEveryTypeCanBeMade(t *testing.T) {
	w := newWorld(t)
	require.Len(t, minimal, len(trigger.Types()))
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	for _, c := range minimal {
		created := w.owner(201, "POST", "/"+id+"/triggers", fmt.Sprintf(`{"type": %q, "config": %s}`, c.typ, c.config))
		require.JSONEq(t, c.canonical, string(mustMarshal(created.json(t, "config"))), c.typ)
		require.Equal(t, c.name, created.json(t, "name"), c.typ)
		require.Equal(t, []any{}, created.json(t, "filters"), c.typ)

		// What was answered can be sent back, and is the same condition.
		again := w.owner(200, "PUT", "/"+id+"/triggers/"+created.id(t), created.text)
		require.JSONEq(t, created.text, again.text, c.typ)
		require.JSONEq(t, created.text, w.owner(200, "GET", "/"+id+"/triggers/"+created.id(t), "").text, c.typ)

		a := w.owner(422, "POST", "/"+id+"/triggers", fmt.Sprintf(`{"type": %q, "config": {"bogus": 1, "window_seconds": "x", "goal": 7}, "filters": 7, "cooldown_seconds": -1}`, c.typ))
		require.GreaterOrEqual(t, len(a.json(t, "errors").([]any)), 4, "%s: %s", c.typ, a.text)
	}
	var revisions int
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT max(revision) FROM triggers").Scan(&revisions))
	require.Equal(t, 1, revisions)
}

func TestFiltersAreKept(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [{"type": "visitor_spike",
		"filters": [["is", "visit:country", ["EE", "DE"]], ["and", [["contains_not", "event:page", ["/a<b"], {"case_sensitive": false}]]], ["not", ["or", [["is", "visit:city", [588409]], ["matches_wildcard", "event:props:plan", ["b*"], {}]]]]]}]}`)
	const canonical = `[["is", "visit:country", ["EE", "DE"]], ["contains_not", "event:page", ["/a<b"], {"case_sensitive": false}],
		["not", ["or", [["is", "visit:city", ["588409"]], ["matches_wildcard", "event:props:plan", ["b*"]]]]]]`
	tr := created.json(t, "triggers").([]any)[0].(map[string]any)
	require.JSONEq(t, canonical, string(mustMarshal(tr["filters"])))
	path := "/" + created.id(t) + "/triggers/" + tr["id"].(string)
	stored := func() (filters string) {
		require.NoError(t, w.own.QueryRow(t.Context(), "SELECT filters FROM triggers").Scan(&filters))
		return filters
	}
	require.JSONEq(t, canonical, stored())
	for _, step := range [][3]string{
		{"PATCH", `{"cooldown_seconds": 5}`, canonical},
		{"PATCH", `{"config": {"threshold": 7}}`, canonical},
		{"PATCH", `{"type": "tracking_silence"}`, canonical},
		{"PATCH", `{"filters": [["is", "visit:os", ["iOS"]]]}`, `[["is", "visit:os", ["iOS"]]]`},
		{"PATCH", `{"filters": []}`, `[]`},
		{"PUT", `{"type": "visitor_spike", "filters": [["is", "event:page", ["/"]]]}`, `[["is", "event:page", ["/"]]]`},
		{"PUT", `{"type": "visitor_spike"}`, `[]`},
	} {
		a := w.owner(200, step[0], path, step[1])
		require.JSONEq(t, step[2], string(mustMarshal(a.json(t, "filters"))), step[1])
		require.JSONEq(t, step[2], stored(), step[1])
	}

	// Filters must also fit a config that comes later.
	w.owner(200, "PATCH", path, `{"type": "metric_threshold", "config": {"threshold": 5}, "filters": [["or", [["is", "event:page", ["/"]], ["has_done", ["is", "event:page", ["/a"]]]]]]}`)
	a := w.owner(422, "PATCH", path, `{"config": {"metric": "bounce_rate"}}`)
	require.Equal(t, "filters[0]", a.json(t, "errors").([]any)[0].(map[string]any)["field"])
}

// TestANameMadeOfTheConfigFollowsIt, also in an answer that is sent back with changes; one of the owner's does not.
func TestANameMadeOfTheConfigFollowsIt(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [{"type": "visitor_spike", "config": {"threshold": 20}}, {"type": "visitor_spike", "name": "Mine", "config": {"threshold": 20}}]}`)
	body := strings.ReplaceAll(string(mustMarshal(created.json(t, "triggers"))), `"threshold":20`, `"threshold":30`)
	replaced := w.owner(200, "PUT", "/"+created.id(t), `{"url": "https://example.com", "triggers": `+body+`}`)
	names := func(a answer) (names []any) {
		for _, tr := range a.json(t, "triggers").([]any) {
			names = append(names, tr.(map[string]any)["name"])
		}
		return names
	}
	require.Equal(t, []any{"Visitor spike: 20 in 5m", "Mine"}, names(created))
	require.Equal(t, []any{"Visitor spike: 30 in 5m", "Mine"}, names(replaced))
	again := w.owner(200, "PUT", "/"+created.id(t), `{"url": "https://example.com", "triggers": `+strings.ReplaceAll(body, "20 in 5m", "40 in 5m")+`}`)
	require.Equal(t, []any{"Visitor spike: 40 in 5m", "Mine"}, names(again), "a name that was chosen is kept, whatever it says")
}

// TestFiltersNameGoalsOfTheSite: others are refused when they are named, and a stored one may go.
func TestFiltersNameGoalsOfTheSite(t *testing.T) {
	w := newWorld(t)
	const body = `{"url": "https://example.com", "triggers": [{"type": "new_source"}, {"type": "visitor_spike", "config": {"threshold": 5}, "filters": [["is", "visit:country", ["EE"]], ["not", ["is", "event:goal", ["%s"]]]]}]}`
	a := w.owner(422, "POST", "", fmt.Sprintf(body, "Nothing"))
	require.JSONEq(t, `[{"field": "triggers[1].filters[1]", "message": "names the goal \"Nothing\", which the site does not have"}]`, string(mustMarshal(a.json(t, "errors"))))
	require.Equal(t, 422, w.owner(422, "POST", "?dry_run=true", fmt.Sprintf(body, "Nothing")).status)
	created := w.owner(201, "POST", "", fmt.Sprintf(body, "Signup"))
	path := "/" + created.id(t) + "/triggers/" + created.json(t, "triggers").([]any)[1].(map[string]any)["id"].(string)
	w.exec(w.theirs, "DELETE FROM goals WHERE id = $1", w.demo.Goals.Signup)
	w.owner(200, "PATCH", path, `{"config": {"threshold": 6}}`)
	w.owner(422, "PATCH", path, `{"filters": [["is", "event:goal", ["Signup"]]]}`)
}

func TestTriggerTypesAreShownToEverybody(t *testing.T) {
	w := newWorld(t)
	status, text := request(t, "GET", w.server.URL+"/api/trigger-types", "", "")
	require.Equal(t, 200, status)
	var shown struct {
		Types []struct {
			Type, Description string
			Schema            struct {
				Type       string
				Properties map[string]any
			}
			Defaults map[string]any
			Example  struct {
				Type string
				Data struct {
					Trigger struct{ Config json.RawMessage }
				}
			}
		} `json:"trigger_types"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &shown))
	require.Len(t, shown.Types, len(minimal))
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	for i, s := range shown.Types {
		require.Equal(t, minimal[i].typ, s.Type)
		require.NotEmpty(t, s.Description)
		require.Equal(t, "object", s.Schema.Type)
		require.Equal(t, s.Type+".fired", s.Example.Type)
		made := w.owner(201, "POST", "/"+id+"/triggers", fmt.Sprintf(`{"type": %q, "config": %s}`, s.Type, s.Example.Data.Trigger.Config))
		for name := range made.json(t, "config").(map[string]any) {
			require.Contains(t, s.Schema.Properties, name, s.Type)
		}
		if minimal[i].config == "{}" {
			require.JSONEq(t, minimal[i].canonical, string(mustMarshal(s.Defaults)), s.Type)
		}
	}
}

func TestGoalsMustBeTheSites(t *testing.T) {
	w := newWorld(t)
	w.exec(w.theirs, `INSERT INTO goals (id, site_id, event_name, display_name, inserted_at, updated_at) VALUES (777, $1, 'Theirs', 'Canary', now(), now())`, w.demo.OtherSiteID)
	created := w.owner(201, "POST", "", fmt.Sprintf(`{"url": "https://example.com", "triggers": [{"type": "goal_achieved", "config": {"goal": {"goal_id": %d}}}]}`, w.demo.Goals.Signup))
	path := "/" + created.id(t) + "/triggers/" + created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	for _, id := range []string{"777", "999999", "4611686018427387904"} {
		a := w.owner(422, "PATCH", path, `{"config": {"goal": {"goal_id": `+id+`}}}`)
		require.JSONEq(t, `{"error": "config.goal.goal_id is not a goal of this site.", "errors": [{"field": "config.goal.goal_id", "message": "is not a goal of this site"}]}`, a.text)
	}
	a := w.owner(422, "POST", "", `{"url": "x", "triggers": [{"type": "goal_achieved", "config": {"goal": {"goal_id": 777}}}]}`)
	require.JSONEq(t, `{"error": "url must start with https://; and 1 more.", "errors": [
		{"field": "url", "message": "must start with https://"}, {"field": "triggers[0].config.goal.goal_id", "message": "is not a goal of this site"}]}`, a.text)

	for typ, config := range map[string]string{
		"goal_silence": `{"goal": {"goal_id": %d}}`, "metric_threshold": `{"metric": "events", "threshold": 5, "goal": {"goal_id": %d}}`,
		"metric_change": `{"metric": "conversion_rate", "goal": {"goal_id": %d}}`,
	} {
		body := fmt.Sprintf(`{"type": %q, "config": `+config+`}`, typ, 777)
		require.Equal(t, "config.goal.goal_id is not a goal of this site.", w.owner(422, "PUT", path, body).json(t, "error"), typ)
		body = fmt.Sprintf(`{"type": %q, "config": `+config+`}`, typ, w.demo.Goals.Pricing)
		require.Contains(t, w.owner(201, "POST", strings.TrimSuffix(path, path[strings.LastIndex(path, "/"):]), body).json(t, "name"), "Visit /pricing: ", typ)
	}

	// A goal that was deleted in Plausible does not stand in the way of other changes.
	w.exec(w.theirs, "DELETE FROM goals WHERE id = $1", w.demo.Goals.Signup)
	require.Equal(t, "Signup: every conversion", w.owner(200, "PATCH", path, `{"enabled": false}`).json(t, "name"))
	w.owner(200, "PATCH", path, `{"filters": [["is", "visit:country", ["EE"]]]}`)
}

func TestStateIsLive(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	tr := created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	path := "/" + created.id(t) + "/triggers/" + tr
	w.exec(w.own, `INSERT INTO trigger_states (trigger_id, revision, status, value, threshold, since, last_evaluated_at, last_fired_at, explanation, machine)
		VALUES ($1, 1, 'ok', 12, 100, '2026-11-23T10:00:00Z', '2026-11-23T10:00:10Z', '2026-11-22T10:00:00+01', '12 visitors in 5 minutes.', '{}')`, tr)
	require.Equal(t, map[string]any{"status": "ok", "value": 12.0, "threshold": 100.0, "since": "2026-11-23T10:00:00Z", "last_evaluated_at": "2026-11-23T10:00:10Z",
		"last_fired_at": "2026-11-22T09:00:00Z", "explanation": "12 visitors in 5 minutes."}, w.owner(200, "GET", path, "").json(t, "state"))

	// States are written when they change: the lease tells up to when that is known.
	w.exec(w.own, `UPDATE evaluator_leases SET last_slot = '2026-11-23T11:00:00Z' WHERE shard = (SELECT site_shard(site_id) FROM triggers WHERE id = $1)`, tr)
	require.Equal(t, "2026-11-23T11:00:00Z", w.owner(200, "GET", path, "").json(t, "state.last_evaluated_at"))
	paused := w.owner(200, "PATCH", path, `{"enabled": false}`)
	require.Equal(t, "2026-11-23T10:00:10Z", paused.json(t, "state.last_evaluated_at"))
	require.Contains(t, paused.json(t, "state.explanation"), "disabled")

	w.exec(w.own, `UPDATE trigger_states SET value = NULL, threshold = NULL, last_fired_at = NULL, status = 'error', explanation = 'The goal no longer exists.'`)
	w.exec(w.own, `UPDATE triggers SET enabled = true`)
	require.Equal(t, []any{"error", nil, nil, nil}, []any{
		w.owner(200, "GET", path, "").json(t, "state.status"), w.owner(200, "GET", path, "").json(t, "state.value"),
		w.owner(200, "GET", path, "").json(t, "state.threshold"), w.owner(200, "GET", path, "").json(t, "state.last_fired_at")})
	for _, status := range []trigger.Status{trigger.StatusPending, trigger.StatusFiring, trigger.StatusRecovering, trigger.StatusInsufficient} {
		w.exec(w.own, `UPDATE trigger_states SET status = $1, explanation = 'Because.'`, status)
		a := w.owner(200, "GET", path, "")
		require.Equal(t, []any{string(status), "Because."}, []any{a.json(t, "state.status"), a.json(t, "state.explanation")})
	}
	w.exec(w.own, `UPDATE triggers SET revision = 2`)
	require.Equal(t, "pending", w.owner(200, "GET", path, "").json(t, "state.status"))
}

// A row that a newer version has written is shown as it is, and can be replaced.
func TestUnknownTypesInRowsAreShown(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.exec(w.own, `INSERT INTO triggers (id, webhook_id, site_id, type, name, config) VALUES ('tr_new', $1, $2, 'future', 'F', '{"a": 1}')`, id, w.demo.SiteID)
	require.Equal(t, map[string]any{"a": 1.0}, w.owner(200, "GET", "/"+id+"/triggers/tr_new", "").json(t, "config"))
	w.exec(w.own, `UPDATE triggers SET filters = '["future"]'`)
	require.Equal(t, []any{"future"}, w.owner(200, "GET", "/"+id+"/triggers/tr_new", "").json(t, "filters"))
	w.owner(200, "PATCH", "/"+id, `{"enabled": false}`)
	require.Equal(t, "F", w.owner(200, "PATCH", "/"+id+"/triggers/tr_new", `{"type": "visitor_spike", "filters": []}`).json(t, "name"))
}

// walk reads a list page by page, forward and then back, and requires that both ways show
// the same rows in the same order.
func (w *world) walk(path, things string, limit int) []string {
	w.t.Helper()
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	read := func(cursor string) ([]string, answer) {
		a := w.owner(200, "GET", path+separator+"limit="+strconv.Itoa(limit)+cursor, "")
		var ids []string
		for _, thing := range a.json(w.t, things).([]any) {
			ids = append(ids, thing.(map[string]any)["id"].(string))
		}
		require.LessOrEqual(w.t, len(ids), limit)
		require.Equal(w.t, float64(limit), a.json(w.t, "meta.limit"))
		return ids, a
	}
	page, a := read("")
	require.Nil(w.t, a.json(w.t, "meta.before"), "nothing is newer than the first page")
	forward := page
	for a.json(w.t, "meta.after") != nil {
		page, a = read("&after=" + a.json(w.t, "meta.after").(string))
		require.NotEmpty(w.t, page)
		forward = append(forward, page...)
	}
	back := page
	for a.json(w.t, "meta.before") != nil {
		page, a = read("&before=" + a.json(w.t, "meta.before").(string))
		require.NotEmpty(w.t, page)
		require.NotNil(w.t, a.json(w.t, "meta.after"))
		back = append(page, back...)
	}
	require.Equal(w.t, forward, back)
	return forward
}

func TestListsArePagedWithoutGaps(t *testing.T) {
	w := newWorld(t)
	// Many share a time, so that only their ids order them.
	w.exec(w.own, `INSERT INTO webhooks (id, site_id, url, created_at) SELECT 'wh_' || lpad(n::text, 2, '0'), $1, 'https://example.com', '2026-11-23'::timestamptz + n / 4 * interval '1 microsecond'
		FROM generate_series(0, 10) n`, w.demo.SiteID)
	w.exec(w.own, `INSERT INTO webhooks (id, site_id, url, created_at) SELECT 'wh_other_' || n, $1, 'https://example.com', '2026-11-23' FROM generate_series(0, 3) n`, w.demo.OtherSiteID)
	w.exec(w.own, `INSERT INTO triggers (id, webhook_id, site_id, type, name, config, created_at)
		SELECT 'tr_' || n, 'wh_00', $1, 'visitor_spike', 'n', '{}', '2026-11-23' FROM generate_series(0, 9) n`, w.demo.SiteID)
	w.exec(w.own, `INSERT INTO triggers (id, webhook_id, site_id, type, name, config) VALUES ('tr_elsewhere', 'wh_01', $1, 'visitor_spike', 'n', '{}')`, w.demo.SiteID)
	var webhooks, triggers []string
	for n := 10; n >= 0; n-- {
		webhooks = append(webhooks, fmt.Sprintf("wh_%02d", n))
	}
	for n := 9; n >= 0; n-- {
		triggers = append(triggers, fmt.Sprintf("tr_%d", n))
	}
	for _, limit := range []int{1, 2, 3, 5, 11, 100} {
		require.Equal(t, webhooks, w.walk("", "webhooks", limit), "newest first")
		require.Equal(t, triggers, w.walk("/wh_00/triggers", "triggers", limit))
	}
	require.Len(t, w.owner(200, "GET", "", "").json(t, "webhooks").([]any)[10].(map[string]any)["triggers"], 10)

	for query, field := range map[string]string{
		"limit=0": "limit", "limit=101": "limit", "limit=x": "limit", "limit=1e1": "limit", "after=x": "after", "before=%00": "before", "after=eA": "after",
		"after=OTk5OTk5OTk5OTk5OTk5OTk5OSB4": "after", "after=LTEgd2hfMQ": "after", "after=MSB3aF8xAA": "after",
		"after=" + testCursor() + "&before=" + testCursor(): "before",
	} {
		for _, list := range []string{"", "/wh_00/triggers", "/wh_00/deliveries"} {
			a := w.owner(422, "GET", list+"?"+query, "")
			require.Equal(t, field, a.json(t, "errors").([]any)[0].(map[string]any)["field"], query)
		}
	}
	a := w.owner(422, "GET", "/wh_00/deliveries?limit=0&after=x&status=lost&from=yesterday&to=2026&trigger_id=%00&type=A", "")
	require.Len(t, a.json(t, "errors"), 7, "every problem at once")
}

func TestCursorsAreDecodedAsEncoded(t *testing.T) {
	var problems []strict.Problem
	cursor := testCursor()
	page := ofOurs.page(nil, &cursor, nil, &problems)
	require.Empty(t, problems)
	require.Equal(t, testPosition, *page.After)
}

func testCursor() string {
	return *ofOurs.meta(postgres.Page{}, postgres.Around{After: &testPosition}).After
}

var testPosition = positionAt(time.Date(2026, 11, 23, 15, 4, 5, 123456000, time.UTC), "wh_1")
