package dispatcher

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
)

// impatient lets the stream deliver again after 3 s, not AckWait, what was on its way when it
// went down, and what it did not hear the acknowledgement of.
func (w *world) impatient() {
	ctx, cancel := context.WithTimeout(w.Context(), time.Second)
	defer cancel()
	consumer, err := w.js.Consumer(ctx, stream.Firings, stream.Dispatcher)
	if err != nil || consumer.CachedInfo().Config.AckWait < stream.AckWait {
		return
	}
	config := consumer.CachedInfo().Config
	config.AckWait = 3 * time.Second
	_, _ = w.js.UpdateConsumer(ctx, stream.Firings, config)
}

// TestOutages: the servers go away and come back in the middle of the work. Nothing is lost,
// and what the receiver did is not charged twice.
func TestOutages(t *testing.T) {
	w, stack := newWorldOn(t)
	r := newReceiver(t, func(http.ResponseWriter, *http.Request) { time.Sleep(2 * time.Millisecond) })
	ids := []string{w.webhook(r.URL, options{}), w.webhook(r.URL, options{}), w.webhook(r.URL, options{})}
	d := w.start()
	var fs []triggerFiring
	send := func(n int) { // and again, as the evaluator does, until the stream has it
		for i := range n {
			f := firing(ids[i%len(ids)])
			w.eventually(func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := w.js.PublishMsg(ctx, stream.Encode(f))
				return err == nil
			}, "the stream takes %s", f.ID)
			fs = append(fs, f)
		}
	}
	all := func() bool {
		w.impatient()
		var n int
		err := w.pool.QueryRow(t.Context(), "SELECT count(*) FROM deliveries WHERE status = 'delivered'").Scan(&n)
		return err == nil && n == len(fs)
	}

	send(300)
	require.NoError(t, stack.RestartNATS(t.Context()))
	send(300)
	w.eventually(all, "all are delivered after the restart of NATS; logs:\n%s", w.logs)

	send(300)
	require.NoError(t, stack.KillPostgres())
	send(300) // they pile up: sent as far as there are places, recorded when Postgres is back
	require.NoError(t, stack.RestartPostgres(t.Context()))
	w.eventually(all, "all are delivered after the crash of Postgres; logs:\n%s", w.logs)

	require.NoError(t, stack.KillPostgres())
	send(5)
	require.NoError(t, stack.RestartPostgres(t.Context()))
	w.eventually(all, "all are delivered; logs:\n%s", w.logs)
	w.settled()

	require.NoError(t, d.stop())
	assert.Zero(t, w.count("attempts <> 1"), "one attempt each")
	twice := 0
	for _, n := range r.times() {
		twice += n - 1
	}
	assert.Zero(t, twice, "the process lived on, so nothing was sent twice")
}
