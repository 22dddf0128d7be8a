package dispatcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// webhook is a webhook ready for sending.
type webhook struct {
	id        string
	endpoint  *sender.Endpoint // nil: refused tells why
	shownHead string           // of the document of its requests' headers
	timeout   time.Duration
	signers   []signature.Signer
	body      rendering

	refused *sender.Failure // the URL may not be called
	fault   error           // of ours: it cannot be sent now, and the receiver is not to blame

	enabled  atomic.Bool
	failedAt atomic.Int64 // when a failed attempt was last written, in Unix nanoseconds; 0: the last attempt did not fail
	// circuitOpen: it gets nothing but probes; guards the write of circuit_open_until.
	circuitOpen atomic.Bool
	limited     bool // to a rate, which only held deliveries are counted against
	batched     bool // its firings go together

	loaded time.Time
}

// cacheTime is how long a webhook is believed: an announcement of its change may get lost.
const cacheTime = 30 * time.Second

// cache holds the webhooks that were needed lately.
type cache struct {
	vault  vault.Vault
	policy target.Policy

	mu   sync.Mutex
	byID map[string]*webhook
	gen  uint64 // counts announcements
}

func newCache(v vault.Vault, p target.Policy) *cache {
	return &cache{vault: v, policy: p, byID: map[string]*webhook{}}
}

// get returns the webhooks of these deliveries, as far as they are known, and the ids of the
// others, each once.
func (c *cache) get(group []*delivery) (found map[string]*webhook, absent []string) {
	oldest := time.Now().Add(-cacheTime)
	found = make(map[string]*webhook)
	missing := make(map[string]bool)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, dl := range group {
		if found[dl.WebhookID] != nil || missing[dl.WebhookID] {
			continue
		}
		if w := c.byID[dl.WebhookID]; w != nil && w.loaded.After(oldest) {
			found[w.id] = w
			continue
		}
		missing[dl.WebhookID] = true
		absent = append(absent, dl.WebhookID)
	}
	return found, absent
}

// generation is to be asked before webhooks are read, and given to put.
func (c *cache) generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gen
}

// put keeps webhooks, unless some webhook changed since they were read: then they may be old.
func (c *cache) put(webhooks []*webhook, generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen != generation {
		return
	}
	for _, w := range webhooks {
		c.byID[w.id] = w
	}
}

func (c *cache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	delete(c.byID, id)
}

func (c *cache) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	clear(c.byID)
}

// expire forgets what is too old to be used, so that removed webhooks do not stay for ever.
func (c *cache) expire() {
	oldest := time.Now().Add(-cacheTime)
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.byID {
		if w.loaded.Before(oldest) {
			delete(c.byID, id)
		}
	}
}

// adopt prepares rows, keeps them and adds them to found.
func (d *dispatcher) adopt(rows []postgres.Webhook, generation uint64, found map[string]*webhook) {
	fresh := make([]*webhook, len(rows))
	for i, row := range rows {
		w := d.webhooks.prepare(row)
		if w.fault != nil {
			d.log.Error("a webhook cannot be sent to", "webhook_id", w.id, "error", w.fault.Error())
		}
		fresh[i], found[w.id] = w, w
	}
	d.webhooks.put(fresh, generation)
}

func (c *cache) prepare(row postgres.Webhook) *webhook {
	w := &webhook{id: row.ID, timeout: time.Duration(row.TimeoutSeconds) * time.Second, loaded: time.Now()}
	w.enabled.Store(row.Enabled)
	w.circuitOpen.Store(row.CircuitOpen)
	w.limited, w.batched = row.Limited, row.Batched
	if row.FailedAt != nil {
		w.failedAt.Store(row.FailedAt.UnixNano())
	}
	var stored map[string]string
	if err := json.Unmarshal(row.Headers, &stored); err != nil {
		w.fault = errors.New("the webhook's headers are not an object of texts")
	}
	own := outgoing.Own(stored)
	if err := c.policy.CheckURL(row.URL); err != nil {
		w.refused = &sender.Failure{Class: sender.Refused, Text: "the webhook's URL is refused: " + err.Error()}
	} else if u, err := url.Parse(row.URL); err != nil {
		w.refused = &sender.Failure{Class: sender.Refused, Text: "the webhook's URL cannot be read"}
	} else {
		header := outgoing.Lasting(own)
		w.endpoint, w.shownHead = sender.NewEndpoint(u, header), shownHead(header, own)
	}
	var err error
	if w.signers, err = outgoing.Signers(c.vault, row.ID, row.Sealed); err != nil {
		w.fault = err
	}
	w.body = newRendering(row)
	return w
}

// listen drops a webhook from the cache when it is announced as changed, and lets the sweep
// look after what waits for it. After an absence of NATS nothing is believed: what was
// announced meanwhile was not heard.
func (d *dispatcher) listen() (*nats.Subscription, error) {
	subscription, err := d.nc.Subscribe(stream.ChangedWebhook+".*", func(m *nats.Msg) {
		id := strings.TrimPrefix(m.Subject, stream.ChangedWebhook+".")
		d.webhooks.drop(id)
		d.changes.add(id)
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes of webhooks: %w", err)
	}
	d.nc.SetReconnectHandler(func(*nats.Conn) { d.webhooks.dropAll() })
	return subscription, nil
}
