package dispatcher

import (
	"context"
	"errors"
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

// claimDue sends waiting rows that are due, until ctx ends.
func (d *dispatcher) claimDue(ctx context.Context) {
	var pause backoff
	for ctx.Err() == nil {
		started := time.Now()
		found, err := d.claim(ctx)
		if err != nil {
			if ctx.Err() == nil {
				d.log.Warn("claim due deliveries", "error", err.Error())
				pause.wait(ctx)
			}
			continue
		}
		pause.reset()
		// Where a long queue makes the query slow, the database is left in peace for longer.
		again := max(claimAgain, 2*time.Since(started))
		if found == 0 {
			d.idle(ctx, claimPause)
		}
		sleep(ctx, again)
	}
}

// idle waits for a lane's spare place, for so long at most.
func (d *dispatcher) idle(ctx context.Context, longest time.Duration) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-d.spare:
	}
}

func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// claim takes as many due rows as there are places for, and sends them.
func (d *dispatcher) claim(ctx context.Context) (int, error) {
	free := d.due.takeAll(ctx, cap(d.due.free))
	if free == 0 {
		return 0, nil
	}
	used := 0
	defer func() { d.due.give(free - used) }()

	// A stop does not cut it off: the claim of a cancelled statement may be committed all the same,
	// and its rows would be nobody's until the lease runs out.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryTimeout)
	defer cancel()
	claims, err := d.store.Claim(bounded, postgres.Wanted{
		Rows: free, PerWebhook: d.config.WebhookConcurrency, InFlight: d.lanes.taken(), Lease: lease,
	})
	if err != nil || len(claims) == 0 {
		return 0, err
	}
	group, busy := d.take(claims)
	webhooks, err := d.load(bounded, group)
	for _, dl := range group {
		if err != nil {
			d.inFlight.remove(dl)
			busy = append(busy, *dl.claim)
			continue
		}
		used++
		d.metrics.claimed.Inc()
		dl.webhook = webhooks[dl.WebhookID]
		d.crew.do(func() { d.dispatch(ctx, dl) })
	}
	// If this fails too, the leases run out.
	return used, errors.Join(err, d.store.Release(bounded, busy))
}

// take makes deliveries of claims. Those that this process is still busy with, because their
// outcome was committed a moment ago, are left for the next time.
func (d *dispatcher) take(claims []postgres.Claim) (group []*delivery, busy []postgres.Claim) {
	for _, c := range claims {
		dl := &delivery{Delivery: c.Delivery, claim: &c}
		if d.inFlight.add(dl) {
			group = append(group, dl)
		} else {
			busy = append(busy, c)
		}
	}
	return group, busy
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
