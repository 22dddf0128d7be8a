package dispatcher

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
)

const someTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestDelivered(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, "thank you") })
	old, current := signature.NewSecret(), signature.NewSecret()
	id := w.webhook(r.URL+"/hook", options{secrets: []signature.Secret{old, current}, headers: map[string]string{"Authorization": "Bearer x", "webhook-id": "theirs"}})
	f := firing(id)
	f.TraceContext = someTrace
	d := w.start()
	w.publish(f)
	w.becomes(f.ID, "delivered", 1)
	w.settled()
	require.NoError(t, d.stop())

	require.Len(t, r.got(), 1)
	got := r.got()[0]
	assert.Equal(t, string(f.Payload), string(got.Body), "the bytes are the firing's")
	assert.Equal(t, []string{f.ID}, got.Header.Values("webhook-id"))
	assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
	assert.Equal(t, "Bearer x", got.Header.Get("Authorization"))
	assert.True(t, strings.HasPrefix(got.Header.Get("User-Agent"), "Plausible-Webhooks/"))
	for _, secret := range []signature.Secret{old, current} {
		verifier, err := standardwebhooks.NewWebhook(secret.Reveal())
		require.NoError(t, err)
		assert.NoError(t, verifier.Verify(got.Body, got.Header))
	}
	at, err := strconv.ParseInt(got.Header.Get("webhook-timestamp"), 10, 64)
	require.NoError(t, err)
	assert.InDelta(t, got.At.Unix(), at, 2)

	row := w.row(f.ID)
	assert.Equal(t, f.Payload, row.Payload)
	assert.NotNil(t, row.Finished)
	assert.Empty(t, row.LastError)
	var code int
	var body, headers string
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT status_code, response_body, request_headers FROM attempts WHERE delivery_id = $1 AND number = 1", f.ID).Scan(&code, &body, &headers))
	assert.Equal(t, "200 thank you", strconv.Itoa(code)+" "+body)
	assert.Contains(t, headers, `"Authorization":"***"`)
	assert.Contains(t, w.logs.String(), `"trace_id":"0af7651916cd43dd8448eb211c80319c"`, "the attempt belongs to the firing's trace")
	assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.attempts.WithLabelValues("2xx")))
}

// TestRetriedUntilDelivered: each attempt is a due row's, with the same id and another time.
func TestRetriedUntilDelivered(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	f := firing(w.webhook(r.URL, options{}))
	f.TraceContext = someTrace
	w.start()
	w.publish(f)
	row := w.becomes(f.ID, "waiting", 1)
	w.settled() // it waits as a row, not as a message
	assert.Equal(t, "the receiver answered 500 Internal Server Error", row.LastError)
	assert.WithinDuration(t, time.Now().Add(5*time.Second), *row.Next, 3*time.Second)
	failing := func() (n int) {
		require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT count(*) FROM webhook_health WHERE webhook_id = $1 AND failing_since IS NOT NULL", f.WebhookID).Scan(&n))
		return n
	}
	assert.Equal(t, 1, failing())

	w.hurry(f.ID)
	row = w.becomes(f.ID, "waiting", 2)
	assert.WithinDuration(t, time.Now().Add(time.Minute), *row.Next, 15*time.Second)
	assert.Nil(t, row.Claimed)

	r.answers(status(200))
	w.hurry(f.ID)
	w.becomes(f.ID, "delivered", 3)
	assert.Equal(t, 0, failing())
	assert.Equal(t, map[string]int{f.ID: 3}, r.times())
	for _, got := range r.got() {
		assert.Equal(t, string(f.Payload), string(got.Body))
	}
	assert.Equal(t, 3, strings.Count(w.logs.String(), `"trace_id":"0af7651916cd43dd8448eb211c80319c"`), "retries belong to the firing's trace too")
}

func TestDeadAfterTheSchedule(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(503))
	w.start()
	f := w.publish(firing(w.webhook(r.URL, options{})))[0]
	for number := 1; number <= len(schedule); number++ {
		w.becomes(f.ID, "waiting", number)
		w.hurry(f.ID)
	}
	row := w.becomes(f.ID, "dead", len(schedule)+1)
	assert.Equal(t, "the receiver answered 503 Service Unavailable", row.LastError)
	assert.Equal(t, map[string]int{f.ID: 11}, r.times())
}

func TestRemovedWebhook(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	waiting := firing(w.webhook(r.URL, options{}))
	w.start()
	w.publish(waiting)
	w.becomes(waiting.ID, "waiting", 1)
	w.exec("DELETE FROM webhooks WHERE id = $1", waiting.WebhookID)
	require.NoError(t, stream.Announce(w.nc, stream.ChangedWebhook, waiting.WebhookID))
	row := w.becomes(waiting.ID, "cancelled", 1)
	assert.Equal(t, "the webhook was removed", row.LastError)

	late := w.publish(firing(waiting.WebhookID))[0]
	assert.Equal(t, "the webhook was removed", w.becomes(late.ID, "cancelled", 0).LastError)
	assert.Equal(t, map[string]int{waiting.ID: 1}, r.times())
	w.settled()
}

func TestGoneDisables(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(http.StatusGone))
	id := w.webhook(r.URL, options{})
	w.start()
	first := w.publish(firing(id))[0]
	w.becomes(first.ID, "dead", 1)
	var reason string
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT disabled_reason FROM webhook_health WHERE webhook_id = $1 AND disabled_at IS NOT NULL", id).Scan(&reason))
	assert.Contains(t, reason, "410 Gone")

	second := w.publish(firing(id))[0]
	row := w.becomes(second.ID, "waiting", 0)
	assert.Nil(t, row.Next, "it is held")
	w.settled()

	r.answers(status(200))
	w.exec("UPDATE webhooks SET enabled_at = now() WHERE id = $1", id)
	require.NoError(t, stream.Announce(w.nc, stream.ChangedWebhook, id))
	w.becomes(second.ID, "delivered", 1)
	assert.Equal(t, map[string]int{first.ID: 1, second.ID: 1}, r.times())
}

func TestPausedWebhookHolds(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	id := w.webhook(r.URL, options{})
	w.start()
	retried := w.publish(firing(id))[0]
	w.becomes(retried.ID, "waiting", 1)
	w.exec("UPDATE webhooks SET enabled = false WHERE id = $1", id)
	require.NoError(t, stream.Announce(w.nc, stream.ChangedWebhook, id))
	require.NoError(t, w.nc.Flush())
	w.eventually(func() bool { // the announcement arrives at some time; until then a firing is sent
		f := w.publish(firing(id))[0]
		w.eventually(func() bool { return w.count("id = $1", f.ID) == 1 }, "a row of %s", f.ID)
		return w.row(f.ID).Next == nil
	}, "firings are held")
	sent := len(r.got())
	w.hurry(retried.ID)
	w.eventually(func() bool { return w.row(retried.ID).Next == nil }, "the retry is held too")
	assert.Len(t, r.got(), sent)

	r.answers(status(200))
	w.exec("UPDATE webhooks SET enabled = true, enabled_at = now() WHERE id = $1", id)
	w.exec("UPDATE deliveries SET next_attempt_at = now() WHERE status = 'waiting' AND next_attempt_at IS NOT NULL")
	require.NoError(t, stream.Announce(w.nc, stream.ChangedWebhook, id))
	w.eventually(func() bool { return w.count("status = 'waiting'") == 0 }, "all are delivered; logs:\n%s", w.logs)
}

// TestDuplicatesAreSentOnce: copies beyond the stream's own window, at once and later.
func TestDuplicatesAreSentOnce(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	r := newReceiver(t, hold(release))
	f := firing(w.webhook(r.URL, options{}))
	w.publish(f)
	w.publishCopy(f)
	d := w.start()
	w.eventually(func() bool { return testutil.ToFloat64(d.metrics.duplicates) == 1 }, "the second copy joins the first")
	close(release)
	w.becomes(f.ID, "delivered", 1)
	w.settled()
	w.publishCopy(f)
	w.eventually(func() bool { return testutil.ToFloat64(d.metrics.duplicates) == 2 }, "the third copy is known")
	w.settled()
	assert.Equal(t, map[string]int{f.ID: 1}, r.times())
}

// publishCopy brings a second copy into the stream, which would drop it within its window.
func (w *world) publishCopy(f triggerFiring) {
	w.Helper()
	s, err := w.js.Stream(w.Context(), stream.Firings)
	require.NoError(w, err)
	config := s.CachedInfo().Config
	config.Duplicates = 100 * time.Millisecond // the least that the server takes
	w.eventually(func() bool {
		// Every change of the window makes the server look anew which ids it may forget; now and then it
		// misses its own alarm after one.
		config.Duplicates += time.Millisecond
		_, err = w.js.UpdateStream(w.Context(), config)
		require.NoError(w, err)
		ack, err := w.js.PublishMsg(w.Context(), stream.Encode(f))
		return err == nil && !ack.Duplicate
	}, "the stream takes the copy")
	config.Duplicates = stream.DuplicateWindow
	_, err = w.js.UpdateStream(w.Context(), config)
	require.NoError(w, err)
}

func TestUndecodableIsTerminated(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	d := w.start()
	broken := stream.Encode(firing("wh_x"))
	broken.Header.Set("Firing-Slot", "yesterday")
	noObject := stream.Encode(firing("wh_x"))
	noObject.Data = []byte("hello")
	for _, m := range []*nats.Msg{broken, noObject, {Subject: "firing.1.x", Data: []byte("{}")}} {
		_, err := w.js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
	}
	good := w.publish(firing(w.webhook(r.URL, options{})))[0]
	w.becomes(good.ID, "delivered", 1)
	w.settled()
	assert.Equal(t, 3.0, testutil.ToFloat64(d.metrics.terminated))
	assert.Equal(t, 1, w.count("true"))
}

// TestKilledBeforeTheCommit: the receiver has answered, and nothing was written.
func TestKilledBeforeTheCommit(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	dead := make(chan struct{})
	var once sync.Once
	first := w.start(func(d *dispatcher) {
		d.beforeCommit = func([]outcome) bool {
			once.Do(func() { close(dead) })
			return false
		}
	})
	fs := w.publishN(3, id)
	<-dead
	w.eventually(func() bool { return len(r.got()) == 3 }, "all were sent")
	require.NoError(t, first.stop())
	require.Equal(t, 0, w.count("true"))

	w.redeliver()
	w.start()
	for _, f := range fs {
		w.becomes(f.ID, "delivered", 1)
		assert.Equal(t, 2, r.times()[f.ID], "the same webhook-id again")
	}
	w.settled()
}

// redeliver makes the stream deliver again what was not acknowledged, without waiting for AckWait.
func (w *world) redeliver() {
	w.Helper()
	require.NoError(w, w.js.DeleteConsumer(w.Context(), stream.Firings, stream.Dispatcher))
}

// TestDrain: what is in flight when the stop comes is finished and recorded.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	r := newReceiver(t, hold(release))
	id := w.webhook(r.URL, options{})
	d := w.start()
	fs := w.publishN(10, id)
	w.eventually(func() bool { return len(r.got()) == 10 }, "all are in flight")
	d.cancel()
	late := w.publish(firing(id))[0]
	close(release)
	require.NoError(t, <-d.ended)
	for _, f := range fs {
		assert.Equal(t, "delivered", w.row(f.ID).Status)
	}
	w.start()
	w.becomes(late.ID, "delivered", 1)
	assert.Equal(t, 1, r.times()[late.ID])
}

// TestDrainDeadline: who is cut off is not to blame, and is tried again at once.
func TestDrainDeadline(t *testing.T) {
	w := newWorld(t)
	w.config.DrainTimeout = 50 * time.Millisecond
	var hang atomic.Bool
	release := make(chan struct{})
	r := newReceiver(t, func(out http.ResponseWriter, in *http.Request) {
		if hang.Load() {
			hold(release)(out, in)
		} else {
			out.WriteHeader(http.StatusInternalServerError)
		}
	})
	defer close(release)
	id := w.webhook(r.URL, options{})
	d := w.start()
	retried := w.publish(firing(id))[0]
	w.becomes(retried.ID, "waiting", 1)
	hang.Store(true)
	w.hurry(retried.ID)
	streamed := w.publish(firing(id))[0]
	w.eventually(func() bool { return len(r.got()) == 3 }, "both are in flight")
	require.NoError(t, d.stop())

	row := w.row(retried.ID)
	assert.Equal(t, 1, row.Attempts)
	assert.Nil(t, row.Claimed, "the claim was given up")
	assert.Equal(t, 0, w.count("id = $1", streamed.ID))
	hang.Store(false)
	r.answers(status(200))
	w.start()
	w.becomes(retried.ID, "delivered", 2)
	w.becomes(streamed.ID, "delivered", 1)
}

// TestHangingReceiverHarmsOnlyItself: its backlog waits as rows, others are served at once.
func TestHangingReceiverHarmsOnlyItself(t *testing.T) {
	w := newWorld(t)
	w.config.Concurrency, w.config.WebhookConcurrency = 16, 2
	release := make(chan struct{})
	hanging := newReceiver(t, hold(release))
	healthy := newReceiver(t, status(200))
	bad, good := w.webhook(hanging.URL, options{timeout: 30}), w.webhook(healthy.URL, options{})
	d := w.start()
	backlog := w.publishN(200, bad)
	others := w.publishN(200, good)
	w.eventually(func() bool { return len(healthy.times()) == len(others) }, "the healthy one gets its firings; logs:\n%s", w.logs)
	w.eventually(func() bool { return w.count("webhook_id = $1 AND status = 'waiting' AND attempts = 0", bad) >= 196 }, "the backlog waits as rows")
	assert.LessOrEqual(t, len(hanging.got()), 2, "in flight to the hanging one")
	close(release)
	w.eventually(func() bool { return w.count("status = 'delivered'") == len(backlog)+len(others) }, "all are delivered; logs:\n%s", w.logs)
	w.settled()
	for id, n := range hanging.times() {
		assert.Equal(t, 1, n, id)
	}
	assert.Positive(t, testutil.ToFloat64(d.metrics.held))
}

// TestOurFaultsCostNoAttempt: a secret that does not open is not the receiver's failure.
func TestOurFaultsCostNoAttempt(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	w.exec("UPDATE webhook_secrets SET sealed = $2 WHERE webhook_id = $1", id, newVault(t, 9).Seal(signature.NewSecret().Reveal(), id))
	w.start()
	f := w.publish(firing(id))[0]
	row := w.becomes(f.ID, "waiting", 0)
	assert.Contains(t, row.LastError, "could not be signed")
	assert.WithinDuration(t, time.Now().Add(faultPause), *row.Next, 5*time.Second)

	w.exec("UPDATE webhook_secrets SET sealed = $2 WHERE webhook_id = $1", id, w.config.SecretsKey.Seal(signature.NewSecret().Reveal(), id))
	require.NoError(t, stream.Announce(w.nc, stream.ChangedWebhook, id))
	require.NoError(t, w.nc.Flush())
	w.eventually(func() bool {
		w.exec("UPDATE deliveries SET next_attempt_at = now() WHERE id = $1 AND status = 'waiting'", f.ID)
		return w.row(f.ID).Status == "delivered"
	}, "it is delivered once the secret opens")
}

// TestRefusedTargetIsAFailedAttempt, and nothing is sent.
func TestRefusedTargetIsAFailedAttempt(t *testing.T) {
	w := newWorld(t)
	w.config.AllowPrivateTargets = nil
	r := newReceiver(t, status(200))
	w.start()
	for _, url := range []string{r.URL, strings.Replace(r.URL, "127.0.0.1", "localhost", 1)} {
		f := w.publish(firing(w.webhook(url, options{})))[0]
		row := w.becomes(f.ID, "waiting", 1)
		assert.Contains(t, row.LastError, "not public")
		assert.NotContains(t, row.LastError, "127.0.0.1")
	}
	assert.Empty(t, r.got())
}

// TestEveryAnswerCanBeRecorded: bytes that Postgres refuses do not stop the batch.
func TestPoisonDoesNotBlock(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, func(out http.ResponseWriter, _ *http.Request) {
		out.Header()["X-Odd"] = []string{"a\xff\xfeb"}
		_, _ = out.Write([]byte("a\x00b\xff"))
	})
	id := w.webhook(r.URL, options{})
	poisoned := firing(id)
	w.start(func(d *dispatcher) {
		d.beforeCommit = func(batch []outcome) bool {
			for _, o := range batch {
				if o.delivery.ID == poisoned.ID {
					o.attempt.ResponseBody = "a\x00b" // as if cleaning had missed it
				}
			}
			return true
		}
	})
	fs := w.publish(append([]triggerFiring{poisoned}, firing(id), firing(id))...)
	for _, f := range fs {
		w.becomes(f.ID, "delivered", 1)
	}
	w.settled()
	assert.Contains(t, w.logs.String(), "Postgres refuses")
}

// TestStatementsPerBatch: however many deliveries, they share writes and looks.
func TestStatementsPerBatch(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	ids := []string{w.webhook(r.URL, options{}), w.webhook(r.URL, options{})}
	const n = 400
	w.publishN(n, ids...)
	statements := &counter{}
	d := w.startTraced(statements)
	w.eventually(func() bool { return w.count("status = 'delivered'") == n }, "all are delivered")
	w.settled()
	require.NoError(t, d.stop())
	batches := histogramCount(t, d.metrics.batchRows)
	assert.LessOrEqual(t, batches, uint64(n/5), "batches are worth their name")
	assert.LessOrEqual(t, statements.of("look"), n/5, "looks")
	t.Logf("%d deliveries: %d batches, %d looks, all statements: %v", n, batches, statements.of("look"), statements.all())
}

// TestReady asks as an orchestrator does.
func TestReady(t *testing.T) {
	w, stack := newWorldOn(t)
	registry := prometheus.NewRegistry()
	s := daemon.NewService("dispatcher", newWorldLog(t), registry, sdktrace.NewTracerProvider())
	port, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := port.Addr().String()
	require.NoError(t, port.Close())
	closeHealth, err := daemon.Serve(address, false, registry, s)
	require.NoError(t, err)
	defer closeHealth()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ready := func() string {
		response, err := client.Get("http://" + address + "/readyz")
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return string(text)
	}
	assert.Contains(t, ready(), "starting")

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, w.config, s) }()
	w.eventually(func() bool { return ready() == "ok\n" }, "it is ready")
	require.NoError(t, stack.KillPostgres())
	w.eventually(func() bool { return strings.Contains(ready(), "dispatcher: postgres:") }, "it is not ready without Postgres")
	require.NoError(t, stack.RestartPostgres(t.Context()))
	w.eventually(func() bool { return ready() == "ok\n" }, "it is ready again")
	cancel()
	require.NoError(t, <-ended)
}

func TestRunNeedsTheSchema(t *testing.T) {
	w := newWorld(t)
	w.exec("DROP TABLE goose_db_version")
	s := daemon.NewService("dispatcher", newWorldLog(t), prometheus.NewRegistry(), sdktrace.NewTracerProvider())
	assert.ErrorContains(t, Run(t.Context(), w.config, s), "run the migrations first")
}

// TestStartAndStop, often and at odd moments: nothing hangs, nothing is lost or sent twice.
func TestStartAndStop(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.webhook(r.URL, options{})
	var fs []triggerFiring
	for i := range 8 {
		d := w.start()
		fs = append(fs, w.publishN(30, id)...)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond) // an odd moment each time
		require.NoError(t, d.stop())
	}
	w.start()
	w.eventually(func() bool { return w.count("status = 'delivered'") == len(fs) }, "all are delivered; logs:\n%s", w.logs)
	for id, n := range r.times() {
		assert.Equal(t, 1, n, id)
	}
	w.settled()
}

func TestTwoDispatchersShare(t *testing.T) {
	w := newWorld(t)
	var seen sync.Map
	var news atomic.Int64
	r := newReceiver(t, func(out http.ResponseWriter, in *http.Request) { // fails every third once
		if _, again := seen.LoadOrStore(in.Header.Get("webhook-id"), true); !again && news.Add(1)%3 == 0 {
			out.WriteHeader(http.StatusInternalServerError)
		}
	})
	var ids []string
	for range 5 {
		ids = append(ids, w.webhook(r.URL, options{}))
	}
	w.start()
	w.start()
	fs := w.publishN(300, ids...)
	w.eventually(func() bool {
		w.exec("UPDATE deliveries SET next_attempt_at = now() WHERE status = 'waiting' AND claimed_until IS NULL AND next_attempt_at > now()")
		return w.count("status = 'delivered'") == len(fs)
	}, "all are delivered")
	var attempts int
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT count(*) FROM attempts").Scan(&attempts))
	assert.Len(t, r.got(), attempts, "every request is an attempt on record, and none was made twice")
}
