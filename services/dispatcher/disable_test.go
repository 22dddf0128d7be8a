package dispatcher

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// failing makes a webhook one that has failed since that long ago, and last a minute ago.
func (w *world) failing(id string, ago time.Duration) {
	w.Helper()
	w.exec("UPDATE webhooks SET enabled_at = now() - interval '1000 days' WHERE id = $1", id)
	w.exec(`INSERT INTO webhook_health (webhook_id, failing_since, failed_at, last_error) VALUES ($1, now() - $2::interval, now() - interval '1 minute', 'the receiver answered 500')
		ON CONFLICT (webhook_id) DO UPDATE SET failing_since = excluded.failing_since, failed_at = excluded.failed_at, last_error = excluded.last_error`, id, ago)
}

// passes lets time pass for a webhook that fails.
func (w *world) passes(id string, span time.Duration) {
	w.Helper()
	w.exec(`WITH told AS (UPDATE webhook_events SET at = at - $2::interval, created_at = created_at - $2::interval WHERE webhook_id = $1)
		UPDATE webhook_health SET failing_since = failing_since - $2::interval WHERE webhook_id = $1`, id, span)
}

func (w *world) events(kind string) (webhooks []string) {
	w.Helper()
	require.NoError(w, w.pool.QueryRow(w.Context(), "SELECT coalesce(array_agg(webhook_id ORDER BY webhook_id), '{}') FROM webhook_events WHERE kind = $1", kind).Scan(&webhooks))
	return webhooks
}

func (w *world) disabled(id string) (disabled bool) {
	w.Helper()
	require.NoError(w, w.pool.QueryRow(w.Context(), "SELECT coalesce((SELECT disabled_at > enabled_at FROM webhook_health JOIN webhooks ON id = webhook_id WHERE id = $1), false)", id).Scan(&disabled))
	return disabled
}

const day = 24 * time.Hour

// look is one look of a dispatcher at the health of webhooks, without what it would publish.
func (w *world) look(d *dispatcher) {
	w.Helper()
	require.NoError(w, d.disableFailing(w.Context()))
	require.NoError(w, d.tellHealth(w.Context()))
}

// idle is a dispatcher that does nothing of itself.
func (w *world) idle() *dispatcher {
	return &dispatcher{log: newWorldLog(w), store: postgres.New(w.pool), nc: w.nc, madeDue: make(chan struct{}, 1)}
}

type told struct {
	Type string
	Data struct {
		ID           string
		Site         struct{ Domain string }
		WebhookID    string    `json:"webhook_id"`
		FailingSince time.Time `json:"failing_since"`
		LastError    string    `json:"last_error"`
		DisablesAt   time.Time `json:"disables_at"`
		DisabledAt   time.Time `json:"disabled_at"`
		Explanation  string
	}
}

func read(t testing.TB, message []byte) (m told) {
	require.NoError(t, json.Unmarshal(message, &m))
	return m
}

// TestFailingWebhooksAreDisabled: a warning after four days, the end after five, to the site's other
// webhooks and to operators, once, although two dispatchers look.
func TestFailingWebhooksAreDisabled(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	bad := w.webhook("https://192.0.2.1/", options{})
	other, paused, elsewhere := w.webhook(r.URL, options{}), w.webhook(r.URL, options{paused: true}), w.webhook(r.URL, options{})
	w.exec("UPDATE webhooks SET site_id = 2 WHERE id = $1", elsewhere)
	w.failing(bad, 4*day+time.Minute)
	w.exec(`INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, finished_at, payload)
		VALUES ('msg_sent', now(), 1, $1, '{}', 'visitor_spike.fired', 'delivered', now(), '{"data":{"site":{"id":1,"domain":"example.com"}}}')`, bad)
	first, second := w.start(), w.start()
	w.eventually(func() bool { return len(r.got()) == 1 }, "the warning arrives; logs:\n%s", w.logs)
	warning := read(t, r.got()[0].Body)
	assert.Equal(t, postgres.WebhookFailing, warning.Type)
	assert.Equal(t, "example.com", warning.Data.Site.Domain)
	assert.Equal(t, bad, warning.Data.WebhookID)
	assert.Equal(t, "the receiver answered 500", warning.Data.LastError)
	assert.WithinDuration(t, time.Now().Add(-4*day), warning.Data.FailingSince, 5*time.Minute)
	assert.WithinDuration(t, time.Now().Add(day), warning.Data.DisablesAt, 5*time.Minute)

	w.passes(bad, day-2*time.Minute)
	w.look(first.dispatcher)
	assert.False(t, w.disabled(bad), "not before its time")
	w.passes(bad, 3*time.Minute)
	both(func() { w.look(first.dispatcher) }, func() { w.look(second.dispatcher) })
	assert.True(t, w.disabled(bad))
	w.eventually(func() bool { return len(r.got()) == 2 }, "the end is told; logs:\n%s", w.logs)
	end := read(t, r.got()[1].Body)
	assert.Equal(t, postgres.WebhookDisabled, end.Type)
	assert.WithinDuration(t, time.Now(), end.Data.DisabledAt, time.Minute)
	assert.Contains(t, end.Data.Explanation, "the receiver answered 500")

	both(func() { w.look(first.dispatcher) }, func() { w.look(second.dispatcher) })
	assert.Equal(t, []string{bad}, w.events(postgres.WebhookFailing))
	assert.Equal(t, []string{bad}, w.events(postgres.WebhookDisabled))
	assert.Equal(t, 2, w.count("webhook_id = $1", other))
	assert.Zero(t, w.count("webhook_id IN ($1, $2)", paused, elsewhere))
	kept := w.publish(firing(bad))[0]
	w.eventually(func() bool {
		return w.count("id = $1 AND status = 'waiting' AND next_attempt_at IS NULL", kept.ID) == 1
	}, "what fires is kept")

	publish := func(d *running) func() { return func() { require.NoError(t, d.publishEvents(t.Context(), w.js)) } }
	both(publish(first), publish(second))
	system, err := w.js.Stream(t.Context(), stream.System)
	require.NoError(t, err)
	for i, kind := range []string{postgres.WebhookFailing, postgres.WebhookDisabled} {
		m, err := system.GetLastMsgForSubject(t.Context(), "system."+kind)
		require.NoError(t, err)
		assert.Equal(t, string(r.got()[i].Body), string(m.Data), "operators read the same")
		assert.Equal(t, read(t, m.Data).Data.ID, m.Header.Get(jetstream.MsgIDHeader))
	}
	info, err := system.Info(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 2, info.State.Msgs, "each is there once")
}

// both does two things at once.
func both(one, another func()) {
	var done sync.WaitGroup
	done.Go(one)
	done.Go(another)
	done.Wait()
}

// Nothing is told, and nothing is disabled, of a webhook that has recovered, that was enabled again
// since, that is paused, or to which nothing was sent of late.
func TestWhatIsNotFailingIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	ids := map[string]string{}
	for _, name := range []string{"failing", "recovered", "enabled again", "paused", "without attempts", "too early"} {
		ids[name] = w.webhook("https://192.0.2.1/", options{paused: name == "paused"})
		w.failing(ids[name], 6*day)
	}
	w.failing(ids["too early"], 4*day-time.Minute)
	w.exec("UPDATE webhooks SET enabled_at = now() - interval '1 day' WHERE id = $1", ids["enabled again"])
	w.exec("UPDATE webhook_health SET failed_at = failing_since + interval '3 days' WHERE webhook_id = $1", ids["without attempts"])
	w.exec("UPDATE webhook_health SET failing_since = NULL, failed_at = NULL WHERE webhook_id = $1", ids["recovered"])
	d := w.idle()
	w.look(d)
	assert.Equal(t, []string{ids["failing"]}, w.events(postgres.WebhookFailing))

	// The failing one recovers between its warning and its end, and fails again: all begins anew.
	w.look(d)
	assert.False(t, w.disabled(ids["failing"]), "a day after its warning, however long it has been failing")
	w.passes(ids["failing"], day-time.Minute)
	w.look(d)
	assert.False(t, w.disabled(ids["failing"]))
	w.exec("UPDATE webhook_health SET failing_since = now() - interval '1 hour' WHERE webhook_id = $1", ids["failing"])
	w.look(d)
	for name, id := range ids {
		assert.False(t, w.disabled(id), name)
	}
	w.failing(ids["failing"], 5*day) // and is warned of, a second time
	w.look(d)
	assert.Equal(t, []string{ids["failing"], ids["failing"]}, w.events(postgres.WebhookFailing))
	assert.False(t, w.disabled(ids["failing"]))
}

// A fact that holds no longer when it is to be told is not told.
func TestWhatChangedMeanwhileIsNotTold(t *testing.T) {
	w := newWorld(t)
	id := w.webhook("https://192.0.2.1/", options{})
	d := w.idle()
	w.failing(id, 4*day+time.Minute)
	facts, err := d.store.Untold(t.Context(), healthRule)
	require.NoError(t, err)
	w.exec("UPDATE webhook_health SET failing_since = NULL, failed_at = NULL WHERE webhook_id = $1", id)
	for _, f := range facts {
		told, made, err := d.store.Tell(t.Context(), f, notice(f), healthRule)
		require.NoError(t, err)
		assert.False(t, told)
		assert.Empty(t, made)
	}
	assert.Len(t, facts, 1)
	assert.Empty(t, w.events(postgres.WebhookFailing))
}

// TestGoneIsTold: the same events when a receiver wants nothing more, and after an enabling that it
// refuses again. The dispatcher that noted it died at once: another one tells.
func TestGoneIsTold(t *testing.T) {
	w := newWorld(t)
	gone, r := newReceiver(t, status(http.StatusGone)), newReceiver(t, status(200))
	id := w.webhook(gone.URL, options{})
	w.webhook(r.URL, options{})
	for times := 1; times <= 2; times++ {
		d := w.start()
		w.becomes(w.publish(firing(id))[0].ID, "dead", 1)
		require.NoError(t, d.stop())
		d = w.start()
		w.eventually(func() bool { return len(r.got()) == times }, "it is told; logs:\n%s", w.logs)
		end := read(t, r.got()[times-1].Body)
		assert.Equal(t, postgres.WebhookDisabled, end.Type)
		assert.Contains(t, end.Data.Explanation, "410 Gone")
		require.NoError(t, d.stop())
		w.exec("UPDATE webhooks SET enabled_at = now() WHERE id = $1", id)
	}
	assert.Equal(t, []string{id, id}, w.events(postgres.WebhookDisabled))
}

// TestTellingSurvivesCrashes: dispatchers die one after the other, each at a later statement than
// the one before, until one has told all. Each fact is told once.
func TestTellingSurvivesCrashes(t *testing.T) {
	w := newWorld(t)
	bad := w.webhook("https://192.0.2.1/", options{})
	for range 3 {
		w.webhook("https://192.0.2.1/", options{})
	}
	w.failing(bad, 4*day+time.Hour)
	d := w.idle()
	published := func(kind string) (done bool) {
		require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT count(published_at) > 0 FROM webhook_events WHERE kind = $1", kind).Scan(&done))
		return done
	}
	for _, kind := range []string{postgres.WebhookFailing, postgres.WebhookDisabled} {
		statement := int64(0)
		for !published(kind) {
			statement++
			require.Less(t, statement, int64(50), "it comes to an end")
			for _, afterwards := range []bool{false, true} {
				var pool *pgxpool.Pool
				d.store, pool = w.dies(&dying{statement, afterwards})
				_ = d.disableFailing(t.Context())
				_ = d.tellHealth(t.Context())
				_ = d.publishEvents(t.Context(), w.js)
				pool.Close()
			}
		}
		t.Logf("%s: %d died", kind, 2*statement)
		assert.Greater(t, statement, int64(3), "they died between any two statements")
		assert.Equal(t, []string{bad}, w.events(kind))
		assert.Equal(t, 3, w.count("type = $1", kind), "each other webhook is told once")
		w.passes(bad, day)
	}
	system, err := w.js.Stream(t.Context(), stream.System)
	require.NoError(t, err)
	assert.EqualValues(t, 2, system.CachedInfo().State.Msgs)
}

// dying is a process that dies at the statement with that number, before it is sent or before its
// answer is read: no later one gets through.
type dying struct {
	left       int64
	afterwards bool
}

func (d *dying) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if d.left--; d.left < 0 || d.left == 0 && !d.afterwards {
		_ = conn.PgConn().Conn().Close()
	}
	return ctx
}

func (d *dying) TraceQueryEnd(_ context.Context, conn *pgx.Conn, _ pgx.TraceQueryEndData) {
	if d.left == 0 && d.afterwards {
		_ = conn.PgConn().Conn().Close()
	}
}

// dies is a store that dies so.
func (w *world) dies(d *dying) (*postgres.Store, *pgxpool.Pool) {
	w.Helper()
	config, err := pgxpool.ParseConfig(w.config.DatabaseURL)
	require.NoError(w, err)
	config.MaxConns = 1
	config.ConnConfig.Tracer = d
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(w.Context(), config)
	require.NoError(w, err)
	return postgres.New(pool), pool
}

// Events go when they are old, but not while what they tell is so: it would be told again.
func TestOldEventsAreForgotten(t *testing.T) {
	w := newWorld(t)
	still, over := w.webhook("https://192.0.2.1/", options{}), w.webhook("https://192.0.2.1/", options{})
	for _, id := range []string{still, over} {
		w.failing(id, 200*day)
	}
	d := w.idle()
	w.look(d)
	require.NoError(t, d.publishEvents(t.Context(), w.js))
	w.exec("UPDATE webhook_events SET created_at = now() - interval '100 days'")
	w.exec("UPDATE webhook_health SET failing_since = NULL, failed_at = NULL WHERE webhook_id = $1", over)
	require.NoError(t, d.store.ForgetEvents(t.Context(), w.config.Retention))
	assert.Equal(t, []string{still}, w.events(postgres.WebhookFailing))
}

func TestTheDomainIsReadFromWhatWasSent(t *testing.T) {
	for payload, domain := range map[string]string{
		`{"data":{"site":{"id":7,"domain":"a.example"}}}`:                                            "a.example",
		`{"type":"batch","data":{"messages":[{"data":{"site":{"domain":"b.example"}}},{"data":1}]}}`: "",
		`{"type":"batch","data":{"messages":[{"data":{"site":{"domain":"b.example"}}}]}}`:            "b.example",
		`{"data":[]}`: "", `{`: "", ``: "",
	} {
		assert.Equal(t, site{7, domain}, siteOf(postgres.HealthFact{SiteID: 7, Payload: []byte(payload)}), payload)
	}
	encoded, err := json.Marshal(site{ID: 7})
	require.NoError(t, err)
	assert.JSONEq(t, `{"id":7}`, string(encoded), "what is not known is not there")
}
