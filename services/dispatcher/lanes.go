package dispatcher

import (
	"context"
	"sync"
	"time"
)

const (
	// patience is how long a delivery waits here for its webhook's other requests: enough for
	// a burst to a receiver that answers, without holding up what arrives behind it.
	patience = 100 * time.Millisecond
	// congestion is for how long nobody waits any more, once somebody waited in vain.
	congestion = time.Second
)

// lanes bound the requests in flight to each webhook.
type lanes struct {
	width int
	spare chan<- struct{} // hears of a place in a lane that turned somebody away

	mu   sync.Mutex
	byID map[string]*lane
}

type lane struct {
	places         chan struct{}
	users          int       // in the lane or waiting for it; the last one out removes it
	congestedUntil time.Time // zero: never
}

func newLanes(width int, spare chan<- struct{}) *lanes {
	return &lanes{width: width, spare: spare, byID: map[string]*lane{}}
}

// enter takes a place in the webhook's lane; false means that there is none, or that ctx ended.
// Whoever got one leaves it.
func (l *lanes) enter(ctx context.Context, webhookID string) bool {
	l.mu.Lock()
	lane, found := l.byID[webhookID]
	if !found {
		lane = newLane(l.width)
		l.byID[webhookID] = lane
	}
	lane.users++
	congested := !lane.congestedUntil.IsZero() && time.Now().Before(lane.congestedUntil)
	l.mu.Unlock()

	select {
	case lane.places <- struct{}{}:
		return true
	default:
	}
	entered := false
	if !congested {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case lane.places <- struct{}{}:
			entered = true
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if !entered {
		l.mu.Lock()
		lane.congestedUntil = time.Now().Add(congestion)
		l.out(webhookID, lane)
		l.mu.Unlock()
	}
	return entered
}

func newLane(width int) *lane { return &lane{places: make(chan struct{}, width)} }

// leave gives the place back.
func (l *lanes) leave(webhookID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lane := l.byID[webhookID]
	<-lane.places
	l.out(webhookID, lane)
	if !lane.congestedUntil.IsZero() {
		select {
		case l.spare <- struct{}{}:
		default:
		}
	}
}

func (l *lanes) out(webhookID string, lane *lane) {
	if lane.users--; lane.users == 0 {
		delete(l.byID, webhookID)
	}
}

// taken is how many places are taken in each lane.
func (l *lanes) taken() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := make(map[string]int, len(l.byID))
	for id, lane := range l.byID {
		if n := len(lane.places); n > 0 {
			taken[id] = n
		}
	}
	return taken
}
