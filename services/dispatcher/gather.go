package dispatcher

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// A firing for a webhook that wants batches is committed as a row that gathers, and its message is
// acknowledged. Whichever dispatcher finds enough of them, or one that has waited long enough, makes a
// delivery of them in one transaction; it is then sent, retried and recorded like any other.

const (
	// gatherPause is how often a webhook is looked at to which firings keep coming. A batch may wait for
	// so much longer than its owner wants.
	gatherPause = 100 * time.Millisecond
	// maxBatchBytes bounds what a batch's messages are together; a usual one is a kilobyte.
	maxBatchBytes = 1 << 20
	batchType     = "batch"
)

// gatherings are the webhooks for which firings gather, each with when to look at it.
type gatherings struct {
	mu   sync.Mutex
	byID map[string]time.Time
	// sooner hears that some webhook is to be looked at earlier than before.
	sooner chan struct{}
}

func newGatherings() *gatherings {
	return &gatherings{byID: map[string]time.Time{}, sooner: make(chan struct{}, 1)}
}

// look makes sure that the webhook is looked at after this pause at the latest.
func (g *gatherings) look(webhookID string, pause time.Duration) {
	at := time.Now().Add(pause)
	g.mu.Lock()
	defer g.mu.Unlock()
	if planned, known := g.byID[webhookID]; known && !at.Before(planned) {
		return
	}
	g.byID[webhookID] = at
	wake(g.sooner)
}

// due takes out the webhooks whose time has come, and tells how long it is until the next one's,
// longest at most.
func (g *gatherings) due(longest time.Duration) (ids []string, next time.Duration) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	next = longest
	for id, at := range g.byID {
		if wait := at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		ids = append(ids, id)
		delete(g.byID, id)
	}
	return ids, next
}

// gather makes batches until ctx ends. What it does not know of, because another dispatcher recorded
// it and died, it looks for from time to time.
func (d *dispatcher) gather(ctx context.Context) {
	var nextSweep time.Time
	for ctx.Err() == nil {
		if !time.Now().Before(nextSweep) {
			nextSweep = time.Now().Add(sweepEvery)
			d.findGatherings(ctx)
		}
		ids, wait := d.gatherings.due(time.Until(nextSweep))
		if len(ids) > 0 {
			d.batch(ctx, ids)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-d.gatherings.sooner:
		}
		timer.Stop()
	}
}

func (d *dispatcher) findGatherings(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	ids, err := d.store.FindGatherers(ctx)
	if err != nil && ctx.Err() == nil {
		d.log.Warn("look for gathering firings", "error", err.Error()) // the next sweep repeats it
	}
	for _, id := range ids {
		d.gatherings.look(id, 0)
	}
}

// batch makes what batches there can be for these webhooks, and plans when to look at them again.
func (d *dispatcher) batch(ctx context.Context, ids []string) {
	bounded, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	all, err := d.store.Gatherers(bounded, ids)
	if err != nil {
		d.postpone(ctx, ids, err)
		return
	}
	for _, g := range all {
		var err error
		switch {
		case g.Ends:
			err = d.scatter(bounded, g.WebhookID)
		case g.Ready:
			err = d.batchOne(bounded, g.WebhookID)
		default:
			d.gatherings.look(g.WebhookID, g.Wait)
		}
		if err != nil {
			d.postpone(ctx, []string{g.WebhookID}, err)
		}
	}
}

func (d *dispatcher) batchOne(ctx context.Context, webhookID string) error {
	made, err := d.store.Batch(ctx, webhookID, compose(webhookID))
	switch {
	case err != nil:
		return err
	case made:
		d.announce(webhookID) // its list shows the batch, and what is in it no longer
		wake(d.madeDue)
		d.gatherings.look(webhookID, 0) // there may be more
	default:
		d.gatherings.look(webhookID, gatherPause) // another dispatcher is at it
	}
	return nil
}

func (d *dispatcher) postpone(ctx context.Context, ids []string, err error) {
	if ctx.Err() == nil {
		d.log.Warn("batches wait", "webhooks", len(ids), "error", err.Error())
	}
	for _, id := range ids {
		d.gatherings.look(id, time.Second)
	}
}

// scatter sends one by one what gathered for a webhook that wants no batches any more.
func (d *dispatcher) scatter(ctx context.Context, webhookID string) error {
	more, err := d.store.Scatter(ctx, webhookID)
	if err != nil {
		return err
	}
	if more {
		d.gatherings.look(webhookID, 0)
	}
	d.backlog.changed(webhookID)
	d.changes.add(webhookID) // the sweep cancels what is held for one that was removed
	wake(d.mayGo)
	return nil
}

// compose makes a batch of as many firings as fit. Its id follows from its first one, which is in no
// other batch.
func compose(webhookID string) func([]postgres.Delivery, time.Time) postgres.Batch {
	return func(gathered []postgres.Delivery, now time.Time) postgres.Batch {
		var content struct {
			Messages []json.RawMessage `json:"messages"`
		}
		b := postgres.Batch{ID: trigger.FactID("msg_", batchType, webhookID, gathered[0].ID)}
		size := 0
		for _, dl := range gathered {
			if size += len(dl.Payload); size > maxBatchBytes && b.Firings > 0 {
				break
			}
			b.Firings++
			content.Messages = append(content.Messages, dl.Payload)
			if dl.Slot.After(b.Slot) {
				b.Slot = dl.Slot
			}
		}
		b.Payload = encode(message{batchType, now.UTC(), content})
		return b
	}
}
