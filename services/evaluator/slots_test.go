package evaluator

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func TestRetriesBackOff(t *testing.T) {
	var waits []time.Duration
	for failures := range 9 {
		waits = append(waits, retryAfter(time.Second, failures+1)/time.Second)
	}
	assert.Equal(t, []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}, waits)
	assert.Equal(t, time.Minute, retryAfter(time.Second, 1e9))
}

// running runs the slots of a bench on the real clock, with a short look, until what is returned is called.
func (b *bench) running() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var done sync.WaitGroup
	done.Go(func() { assert.NoError(b.t, b.evaluator.run(ctx, func() {})) })
	return func() { cancel(); done.Wait() }
}

func (b *bench) slots(result string) float64 {
	return testutil.ToFloat64(b.evaluator.metrics.slots.WithLabelValues(result))
}

func TestAFailingDatabaseIsLeftInPeace(t *testing.T) {
	b := newBench(t)
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	defer conn.Close()
	b.config.Interval = time.Second
	b.start()
	require.NoError(t, conn.Exec(t.Context(), "RENAME TABLE events_v2 TO away"))
	b.shards.terms.look = 20 * time.Millisecond
	stop := b.running()
	defer stop()
	time.Sleep(1500 * time.Millisecond) // waits of 20, 40, 80, 160, 320 and 640 ms
	require.NoError(t, conn.Exec(t.Context(), "RENAME TABLE away TO events_v2"))
	failed := b.slots("failed")
	assert.GreaterOrEqual(t, failed, 3.0)
	assert.LessOrEqual(t, failed, 7.0)
	require.Eventually(t, func() bool { return b.slots("evaluated") >= 3 }, 10*time.Second, 20*time.Millisecond)
	assert.InDelta(t, failed, b.slots("failed"), 1, "that was running")
}

// Slots that pass while a slow one is evaluated are counted, and not evaluated afterwards.
func TestSlotsAreSkippedNotBunched(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.VisitorSpikeType, `{"threshold": 100, "window_seconds": 60}`)
	b.config.Interval = time.Second
	var slow sync.Once
	b.start()
	b.evaluator, b.publisher = b.replica("bench", func(family string) {
		if family == "windows" {
			slow.Do(func() { time.Sleep(3300 * time.Millisecond) })
		}
	})
	require.True(t, b.shards.renewed(t.Context()))
	began := time.Now()
	stop := b.running()
	require.Eventually(t, func() bool { return b.slots("evaluated") >= 4 }, 15*time.Second, 10*time.Millisecond)
	took := time.Since(began)
	stop()
	missed := testutil.ToFloat64(b.evaluator.metrics.missed)
	assert.GreaterOrEqual(t, missed, 2.0)
	assert.LessOrEqual(t, missed, 4.0)
	assert.LessOrEqual(t, b.slots("evaluated")+missed, took.Seconds()+2, "none is made up for")
}
