package postgres

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

var slot = time.Now().Truncate(10 * time.Second).UTC()

type fixture struct {
	*testing.T
	*Store
	pool *pgxpool.Pool
}

func newFixture(t *testing.T) fixture {
	t.Parallel()
	return newFixtureHere(t)
}

// newFixtureHere is for a test with several databases.
func newFixtureHere(t *testing.T) fixture {
	pool, err := database.Open(t.Context(), "DATABASE_URL", devstacktest.Postgres(t), 8)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, database.Migrate(t.Context(), pool))
	return fixture{t, New(pool), pool}
}

func (f fixture) webhook(id string, enabled bool) {
	f.Helper()
	f.exec("INSERT INTO webhooks (id, site_id, url, enabled) VALUES ($1, 1, 'https://example.com/', $2)", id, enabled)
}

func (f fixture) exec(sql string, args ...any) int64 {
	f.Helper()
	tag, err := f.pool.Exec(f.Context(), sql, args...)
	require.NoError(f, err)
	return tag.RowsAffected()
}

func value[V any](f fixture, sql string, args ...any) (v V) {
	f.Helper()
	require.NoError(f, f.pool.QueryRow(f.Context(), sql, args...).Scan(&v))
	return v
}

// record writes outcomes and returns how many took effect.
func (f fixture) record(outcomes ...Outcome) int {
	f.Helper()
	n, err := f.Record(f.Context(), outcomes, nil)
	require.NoError(f, err)
	return n
}

func fresh(id, webhookID string) Outcome {
	return Outcome{
		Delivery: Delivery{ID: id, Slot: slot, SiteID: 1, WebhookID: webhookID, TriggerID: "tr_1", Type: "visitor_spike.fired", Payload: []byte(`{"a":"é"}`), TraceContext: "00-1"},
		Status:   Waiting, NextAttemptAt: time.Now().Add(-time.Second),
	}
}

// attempted is what a claimed row becomes after an attempt.
func attempted(c Claim, s Status, next time.Time, code int) Outcome {
	c.Delivery.LastError = fmt.Sprint("answered ", code)
	return Outcome{Delivery: c.Delivery, Stored: true, Status: s, NextAttemptAt: next, Attempt: attempt(code)}
}

func attempt(code int) *Attempt {
	return &Attempt{StartedAt: time.Now(), Duration: 1500 * time.Microsecond, RequestHeaders: `{"A":"b"}`, StatusCode: code, ResponseHeaders: `{"C":"d"}`, ResponseBody: "é", Timings: `{"dns":1}`, Error: "e"}
}

func wanted(rows int) Wanted { return Wanted{Rows: rows, PerWebhook: 1000, Lease: time.Minute} }

func (f fixture) claim(w Wanted) []Claim {
	f.Helper()
	claims, _, err := f.Claim(f.Context(), w)
	require.NoError(f, err)
	return claims
}

func TestRecordWritesADeliveryAndItsAttempt(t *testing.T) {
	f := newFixture(t)
	o := fresh("msg_1", "wh_1")
	o.Status, o.NextAttemptAt, o.Attempt = Delivered, time.Time{}, attempt(204)
	none := fresh("msg_2", "wh_1")
	none.TriggerID, none.Status, none.NextAttemptAt = "", Cancelled, time.Time{}
	silent := fresh("msg_3", "wh_1")
	silent.Attempt = attempt(0)
	silent.Attempt.ResponseHeaders = ""
	require.Equal(t, 3, f.record(o, none, silent))

	assert.True(t, value[bool](f, `SELECT (status, attempts, firing_ids, payload, trace_context, site_id, trigger_id) = ('delivered', 1, ARRAY['msg_1'], $1::bytea, '00-1', 1, 'tr_1')
		AND next_attempt_at IS NULL AND finished_at = created_at AND slot = $2 FROM deliveries WHERE id = 'msg_1'`, o.Payload, slot))
	assert.True(t, value[bool](f, `SELECT (number, duration_ms, status_code, response_body, error) = (1, 1.5, 204, 'é', 'e')
		AND (request_headers::text, response_headers::text, timings::text) = ('{"A":"b"}', '{"C":"d"}', '{"dns":1}') FROM attempts WHERE delivery_id = 'msg_1'`))
	assert.True(t, value[bool](f, `SELECT status = 'cancelled' AND attempts = 0 AND trigger_id IS NULL FROM deliveries WHERE id = 'msg_2'`))
	assert.True(t, value[bool](f, `SELECT status_code IS NULL AND response_headers IS NULL FROM attempts WHERE delivery_id = 'msg_3'`))
	assert.Equal(t, 2, value[int](f, "SELECT count(*) FROM attempts"))
}

func TestRecordTwiceIsRecordOnce(t *testing.T) {
	f := newFixture(t)
	o := fresh("msg_1", "wh_1")
	o.Attempt = attempt(500)
	require.Equal(t, 1, f.record(o))
	require.Equal(t, 0, f.record(o))
	claims := f.claim(wanted(10))
	require.Len(t, claims, 1)
	assert.Equal(t, 1, claims[0].Attempts)
	again := attempted(claims[0], Waiting, time.Now().Add(time.Hour), 500)
	require.Equal(t, 1, f.record(again))
	require.Equal(t, 0, f.record(again))
	assert.Equal(t, 2, value[int](f, "SELECT attempts FROM deliveries"))
	assert.Equal(t, 2, value[int](f, "SELECT count(*) FROM attempts"))
}

// TestStaleOutcomeIsRefused: who comes late changes nothing.
func TestStaleOutcomeIsRefused(t *testing.T) {
	f := newFixture(t)
	f.record(fresh("msg_1", "wh_1"))
	w := wanted(10)
	w.Lease = 0 // it runs out at once
	stale := f.claim(w)
	require.Len(t, stale, 1)
	current := f.claim(w)
	require.Len(t, current, 1)
	require.Equal(t, 1, f.record(attempted(current[0], Delivered, time.Time{}, 200)))
	require.Equal(t, 0, f.record(attempted(stale[0], Dead, time.Time{}, 500)))
	assert.Equal(t, "delivered", value[string](f, "SELECT status FROM deliveries"))
	assert.Equal(t, 200, value[int](f, "SELECT status_code FROM attempts"))

	f.exec("UPDATE deliveries SET status = 'waiting', finished_at = NULL, attempts = 5")
	require.Equal(t, 0, f.record(attempted(stale[0], Dead, time.Time{}, 500)), "another number of attempts")
}

// TestClaimersNeverShareARow, while many claim at the same time.
func TestClaimersNeverShareARow(t *testing.T) {
	f := newFixture(t)
	const rows = 400
	var outcomes []Outcome
	for i := range rows {
		outcomes = append(outcomes, fresh(fmt.Sprint("msg_", i), fmt.Sprint("wh_", i%7)))
	}
	require.Equal(t, rows, f.record(outcomes...))
	var mu sync.Mutex
	owners := map[string]int{}
	var claimers sync.WaitGroup
	for range 6 {
		claimers.Go(func() {
			for {
				claims, _, err := f.Claim(f.Context(), wanted(13))
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				for _, c := range claims {
					owners[c.ID]++
				}
				done := len(owners) == rows
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	claimers.Wait()
	for id, n := range owners {
		assert.Equal(t, 1, n, id)
	}
	assert.Empty(t, f.claim(wanted(10)))
}

func TestLeases(t *testing.T) {
	f := newFixture(t)
	f.record(fresh("msg_1", "wh_1"))
	first := f.claim(wanted(10))
	require.Len(t, first, 1)
	require.Empty(t, f.claim(wanted(10)), "the lease lives")
	f.exec("UPDATE deliveries SET claimed_until = now() - interval '1 ms'")
	second := f.claim(wanted(10))
	require.Len(t, second, 1, "the lease ran out")
	require.NoError(t, f.Release(t.Context(), first))
	require.Empty(t, f.claim(wanted(10)), "a lease that is another's by now is not released")
	require.NoError(t, f.Release(t.Context(), second))
	require.Len(t, f.claim(wanted(10)), 1)
	require.NoError(t, f.Release(t.Context(), nil))
}

func TestClaimsAreFairAndBounded(t *testing.T) {
	f := newFixture(t)
	var outcomes []Outcome
	for i := range 50 {
		o := fresh(fmt.Sprint("long_", i), "wh_long")
		o.NextAttemptAt = time.Now().Add(-time.Hour) // the oldest
		outcomes = append(outcomes, o)
	}
	for i := range 3 {
		outcomes = append(outcomes, fresh(fmt.Sprint("short_", i), "wh_short"), fresh(fmt.Sprint("full_", i), "wh_full"), fresh(fmt.Sprint("half_", i), "wh_half"))
	}
	later := fresh("later", "wh_short")
	later.NextAttemptAt = time.Now().Add(time.Hour)
	held := fresh("held", "wh_short")
	held.NextAttemptAt = time.Time{}
	f.record(append(outcomes, later, held)...)

	w := Wanted{Rows: 7, PerWebhook: 4, Taken: map[string]int{"wh_full": 4, "wh_half": 2}, Lease: time.Minute}
	claims, parked, err := f.Claim(t.Context(), w)
	require.NoError(t, err)
	assert.Len(t, claims, 7)
	of := map[string]int{}
	for _, c := range claims {
		of[c.WebhookID]++
	}
	assert.Equal(t, map[string]int{"wh_long": 3, "wh_short": 2, "wh_half": 2}, of, "each its turn, none beyond its share")

	heldOf := map[string]int{}
	for _, id := range parked {
		heldOf[id]++
	}
	assert.Equal(t, map[string]int{"wh_long": 46, "wh_full": 3, "wh_half": 1}, heldOf, "what its webhook has no place for waits for its webhook")
	assert.Equal(t, 51, value[int](f, "SELECT count(*) FROM deliveries WHERE status = 'waiting' AND next_attempt_at IS NULL AND claimed_until IS NULL"), "and is not looked at again")

	w.Rows, w.Taken = 1000, map[string]int{"wh_full": 4, "wh_half": 4, "wh_long": 3}
	claims = f.claim(w)
	assert.Len(t, claims, 2)
	assert.Empty(t, f.claim(w))
}

// TestGatedWebhooksAreNotClaimed: what comes due meanwhile waits for its webhook.
func TestGatedWebhooksAreNotClaimed(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"wh_open", "wh_half_open", "wh_limited", "wh_off", "wh_410"} {
		f.webhook(id, id != "wh_off")
		f.record(fresh("msg_"+id, id))
	}
	f.record(fresh("msg_removed", "wh_removed"))
	f.exec("UPDATE webhooks SET rate_limit_per_second = 1 WHERE id = 'wh_limited'")
	f.exec("INSERT INTO webhook_health (webhook_id, circuit_open_until) VALUES ('wh_open', now() + interval '1 hour'), ('wh_half_open', now())")
	f.exec("INSERT INTO webhook_health (webhook_id, disabled_at) VALUES ('wh_410', now())")
	claims, held, err := f.Claim(t.Context(), wanted(100))
	require.NoError(t, err)
	require.Len(t, claims, 1, "its outcome is that it is cancelled")
	assert.Equal(t, "wh_removed", claims[0].WebhookID)
	assert.ElementsMatch(t, []string{"wh_open", "wh_half_open", "wh_limited", "wh_off", "wh_410"}, held)
	assert.Equal(t, 5, value[int](f, "SELECT count(*) FROM deliveries WHERE next_attempt_at IS NULL"))
}

// hold stores n deliveries that wait for the webhook, numbered from 0 in the order of their slots.
func (f fixture) hold(webhookID string, n int) {
	f.Helper()
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i] = fresh(fmt.Sprintf("%s_%04d", webhookID, i), webhookID)
		outcomes[i].Slot, outcomes[i].NextAttemptAt = slot.Add(time.Duration(i-n)*time.Second), time.Time{}
	}
	require.Equal(f, n, f.record(outcomes...))
}

// claimHeld asks for one webhook; nil is that it gets no turn.
func (f fixture) claimHeld(webhookID string, room int) *Turn {
	f.Helper()
	turns, err := f.ClaimHeld(f.Context(), HeldWanted{Rooms: map[string]int{webhookID: room}, Lease: time.Minute, DrainRate: 50})
	require.NoError(f, err)
	if len(turns) == 0 {
		return nil
	}
	require.Len(f, turns, 1)
	return &turns[0]
}

func TestHeldAreClaimedInOrder(t *testing.T) {
	f := newFixture(t)
	f.webhook("wh_1", true)
	assert.Nil(t, f.claimHeld("wh_1", 5), "nothing is held")
	f.hold("wh_1", 10)
	var ids []string
	for _, room := range []int{3, 20} {
		for _, c := range f.claimHeld("wh_1", room).Claims {
			ids = append(ids, c.ID)
			assert.Equal(t, []byte(`{"a":"é"}`), c.Payload)
		}
	}
	require.Len(t, ids, 10)
	assert.IsNonDecreasing(t, ids)
	assert.Nil(t, f.claimHeld("wh_1", 5), "the leases live")
	f.exec("UPDATE deliveries SET claimed_until = now() - interval '1 ms' WHERE id = 'wh_1_0004'")
	require.Len(t, f.claimHeld("wh_1", 5).Claims, 1, "the lease ran out")

	f.webhook("wh_off", false)
	f.hold("wh_off", 1)
	assert.Nil(t, f.claimHeld("wh_off", 5))
	f.hold("wh_removed", 1)
	assert.Nil(t, f.claimHeld("wh_removed", 5))
}

// TestOneProbe: however many dispatchers ask, one request goes to a webhook whose circuit is half open.
func TestOneProbe(t *testing.T) {
	f := newFixture(t)
	f.webhook("wh_1", true)
	f.hold("wh_1", 10)
	f.exec("UPDATE webhooks SET updated_at = now() - interval '1 hour'")
	f.exec("INSERT INTO webhook_health (webhook_id, circuit_open_until) VALUES ('wh_1', now() + interval '1 hour')")
	open := f.claimHeld("wh_1", 5)
	require.NotNil(t, open)
	assert.Empty(t, open.Claims)
	assert.InDelta(t, time.Hour, open.Wait, float64(time.Minute))

	f.exec("UPDATE webhook_health SET circuit_open_until = now()")
	var mu sync.Mutex
	probes := 0
	var asking sync.WaitGroup
	for range 6 {
		asking.Go(func() {
			for range 5 {
				turns, err := f.ClaimHeld(f.Context(), HeldWanted{Rooms: map[string]int{"wh_1": 5}, Lease: time.Minute, DrainRate: 50})
				assert.NoError(t, err)
				mu.Lock()
				for _, turn := range turns {
					probes += len(turn.Claims)
					assert.True(t, turn.Probe || len(turn.Claims) == 0)
				}
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	assert.Equal(t, 1, probes)

	f.exec("UPDATE webhooks SET url = 'https://example.com/other', updated_at = now()")
	assert.Len(t, f.claimHeld("wh_1", 5).Claims, 1, "its owner changed it: that is worth another")
	assert.Empty(t, f.claimHeld("wh_1", 5).Claims)
}

// TestCircuitOpensForLonger: for as long as the webhook has been failing, from 5 s to 5 min.
func TestCircuitOpensForLonger(t *testing.T) {
	f := newFixture(t)
	f.webhook("wh_1", true)
	f.exec("UPDATE webhooks SET enabled_at = now() - interval '1 day'")
	open := func(failingFor, atLeast time.Duration) time.Duration {
		t.Helper()
		_, err := f.Record(t.Context(), nil, []Health{{WebhookID: "wh_1"}})
		require.NoError(t, err)
		require.True(t, value[bool](f, "SELECT circuit_open_until IS NULL FROM webhook_health"), "a success closes it")
		for _, at := range []time.Duration{failingFor, 0} {
			_, err := f.Record(t.Context(), nil, []Health{{WebhookID: "wh_1", FailedAt: time.Now().Add(-at), Opens: at == 0, AtLeast: atLeast}})
			require.NoError(t, err)
		}
		return time.Duration(value[float64](f, "SELECT extract(epoch FROM circuit_open_until - updated_at)::float8 FROM webhook_health") * float64(time.Second))
	}
	for _, c := range []struct{ failingFor, atLeast, want time.Duration }{
		{0, 0, 5 * time.Second},
		{time.Minute, 0, time.Minute},
		{time.Hour, 0, 5 * time.Minute},
		{0, 2 * time.Minute, 2 * time.Minute},
		{0, 24 * time.Hour, 5 * time.Minute},
	} {
		got := open(c.failingFor, c.atLeast)
		assert.GreaterOrEqual(t, got, c.want, "%v", c)
		assert.LessOrEqual(t, got, c.want*12/10+time.Second, "%v", c)
	}
	f.exec("DELETE FROM webhook_health")
	_, err := f.Record(t.Context(), nil, []Health{{WebhookID: "wh_1", FailedAt: time.Now(), Opens: true}})
	require.NoError(t, err)
	assert.True(t, value[bool](f, "SELECT circuit_open_until > now() FROM webhook_health"), "also as the first thing that is known of it")
	_, err = f.Record(t.Context(), nil, []Health{{WebhookID: "wh_1", FailedAt: time.Now()}})
	require.NoError(t, err)
	assert.True(t, value[bool](f, "SELECT circuit_open_until > now() FROM webhook_health"), "another failure leaves it open")
	_, err = f.Record(t.Context(), nil, []Health{{WebhookID: "wh_1", FailedAt: time.Now(), Closes: true}})
	require.NoError(t, err)
	assert.True(t, value[bool](f, "SELECT circuit_open_until IS NULL FROM webhook_health"), "a success did, before the failure that was written with it")
	_, err = f.Record(t.Context(), nil, []Health{{WebhookID: "wh_1", FailedAt: time.Now(), Opens: true}})
	require.NoError(t, err)
	openNow, halfOpen, err := f.Circuits(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []int{1, 0}, []int{openNow, halfOpen})
}

// TestRateIsShared: six who ask together get what one would get alone.
func TestRateIsShared(t *testing.T) {
	f := newFixture(t)
	const rate = 100.0
	f.webhook("wh_1", true)
	f.exec("UPDATE webhooks SET rate_limit_per_second = $1", rate)
	f.hold("wh_1", 200)
	var mu sync.Mutex
	got := 0
	var asking sync.WaitGroup
	started := value[time.Time](f, "SELECT clock_timestamp()")
	for range 6 {
		asking.Go(func() {
			for {
				turns, err := f.ClaimHeld(f.Context(), HeldWanted{Rooms: map[string]int{"wh_1": 7}, Lease: time.Minute, DrainRate: 50})
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				for _, turn := range turns {
					got += len(turn.Claims)
				}
				enough := got >= 100
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	asking.Wait()
	took := value[time.Time](f, "SELECT clock_timestamp()").Sub(started)
	assert.LessOrEqual(t, float64(got), 1+rate*(took+paceBurst).Seconds(), "in %s", took)

	// What gathered before the webhook was enabled is paced too.
	f.webhook("wh_back", true)
	f.hold("wh_back", 200)
	f.exec("UPDATE webhooks SET enabled_at = now() WHERE id = 'wh_back'")
	assert.Empty(t, f.claimHeld("wh_back", 200).Claims, "its row of health is made first")
	assert.LessOrEqual(t, len(f.claimHeld("wh_back", 200).Claims), 11)
	f.exec("UPDATE deliveries SET created_at = now() WHERE webhook_id = 'wh_back'")
	assert.Greater(t, len(f.claimHeld("wh_back", 200).Claims), 100, "what came later is not")
}

func TestLook(t *testing.T) {
	f := newFixture(t)
	f.webhook("wh_on", true)
	f.webhook("wh_off", false)
	f.webhook("wh_gone", true)
	f.webhook("wh_back", true)
	f.exec("INSERT INTO webhook_secrets (webhook_id, sealed, expires_at) VALUES ('wh_on', 'old', now() + interval '1 hour'), ('wh_on', 'expired', now() - interval '1 second')")
	f.exec("INSERT INTO webhook_secrets (webhook_id, sealed, created_at) VALUES ('wh_on', 'new', now() + interval '1 second')")
	f.exec("INSERT INTO webhook_health (webhook_id, failing_since, disabled_at) VALUES ('wh_gone', now(), now() + interval '1 second'), ('wh_back', NULL, now() - interval '1 hour')")
	f.record(fresh("msg_1", "wh_on"))

	keys := []Key{{"msg_1", slot}, {"msg_2", slot}, {"msg_1", slot.Add(time.Second)}}
	known, webhooks, err := f.Look(t.Context(), keys, []string{"wh_on", "wh_off", "wh_gone", "wh_back", "wh_none"})
	require.NoError(t, err)
	assert.Equal(t, map[Key]bool{keys[0]: true}, known)
	found := map[string]Webhook{}
	for _, w := range webhooks {
		found[w.ID] = w
	}
	require.Len(t, found, 4)
	assert.Equal(t, Webhook{ID: "wh_on", URL: "https://example.com/", Headers: []byte("{}"), TimeoutSeconds: 15, Enabled: true, Format: "standard", Sealed: [][]byte{[]byte("new"), []byte("old")}}, found["wh_on"])
	assert.False(t, found["wh_off"].Enabled)
	assert.False(t, found["wh_gone"].Enabled)
	assert.NotNil(t, found["wh_gone"].FailedAt)
	assert.True(t, found["wh_back"].Enabled, "a disabling older than the enabling does not count")

	known, webhooks, err = f.Look(t.Context(), keys[:1], nil)
	require.NoError(t, err)
	assert.Len(t, known, 1)
	assert.Empty(t, webhooks)
}

func TestHealth(t *testing.T) {
	f := newFixture(t)
	since := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	change := func(h ...Health) {
		t.Helper()
		_, err := f.Record(t.Context(), nil, h)
		require.NoError(t, err)
	}
	state := func() string {
		return value[string](f, "SELECT concat_ws(' ', failing_since = $1, disabled_at IS NOT NULL, disabled_reason) FROM webhook_health WHERE webhook_id = 'wh_1'", since)
	}
	change(Health{WebhookID: "wh_1", FailedAt: since, Error: "500"}, Health{WebhookID: "wh_2"})
	assert.Equal(t, "t f ", state())
	change(Health{WebhookID: "wh_1", FailedAt: time.Now()})
	assert.Equal(t, "t f ", state(), "the first failure counts")
	change(Health{WebhookID: "wh_1", FailedAt: time.Now(), Disable: "410"})
	assert.Equal(t, "t t 410", state())
	change(Health{WebhookID: "wh_1"})
	assert.Equal(t, "t 410", state(), "a success clears failing_since only")

	change(Health{WebhookID: "wh_1", FailedAt: since, Error: "500"})
	assert.Equal(t, "t t 410", state())
	f.webhook("wh_1", true) // enabled since
	change(Health{WebhookID: "wh_1", FailedAt: time.Now(), Error: "502"})
	assert.Equal(t, "f t 410", state(), "what was before it was enabled again does not count")
	assert.Equal(t, "502", value[string](f, "SELECT last_error FROM webhook_health WHERE webhook_id = 'wh_1' AND failed_at = failing_since"))
}

func TestSweeps(t *testing.T) {
	f := newFixture(t)
	for id, enabled := range map[string]bool{"wh_on": true, "wh_off": false, "wh_410": true, "wh_due": true} {
		f.webhook(id, enabled)
	}
	f.exec("INSERT INTO webhook_health (webhook_id, disabled_at) VALUES ('wh_410', now())")
	for _, webhook := range []string{"wh_on", "wh_off", "wh_410", "wh_removed", "wh_other"} {
		held, due, done := fresh("held_"+webhook, webhook), fresh("due_"+webhook, webhook), fresh("done_"+webhook, webhook)
		held.NextAttemptAt = time.Time{}
		done.Status, done.NextAttemptAt = Delivered, time.Time{}
		f.record(held, due, done)
	}
	f.record(fresh("due_wh_due", "wh_due"))
	f.exec("UPDATE deliveries SET claimed_until = now() + interval '1 minute' WHERE id = 'due_wh_removed'")

	removed, held, err := f.Survey(t.Context())
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"wh_other", "wh_removed"}, removed)
	assert.Equal(t, []string{"wh_on"}, held)
	f.exec("UPDATE webhooks SET enabled_at = now() WHERE id = 'wh_410'")
	_, held, err = f.Survey(t.Context())
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"wh_410", "wh_on"}, held)

	cancel := func(ids ...string) int64 {
		t.Helper()
		n, more, err := f.CancelRemoved(t.Context(), ids)
		require.NoError(t, err)
		require.False(t, more)
		return n
	}
	assert.EqualValues(t, 0, cancel("wh_on"))
	assert.EqualValues(t, 1, cancel("wh_removed"), "not the one that is being sent")
	assert.EqualValues(t, 2, cancel("wh_removed", "wh_other"))
	f.exec("UPDATE deliveries SET claimed_until = NULL WHERE id = 'due_wh_removed'")
	assert.EqualValues(t, 1, cancel("wh_removed"))
	assert.Equal(t, 4, value[int](f, "SELECT count(*) FROM deliveries WHERE status = 'cancelled' AND last_error = 'the webhook was removed' AND finished_at IS NOT NULL"))
}

func TestDataErrors(t *testing.T) {
	f := newFixture(t)
	bad := fresh("msg_1", "wh_1")
	bad.Attempt = attempt(500)
	bad.Attempt.ResponseBody = "a\x00b"
	_, err := f.Record(t.Context(), []Outcome{bad}, nil)
	assert.True(t, IsDataError(err), "%v", err)
	assert.Equal(t, 1, f.record(bad.Minimal()))
	assert.Equal(t, "a\x00b", bad.Attempt.ResponseBody, "the outcome itself is not changed")

	assert.False(t, IsDataError(nil))
	assert.False(t, IsDataError(context.DeadlineExceeded))
	assert.False(t, IsDataError(&pgconn.PgError{Code: "40P01"}), "a deadlock passes")
	assert.False(t, IsDataError(&pgconn.PgError{Code: "57P01"}), "a restart passes")
	assert.NoError(t, f.Ping(t.Context()))
	assert.NoError(t, f.Partitions(t.Context(), 2160*time.Hour))
}

// BenchmarkRecord is the cost of a row in batches of 250.
func BenchmarkRecord(b *testing.B) {
	pool, err := database.Open(b.Context(), "DATABASE_URL", devstacktest.Postgres(b), 2)
	require.NoError(b, err)
	defer pool.Close()
	require.NoError(b, database.Migrate(b.Context(), pool))
	s, rows := New(pool), 0
	for b.Loop() {
		outcomes := make([]Outcome, 250)
		for i := range outcomes {
			rows++
			outcomes[i] = fresh(fmt.Sprintf("msg_%026d", rows), "wh_1")
			outcomes[i].Payload = make([]byte, 615)
			outcomes[i].Status, outcomes[i].NextAttemptAt, outcomes[i].Attempt = Delivered, time.Time{}, attempt(200)
		}
		_, err := s.Record(b.Context(), outcomes, nil)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(rows), "us/row")
}

// BenchmarkClaim is the cost of looking for what may go, when nothing may, beside rows that are held
// for one webhook whose circuit is open. It is the same, however many they are.
func BenchmarkClaim(b *testing.B) {
	for _, held := range []int{0, 1_000, 200_000} {
		b.Run(fmt.Sprintf("held=%d", held), func(b *testing.B) {
			pool, err := database.Open(b.Context(), "DATABASE_URL", devstacktest.Postgres(b), 2)
			require.NoError(b, err)
			defer pool.Close()
			require.NoError(b, database.Migrate(b.Context(), pool))
			for _, sql := range []string{
				"INSERT INTO webhooks (id, site_id, url, updated_at) VALUES ('wh_1', 1, 'https://example.com/', now() - interval '1 hour')",
				"INSERT INTO webhook_health (webhook_id, circuit_open_until) VALUES ('wh_1', now() + interval '1 hour')",
				fmt.Sprintf(`INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, payload)
					SELECT 'msg_' || i, now(), 1, 'wh_1', '{}', 'visitor_spike.fired', 'waiting', '{}' FROM generate_series(1, %d) AS i`, held),
				"ANALYZE",
			} {
				_, err := pool.Exec(b.Context(), sql)
				require.NoError(b, err)
			}
			s := New(pool)
			for b.Loop() {
				claims, parked, err := s.Claim(b.Context(), wanted(64))
				require.NoError(b, err)
				require.Empty(b, claims)
				require.Empty(b, parked)
				turns, err := s.ClaimHeld(b.Context(), HeldWanted{Rooms: map[string]int{"wh_1": 16}, Lease: time.Minute, DrainRate: 50})
				require.NoError(b, err)
				for _, turn := range turns {
					require.Empty(b, turn.Claims)
				}
				_, _, err = s.Survey(b.Context())
				require.NoError(b, err)
			}
		})
	}
}
