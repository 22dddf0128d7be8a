package api

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
)

// once sends a request with an Idempotency-Key.
func (w *world) once(apiKey, key, path, body string) answer {
	w.t.Helper()
	return w.do(apiKey, "POST", w.demo.Domain+"/webhooks"+path, body, func(r *http.Request) { r.Header.Set("Idempotency-Key", key) })
}

func (w *world) count(table string) (n int) {
	w.t.Helper()
	require.NoError(w.t, w.own.QueryRow(w.t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

func TestTheSameKeyChangesOnce(t *testing.T) {
	w := newWorld(t)
	const body = `{"url": "https://example.com", "triggers": [` + spike + `]}`
	first := w.once(w.demo.OwnerKey, "k", "", body)
	require.Equal(t, 201, first.status)
	require.Empty(t, first.header.Get("Idempotency-Replayed"))
	require.Len(t, w.announced(), 2)

	again := w.once(w.demo.OwnerKey, "k", "", body)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, []any{201, first.text}, []any{again.status, again.text}, "with the secret")
	for _, name := range []string{"Location", "ETag", "Content-Type"} {
		require.Equal(t, first.header.Get(name), again.header.Get(name), name)
	}
	require.NotEqual(t, first.header.Get("X-Request-Id"), again.header.Get("X-Request-Id"))
	require.Empty(t, w.announced())
	require.Equal(t, 1, w.count("webhooks"))
	require.Equal(t, 1, w.count("audit"))

	other := w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com/other"}`)
	require.Equal(t, 409, other.status)
	require.Contains(t, other.text, "Idempotency-Key was used with another request")
	id := first.id(t)
	require.Equal(t, 409, w.once(w.demo.OwnerKey, "k", "/"+id+"/test", "").status, "another operation")
	require.Equal(t, 201, w.once(w.demo.EditorKey, "k", "", body).status, "the key of another is another one")
	require.Equal(t, 2, w.count("webhooks"))

	// Every POST that changes something.
	w.delivery(w.demo.SiteID, id, "tr_1", "msg_1", 0)
	for path, body := range map[string]string{
		"/triggers": spike, "/test": "", "/deliveries/msg_1/retry": "", "/recover": `{"since": "2026-11-23T00:00:00Z"}`, "/secret/rotate": `{"overlap_seconds": 60}`,
	} {
		first, again := w.once(w.demo.OwnerKey, "of "+path, "/"+id+path, body), w.once(w.demo.OwnerKey, "of "+path, "/"+id+path, body)
		require.Less(t, first.status, 300, first.text)
		require.Equal(t, first.text, again.text, path)
		require.Equal(t, "true", again.header.Get("Idempotency-Replayed"), path)
	}
	require.Equal(t, 3, w.count("commands"))
	for _, key := range []string{"", strings.Repeat("x", 256)} {
		require.Equal(t, 422, w.once(w.demo.OwnerKey, key, "", body).status, "%q", key)
	}

	// What is stored tells nothing.
	var stored string
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT string_agg(encode(sealed, 'escape'), '') FROM answers").Scan(&stored))
	require.NotContains(t, stored, "whsec_")
	require.NotContains(t, stored, "example.com")
}

func TestARefusedRequestMayBeCorrected(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, 422, w.once(w.demo.OwnerKey, "k", "", `{"url": "ftp://example.com"}`).status)
	require.Equal(t, 201, w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com"}`).status)
}

func TestAKeyIsForgottenAfterADay(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, 201, w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com/1"}`).status)
	w.exec(w.own, "UPDATE answers SET created_at = now() - interval '23 hours 59 minutes'")
	require.Equal(t, 409, w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com/2"}`).status)
	w.exec(w.own, "UPDATE answers SET created_at = now() - interval '24 hours 1 second'")
	require.Equal(t, 201, w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com/2"}`).status)
	w.exec(w.own, "INSERT INTO answers (id, request, created_at) SELECT sha256(n::text::bytea), '', now() - interval '2 days' FROM generate_series(1, 15) n")
	for range 2 {
		w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com/2"}`)
	}
	require.Equal(t, 1, w.count("answers"), "old ones went, ten with each request")
}

// Of many that send the same at the same time, one changes something; all get its answer.
func TestTheSameKeyAtTheSameTime(t *testing.T) {
	w := newWorld(t)
	answers := make([]answer, 16)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com"}`) })
	}
	all.Wait()
	for _, a := range answers {
		assert.Equal(t, []any{201, answers[0].text}, []any{a.status, a.text})
	}
	require.Equal(t, 1, w.count("webhooks"))
}

// A change that cannot be committed leaves nothing: no webhook, no audit, no answer, no announcement.
func TestACrashBeforeTheCommitLeavesNothing(t *testing.T) {
	w := newWorld(t)
	// The last statement before the commit fails, as a connection does that is lost there.
	w.exec(w.own, `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION SQLSTATE '57P01'; END $$`)
	w.exec(w.own, `CREATE TRIGGER fail AFTER UPDATE ON answers FOR EACH ROW EXECUTE FUNCTION fail()`)
	a := w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com"}`)
	require.Equal(t, 503, a.status, a.text)
	require.Empty(t, a.header.Get("Location")+a.header.Get("ETag"), "nothing of the answer that was not given")
	require.Equal(t, []int{0, 0, 0}, []int{w.count("webhooks"), w.count("audit"), w.count("answers")})
	require.Empty(t, w.announced())
	w.exec(w.own, `DROP TRIGGER fail ON answers`)
	require.Equal(t, 201, w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com"}`).status)
}

// A fault of ours in the midst of a change is answered as any, and leaves nothing.
func TestAPanicWithinAChangeIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.api.vault = vault.Vault{} // no state of production: any fault of ours will do
	a := w.once(w.demo.OwnerKey, "k", "", `{"url": "https://example.com"}`)
	require.Equal(t, `{"error":"internal error (request `+a.header.Get("X-Request-Id")+`)"}`, a.text)
	require.Equal(t, []int{500, 0, 0, 0}, []int{a.status, w.count("webhooks"), w.count("audit"), w.count("answers")})
}

func TestLostUpdatesAreRefused(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	id := created.id(t)
	with := func(etag string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("If-Match", etag) }
	}
	path := w.demo.Domain + "/webhooks/" + id
	read := w.owner(200, "GET", "/"+id, "").header.Get("ETag")
	require.Equal(t, created.header.Get("ETag"), read)

	changed := w.do(w.demo.OwnerKey, "PATCH", path, `{"description": "1"}`, with(read))
	require.Equal(t, 200, changed.status)
	require.NotEqual(t, read, changed.header.Get("ETag"))
	for _, call := range [][2]string{{"PATCH", `{"description": "2"}`}, {"PUT", `{"url": "https://example.com/2"}`}, {"DELETE", ""}} {
		a := w.do(w.demo.OwnerKey, call[0], path, call[1], with(read))
		require.Equal(t, 412, a.status, call)
		require.Contains(t, a.text, "changed since you read it")
	}
	require.Equal(t, "1", w.owner(200, "GET", "/"+id, "").json(t, "description"))

	// A trigger is a part of its webhook's settings, and has its own.
	webhookTag := changed.header.Get("ETag")
	tr := created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	triggerTag := w.owner(200, "GET", "/"+id+"/triggers/"+tr, "").header.Get("ETag")
	a := w.do(w.demo.OwnerKey, "PATCH", path+"/triggers/"+tr, `{"config": {"threshold": 7}}`, with(triggerTag))
	require.Equal(t, 200, a.status)
	require.Equal(t, 412, w.do(w.demo.OwnerKey, "PUT", path+"/triggers/"+tr, spike, with(triggerTag)).status)
	require.Equal(t, 412, w.do(w.demo.OwnerKey, "DELETE", path+"/triggers/"+tr, "", with(triggerTag)).status)
	require.Equal(t, 412, w.do(w.demo.OwnerKey, "PATCH", path, `{"description": "3"}`, with(webhookTag)).status)

	// A state is no setting, and a change that changes nothing is none.
	now := w.owner(200, "GET", "/"+id, "").header.Get("ETag")
	w.exec(w.own, `INSERT INTO trigger_states (trigger_id, revision, status, since, last_evaluated_at, machine) VALUES ($1, 2, 'ok', now(), now(), '{}')`, tr)
	require.Equal(t, 200, w.do(w.demo.OwnerKey, "PATCH", path, `{"description": "1"}`, with(now)).status)
	require.Equal(t, now, w.owner(200, "GET", "/"+id, "").header.Get("ETag"))
	for _, tag := range []string{"*", "W/" + now, `"other", ` + now} {
		require.Equal(t, 200, w.do(w.demo.OwnerKey, "PATCH", path, `{"description": "1"}`, with(tag)).status, tag)
	}
	require.Equal(t, 204, w.do(w.demo.OwnerKey, "DELETE", path+"/triggers/"+tr, "", with("*")).status)
	require.Equal(t, 412, w.do(w.demo.OwnerKey, "DELETE", path, "", with(now)).status, "a removed trigger is a change")
}

func TestEveryChangeIsWrittenDown(t *testing.T) {
	w := newWorld(t)
	before := time.Now().Add(-time.Minute)
	id := w.owner(201, "POST", "", `{"url": "https://example.com", "headers": {"X-Token": "canary"}}`).id(t)
	tr := w.as(w.demo.EditorKey, 201, "POST", "/"+id+"/triggers", spike).id(t)
	w.owner(200, "PATCH", "/"+id, `{"url": "https://example.com/2", "description": "x"}`)
	w.owner(422, "PATCH", "/"+id, `{"url": "x"}`)
	ping := w.owner(202, "POST", "/"+id+"/test", "").id(t)
	w.owner(204, "DELETE", "/"+id+"/triggers/"+tr, "")
	w.owner(204, "DELETE", "/"+id, "")

	listed := w.do(w.demo.OwnerKey, "GET", w.demo.Domain+"/audit", "")
	require.Equal(t, 200, listed.status)
	require.NotContains(t, listed.text, "canary")
	var got []string
	users := map[any]bool{}
	for _, entry := range listed.json(t, "changes").([]any) {
		c := entry.(map[string]any)
		at, err := time.Parse(time.RFC3339, c["at"].(string))
		require.NoError(t, err)
		require.True(t, at.After(before) && at.Before(time.Now().Add(time.Minute)))
		require.Equal(t, id, c["webhook_id"])
		require.NotEmpty(t, c["request_id"])
		require.NotEmpty(t, c["key_prefix"])
		users[c["user_id"]] = true
		got = append(got, fmt.Sprint(c["operation"], " ", c["object_id"], " ", c["fields"]))
	}
	require.Equal(t, []string{
		"removeWebhook <nil> []", "removeTrigger " + tr + " []", "testWebhook " + ping + " []", "patchWebhook <nil> [description url]",
		"createTrigger " + tr + " [config type]", "createWebhook <nil> [headers url]",
	}, got, "the newest first, and nothing of what was refused")
	require.Len(t, users, 2, "the owner and the editor")
	require.NotContains(t, users, nil)

	page := w.do(w.demo.OwnerKey, "GET", w.demo.Domain+"/audit?limit=4", "")
	rest := w.do(w.demo.OwnerKey, "GET", w.demo.Domain+"/audit?limit=4&after="+page.json(t, "meta.after").(string), "")
	require.Len(t, rest.json(t, "changes"), 2)
	require.Equal(t, 403, w.do(w.demo.ViewerKey, "GET", w.demo.Domain+"/audit", "").status)
	require.Equal(t, 404, w.do(w.demo.OtherSiteKey, "GET", w.demo.Domain+"/audit", "").status)
}
