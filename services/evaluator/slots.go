package evaluator

import (
	"context"
	"errors"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// closedSlot is the newest slot whose rows should be visible at the given time.
func closedSlot(now time.Time, interval, delay time.Duration) time.Time {
	return now.Add(-delay).Truncate(interval).UTC()
}

// run evaluates every slot once it is closed by ClickHouse's clock, until ctx ends or the lease
// is found lost. Slots that passed while it could not evaluate are counted, never bunched:
// the newest one is evaluated, and facts of the gap are found by it.
func (e *evaluator) run(ctx context.Context, lease postgres.Lease, fired func()) error {
	certain := false // whether e's states are those of the database
	for ctx.Err() == nil {
		wait, err := time.Second, error(nil)
		if !certain {
			err = e.restore(ctx, lease)
			certain = err == nil
		}
		if certain {
			wait, err = e.turn(ctx, fired)
		}
		if errors.Is(err, postgres.ErrFenced) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			e.metrics.slots.WithLabelValues("failed").Inc()
			e.log.Warn("the slot was not evaluated, it is tried again", "event", "slot", "error", err.Error())
			wait, certain = time.Second, false // a commit may have succeeded although its answer was lost
		}
		pause(ctx, wait)
	}
	return nil
}

// turn evaluates the newest closed slot, if it was not evaluated yet, and tells how long to
// wait for the next one.
func (e *evaluator) turn(ctx context.Context, fired func()) (time.Duration, error) {
	now, err := e.events.Now(ctx)
	if err != nil {
		return 0, err
	}
	started := time.Now()
	slot := closedSlot(now, e.interval, e.delay)
	if slot.After(e.lastSlot) {
		if missed := slot.Sub(e.lastSlot)/e.interval - 1; missed > 0 && !e.lastSlot.IsZero() {
			e.metrics.missed.Add(float64(missed))
		}
		firings, err := e.evaluate(ctx, slot)
		if err != nil {
			return 0, err
		}
		if firings > 0 {
			fired()
		}
	}
	next := slot.Add(e.interval+e.delay).Sub(now) - time.Since(started)
	return max(next, 10*time.Millisecond), nil
}
