package dispatcher

import (
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// backlog is the webhooks for which deliveries are known to be held, each with when it is worth
// asking for them. It holds webhooks, never deliveries. What it does not know, because another
// dispatcher held it and died, the sweep finds.
type backlog struct {
	mu    sync.Mutex
	byID  map[string]*heldFor
	order []string // whose turn it is
}

type heldFor struct {
	after   time.Time // nothing can be claimed before
	added   int       // how often, and
	changed int       // how often: an answer to what was asked before says nothing of what came since
}

func newBacklog() *backlog { return &backlog{byID: map[string]*heldFor{}} }

// add notes that deliveries are held for these webhooks.
func (b *backlog) add(webhookIDs ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range webhookIDs {
		b.addOne(id)
	}
}

func (b *backlog) addOne(id string) *heldFor {
	h := b.byID[id]
	if h == nil {
		h = &heldFor{}
		b.byID[id] = h
		b.order = append(b.order, id)
	}
	h.added++
	return h
}

// changed notes that these webhooks may get something now, whatever was so before.
func (b *backlog) changed(webhookIDs ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range webhookIDs {
		h := b.addOne(id)
		h.after = time.Time{}
		h.changed++
	}
}

// later puts off asking for a webhook.
func (b *backlog) later(id string, pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addOne(id).after = time.Now().Add(pause)
}

func (b *backlog) has(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byID[id] != nil
}

// question is for how many deliveries of which webhooks to ask.
type question struct {
	rooms map[string]int
	asked map[string]heldFor // as it was then
}

// next divides up to free places among the webhooks that have room and whose time has come. Those
// that get none are first the next time.
func (b *backlog) next(free int, room func(webhookID string) int) question {
	q := question{rooms: map[string]int{}, asked: map[string]heldFor{}}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	var asked, others []string
	rooms := map[string]int{}
	for _, id := range b.order {
		if h := b.byID[id]; len(asked) < free && !h.after.After(now) {
			if n := room(id); n > 0 {
				asked, rooms[id] = append(asked, id), n
				q.asked[id] = *h
				continue
			}
		}
		others = append(others, id)
	}
	b.order = append(others, asked...)
	for i, id := range asked { // what one has no room for is left to those behind it
		q.rooms[id] = min(rooms[id], max(1, free/(len(asked)-i)))
		free -= q.rooms[id]
	}
	return q
}

// pacePause is how often at most a webhook's rate is used up: what it allows meanwhile goes together.
const pacePause = 50 * time.Millisecond

// learn notes the answers. A webhook without one is forgotten.
func (b *backlog) learn(q question, turns []postgres.Turn) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range turns {
		if h := b.byID[t.WebhookID]; h != nil && h.changed == q.asked[t.WebhookID].changed {
			h.after = now
			if t.Wait > 0 {
				h.after = now.Add(max(t.Wait, pacePause))
			} else if len(t.Claims) == 0 { // another dispatcher is at it
				h.after = now.Add(pacePause)
			}
		}
		delete(q.asked, t.WebhookID)
	}
	forgotten := false
	for id, before := range q.asked {
		if h := b.byID[id]; h != nil && h.added == before.added {
			delete(b.byID, id)
			forgotten = true
		}
	}
	if !forgotten {
		return
	}
	kept := b.order[:0]
	for _, id := range b.order {
		if b.byID[id] != nil {
			kept = append(kept, id)
		}
	}
	b.order = kept
}

// soonest is how long until some webhook's time comes, longest at most.
func (b *backlog) soonest(longest time.Duration) time.Duration {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.byID {
		if until := h.after.Sub(now); until > 0 {
			longest = min(longest, until)
		}
	}
	return longest
}

func (b *backlog) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.byID)
}

// shrink leaves places for no more than limit.
func (q question) shrink(limit int) {
	for id, n := range q.rooms {
		n = min(n, limit)
		if limit -= n; n > 0 {
			q.rooms[id] = n
			continue
		}
		delete(q.rooms, id)
		delete(q.asked, id)
	}
}
