package dispatcher

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

const (
	// lease is how long a claimed row is ours. It exceeds the longest attempt (30 s), its wait
	// for a lane and its recording; after a crash, so long passes until another takes it.
	lease = 2 * time.Minute

	// claimPause is how often due rows are looked for: the shortest wait of a retry is 4 s.
	claimPause = 500 * time.Millisecond
	// claimAgain is the pause after a claim that found something, or when a lane got a place.
	claimAgain = 5 * time.Millisecond
)

// claimWaiting sends waiting rows whose time has come, or that their webhook is ready for, until
// ctx ends.
func (d *dispatcher) claimWaiting(ctx context.Context) {
	var pause backoff
	var nextLook time.Time // for due rows
	for ctx.Err() == nil {
		started := time.Now()
		free := d.due.takeAll(ctx, 1)
		if free == 0 {
			return
		}
		held := d.backlog.next(free, d.lanes.room)
		due, more, err := 0, false, error(nil)
		if !started.Before(nextLook) {
			wanted := free
			if len(held.rooms) > 0 { // neither starves the other
				wanted = (free + 1) / 2
			}
			if due, more, err = d.claimDue(ctx, wanted); err == nil && !more {
				nextLook = started.Add(claimPause)
			}
		}
		took := 0
		if err == nil {
			took, err = d.claimHeld(ctx, held, free-due)
		}
		d.due.give(free - due - took)
		if err != nil {
			if ctx.Err() == nil {
				d.log.Warn("claim waiting deliveries", "error", err.Error())
				pause.wait(ctx)
			}
			continue
		}
		pause.reset()
		// Where the database is slow, it is left in peace for longer.
		again := max(claimAgain, time.Since(started))
		if !more && took == 0 {
			if d.idle(ctx, d.backlog.soonest(time.Until(nextLook))) {
				nextLook = time.Now()
			}
		}
		sleep(ctx, again)
	}
}

// idle waits until claiming is worth it, for so long at most. It tells whether rows were made due.
func (d *dispatcher) idle(ctx context.Context, longest time.Duration) (madeDue bool) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-d.mayGo:
	case <-d.madeDue:
		return true
	}
	return false
}

func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// A stop does not cut a claim off: that of a cancelled statement may be committed all the same,
// and its rows would be nobody's until the lease runs out.
func claiming(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), tryTimeout)
}

// claimDue sends due rows, as many as wanted at most. It tells whether there may be more.
func (d *dispatcher) claimDue(ctx context.Context, wanted int) (sent int, more bool, err error) {
	bounded, cancel := claiming(ctx)
	defer cancel()
	taken := map[string]int{}
	for _, id := range d.lanes.busy() {
		taken[id] = d.config.WebhookConcurrency - d.lanes.room(id)
	}
	claims, held, err := d.store.Claim(bounded, postgres.Wanted{
		Rows: wanted, PerWebhook: d.config.WebhookConcurrency, Taken: taken, Lease: lease,
	})
	if err != nil {
		return 0, false, err
	}
	d.metrics.held.Add(float64(len(held)))
	d.backlog.add(held...)
	slices.Sort(held)
	for _, webhookID := range slices.Compact(held) {
		d.announce(webhookID) // these have no next attempt any more
	}
	sent, err = d.send(ctx, bounded, deliveries(claims))
	return sent, len(claims) == wanted || len(held) > 0, err
}

// claimHeld sends what webhooks are ready for, limit at most.
func (d *dispatcher) claimHeld(ctx context.Context, q question, limit int) (sent int, err error) {
	q.shrink(limit)
	if len(q.rooms) == 0 {
		return 0, nil
	}
	bounded, cancel := claiming(ctx)
	defer cancel()
	turns, err := d.store.ClaimHeld(bounded, postgres.HeldWanted{Rooms: q.rooms, Lease: lease, DrainRate: d.config.DrainRate})
	if err != nil {
		return 0, err
	}
	d.backlog.learn(q, turns)
	var admitted []*delivery
	for _, t := range turns {
		for _, dl := range deliveries(t.Claims) {
			dl.admitted, dl.probe = true, t.Probe
			admitted = append(admitted, dl)
		}
	}
	return d.send(ctx, bounded, admitted)
}

func deliveries(claims []postgres.Claim) []*delivery {
	list := make([]*delivery, len(claims))
	for i, c := range claims {
		list[i] = &delivery{Delivery: c.Delivery, claim: &c}
	}
	return list
}

// send starts on claimed deliveries, and returns how many places they use. Those that this process
// is still busy with, because their outcome was committed a moment ago, are left for the next time.
func (d *dispatcher) send(ctx, bounded context.Context, claimed []*delivery) (int, error) {
	var group []*delivery
	var back []postgres.Claim
	for _, dl := range claimed {
		if d.inFlight.add(dl) {
			group = append(group, dl)
		} else {
			back = append(back, *dl.claim)
		}
	}
	webhooks, err := d.load(bounded, group)
	sent := 0
	for _, dl := range group {
		if err != nil {
			d.inFlight.remove(dl)
			back = append(back, *dl.claim)
			continue
		}
		sent++
		d.metrics.claimed.Inc()
		dl.webhook = webhooks[dl.WebhookID]
		d.crew.do(func() { d.dispatch(ctx, dl) })
	}
	for _, c := range back {
		d.backlog.add(c.WebhookID)
	}
	// If this fails too, the leases run out.
	return sent, errors.Join(err, d.store.Release(bounded, back))
}

// load finds the webhooks of a group, asking the database for those that the cache lacks.
func (d *dispatcher) load(ctx context.Context, group []*delivery) (map[string]*webhook, error) {
	found, absent := d.webhooks.get(group)
	if len(absent) == 0 {
		return found, nil
	}
	generation := d.webhooks.generation()
	rows, err := d.store.Webhooks(ctx, absent)
	if err != nil {
		return nil, err
	}
	d.adopt(rows, generation, found)
	return found, nil
}
