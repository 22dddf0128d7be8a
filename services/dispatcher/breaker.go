package dispatcher

import (
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

const (
	// tripAfter is after how many failures in a row a webhook's circuit opens: with the widths of
	// lanes, what one that hangs can cost before it is left alone.
	tripAfter = 5
	// forgetAfter is how long what was noted of a webhook without attempts is kept.
	forgetAfter = time.Hour
)

// breakers note how the requests to each webhook end. After failures in a row its circuit opens;
// one that says that it is overloaded gets half as many requests at a time, and with each success
// a little more again.
//
// That a circuit is open is a fact of all dispatchers, and stands in Postgres: webhook_health.
// Claiming held deliveries is the only way through one that is not closed (postgres.ClaimHeld).
type breakers struct {
	widest int

	mu       sync.Mutex
	troubled map[string]*trouble // the webhooks whose last attempt here failed, or that are slowed down
}

type trouble struct {
	failures int // in a row
	width    float64
	noted    time.Time
}

func newBreakers(widest int) *breakers {
	return &breakers{widest: widest, troubled: map[string]*trouble{}}
}

// note takes in how an attempt ended. True means that the webhook should be left alone for a while.
func (b *breakers) note(webhookID string, v verdict) (trips bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.troubled[webhookID]
	if v.decision == delivered {
		if t == nil {
			return false
		}
		t.failures, t.noted = 0, time.Now()
		if t.width += 1 / t.width; t.width >= float64(b.widest) {
			delete(b.troubled, webhookID)
		}
		return false
	}
	if t == nil {
		t = &trouble{width: float64(b.widest)}
		b.troubled[webhookID] = t
	}
	t.failures++
	t.noted = time.Now()
	if v.overloaded {
		t.width = max(1, t.width/2)
	}
	return t.failures >= tripAfter || v.putOff > 0
}

// width is how many requests to the webhook may be in flight here.
func (b *breakers) width(webhookID string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.troubled[webhookID]; t != nil {
		return int(t.width)
	}
	return b.widest
}

// expire forgets webhooks to which nothing was sent for long.
func (b *breakers) expire() {
	oldest := time.Now().Add(-forgetAfter)
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, t := range b.troubled {
		if t.noted.Before(oldest) {
			delete(b.troubled, id)
		}
	}
}

// circuitChanged tells the other dispatchers, whose caches hold the webhook, and asks anew when
// something may be sent to it.
func (d *dispatcher) circuitChanged(h *postgres.Health) {
	d.backlog.changed(h.WebhookID)
	wake(d.mayGo)
	if h.Opens {
		d.metrics.circuitsOpened.Inc()
	}
	d.log.Info("circuit", "event", "circuit", "webhook_id", h.WebhookID, "open", h.Opens, "error", h.Error)
	if err := stream.Announce(d.nc, stream.ChangedWebhook, h.WebhookID); err != nil {
		d.log.Warn("announce a circuit", "webhook_id", h.WebhookID, "error", err.Error()) // caches find it within cacheTime
	}
}
