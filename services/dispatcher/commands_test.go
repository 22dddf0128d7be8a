package dispatcher

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
)

// command stores a command as the api would, and returns its id.
func (w *world) command(kind, webhookID, deliveryID string) string {
	w.Helper()
	id := fresh("cmd")
	w.exec("INSERT INTO commands (id, site_id, site_domain, webhook_id, kind, delivery_id) VALUES ($1, 1, 'example.com', $2, $3, $4)", id, webhookID, kind, deliveryID)
	return id
}

// recovery stores a command to recover the deliveries of the last day.
func (w *world) recovery(webhookID, status string, rate float64) string {
	w.Helper()
	id := fresh("cmd")
	w.exec(`INSERT INTO commands (id, site_id, site_domain, webhook_id, kind, since, until, status, rate_per_second)
		VALUES ($1, 1, 'example.com', $2, 'recover', now() - interval '1 day', now() + interval '1 day', $3, $4)`, id, webhookID, status, rate)
	return id
}

// tell is the message with which the api wakes a dispatcher.
func (w *world) tell(kind, id string) {
	w.Helper()
	_, err := w.js.PublishMsg(w.Context(), stream.EncodeCommand(kind, id))
	require.NoError(w, err)
}

type progress struct {
	Status string
	Total  *int
	Done   int
	Error  string
}

// ends waits for a command's end.
func (w *world) ends(id string) (p progress) {
	w.Helper()
	w.eventually(func() bool {
		return w.pool.QueryRow(w.Context(), "SELECT status, total, done, error FROM command_progress WHERE command_id = $1 AND finished_at IS NOT NULL", id).
			Scan(&p.Status, &p.Total, &p.Done, &p.Error) == nil
	}, "command %s ends; logs:\n%s", id, w.logs)
	return p
}

// finished stores a delivery that has ended.
func (w *world) finished(webhookID, status string, attempts int) string {
	w.Helper()
	id := fresh("msg")
	w.exec(`INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, attempts, payload, finished_at)
		VALUES ($1::text, date_trunc('second', now()), 1, $2, ARRAY[$1], 'visitor_spike.fired', $3, $4, '{"type":"visitor_spike.fired"}', now())`, id, webhookID, status, attempts)
	return id
}

func TestCommandedRetry(t *testing.T) {
	w := newWorld(t)
	good, bad := newReceiver(t, status(200)), newReceiver(t, status(500))
	up, down := w.webhook(good.URL, options{}), w.webhook(bad.URL, options{})
	dead, cancelled, delivered := w.finished(up, "dead", 11), w.finished(up, "cancelled", 0), w.finished(up, "delivered", 2)
	failing := w.finished(down, "dead", 11)
	lost := w.command("retry", up, cancelled) // its message got lost
	w.start()
	assert.Equal(t, "done", w.ends(lost).Status)
	w.becomes(cancelled, "delivered", 1)

	for id, attempts := range map[string]int{dead: 12, delivered: 3} {
		c := w.command("retry", up, id)
		w.tell("retry", c)
		assert.Equal(t, "done", w.ends(c).Status)
		w.becomes(id, "delivered", attempts)
	}

	c := w.command("retry", down, failing)
	w.tell("retry", c)
	row := w.becomes(failing, "waiting", 12)
	assert.WithinDuration(t, time.Now().Add(schedule[0]), *row.Next, 3*time.Second, "its schedule begins anew")
	for number := 1; number <= len(schedule); number++ {
		w.becomes(failing, "waiting", 11+number)
		w.hurry(failing)
	}
	w.becomes(failing, "dead", 12+len(schedule))

	for problem, of := range map[string][2]string{
		"the delivery does not exist, or no longer": {down, dead}, // it is another webhook's
		"the webhook was removed":                   {"wh_none", dead},
	} {
		c := w.command("retry", of[0], of[1])
		w.tell("retry", c)
		assert.Equal(t, progress{"failed", new(1), 0, problem}, w.ends(c))
	}
	assert.Equal(t, map[string]int{dead: 1, cancelled: 1, delivered: 1}, good.times())
	assert.Equal(t, map[string]int{failing: 1 + len(schedule)}, bad.times())
}

// A waiting delivery goes now. One that is claimed is being sent already: it is not sent twice.
func TestCommandedRetryOfAWaitingDelivery(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	r := newReceiver(t, status(500))
	w.start()
	f := w.publish(firing(w.webhook(r.URL, options{})))[0]
	w.becomes(f.ID, "waiting", 1)
	r.answers(func(out http.ResponseWriter, in *http.Request) { hold(release)(out, in) })
	first := w.command("retry", f.WebhookID, f.ID)
	w.tell("retry", first)
	assert.Equal(t, "done", w.ends(first).Status)
	w.eventually(func() bool { return len(r.got()) == 2 }, "it is sent; logs:\n%s", w.logs)
	second := w.command("retry", f.WebhookID, f.ID)
	w.tell("retry", second)
	assert.Equal(t, "done", w.ends(second).Status)
	close(release)
	w.becomes(f.ID, "delivered", 2)
	assert.Equal(t, map[string]int{f.ID: 2}, r.times())
}

func TestCommandedTest(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	secret := signature.NewSecret()
	id := w.webhook(r.URL, options{secrets: []signature.Secret{secret}})
	paused := w.webhook(r.URL, options{paused: true})
	w.start()
	c := w.command("test", id, "msg_test_1")
	w.tell("test", c)
	w.becomes("msg_test_1", "delivered", 1)
	assert.Equal(t, progress{"done", new(1), 1, ""}, w.ends(c))

	require.Len(t, r.got(), 1)
	got := r.got()[0]
	assert.Equal(t, "msg_test_1", got.id())
	verifier, err := standardwebhooks.NewWebhook(secret.Reveal())
	require.NoError(t, err)
	require.NoError(t, verifier.Verify(got.Body, got.Header))
	var sent struct {
		Type      string
		Timestamp time.Time
		Data      map[string]any
	}
	require.NoError(t, json.Unmarshal(got.Body, &sent))
	assert.Equal(t, "webhook.ping", sent.Type)
	assert.WithinDuration(t, time.Now(), sent.Timestamp, time.Minute)
	assert.Equal(t, map[string]any{"id": "msg_test_1", "site": map[string]any{"id": 1.0, "domain": "example.com"}, "webhook_id": id}, sent.Data)

	for problem, webhookID := range map[string]string{"the webhook is paused": paused, "the webhook was removed": "wh_none"} {
		c := w.command("test", webhookID, fresh("msg"))
		w.tell("test", c)
		assert.Equal(t, progress{"failed", new(1), 0, problem}, w.ends(c))
	}
	assert.Equal(t, 1, w.count("true"))
}

// Two dispatchers hear of the same commands, by messages and by sweeps: each is obeyed once.
func TestCommandsAreObeyedOnce(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	want := map[string]int{}
	var commands []string
	for i := range 3 * 40 {
		switch i % 3 {
		case 0:
			delivery := fresh("msg_test")
			commands = append(commands, w.command("test", id, delivery))
			want[delivery] = 1
		case 1:
			delivery := w.finished(id, "dead", 11)
			commands = append(commands, w.command("retry", id, delivery))
			want[delivery] = 1
		case 2: // cancelled before anybody saw it
			commands = append(commands, w.command("test", id, fresh("msg_never")))
			w.exec("UPDATE commands SET cancelled_at = now() WHERE id = $1", commands[i])
		}
	}
	dispatchers := []*running{w.start(), w.start()}
	for _, c := range commands {
		w.tell("any", c)
		for _, d := range dispatchers {
			d.asked.add(c)
		}
	}
	for i, c := range commands {
		assert.Equal(t, i%3 == 2, w.ends(c).Status == "cancelled")
	}
	w.eventually(func() bool { return w.count("status = 'delivered'") == len(want) }, "all are delivered; logs:\n%s", w.logs)
	assert.Equal(t, want, r.times())
}

// A command that Postgres refuses is told so, and holds up no other.
func TestAnImpossibleCommandFails(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	w.exec("ALTER TABLE deliveries ADD CHECK (id <> 'msg_impossible')")
	bad, good := w.command("test", id, "msg_impossible"), w.command("test", id, "msg_possible")
	w.start()
	assert.Equal(t, "failed", w.ends(bad).Status)
	assert.Equal(t, "done", w.ends(good).Status)
	w.becomes("msg_possible", "delivered", 1)
}

// Dispatchers come and go while they recover: every dead delivery arrives once more, and once.
func TestCommandedRecovery(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	want := map[string]int{}
	for range 400 {
		want[w.finished(id, "dead", 11)] = 1
	}
	w.finished(id, "delivered", 1)
	c := w.recovery(id, "dead", 200)
	first := w.start()
	w.eventually(func() bool { return w.count("status = 'dead'") < 400 }, "it begins; logs:\n%s", w.logs)
	second := w.start()
	require.NoError(t, first.stop())
	assert.Equal(t, progress{"done", new(400), 400, ""}, w.ends(c))
	w.eventually(func() bool { return w.count("status = 'delivered' AND attempts = 12") == 400 }, "all are delivered; logs:\n%s", w.logs)
	assert.Equal(t, want, r.times())
	require.NoError(t, second.stop())
}

// A cancelled recovery makes nothing due any more; what was, is sent.
func TestCancelledRecovery(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	for range 500 {
		w.finished(id, "dead", 11)
	}
	c := w.recovery(id, "dead", 50)
	w.start()
	w.start()
	w.tell("recover", c)
	w.eventually(func() bool { return w.count("status = 'dead'") < 500 }, "it begins; logs:\n%s", w.logs)
	w.exec("UPDATE commands SET cancelled_at = now() WHERE id = $1", c)
	p := w.ends(c)
	assert.Equal(t, "cancelled", p.Status)
	assert.Less(t, p.Done, 500)
	assert.Equal(t, 500-p.Done, w.count("status = 'dead'"))
	w.eventually(func() bool { return len(r.times()) == p.Done && w.count("status = 'waiting'") == 0 }, "what was made due is sent")
	assert.Equal(t, 500-p.Done, w.count("status = 'dead'"), fmt.Sprint(p))
}

// Progress is kept as long as its command: without it, an old command would be obeyed again.
func TestProgressOutlivesItsCommandOnlyShortly(t *testing.T) {
	w := newWorld(t)
	id := w.webhook("https://example.com/", options{paused: true})
	kept, gone, young := w.command("test", id, "a"), w.command("test", id, "b"), w.command("test", id, "c")
	d := w.start()
	for _, c := range []string{kept, gone, young} {
		w.ends(c)
	}
	w.exec("UPDATE command_progress SET started_at = now() - interval '100 days' WHERE command_id <> $1", young)
	w.exec("DELETE FROM commands WHERE id <> $1", kept)
	require.NoError(t, d.store.ForgetCommands(t.Context(), w.config.Retention))
	var left int
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT count(*) FROM command_progress WHERE command_id IN ($1, $2)", kept, young).Scan(&left))
	assert.Equal(t, 2, left)
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT count(*) FROM command_progress").Scan(&left))
	assert.Equal(t, 2, left)
}
