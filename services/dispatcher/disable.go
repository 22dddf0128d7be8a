package dispatcher

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// What has to be told of a webhook's health follows from its row and from what was told before, so a
// crash between any two steps leaves the rest to be done, by whichever dispatcher looks next.

// failureNote is how often the failures of a webhook are written that were written before.
const failureNote = 10 * time.Minute

var healthRule = postgres.HealthRule{WarnAfter: 4 * 24 * time.Hour, DisableAfter: 5 * 24 * time.Hour, Notice: 24 * time.Hour}

// watchHealth warns of webhooks that fail, disables those that fail for too long, and tells of those
// that were disabled for whatever reason.
func (d *dispatcher) watchHealth(ctx context.Context, js jetstream.JetStream) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for _, step := range []struct {
			doing string
			do    func(context.Context) error
		}{
			{"disable webhooks", d.disableFailing},
			{"tell of webhooks", d.tellHealth},
			{"publish events of webhooks", func(ctx context.Context) error { return d.publishEvents(ctx, js) }},
		} {
			bounded, cancel := context.WithTimeout(ctx, tryTimeout)
			if err := step.do(bounded); err != nil && ctx.Err() == nil {
				d.log.Warn("watch over webhooks", "doing", step.doing, "error", err.Error()) // the next round repeats it
			}
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (d *dispatcher) disableFailing(ctx context.Context) error {
	ids, err := d.store.DisableFailing(ctx, healthRule)
	for _, id := range ids {
		d.log.Warn("a webhook was disabled", "event", postgres.WebhookDisabled, "webhook_id", id)
		if err := stream.Announce(d.nc, stream.ChangedWebhook, id); err != nil {
			d.log.Warn("announce a webhook", "error", err.Error()) // caches expire
		}
	}
	return err
}

// tellHealth makes an event and deliveries of each fact that is not told yet.
func (d *dispatcher) tellHealth(ctx context.Context) error {
	facts, err := d.store.Untold(ctx, healthRule)
	if err != nil {
		return err
	}
	for _, f := range facts {
		told, made, err := d.store.Tell(ctx, f, notice(f), healthRule)
		if err != nil {
			return err
		}
		for webhookID, id := range made {
			d.announce(webhookID, id)
		}
		if told {
			d.log.Warn("webhook event", "event", f.Kind, "webhook_id", f.WebhookID, "site_id", f.SiteID, "since", f.FailingSince)
			wake(d.madeDue)
		}
	}
	return nil
}

// publishEvents brings events to operators.
func (d *dispatcher) publishEvents(ctx context.Context, js jetstream.JetStream) error {
	events, err := d.store.UnpublishedEvents(ctx)
	if err != nil {
		return err
	}
	for _, e := range events {
		if _, err := js.PublishMsg(ctx, stream.EncodeSystem(e.ID, e.Kind, e.Payload)); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if err := d.store.MarkEventPublished(ctx, e); err != nil {
			return err // it is published again, with the same id
		}
	}
	return nil
}

// notice is the message that tells a fact. Its ids follow from the fact.
func notice(f postgres.HealthFact) postgres.Notice {
	id := trigger.FactID("sys_", f.Kind, f.WebhookID, f.At.UnixMicro())
	data := struct {
		ID           string     `json:"id"`
		Site         site       `json:"site"`
		WebhookID    string     `json:"webhook_id"`
		FailingSince time.Time  `json:"failing_since"`
		LastError    string     `json:"last_error"`
		DisablesAt   *time.Time `json:"disables_at,omitempty"`
		DisabledAt   *time.Time `json:"disabled_at,omitempty"`
		Explanation  string     `json:"explanation"`
	}{ID: id, Site: siteOf(f), WebhookID: f.WebhookID, FailingSince: f.FailingSince.UTC(), LastError: f.LastError}
	at := f.At.UTC()
	if f.Kind == postgres.WebhookFailing {
		at = f.Now.UTC()
		disablesAt := f.FailingSince.Add(healthRule.DisableAfter).UTC()
		if earliest := at.Add(healthRule.Notice); disablesAt.Before(earliest) {
			disablesAt = earliest
		}
		data.DisablesAt = &disablesAt
		data.Explanation = fmt.Sprintf("All attempts to reach this webhook have failed since %s. Unless one succeeds, it is disabled after %s.",
			minute(f.FailingSince), minute(disablesAt))
	} else {
		data.DisabledAt = &at
		data.Explanation = "This webhook was disabled: " + f.DisabledReason + ". What fires is kept, and sent when it is enabled again."
	}
	return postgres.Notice{
		ID:         id,
		Payload:    encode(message{f.Kind, at, data}),
		DeliveryID: func(webhookID string) string { return trigger.FactID("msg_", id, webhookID) },
	}
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// siteOf is the webhook's site, with the domain that its newest message names: its own, or that of
// the first in a batch.
func siteOf(f postgres.HealthFact) site {
	type data struct {
		Site site `json:"site"`
	}
	var sent struct {
		Data struct {
			Site     site `json:"site"`
			Messages []struct {
				Data data `json:"data"`
			} `json:"messages"`
		} `json:"data"`
	}
	found := site{ID: f.SiteID}
	if json.Unmarshal(f.Payload, &sent) != nil {
		return found
	}
	found.Domain = sent.Data.Site.Domain
	if len(sent.Data.Messages) > 0 {
		found.Domain = sent.Data.Messages[0].Data.Site.Domain
	}
	return found
}
