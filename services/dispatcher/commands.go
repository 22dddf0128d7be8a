package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// A command is a row of the api's. A message tells of it at once; the sweep finds it if the message
// got lost. What it asks for commits together with the row that says that it was done.

const (
	// hearTimeout is for how long one request for messages stays open; they arrive at once.
	hearTimeout = 10 * time.Second
	// pingType is the type of the message that a test sends.
	pingType = "webhook.ping"
)

// hear takes in the messages that name commands, until ctx ends. They are acknowledged at once:
// nothing rests on them.
func (d *dispatcher) hear(ctx context.Context, js jetstream.JetStream) {
	var pause backoff
	for ctx.Err() == nil {
		consumer, err := stream.CommandConsumer(ctx, js)
		for err == nil && ctx.Err() == nil {
			if err = d.hearSome(ctx, consumer); err == nil {
				pause.reset()
			}
		}
		if ctx.Err() == nil { // until then, sweeps find them
			d.log.Warn("fetch commands from the stream", "error", err.Error())
			pause.wait(ctx)
		}
	}
}

func (d *dispatcher) hearSome(ctx context.Context, consumer jetstream.Consumer) error {
	ctx, cancel := context.WithTimeout(ctx, hearTimeout)
	defer cancel()
	batch, err := consumer.Fetch(100, jetstream.FetchContext(ctx))
	if err != nil {
		return err
	}
	for m := range batch.Messages() {
		if id, err := stream.DecodeCommand(m.Headers()); err == nil {
			d.asked.add(id)
		} else {
			d.log.Error("a message that names no command was ignored", "subject", m.Subject(), "error", err.Error())
		}
		if err := m.Ack(); err != nil {
			d.log.Warn("acknowledge a command", "error", err.Error()) // it comes again, and is known then
		}
	}
	return batch.Error()
}

// obey does what commands ask: at once where a message named them, else periodically.
func (d *dispatcher) obey(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var ids []string // the first time, all
	for {
		if err := d.obeyAll(ctx, ids); err != nil && ctx.Err() == nil {
			d.log.Warn("commands wait", "error", err.Error()) // the next sweep finds them
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			ids = nil
		case <-d.asked.added:
			ids = d.asked.take()
		}
	}
}

// obeyAll does what these commands ask, or all if ids is nil. One that cannot be obeyed now does
// not hold up the others.
func (d *dispatcher) obeyAll(ctx context.Context, ids []string) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, tryTimeout)
		open, more, err := d.store.OpenCommands(bounded, ids)
		cancel()
		if err != nil {
			return err
		}
		var failed error
		for _, c := range open {
			failed = errors.Join(failed, d.obeyOne(ctx, c))
		}
		if !more || failed != nil {
			return failed
		}
	}
}

func (d *dispatcher) obeyOne(ctx context.Context, c postgres.Command) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	var ended postgres.Ended
	var err error
	switch c.Kind {
	case stream.TestCommand:
		ended, err = d.store.Test(ctx, c, pingType, ping(c))
	case stream.RetryCommand:
		ended, err = d.store.Retry(ctx, c)
	case stream.RecoverCommand:
		if err = d.store.StartRecovery(ctx, c); err == nil {
			wake(d.recoveries)
		}
	default:
		err = d.store.FailCommand(ctx, c.ID, "this version does not know such a command")
	}
	if postgres.IsDataError(err) {
		d.log.Error("Postgres refuses what a command asks for", "command_id", c.ID, "error", err.Error())
		return d.store.FailCommand(ctx, c.ID, "it cannot be stored")
	}
	if err != nil {
		return fmt.Errorf("command %s: %w", c.ID, err)
	}
	if ended.Status != "" {
		d.log.Info("command", "event", "command", "command_id", c.ID, "kind", c.Kind, "webhook_id", c.WebhookID,
			"delivery_id", c.DeliveryID, "status", ended.Status, "error", ended.Error)
		if ended.Status == "done" {
			d.announce(c.WebhookID, c.DeliveryID)
		}
		wake(d.madeDue) // what was made due, is due now
	}
	return nil
}

// wake makes whoever waits at the channel look again.
func wake(waiting chan<- struct{}) {
	select {
	case waiting <- struct{}{}:
	default: // it is awake already
	}
}

// message is the standard message of what is not a firing.
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      any       `json:"data"`
}

type site struct {
	ID     int64  `json:"id"`
	Domain string `json:"domain,omitempty"` // a dispatcher knows it from others alone
}

// ping is the message of a test.
func ping(c postgres.Command) []byte {
	return encode(message{pingType, c.CreatedAt.UTC(), struct {
		ID        string `json:"id"`
		Site      site   `json:"site"`
		WebhookID string `json:"webhook_id"`
	}{c.DeliveryID, site{c.SiteID, c.SiteDomain}, c.WebhookID}})
}

func encode(m message) []byte {
	document, err := json.Marshal(m)
	if err != nil {
		panic("a message of texts, numbers and times cannot be encoded: " + err.Error())
	}
	return document
}
