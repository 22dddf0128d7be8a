package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

const (
	// fetchTimeout is for how long one request to the stream stays open; messages that come
	// meanwhile arrive at once. A stop waits for its end instead of cancelling it: a message on
	// its way to a cancelled one would be nobody's until AckWait is over.
	fetchTimeout = time.Second
	// stalled is after how long without the end of a fetch the dispatcher is not ready.
	stalled = 30 * time.Second

	// leastFetch is the part of the places that have to be free for the next fetch: each is a
	// subscription of its own, so those of single messages would cost more than the messages.
	leastFetch = 8

	// maxGroup bounds the messages that share one look into the database.
	maxGroup = 500
)

// consume takes messages as long as there are places, until ctx ends. Taking and looking up
// are apart, so that messages are ours, and kept ours, from the moment they arrive.
func (d *dispatcher) consume(ctx context.Context, js jetstream.JetStream, consumer jetstream.Consumer) {
	arrivals := make(chan *delivery, cap(d.places.free)) // never blocks: each has a place
	admitted := make(chan struct{})
	go func() {
		defer close(admitted)
		d.admitAll(ctx, arrivals)
	}()
	pause := backoff{}
	for ctx.Err() == nil {
		n := d.places.takeAll(ctx, max(1, cap(d.places.free)/leastFetch))
		got, err := d.fetch(consumer, n, arrivals)
		d.places.give(n - got)
		if err == nil {
			pause.reset()
			d.lastFetch.now()
			continue
		}
		if ctx.Err() != nil {
			break
		}
		d.log.Warn("fetch from the stream", "error", err.Error())
		pause.wait(ctx)
		// The server may have lost the consumer, or be another one.
		if _, again, err := stream.Ensure(ctx, js, stream.Options{Replicas: d.config.StreamReplicas}); err == nil {
			consumer = again
		}
	}
	close(arrivals)
	<-admitted
}

// fetch takes up to n messages. It returns how many places they use.
func (d *dispatcher) fetch(consumer jetstream.Consumer, n int, arrivals chan<- *delivery) (int, error) {
	if n == 0 {
		return 0, nil
	}
	batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(fetchTimeout))
	if err != nil {
		return 0, err
	}
	got := 0
	for m := range batch.Messages() {
		if dl := d.receive(m); dl != nil {
			got++
			arrivals <- dl
		}
	}
	return got, batch.Error()
}

// receive decodes a message; nil if nothing is to be done for it any more.
func (d *dispatcher) receive(m jetstream.Msg) *delivery {
	f, err := stream.Decode(m.Headers(), m.Data())
	if err != nil {
		d.metrics.terminated.Inc()
		d.log.Error("a message that cannot be decoded was terminated", "subject", m.Subject(), "error", err.Error())
		if err := m.TermWithReason(err.Error()); err != nil {
			d.log.Warn("terminate a message", "error", err.Error()) // it comes again
		}
		return nil
	}
	dl := &delivery{
		Delivery: postgres.Delivery{
			ID: f.ID, Slot: f.Slot.UTC().Truncate(time.Microsecond), SiteID: f.SiteID, WebhookID: f.WebhookID,
			TriggerID: f.TriggerID, Type: f.Type, Payload: f.Payload,
		},
		messages: []jetstream.Msg{m},
	}
	if isTraceparent(f.TraceContext) { // anyone's bytes: only what a row can hold
		dl.TraceContext = f.TraceContext
	}
	if meta, err := m.Metadata(); err == nil {
		dl.published = meta.Timestamp
	}
	if !d.inFlight.add(dl) {
		d.metrics.duplicates.Inc()
		return nil
	}
	return dl
}

// isTraceparent tells whether a text is as W3C says: 00-<trace, 32 digits>-<span, 16>-<flags, 2>.
func isTraceparent(s string) bool {
	if len(s) != 55 {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case i == 2 || i == 35 || i == 52:
			if b != '-' {
				return false
			}
		case (b < '0' || b > '9') && (b < 'a' || b > 'f'):
			return false
		}
	}
	return true
}

// admitAll admits what arrived meanwhile as one group, until arrivals is closed.
func (d *dispatcher) admitAll(ctx context.Context, arrivals <-chan *delivery) {
	group := make([]*delivery, 0, maxGroup)
	for first := range arrivals {
		group = append(group[:0], first)
	fill:
		for len(group) < maxGroup {
			select {
			case dl, open := <-arrivals:
				if !open {
					break fill
				}
				group = append(group, dl)
			default:
				break fill
			}
		}
		d.admit(ctx, group)
	}
}

// admit looks the group up in one round trip, settles what has a row already, and lets the
// others go.
func (d *dispatcher) admit(ctx context.Context, group []*delivery) {
	keys := make([]postgres.Key, len(group))
	for i, dl := range group {
		keys[i] = dl.key()
	}
	var known map[postgres.Key]bool
	var webhooks map[string]*webhook
	ok := d.persist(ctx, "look for deliveries", func(ctx context.Context) error {
		found, absent := d.webhooks.get(group)
		generation := d.webhooks.generation()
		seen, rows, err := d.store.Look(ctx, keys, absent)
		if err != nil {
			return err
		}
		known, webhooks = seen, found
		d.adopt(rows, generation, webhooks)
		return nil
	})
	for i, dl := range group {
		switch {
		case !ok: // we are stopping
			d.putDown(dl)
		case known[keys[i]]: // its outcome, or its place among the waiting, is committed
			d.metrics.duplicates.Inc()
			d.settle(dl)
			d.places.give(1)
		default:
			dl.webhook = webhooks[dl.WebhookID]
			d.crew.do(func() { d.dispatch(ctx, dl) })
		}
	}
}

// settle ends the work on a delivery whose row is committed.
func (d *dispatcher) settle(dl *delivery) {
	for _, m := range d.inFlight.remove(dl) {
		if err := m.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			d.log.Warn("acknowledge a message", "delivery_id", dl.ID, "error", err.Error()) // it comes again, and is known then
		}
	}
}

// putDown ends the work on a delivery that was not attempted: somebody else takes it up.
func (d *dispatcher) putDown(dl *delivery) {
	for _, m := range d.inFlight.remove(dl) {
		if err := m.Nak(); err != nil {
			d.log.Warn("return a message", "delivery_id", dl.ID, "error", err.Error()) // it comes again later
		}
	}
	if dl.claim == nil {
		d.places.give(1)
		return
	}
	d.abandonedMu.Lock()
	d.abandoned = append(d.abandoned, *dl.claim)
	d.abandonedMu.Unlock()
}
