package dispatcher

import (
	"context"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// A recovery is a row that says how far it is. Whichever dispatcher finds it due takes its next step,
// one transaction, and no dispatcher owns it: any of them may die at any time.

const (
	// recoverIdle is how soon a recovery that another dispatcher left is taken up.
	recoverIdle = 5 * time.Second
	// recoverPause is how soon a cancelled one ends.
	recoverPause = time.Second
	// recoverAgain is for how long one whose step failed lets others go before it.
	recoverAgain = 5 * time.Second
)

// pace: a batch makes due what may go within a second, so a cancelled recovery has no more than that
// under way.
var pace = postgres.Pace{Rate: 50, Span: time.Second, Count: 10 * time.Second}

// recover takes steps of recoveries, until ctx ends.
func (d *dispatcher) recover(ctx context.Context) {
	var failed backoff
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, tryTimeout)
		step, err := d.store.Recover(bounded, pace)
		wait := time.Duration(0)
		if err == nil && step.CommandID == "" {
			wait, err = d.store.UntilNextBatch(bounded, recoverIdle)
			if wait < recoverIdle { // one runs: it may be cancelled, or be another dispatcher's right now
				wait = min(max(wait, 50*time.Millisecond), recoverPause)
			}
		}
		cancel()
		switch {
		case err != nil:
			if ctx.Err() == nil {
				d.recoveryFailed(ctx, step, err)
				failed.wait(ctx)
			}
			continue
		case step.Made > 0:
			d.announce(step.WebhookID)
			wake(d.madeDue)
		case step.CommandID != "" && step.Status != "running":
			d.log.Info("command", "event", "command", "command_id", step.CommandID, "kind", stream.RecoverCommand,
				"webhook_id", step.WebhookID, "status", step.Status)
		}
		failed.reset()
		if wait > 0 {
			d.awaitRecovery(ctx, wait)
		}
	}
}

// awaitRecovery waits for so long, or until one begins.
func (d *dispatcher) awaitRecovery(ctx context.Context, longest time.Duration) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-d.recoveries:
	}
}

// recoveryFailed ends the recovery if it cannot go on, and else lets others go first.
func (d *dispatcher) recoveryFailed(ctx context.Context, step postgres.Step, err error) {
	d.log.Warn("recover deliveries", "command_id", step.CommandID, "error", err.Error())
	if step.CommandID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if postgres.IsDataError(err) {
		err = d.store.FailCommand(ctx, step.CommandID, "it cannot be stored")
	} else {
		err = d.store.PostponeRecovery(ctx, step.CommandID, recoverAgain)
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("recover deliveries", "command_id", step.CommandID, "error", err.Error())
	}
}
