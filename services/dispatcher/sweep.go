package dispatcher

import (
	"context"
	"sync"
	"time"
)

const (
	// sweepEvery is how soon a change of a webhook reaches what waits for it, if its
	// announcement got lost.
	sweepEvery = 15 * time.Second

	partitionEvery = time.Hour
)

// announced are ids, of webhooks that changed or of commands, that were announced and not yet looked after.
type announced struct {
	mu    sync.Mutex
	ids   map[string]bool
	added chan struct{}
}

func newAnnounced() *announced {
	return &announced{ids: map[string]bool{}, added: make(chan struct{}, 1)}
}

func (c *announced) add(id string) {
	c.mu.Lock()
	c.ids[id] = true
	c.mu.Unlock()
	select {
	case c.added <- struct{}{}:
	default:
	}
}

func (c *announced) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.ids))
	for id := range c.ids {
		ids = append(ids, id)
	}
	clear(c.ids)
	return ids
}

// sweep finds what is held for webhooks that may get it, such as those that were enabled again, or
// whose dispatcher died, and cancels what waits for a webhook that was removed: at once where a
// change was announced, else periodically.
func (d *dispatcher) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var ids []string // the first time, all
	for {
		d.sweepOnce(ctx, ids)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			ids = nil
			d.webhooks.expire()
			d.breakers.expire()
		case <-d.changes.added:
			ids = d.changes.take()
		}
	}
}

func (d *dispatcher) sweepOnce(ctx context.Context, ids []string) {
	removed := ids // as far as we know
	if ids != nil {
		d.backlog.changed(ids...)
	} else {
		removed = d.survey(ctx)
	}
	wake(d.mayGo)
	for more := len(removed) > 0; more; {
		bounded, cancel := context.WithTimeout(ctx, tryTimeout)
		n, again, err := d.store.CancelRemoved(bounded, removed)
		cancel()
		more = again && err == nil
		switch {
		case err != nil && ctx.Err() == nil:
			d.log.Warn("sweep", "error", err.Error()) // the next one repeats it
		case n > 0:
			d.log.Info("sweep", "event", "deliveries_cancelled", "rows", n)
		}
	}
}

// survey looks for what waits for its webhook, and returns the webhooks that were removed.
func (d *dispatcher) survey(ctx context.Context) []string {
	bounded, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	removed, held, err := d.store.Survey(bounded)
	d.backlog.add(held...)
	if err == nil {
		var open, halfOpen int
		open, halfOpen, err = d.store.Circuits(bounded)
		d.metrics.circuits.WithLabelValues("open").Set(float64(open))
		d.metrics.circuits.WithLabelValues("half_open").Set(float64(halfOpen))
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("sweep", "error", err.Error()) // the next one repeats it
	}
	return removed
}

// partition keeps the partitions of our tables, so that rows find theirs and retention drops
// whole tables, and removes what is old from those that have none.
func (d *dispatcher) partition(ctx context.Context) {
	tick := time.NewTicker(partitionEvery)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		for _, keep := range []func(context.Context, time.Duration) error{d.store.Partitions, d.store.ForgetCommands, d.store.ForgetEvents} {
			if err := keep(bounded, d.config.Retention); err != nil && ctx.Err() == nil {
				d.log.Warn("retention", "error", err.Error()) // rows go to the default partition meanwhile
			}
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
