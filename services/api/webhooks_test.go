package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWebhookLivesFromCreationToRemoval(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{
		"url": "https://example.com/hook?x=1", "description": "To the team", "headers": {"X-Token": "canary"}, "timeout_seconds": 7,
		"triggers": [`+spike+`, {"type": "goal_achieved", "config": {"goal": {"event_name": "Signup"}}}]}`)
	id := created.id(t)
	require.Regexp(t, `^wh_[a-z2-7]{26}$`, id)
	require.Equal(t, "/api/sites/demo.example.com/webhooks/"+id, created.header.Get("Location"))
	secret := created.json(t, "secret").(string)
	require.Regexp(t, `^whsec_`, secret)

	var shown map[string]any
	require.NoError(t, json.Unmarshal([]byte(w.owner(200, "GET", "/"+id, "").text), &shown))
	triggers := shown["triggers"].([]any)
	delete(shown, "triggers")
	require.NotEmpty(t, shown["created_at"])
	require.Equal(t, shown["created_at"], shown["updated_at"])
	delete(shown, "created_at")
	delete(shown, "updated_at")
	require.Equal(t, map[string]any{
		"id": id, "url": "https://example.com/hook?x=1", "description": "To the team", "enabled": true, "status": "active", "disabled_reason": nil, "failing_since": nil,
		"headers": map[string]any{"X-Token": "canary"}, "format": "standard", "template": nil, "batch": nil, "rate_limit_per_second": nil,
		"timeout_seconds": 7.0,
	}, shown, "no secret, and every field of the contract")
	require.Len(t, triggers, 2)
	require.Equal(t, "Visitor spike: 100 in 5m", triggers[0].(map[string]any)["name"], "in the order of the body")
	require.Equal(t, "Signup: every conversion", triggers[1].(map[string]any)["name"])
	require.ElementsMatch(t, []string{
		"changed.webhook." + id,
		"changed.trigger." + triggers[0].(map[string]any)["id"].(string),
		"changed.trigger." + triggers[1].(map[string]any)["id"].(string),
	}, w.announced())

	var sealed []byte
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT sealed FROM webhook_secrets WHERE webhook_id = $1", id).Scan(&sealed))
	opened, err := w.api.vault.Open(sealed, id)
	require.NoError(t, err)
	require.Equal(t, secret, opened)

	w.owner(204, "DELETE", "/"+id, "")
	require.Len(t, w.announced(), 3, "the webhook and each of its triggers")
	require.JSONEq(t, notFound, w.owner(404, "GET", "/"+id, "").text)
	w.owner(404, "DELETE", "/"+id, "")
	require.Empty(t, w.announced())
	var left int
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM webhook_secrets) + (SELECT count(*) FROM triggers)").Scan(&left))
	require.Zero(t, left)
}

func TestNothingOfARefusedWebhookIsStored(t *testing.T) {
	w := newWorld(t)
	w.owner(422, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`, {"type": "goal_achieved", "config": {"goal": {"goal_id": 999999}}}]}`)
	require.JSONEq(t, `{"webhooks":[],"meta":{"after":null,"before":null,"limit":50}}`, w.owner(200, "GET", "", "").text)
	require.Empty(t, w.announced())
}

func TestReplaceSetsEverythingAndKeepsKnownTriggers(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com/1", "description": "d", "timeout_seconds": 3, "headers": {"A": "b"},
		"triggers": [`+spike+`, `+spike+`, `+spike+`]}`)
	id := created.id(t)
	var ids []string
	for _, tr := range created.json(t, "triggers").([]any) {
		ids = append(ids, tr.(map[string]any)["id"].(string))
	}
	w.announced()

	// Without triggers they are left alone; the rest takes its defaults.
	replaced := w.owner(200, "PUT", "/"+id, `{"url": "https://example.com/2"}`)
	require.Equal(t, []any{"", 15.0, map[string]any{}}, []any{replaced.json(t, "description"), replaced.json(t, "timeout_seconds"), replaced.json(t, "headers")})
	require.Len(t, replaced.json(t, "triggers"), 3)
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())

	// With triggers the set is replaced: the first stays, the second changes, the third goes, one comes.
	w.exec(w.own, `INSERT INTO trigger_states (trigger_id, revision, status, value, threshold, since, last_evaluated_at, machine)
		SELECT id, 1, 'firing', 120, 100, now(), now(), '{}' FROM triggers`)
	replaced = w.owner(200, "PUT", "/"+id, fmt.Sprintf(`{"url": "https://example.com/2", "triggers": [
		{"id": %q, "type": "visitor_spike", "name": "Other name", "cooldown_seconds": 5, "notify_resolved": true, "config": {"threshold": 100}},
		{"id": %q, "type": "visitor_spike", "config": {"threshold": 101}},
		{"type": "visitor_spike"}]}`, ids[0], ids[1]))
	triggers := replaced.json(t, "triggers").([]any)
	require.Len(t, triggers, 3)
	at := func(i int, name string) any { return triggers[i].(map[string]any)[name] }
	require.Equal(t, []any{ids[0], ids[1]}, []any{at(0, "id"), at(1, "id")})
	require.Equal(t, "firing", at(0, "state").(map[string]any)["status"], "name, cooldown and notify_resolved keep the state")
	require.Equal(t, "pending", at(1, "state").(map[string]any)["status"], "another condition starts anew")
	require.Equal(t, []string{"changed.trigger." + ids[0], "changed.trigger." + ids[1], "changed.trigger." + at(2, "id").(string), "changed.trigger." + ids[2]}, w.announced())
	require.JSONEq(t, notFound, w.owner(404, "GET", "/"+id+"/triggers/"+ids[2], "").text)

	// What was answered can be sent back, and changes nothing.
	same := w.owner(200, "PUT", "/"+id, w.owner(200, "GET", "/"+id, "").text)
	require.JSONEq(t, replaced.text, same.text)
	require.Empty(t, w.announced())

	w.owner(200, "PUT", "/"+id, `{"url": "https://example.com/2", "triggers": []}`)
	require.Empty(t, w.owner(200, "GET", "/"+id, "").json(t, "triggers"))
}

func TestPatchChangesOnlyWhatItNames(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com/1", "description": "d", "timeout_seconds": 3,
		"headers": {"A": "1", "B": "2"}, "triggers": [`+spike+`]}`).id(t)
	w.announced()
	patched := w.owner(200, "PATCH", "/"+id, `{"description": null, "headers": {"A": null, "C": "3"}, "timeout_seconds": 4}`)
	require.Equal(t, "https://example.com/1", patched.json(t, "url"))
	require.Empty(t, patched.json(t, "description"))
	require.Equal(t, map[string]any{"B": "2", "C": "3"}, patched.json(t, "headers"))
	require.Equal(t, 4.0, patched.json(t, "timeout_seconds"))
	require.Len(t, patched.json(t, "triggers"), 1)
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())

	require.JSONEq(t, patched.text, w.owner(200, "PATCH", "/"+id, `{}`).text)
	require.Empty(t, w.announced(), "an empty patch changes nothing")
	refused := w.owner(422, "PATCH", "/"+id, `{"url": null, "status": "active", "titel": null, "triggers": null, "secret": "x"}`)
	require.JSONEq(t, `{"error": "url is required; and 4 more.", "errors": [
		{"field": "url", "message": "is required"}, {"field": "triggers", "message": "must be a list"}, {"field": "status", "message": "cannot be set"},
		{"field": "secret", "message": "cannot be set"}, {"field": "titel", "message": "is not a known field"}]}`, refused.text)
	require.JSONEq(t, patched.text, w.owner(200, "GET", "/"+id, "").text)

	merged := w.do(w.demo.OwnerKey, "PATCH", w.demo.Domain+"/webhooks/"+id, `{"description": "m"}`, func(r *http.Request) {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	})
	require.Equal(t, 200, merged.status, merged.text)
}

func TestStatusSaysHowItStands(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	const since = "2026-11-23T15:00:00Z"
	status := func() []any {
		a := w.owner(200, "GET", "/"+id, "")
		return []any{a.json(t, "enabled"), a.json(t, "status"), a.json(t, "disabled_reason"), a.json(t, "failing_since")}
	}
	require.Equal(t, []any{true, "active", nil, nil}, status())
	w.exec(w.own, "INSERT INTO webhook_health (webhook_id, failing_since) VALUES ($1, $2)", id, since)
	require.Equal(t, []any{true, "failing", nil, since}, status())
	w.exec(w.own, "UPDATE webhook_health SET disabled_at = now() + interval '1 second', disabled_reason = 'answered 410'")
	require.Equal(t, []any{true, "disabled", "answered 410", since}, status())

	w.owner(200, "PATCH", "/"+id, `{"description": "still off"}`)
	require.Equal(t, []any{true, "disabled", "answered 410", since}, status(), "another change does not enable it")
	w.announced()
	w.owner(200, "PATCH", "/"+id, `{"enabled": true}`)
	require.Equal(t, []any{true, "failing", nil, since}, status(), "even where the dispatcher's clock is ahead")
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())

	w.owner(200, "PATCH", "/"+id, `{"enabled": false}`)
	require.Equal(t, []any{false, "disabled", nil, since}, status())
	w.exec(w.own, "UPDATE webhooks SET enabled_at = '2020-01-01'")
	w.owner(200, "PATCH", "/"+id, `{"description": "x"}`)
	require.Equal(t, []any{false, "disabled", nil, since}, status())
	w.owner(200, "PATCH", "/"+id, `{"enabled": true}`)
	var fresh bool
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT enabled_at > now() - interval '1 minute' FROM webhooks").Scan(&fresh))
	require.True(t, fresh)
}

func TestHeadersAreMaskedForReaders(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com", "headers": {"Authorization": "Bearer canary"}}`).id(t)
	for key, want := range map[string]string{w.demo.OwnerKey: "Bearer canary", w.demo.EditorKey: "Bearer canary", w.demo.ViewerKey: "***"} {
		require.Equal(t, map[string]any{"Authorization": want}, w.as(key, 200, "GET", "/"+id, "").json(t, "headers"))
	}
	require.NotContains(t, w.as(w.demo.ViewerKey, 200, "GET", "", "").text, "canary")
	require.NotContains(t, w.log.String(), "canary")
}

func TestLimitsHoldUnderConcurrency(t *testing.T) {
	w := newWorld(t)
	w.exec(w.own, `INSERT INTO webhooks (id, site_id, url) SELECT 'wh_' || n, $1, 'https://example.com' FROM generate_series(1, 97) n`, w.demo.SiteID)
	w.exec(w.own, `INSERT INTO triggers (id, webhook_id, site_id, type, name, config) SELECT 'tr_' || n, 'wh_1', $1, 'visitor_spike', 'n', '{}' FROM generate_series(1, 97) n`, w.demo.SiteID)
	var mu sync.Mutex
	statuses := map[string]map[int]int{"": {}, "/wh_1/triggers": {}}
	var sending sync.WaitGroup
	for path, body := range map[string]string{"": `{"url": "https://example.com"}`, "/wh_1/triggers": spike} {
		for range 8 {
			sending.Go(func() {
				a := w.do(w.demo.OwnerKey, "POST", w.demo.Domain+"/webhooks"+path, body)
				mu.Lock()
				defer mu.Unlock()
				statuses[path][a.status]++
			})
		}
	}
	sending.Wait()
	require.Equal(t, map[string]map[int]int{"": {201: 3, 409: 5}, "/wh_1/triggers": {201: 3, 409: 5}}, statuses)
	require.Contains(t, w.owner(409, "POST", "", `{"url": "https://example.com"}`).text, "100 webhooks")
	require.Contains(t, w.owner(409, "POST", "/wh_1/triggers", spike).text, "100 triggers")
}

func TestConcurrentPatchesAreNotLost(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	var sending sync.WaitGroup
	for i := range 10 {
		sending.Go(func() {
			w.do(w.demo.OwnerKey, "PATCH", w.demo.Domain+"/webhooks/"+id, fmt.Sprintf(`{"headers": {"H%d": "v"}}`, i))
		})
	}
	sending.Wait()
	require.Len(t, w.owner(200, "GET", "/"+id, "").json(t, "headers"), 10)
}

func TestAPausedWebhookOutlivesStricterRules(t *testing.T) {
	w := newWorld(t)
	w.exec(w.own, `INSERT INTO webhooks (id, site_id, url) VALUES ('wh_old', $1, 'http://10.9.9.9/hook')`, w.demo.SiteID)
	w.owner(200, "PATCH", "/wh_old", `{"enabled": false}`)
	w.owner(422, "PATCH", "/wh_old", `{"url": "http://10.9.9.9/other"}`)
}

func TestBatch(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com/1", "batch": {"max_size": 5}}`)
	batch := func(a answer) string { return string(mustMarshal(a.json(t, "batch"))) }
	require.JSONEq(t, `{"max_size": 5, "max_wait_seconds": 60}`, batch(created))
	id := created.id(t)
	w.announced()
	require.JSONEq(t, `{"max_size": 5, "max_wait_seconds": 7}`, batch(w.owner(200, "PATCH", "/"+id, `{"batch": {"max_wait_seconds": 7}}`)))
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())
	require.JSONEq(t, `{"max_size": 5, "max_wait_seconds": 7}`, batch(w.owner(200, "GET", "/"+id, "")))
	require.Equal(t, "null", batch(w.owner(200, "PATCH", "/"+id, `{"batch": null}`)))
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com/1", "rate_limit_per_second": 2.5}`)
	require.Equal(t, 2.5, created.json(t, "rate_limit_per_second"))
	id := created.id(t)
	require.Equal(t, 2.5, w.owner(200, "PATCH", "/"+id, `{"description": "d"}`).json(t, "rate_limit_per_second"))
	w.announced()
	require.Equal(t, 1.0, w.owner(200, "PATCH", "/"+id, `{"rate_limit_per_second": 1}`).json(t, "rate_limit_per_second"))
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())
	require.Nil(t, w.owner(200, "PATCH", "/"+id, `{"rate_limit_per_second": null}`).json(t, "rate_limit_per_second"))
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())
	require.Nil(t, w.owner(200, "GET", "/"+id, "").json(t, "rate_limit_per_second"))
}
