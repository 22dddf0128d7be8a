package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// delivery is a delivery that this process works on.
type delivery struct {
	postgres.Delivery
	claim     *postgres.Claim // nil: it came from the stream
	admitted  bool            // its webhook's circuit and limit let it through
	probe     bool            // to see whether its webhook answers again
	published time.Time       // when the stream got it; zero if it was claimed
	webhook   *webhook        // nil: it was removed

	messages []jetstream.Msg // the firing's copies, guarded by inFlight.mu
}

func (d *delivery) key() postgres.Key { return postgres.Key{ID: d.ID, Slot: d.Slot} }

// inFlight is the set of deliveries that this process works on, from their arrival to the
// commit of their outcome. A second copy that arrives meanwhile joins the first, and shares
// its fate.
type inFlight struct {
	mu   sync.Mutex
	byID map[string]*delivery
}

func newInFlight() *inFlight { return &inFlight{byID: map[string]*delivery{}} }

// add tells whether the delivery is new here. If not, its messages wait for the other's outcome.
func (f *inFlight) add(d *delivery) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, found := f.byID[d.ID]; found {
		first.messages = append(first.messages, d.messages...)
		return false
	}
	f.byID[d.ID] = d
	return true
}

// remove ends the work on a delivery and returns its messages, to be settled.
func (f *inFlight) remove(d *delivery) []jetstream.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byID, d.ID)
	return d.messages
}

func (f *inFlight) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byID)
}

func (f *inFlight) allMessages() []jetstream.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []jetstream.Msg
	for _, d := range f.byID {
		all = append(all, d.messages...)
	}
	return all
}

// heartbeat keeps the messages in flight ours, however long an attempt or an absence of the
// database lasts.
func (d *dispatcher) heartbeat(ctx context.Context) {
	tick := time.NewTicker(stream.AckWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, m := range d.inFlight.allMessages() {
				_ = m.InProgress() // fails if it was settled meanwhile, or while NATS is away: the next one counts
			}
		}
	}
}
