package stream

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Watch gives the firings of a site as they are published from now on. Whoever falls behind by so
// many has missed some: the channel is closed then, as it is by stop.
func Watch(nc *nats.Conn, siteID int64, behind int) (firings <-chan trigger.Firing, stop func(), err error) {
	watched := make(chan trigger.Firing, behind)
	var mu sync.Mutex
	open := true
	end := func() { // with the lock
		if open {
			open = false
			close(watched)
		}
	}
	subscription, err := nc.Subscribe("firing."+strconv.FormatInt(siteID, 10)+".>", func(m *nats.Msg) {
		firing, err := Decode(m.Header, m.Data)
		if err != nil {
			return // it can never be delivered either
		}
		mu.Lock()
		defer mu.Unlock()
		if !open {
			return
		}
		select {
		case watched <- firing:
		default:
			end()
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("watch the firings of site %d: %w", siteID, err)
	}
	awaitSubscriptions(nc)
	return watched, func() {
		_ = subscription.Unsubscribe() // it fails only where the connection is closed
		mu.Lock()
		defer mu.Unlock()
		end()
	}, nil
}

// subscribed is how long a broker that is away holds up who begins to watch.
const subscribed = 2 * time.Second

// awaitSubscriptions waits until the broker has heard of what was subscribed to: nothing that is published
// from then on is missed. One that is away hears of it when it is back.
func awaitSubscriptions(nc *nats.Conn) { _ = nc.FlushTimeout(subscribed) }
