package dispatcher

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

var (
	success  = verdict{decision: delivered}
	failure  = verdict{decision: retry}
	overload = verdict{decision: retry, overloaded: true}
)

func TestFailuresInARowTrip(t *testing.T) {
	b := newBreakers(16)
	for range 3 {
		for range tripAfter - 1 {
			assert.False(t, b.note("wh_1", failure))
		}
		assert.False(t, b.note("wh_1", success), "in a row, not in all")
	}
	for range tripAfter - 1 {
		assert.False(t, b.note("wh_1", failure))
		assert.False(t, b.note("wh_2", failure), "each webhook counts for itself")
	}
	assert.True(t, b.note("wh_1", failure))
	assert.True(t, b.note("wh_1", verdict{decision: dead}), "and it stays so until a success")
	assert.False(t, b.note("wh_1", success))
	assert.False(t, b.note("wh_1", failure))
	assert.True(t, newBreakers(16).note("wh_1", verdict{decision: retry, overloaded: true, putOff: time.Second}), "what was asked for is done at once")
}

func TestOverloadNarrowsTheLane(t *testing.T) {
	b := newBreakers(16)
	require.Equal(t, 16, b.width("wh_1"))
	b.note("wh_1", failure)
	require.Equal(t, 16, b.width("wh_1"), "an error is not an overload")
	for _, want := range []int{8, 4, 2, 1, 1} {
		b.note("wh_1", overload)
		require.Equal(t, want, b.width("wh_1"))
	}
	require.Equal(t, 16, b.width("wh_2"))
	successes := 0
	for ; b.width("wh_1") < 16; successes++ {
		b.note("wh_1", success)
	}
	assert.InDelta(t, 16*16/2, successes, 16, "one place more for each round of successes")
	assert.Empty(t, b.troubled, "what is well is not remembered")
}

func TestTroubleIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreakers(16)
		b.note("wh_1", overload)
		time.Sleep(forgetAfter / 2)
		b.note("wh_2", failure)
		b.expire()
		require.Len(t, b.troubled, 2)
		time.Sleep(forgetAfter/2 + time.Second)
		b.expire()
		require.Len(t, b.troubled, 1)
	})
}

func TestLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		width := 2
		l := newLanes(func(string) int { return width })
		ctx := t.Context()
		require.True(t, l.enter(ctx, "a", 0))
		require.True(t, l.enter(ctx, "a", 0))
		require.False(t, l.enter(ctx, "a", 0), "there is no third place")
		require.True(t, l.enter(ctx, "b", 0), "but one to another webhook")
		require.Equal(t, []int{0, 1, 2}, []int{l.room("a"), l.room("b"), l.room("c")})

		time.Sleep(congestion)
		began := time.Now()
		require.False(t, l.enter(ctx, "a", patience))
		require.Equal(t, patience, time.Since(began))
		began = time.Now()
		require.False(t, l.enter(ctx, "a", patience))
		require.Zero(t, time.Since(began), "nobody waits where somebody waited in vain")

		time.Sleep(congestion)
		var order []int
		for i := range 3 {
			go func() {
				if l.enter(ctx, "a", patience) {
					order = append(order, i)
				}
			}()
			synctest.Wait()
		}
		require.Equal(t, 0, l.room("a"))
		l.leave("a")
		synctest.Wait()
		require.Equal(t, []int{0}, order, "who came first goes first")
		width = 1
		l.leave("a")
		synctest.Wait()
		require.Equal(t, []int{0}, order, "a narrower lane lets nobody in until it is empty enough")
		for range 2 {
			l.leave("a")
			synctest.Wait()
		}
		require.Equal(t, []int{0, 1, 2}, order)
		l.leave("a")
		l.leave("b")
		require.Empty(t, l.byID)
		require.Empty(t, l.busy())
	})
}

func TestBacklogSharesThePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBacklog()
		rooms := map[string]int{"a": 16, "b": 16, "c": 1, "full": 0}
		room := func(id string) int { return rooms[id] }
		require.Empty(t, b.next(10, room).rooms)
		b.add("a", "b", "c", "full", "a")
		q := b.next(13, room)
		require.Equal(t, map[string]int{"a": 4, "b": 4, "c": 1}, q.rooms)
		b.learn(q, []postgres.Turn{
			{WebhookID: "a", Claims: make([]postgres.Claim, 4)},
			{WebhookID: "b", Wait: time.Minute},
		})
		require.False(t, b.has("c"), "nothing is held for it")
		require.True(t, b.has("full"), "it was not asked for")
		require.Equal(t, map[string]int{"a": 10}, b.next(10, room).rooms, "b must wait")
		require.Equal(t, time.Minute, b.soonest(time.Hour))
		b.add("b")
		require.NotContains(t, b.next(10, room).rooms, "b", "more of it changes nothing")
		b.changed("b")
		require.Contains(t, b.next(10, room).rooms, "b")

		q = b.next(10, room)
		b.add("a")
		b.changed("b")
		b.learn(q, []postgres.Turn{{WebhookID: "b", Wait: time.Hour}})
		require.True(t, b.has("a"), "what was held while it was being asked for is not forgotten")
		require.Contains(t, b.next(10, room).rooms, "b", "nor is a change")

		rooms["full"] = 16
		asked := map[string]bool{}
		for range 3 {
			for id, n := range b.next(1, room).rooms {
				require.Equal(t, 1, n)
				asked[id] = true
			}
		}
		require.Len(t, asked, 3, "each has its turn")

		q = b.next(30, room)
		q.shrink(11)
		sum := 0
		for _, n := range q.rooms {
			sum += n
		}
		require.Equal(t, 11, sum)
		require.Len(t, q.asked, len(q.rooms), "who is not asked for is not forgotten")
	})
}

// changed is what the api says after a change of a webhook.
func (w *world) changed(id string) {
	w.Helper()
	require.NoError(w, stream.Announce(w.nc, stream.ChangedWebhook, id))
}

// circuitOpen tells whether the webhook gets no request but probes.
func (w *world) circuitOpen(id string) (open bool) {
	w.Helper()
	require.NoError(w, w.pool.QueryRow(w.Context(), "SELECT EXISTS (SELECT FROM webhook_health WHERE webhook_id = $1 AND circuit_open_until IS NOT NULL)", id).Scan(&open))
	return open
}

// TestCircuit: a webhook that fails is left alone, at no cost to what waits for it; one request of
// one of the dispatchers finds out that it is well again.
func TestCircuit(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	id := w.webhook(r.URL, options{})
	first, second := w.start(), w.start()
	const n = 300
	w.publishN(n, id)
	w.eventually(func() bool { return w.circuitOpen(id) && w.count("status = 'waiting'") == n }, "the circuit opens, and all wait; logs:\n%s", w.logs)
	w.settled()
	tried := w.count("attempts = 1")
	assert.Equal(t, n-tried, w.count("attempts = 0 AND next_attempt_at IS NULL AND last_error = ''"), "the others cost no attempt")
	assert.Equal(t, tried, w.count("attempts = 1 AND next_attempt_at IS NOT NULL"), "retries keep their schedule")
	assert.Less(t, tried, n)
	assert.Positive(t, testutil.ToFloat64(first.metrics.circuitsOpened)+testutil.ToFloat64(second.metrics.circuitsOpened))

	// Retries that come due meanwhile wait with the others.
	release := make(chan struct{})
	r.answers(hold(release))
	w.exec("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
	w.exec("UPDATE webhook_health SET circuit_open_until = now()")
	before := len(r.got())
	w.changed(id)
	w.eventually(func() bool { return len(r.got()) == before+1 }, "a probe arrives")
	w.eventually(func() bool { return w.count("next_attempt_at IS NULL") == n }, "the retries wait too")
	assert.Len(t, r.got(), before+1, "no other request goes meanwhile")
	w.exec("UPDATE webhooks SET enabled_at = now() - interval '1 day'")
	close(release)
	w.eventually(func() bool { return w.count("status = 'delivered'") == n }, "all are delivered; logs:\n%s", w.logs)
	assert.False(t, w.circuitOpen(id))
	assert.Equal(t, n-tried, w.count("attempts = 1"))
	assert.Equal(t, tried, w.count("attempts = 2"))
}

// TestFailedProbe opens the circuit for longer, and costs one delivery one attempt.
func TestFailedProbe(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	id := w.webhook(r.URL, options{})
	w.exec("UPDATE webhooks SET enabled_at = now() - interval '1 day'")
	w.exec("INSERT INTO webhook_health (webhook_id, failing_since, failed_at, circuit_open_until) VALUES ($1, now() - interval '2 minutes', now(), now())", id)
	w.start()
	w.publishN(20, id)
	w.eventually(func() bool { return w.count("attempts = 1") == 1 && w.count("true") == 20 }, "one is tried")
	var seconds float64
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT extract(epoch FROM circuit_open_until - updated_at)::float8 FROM webhook_health WHERE webhook_id = $1", id).Scan(&seconds))
	assert.GreaterOrEqual(t, seconds, 120.0, "for as long as it has been failing")
	assert.Len(t, r.got(), 1)
}

// TestRetryAfterHoldsTheWebhook, and not only the delivery that was answered so.
func TestRetryAfterHoldsTheWebhook(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Retry-After", "120")
		out.WriteHeader(http.StatusTooManyRequests)
	})
	id := w.webhook(r.URL, options{})
	w.start()
	f := w.publish(firing(id))[0]
	w.becomes(f.ID, "waiting", 1)
	other := w.publish(firing(id))[0]
	row := w.becomes(other.ID, "waiting", 0)
	assert.Nil(t, row.Next)
	var seconds float64
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT extract(epoch FROM circuit_open_until - updated_at)::float8 FROM webhook_health WHERE webhook_id = $1", id).Scan(&seconds))
	assert.GreaterOrEqual(t, seconds, 120.0)
	assert.Len(t, r.got(), 1)
}
