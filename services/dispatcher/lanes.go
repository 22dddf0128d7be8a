package dispatcher

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// patience is how long a firing waits here for its webhook's other requests: enough for
	// a burst to a receiver that answers, without holding up what arrives behind it.
	patience = 100 * time.Millisecond
	// congestion is for how long nobody waits any more, once somebody waited in vain.
	congestion = time.Second
)

// lanes bound the requests in flight to each webhook.
type lanes struct {
	width func(webhookID string) int // at least 1; it may change at any time

	mu   sync.Mutex
	byID map[string]*lane // those with requests in flight
}

type lane struct {
	taken          int
	waiting        []chan struct{} // each is closed when its place is taken for it, the first one first
	congestedUntil time.Time
}

func newLanes(width func(webhookID string) int) *lanes {
	return &lanes{width: width, byID: map[string]*lane{}}
}

// enter takes a place in the webhook's lane, and waits so long for it at most; false means that
// there is none, or that ctx ended. Whoever got one leaves it.
func (l *lanes) enter(ctx context.Context, webhookID string, wait time.Duration) bool {
	width := l.width(webhookID)
	l.mu.Lock()
	to := l.byID[webhookID]
	if to == nil {
		to = &lane{}
		l.byID[webhookID] = to
	}
	if to.taken < width && len(to.waiting) == 0 {
		to.taken++
		l.mu.Unlock()
		return true
	}
	if wait <= 0 || time.Now().Before(to.congestedUntil) {
		to.congestedUntil = time.Now().Add(congestion)
		l.mu.Unlock()
		return false
	}
	turn := make(chan struct{})
	to.waiting = append(to.waiting, turn)
	l.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-turn:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	place := slices.Index(to.waiting, turn)
	if place < 0 { // it came at the last moment
		return true
	}
	to.waiting = slices.Delete(to.waiting, place, place+1)
	to.congestedUntil = time.Now().Add(congestion)
	return false
}

// leave gives the place back, to those who wait for it as far as the width allows.
func (l *lanes) leave(webhookID string) {
	width := l.width(webhookID)
	l.mu.Lock()
	defer l.mu.Unlock()
	lane := l.byID[webhookID]
	lane.taken--
	for lane.taken < width && len(lane.waiting) > 0 {
		close(lane.waiting[0])
		lane.waiting = lane.waiting[1:]
		lane.taken++
	}
	if lane.taken == 0 {
		delete(l.byID, webhookID)
	}
}

// room is how many more may enter at once.
func (l *lanes) room(webhookID string) int {
	width := l.width(webhookID)
	l.mu.Lock()
	defer l.mu.Unlock()
	if lane := l.byID[webhookID]; lane != nil {
		return max(0, width-lane.taken-len(lane.waiting))
	}
	return width
}

// busy are the webhooks with requests in flight.
func (l *lanes) busy() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]string, 0, len(l.byID))
	for id := range l.byID {
		ids = append(ids, id)
	}
	return ids
}
