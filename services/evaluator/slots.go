package evaluator

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// closedSlot is the newest slot whose rows should be visible at the given time.
func closedSlot(now time.Time, interval, delay time.Duration) time.Time {
	return now.Add(-delay).Truncate(interval).UTC()
}

// longestRetry bounds the wait for another attempt after failures. It is short enough for conditions of
// minutes, and long enough that an ailing database is not asked for everything again each second.
const longestRetry = time.Minute

// retryAfter is how long to wait after so many failures in a row: twice as long after each.
func retryAfter(first time.Duration, failures int) time.Duration {
	return min(first<<min(failures-1, 16), longestRetry)
}

// run evaluates every slot of the shards that this replica holds once it is closed by
// ClickHouse's clock, until ctx ends. Slots that passed while nobody could evaluate are counted,
// never bunched: the newest one is evaluated, and facts of the gap are found by it. wake is
// called when the outbox may have rows.
func (e *evaluator) run(ctx context.Context, wake func()) error {
	var next time.Time // when a slot will be closed; zero: look now
	failures := 0      // in a row
	for ctx.Err() == nil {
		grown, err := e.shards.balance(ctx)
		if err == nil {
			err = e.shards.restore(ctx)
		}
		if grown { // their last owner may have left firings in the outbox, and a slot behind
			wake()
			next = time.Time{}
		}
		if err == nil && len(e.shards.held) > 0 && !time.Now().Before(next) {
			next, err = e.turn(ctx, wake)
			tidy()
		}
		wait := e.shards.terms.look
		switch {
		case err == nil:
			failures = 0
			if len(e.shards.held) > 0 {
				wait = max(min(wait, time.Until(next)), 10*time.Millisecond)
			}
		case !errors.Is(err, postgres.ErrFenced) && ctx.Err() == nil:
			failures++
			wait = retryAfter(wait, failures)
			e.metrics.slots.WithLabelValues("failed").Inc()
			e.log.Warn("the slot was not evaluated, it is tried again", "event", "slot", "error", err.Error())
			e.system.slotFailed(ctx, closedSlot(time.Now(), e.interval, e.delay), err)
			e.shards.doubt()
		}
		pause(ctx, wait)
	}
	return nil
}

// How much garbage may gather beside what lives: twice what a slot of 10,000 triggers leaves behind, as a collection
// begins well before there is so much, or of more a quarter of what lives. So much memory is kept for the next slot, too.
const (
	slotGarbage    = 20 << 20
	garbagePercent = 25
)

// tidy collects what a slot has left behind while there is time for it, so that the next one is not held up by
// that. Memory that was given back to the system costs the next slot a page fault for each 4 KB. 10,000 triggers leave
// 10 MB and 50,000 leave 15, which are kept; what norms leave once an hour goes back. Where GOGC is set, it says when else to
// collect.
func tidy() {
	runtime.GC()
	heap := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	rtmetrics.Read(heap)
	if heap[1].Value.Uint64() > slotGarbage {
		debug.FreeOSMemory()
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(max(garbagePercent, int(100*slotGarbage/max(heap[0].Value.Uint64(), 1))))
	}
}

// turn evaluates the newest closed slot for the shards that have not seen it yet, and tells when
// the next one will be closed.
func (e *evaluator) turn(ctx context.Context, wake func()) (next time.Time, err error) {
	now, newest, err := e.events.Now(ctx)
	if err != nil {
		return time.Time{}, err
	}
	answered := time.Now()
	slot := closedSlot(now, e.interval, e.delay)
	e.ingestion.observe(ctx, slot, newest)
	if due, since := e.shards.due(slot); len(due) > 0 {
		if missed := slot.Sub(since)/e.interval - 1; missed > 0 && !since.IsZero() {
			e.metrics.missed.Add(float64(missed))
		}
		firings, err := e.evaluate(ctx, slot)
		if err != nil {
			return time.Time{}, err
		}
		e.system.slotEvaluated(ctx, slot)
		if firings > 0 {
			wake()
		}
	}
	return answered.Add(slot.Add(e.interval + e.delay).Sub(now)), nil
}
