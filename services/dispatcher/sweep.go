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

// changes are the webhooks that were announced as changed and not yet looked after.
type changes struct {
	mu    sync.Mutex
	ids   map[string]bool
	added chan struct{}
}

func newChanges() *changes { return &changes{ids: map[string]bool{}, added: make(chan struct{}, 1)} }

func (c *changes) add(id string) {
	c.mu.Lock()
	c.ids[id] = true
	c.mu.Unlock()
	select {
	case c.added <- struct{}{}:
	default:
	}
}

func (c *changes) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.ids))
	for id := range c.ids {
		ids = append(ids, id)
	}
	clear(c.ids)
	return ids
}

// sweep lets what was held go on when its webhook is enabled again, and cancels what waits
// for a webhook that was removed: at once where it was announced, else periodically.
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
		case <-d.changes.added:
			ids = d.changes.take()
		}
	}
}

func (d *dispatcher) sweepOnce(ctx context.Context, ids []string) {
	for _, step := range []struct {
		name string
		run  func(context.Context, []string) (int64, bool, error)
	}{
		{"deliveries_released", d.store.ReleaseHeld},
		{"deliveries_cancelled", d.store.CancelRemoved},
	} {
		for more := true; more; {
			bounded, cancel := context.WithTimeout(ctx, tryTimeout)
			n, again, err := step.run(bounded, ids)
			cancel()
			more = again && err == nil
			switch {
			case err != nil && ctx.Err() == nil:
				d.log.Warn("sweep", "error", err.Error()) // the next one repeats it
			case n > 0:
				d.log.Info("sweep", "event", step.name, "rows", n)
			}
		}
	}
	select { // what was released is due
	case d.spare <- struct{}{}:
	default:
	}
}

// partition keeps the partitions of our tables, so that rows find theirs and retention drops
// whole tables.
func (d *dispatcher) partition(ctx context.Context) {
	tick := time.NewTicker(partitionEvery)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		if err := d.store.Partitions(bounded, d.config.Retention); err != nil && ctx.Err() == nil {
			d.log.Warn("partitions", "error", err.Error()) // rows go to the default one meanwhile
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
