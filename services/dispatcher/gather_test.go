package dispatcher

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// batching is a webhook that wants batches.
func (w *world) batching(url string, size int, wait time.Duration, o options) string {
	w.Helper()
	id := w.webhook(url, o)
	w.exec("UPDATE webhooks SET batch_max_size = $2, batch_max_wait_seconds = $3 WHERE id = $1", id, size, int(wait.Seconds()))
	w.changed(id)
	return id
}

// brought are the ids of the firings in each batch that the receiver got, in the order in which they
// arrived, and how many copies of each firing there are among batches of different ids.
func brought(t *testing.T, r *receiver) (batches [][]string, times map[string]int) {
	times = map[string]int{}
	seen := map[string]bool{}
	for _, got := range r.got() {
		var m struct {
			Type string `json:"type"`
			Data struct {
				Messages []struct {
					Data struct {
						ID string `json:"id"`
					} `json:"data"`
				} `json:"messages"`
			} `json:"data"`
		}
		require.NoError(t, json.Unmarshal(got.Body, &m))
		require.Equal(t, "batch", m.Type)
		if seen[got.id()] {
			continue
		}
		seen[got.id()] = true
		var ids []string
		for _, one := range m.Data.Messages {
			ids = append(ids, one.Data.ID)
			times[one.Data.ID]++
		}
		batches = append(batches, ids)
	}
	return batches, times
}

// TestBatches: firings go together, as many as the owner wants, and none waits for longer than that.
func TestBatches(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.batching(r.URL, 10, 2*time.Second, options{})
	w.start()
	w.start()
	began := time.Now()
	firings := w.publishN(95, id)
	w.settled()
	w.eventually(func() bool { return w.count("status = 'delivered'") >= 10 }, "nine batches, and the rest; logs:\n%s", w.logs)
	batches, times := brought(t, r)
	assert.Len(t, times, len(firings))
	for _, f := range firings {
		assert.Equal(t, 1, times[f.ID], f.ID)
		assert.Equal(t, 1, w.count("id = $1 AND status = 'batched' AND batch_id IN (SELECT id FROM deliveries WHERE status = 'delivered' AND $1 = ANY(firing_ids))", f.ID))
	}
	full := 0
	for _, b := range batches {
		assert.LessOrEqual(t, len(b), 10)
		if len(b) == 10 {
			full++
		}
	}
	assert.Equal(t, 9, full, "%v", batches)
	assert.GreaterOrEqual(t, time.Since(began), 2*time.Second, "the last five waited for others")
	assert.Zero(t, w.count("status = 'gathering'"))

	// A copy of a firing that was batched long ago changes nothing.
	w.publish(firings[0])
	w.settled()
	assert.Len(t, r.got(), len(batches))
}

// TestABatchIsADelivery: it is retried with the same id and the same body, and waits where others wait.
func TestABatchIsADelivery(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	id := w.batching(r.URL, 3, time.Minute, options{})
	w.start()
	firings := w.publishN(3, id)
	var batch string
	w.eventually(func() bool {
		return w.pool.QueryRow(t.Context(), "SELECT id FROM deliveries WHERE type = 'batch' AND attempts = 1").Scan(&batch) == nil
	}, "a failed attempt; logs:\n%s", w.logs)
	r.answers(status(200))
	w.hurry(batch)
	w.becomes(batch, "delivered", 2)
	got := r.got()
	require.Len(t, got, 2)
	assert.Equal(t, got[0].Body, got[1].Body)
	assert.Equal(t, got[0].id(), got[1].id())
	assert.Equal(t, 3, w.count("batch_id = $1 AND status = 'batched'", batch))
	assert.Nil(t, w.row(firings[0].ID).Next)

	// While it is off, its firings are kept together all the same.
	w.exec("UPDATE webhooks SET enabled = false WHERE id = $1", id)
	w.changed(id)
	w.publishN(4, id)
	w.eventually(func() bool { return w.count("type = 'batch' AND status = 'waiting' AND next_attempt_at IS NULL") == 1 }, "a batch is held")
	assert.Equal(t, 1, w.count("status = 'gathering'"))

	// Without batches, what gathered goes by itself.
	w.exec("UPDATE webhooks SET enabled = true, enabled_at = now(), batch_max_size = NULL, batch_max_wait_seconds = NULL WHERE id = $1", id)
	w.changed(id)
	w.exec("UPDATE deliveries SET created_at = now() - interval '5 minutes' WHERE status = 'gathering'")
	w.publishN(1, id)
	w.start() // its first sweep finds what gathers
	w.eventually(func() bool {
		return w.count("status = 'delivered'") == 4 && w.count("status IN ('waiting', 'gathering')") == 0
	}, "all are delivered; logs:\n%s", w.logs)
}

// TestABatchOutlivesADispatcher: whenever it dies, each firing is in one batch.
func TestABatchOutlivesADispatcher(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.batching(r.URL, 5, time.Second, options{})
	dies := make(chan struct{}, 1)
	first := w.start(func(d *dispatcher) {
		d.beforeCommit = func(batch []outcome) bool {
			for _, o := range batch {
				if o.delivery.Type == batchType { // sent, and not recorded
					wake(dies)
					return false
				}
			}
			return true
		}
	})
	firings := w.publishN(12, id)
	<-dies
	require.NoError(t, first.stop())
	w.exec("UPDATE deliveries SET claimed_until = now() WHERE claimed_until IS NOT NULL") // its leases run out
	w.start()
	w.eventually(func() bool {
		return w.count("status = 'batched'") == len(firings) && w.count("status = 'waiting'") == 0
	}, "all are delivered; logs:\n%s", w.logs)
	_, times := brought(t, r)
	assert.Len(t, times, len(firings))
	for id, n := range times {
		assert.Equal(t, 1, n, "%s is in one batch", id)
	}
}

// TestRemovedWhileGathering: what gathered for a webhook that was removed ends with it.
func TestRemovedWhileGathering(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.batching(r.URL, 50, time.Second, options{})
	w.start()
	w.publishN(3, id)
	w.settled()
	w.exec("DELETE FROM webhooks WHERE id = $1", id)
	w.changed(id)
	w.eventually(func() bool { return w.count("status = 'cancelled' AND last_error = 'the webhook was removed'") == 3 }, "they are cancelled; logs:\n%s", w.logs)
	assert.Empty(t, r.got())
}

// TestMessagesThatAreNoJSONGoAlone: they could not stand in a document with others.
func TestMessagesThatAreNoJSONGoAlone(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	id := w.batching(r.URL, 2, time.Minute, options{})
	w.start()
	f := firing(id)
	f.Payload = []byte("{not json}")
	w.publish(f)
	w.becomes(f.ID, "delivered", 1)
	assert.Equal(t, "{not json}", string(r.got()[0].Body))
}

func TestComposedBatchesAreBounded(t *testing.T) {
	of := func(size int) []byte { return fmt.Appendf(nil, "%q", strings.Repeat("x", size-2)) }
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var gathered []postgres.Delivery
	for i := range 5 {
		gathered = append(gathered, postgres.Delivery{ID: string(rune('a' + i)), Slot: at.Add(time.Duration(i) * time.Minute), Payload: of(maxBatchBytes / 2)})
	}
	b := compose("wh_1")(gathered, at)
	assert.Equal(t, 2, b.Firings)
	assert.Equal(t, at.Add(time.Minute), b.Slot)
	assert.Equal(t, b.ID, compose("wh_1")(gathered[:1], at.Add(time.Hour)).ID, "whatever else is in it, and whenever it is made")
	gathered[0].Payload = of(2 * maxBatchBytes)
	assert.Equal(t, 1, compose("wh_1")(gathered, at).Firings, "a large one goes, by itself")
}
