package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
)

// command is the one row that was asked for, as the dispatchers read it; it takes the row away.
func (w *world) command() (kind, webhookID, deliveryID, id string) {
	w.t.Helper()
	require.NoError(w.t, w.own.QueryRow(w.t.Context(), "SELECT kind, webhook_id, coalesce(delivery_id, ''), id FROM commands").Scan(&kind, &webhookID, &deliveryID, &id))
	w.exec(w.own, "DELETE FROM commands")
	return kind, webhookID, deliveryID, id
}

// woken is the subscription to the messages that wake the dispatchers.
func (w *world) woken() func() string {
	w.t.Helper()
	s, err := w.api.nats.SubscribeSync("command.>")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = s.Unsubscribe() })
	return func() string {
		m, err := s.NextMsgWithContext(w.t.Context())
		require.NoError(w.t, err)
		id, err := stream.DecodeCommand(m.Header)
		require.NoError(w.t, err)
		return m.Subject + " " + id
	}
}

func TestATestIsAsked(t *testing.T) {
	w := newWorld(t)
	woken := w.woken()
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	a := w.owner(202, "POST", "/"+id+"/test", "")
	assert.Equal(t, "webhook.ping", a.json(t, "type"))
	assert.Equal(t, "waiting", a.json(t, "status"))
	kind, webhook, delivery, command := w.command()
	assert.Equal(t, []string{"test", id, a.id(t)}, []string{kind, webhook, delivery})
	assert.Equal(t, "command.test "+command, woken())
	assert.True(t, strings.HasSuffix(a.header.Get("Location"), "/webhooks/"+id+"/deliveries/"+delivery), a.header.Get("Location"))

	w.as(w.demo.ViewerKey, 403, "POST", "/"+id+"/test", "")
	assert.JSONEq(t, notFound, w.owner(404, "POST", "/wh_other/test", "").text)
	w.owner(200, "PATCH", "/"+id, `{"enabled": false}`)
	assert.Contains(t, w.owner(409, "POST", "/"+id+"/test", "").text, "enable it first")
}

func TestARetryIsAsked(t *testing.T) {
	w := newWorld(t)
	woken := w.woken()
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.delivery(w.demo.SiteID, id, "tr_1", "msg_1", 0)
	a := w.owner(202, "POST", "/"+id+"/deliveries/msg_1/retry", "")
	assert.Equal(t, "msg_1", a.id(t))
	assert.Equal(t, "waiting", a.json(t, "status"))
	kind, webhook, delivery, command := w.command()
	assert.Equal(t, []string{"retry", id, "msg_1"}, []string{kind, webhook, delivery})
	assert.Equal(t, "command.retry "+command, woken())
	w.as(w.demo.ViewerKey, 403, "POST", "/"+id+"/deliveries/msg_1/retry", "")
	assert.JSONEq(t, notFound, w.owner(404, "POST", "/"+id+"/deliveries/msg_2/retry", "").text)
	other := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	assert.JSONEq(t, notFound, w.owner(404, "POST", "/"+other+"/deliveries/msg_1/retry", "").text, "of another webhook")
}

func TestARecoveryIsAskedWatchedAndCancelled(t *testing.T) {
	w := newWorld(t)
	woken := w.woken()
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	refused := w.owner(422, "POST", "/"+id+"/recover", `{"status": "waiting", "until": "yesterday", "rate_per_second": 0, "x": 1}`)
	for _, field := range []string{"status", "since", "until", "rate_per_second", "x"} {
		assert.Contains(t, refused.text, `"field":"`+field+`"`)
	}
	assert.Contains(t, w.owner(422, "POST", "/"+id+"/recover", `{"since": "2026-11-02T00:00:00Z", "until": "2026-11-01T00:00:00Z"}`).text, "after since")
	assert.Contains(t, w.owner(422, "POST", "/"+id+"/recover", `{"since": "2026-11-02T00:00:00Z", "until": ""}`).text, "until must not be empty")

	a := w.owner(202, "POST", "/"+id+"/recover", `{"since": "2026-11-01T00:00:00+02:00", "until": "2026-11-02T00:00:00Z", "rate_per_second": 5}`)
	job := a.id(t)
	assert.Equal(t, "command.recover "+job, woken())
	assert.True(t, strings.HasSuffix(a.header.Get("Location"), "/recoveries/"+job))
	path := "/" + id + "/recoveries/" + job
	shown := func() answer { return w.as(w.demo.ViewerKey, 200, "GET", path, "") }
	assert.Equal(t, a.text, shown().text)
	assert.Equal(t, "waiting", a.json(t, "state"))
	assert.Equal(t, "dead", a.json(t, "status"))
	assert.Equal(t, "2026-10-31T22:00:00Z", a.json(t, "since"))
	w.owner(409, "POST", "/"+id+"/recover", `{"since": "2026-11-01T00:00:00Z"}`)

	w.exec(w.own, "INSERT INTO command_progress (command_id, status, total, done) VALUES ($1, 'running', 100, 40)", job) // as a dispatcher does
	assert.Equal(t, []any{"running", 100.0, 40.0}, []any{shown().json(t, "state"), shown().json(t, "total"), shown().json(t, "done")})
	w.owner(409, "POST", "/"+id+"/recover", `{"since": "2026-11-01T00:00:00Z"}`)
	w.as(w.demo.ViewerKey, 403, "DELETE", path, "")
	w.owner(204, "DELETE", path, "")
	var cancelled *time.Time
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT cancelled_at FROM commands WHERE id = $1", job).Scan(&cancelled))
	assert.NotNil(t, cancelled)
	w.owner(202, "POST", "/"+id+"/recover", `{"since": "2026-11-01T00:00:00Z"}`)

	other := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	assert.JSONEq(t, notFound, w.owner(404, "GET", "/"+other+"/recoveries/"+job, "").text)
	assert.JSONEq(t, notFound, w.owner(404, "DELETE", "/"+other+"/recoveries/"+job, "").text)
}
