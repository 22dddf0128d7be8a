package stream

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	changedDeliveries = "delivery." // and the webhook's id
	// mostNamed is how many deliveries an announcement names; of more it only tells that there are some.
	mostNamed = 100
	// gatherChanges is how long the first change waits for those that were committed with it.
	gatherChanges = 20 * time.Millisecond
)

// AnnounceDeliveries tells those who watch a webhook that these deliveries of it changed. It goes over core
// NATS: nobody may be there, and what is lost is seen when the list is read again.
func AnnounceDeliveries(nc *nats.Conn, webhookID string, ids []string) error {
	named := ""
	if len(ids) <= mostNamed {
		named = strings.Join(ids, ",")
	}
	if err := nc.Publish(changedDeliveries+webhookID, []byte(named)); err != nil {
		return fmt.Errorf("announce deliveries of %s: %w", webhookID, err)
	}
	return nil
}

// WatchDeliveries gives the ids of a webhook's deliveries that change from now on, at most once in a pause;
// nil stands for more than can be named, and for what nobody knows after an absence of NATS. Whoever is slow
// hears of all of it later, at once. The channel is closed by stop.
func WatchDeliveries(nc *nats.Conn, webhookID string, pause time.Duration) (changed <-chan []string, stop func(), err error) {
	w := newDigest(pause)
	subscription, err := nc.Subscribe(changedDeliveries+webhookID, func(m *nats.Msg) { w.add(string(m.Data)) })
	if err != nil {
		return nil, nil, fmt.Errorf("watch the deliveries of %s: %w", webhookID, err)
	}
	back := nc.StatusChanged(nats.CONNECTED)
	go func() { // until stop closes it
		for range back {
			awaitSubscriptions(nc)
			w.add("") // what was announced meanwhile was not heard
		}
	}()
	awaitSubscriptions(nc)
	return w.told, func() {
		nc.RemoveStatusListener(back)
		_ = subscription.Unsubscribe() // it fails only where the connection is closed
		w.close()
	}, nil
}

// digest makes few changes of many.
type digest struct {
	pause time.Duration
	told  chan []string

	mu     sync.Mutex
	ids    map[string]bool
	many   bool
	last   time.Time   // when it told something
	timer  *time.Timer // of what is to be told; nil: nothing is
	closed bool
}

func newDigest(pause time.Duration) *digest {
	return &digest{pause: pause, told: make(chan []string, 1), ids: map[string]bool{}}
}

// add takes in an announcement.
func (d *digest) add(named string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if named == "" {
		d.many = true
	}
	for id := range strings.SplitSeq(named, ",") {
		if d.many || len(d.ids) == mostNamed && !d.ids[id] {
			d.many = true
			break
		}
		d.ids[id] = true
	}
	if d.timer == nil {
		d.timer = time.AfterFunc(max(gatherChanges, time.Until(d.last.Add(d.pause))), d.tell)
	}
}

// tell hands over what came together, unless the last of it was not taken yet: then it waits for another pause.
func (d *digest) tell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = nil
	if d.closed {
		return
	}
	var ids []string
	if !d.many {
		ids = slices.Sorted(maps.Keys(d.ids))
	}
	select {
	case d.told <- ids:
		d.last, d.many = time.Now(), false
		clear(d.ids)
	default:
		d.timer = time.AfterFunc(d.pause, d.tell)
	}
}

func (d *digest) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	if d.timer != nil {
		d.timer.Stop()
	}
	close(d.told)
}
