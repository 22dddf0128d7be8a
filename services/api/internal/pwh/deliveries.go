package pwh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

type deliveriesCommand struct {
	one
	page
	Status  string `help:"Only those: waiting, delivered, dead or cancelled."`
	Trigger string `placeholder:"TRIGGER" help:"Only those of this trigger."`
	Type    string `help:"Only messages of this type, such as visitor_spike.fired."`
	Since   string `placeholder:"TIME" help:"Only messages from then on, such as 2h or 2026-11-01."`
	Until   string `placeholder:"TIME" help:"Only messages before then."`
}

func (c *deliveriesCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	params := &client.ListDeliveriesParams{Limit: &c.Limit, After: c.cursor()}
	if c.Status != "" {
		params.Status = new(client.DeliveryStatus(c.Status))
	}
	if c.Trigger != "" {
		params.TriggerID = &c.Trigger
	}
	if c.Type != "" {
		params.Type = &c.Type
	}
	if params.From, err = s.instantIfGiven("since", c.Since); err != nil {
		return err
	}
	if params.To, err = s.instantIfGiven("until", c.Until); err != nil {
		return err
	}
	list, err := read[client.DeliveryList](api.ListDeliveries(ctx, site, c.Webhook, params))
	if err != nil || s.machine(list.raw) {
		return err
	}
	t := newTable("CREATED", "ID", "STATUS", "TRIES", "TYPE")
	for _, d := range list.value.Deliveries {
		t.row(s.at(d.CreatedAt), d.ID, string(d.Status), strconv.Itoa(d.Attempts), d.Type)
		t.note(s.trouble(d))
	}
	t.print(s.out, "There are none.")
	s.goOn(list.value.Meta)
	return nil
}

// trouble is what keeps a delivery from having arrived; empty if it has.
func (s *session) trouble(d client.DeliveryView) string {
	if d.Status == client.DeliveryStatusDelivered {
		return ""
	}
	var parts []string
	if d.LastError != nil {
		parts = append(parts, *d.LastError)
	}
	if d.NextAttemptAt != nil {
		parts = append(parts, "sent again at "+s.at(*d.NextAttemptAt))
	}
	return strings.Join(parts, "; ")
}

// single names a delivery of a webhook.
type single struct {
	one
	Delivery string `arg:"" help:"The delivery's id, which its message carries as webhook-id."`
}

type deliveryCommand struct{ single }

func (c *deliveryCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	delivery, err := read[client.DeliveryDetails](api.ShowDelivery(ctx, site, c.Webhook, c.Delivery))
	if err != nil || s.machine(delivery.raw) {
		return err
	}
	d := delivery.value
	s.field("Delivery", d.ID)
	s.field("Type", d.Type)
	s.field("Trigger", textOrNone(d.TriggerID))
	s.field("Status", string(d.Status))
	s.field("Created", s.at(d.CreatedAt))
	s.field("Finished", s.atOrNone(d.FinishedAt))
	if d.NextAttemptAt != nil {
		s.field("Next try", s.at(*d.NextAttemptAt))
	}
	s.out.printf("\n")
	t := newTable("TRY", "STARTED", "ANSWER", "TOOK", "DNS", "CONNECT", "TLS", "FIRST BYTE", "BODY")
	for _, a := range d.AttemptList {
		row := []string{strconv.Itoa(a.Number), s.at(a.StartedAt), statusOf(a), milliseconds(a.DurationMs)}
		for _, phase := range []string{"dns", "connect", "tls", "first_byte", "body"} {
			took := none
			if ms, measured := a.Timings[phase]; measured {
				took = strconv.FormatFloat(ms, 'f', 1, 64)
			}
			row = append(row, took)
		}
		t.row(row...)
		t.note(textOrEmpty(a.Error))
		t.note(a.ResponseBody)
	}
	t.print(s.out, "It was not sent yet.")
	var message strings.Builder
	written := json.NewEncoder(&message)
	written.SetEscapeHTML(false) // a person reads it
	written.SetIndent("", "  ")
	if err := written.Encode(d.Payload); err != nil {
		return err
	}
	s.out.printf("\n")
	for line := range strings.Lines(message.String()) {
		s.out.printf("%s\n", clean(strings.TrimRight(line, "\n")))
	}
	return nil
}

func textOrEmpty(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

func statusOf(a client.Attempt) string {
	if a.StatusCode == nil {
		return none
	}
	return strconv.Itoa(*a.StatusCode)
}

// waiting is how a command waits for what the dispatcher makes of it.
type waiting struct {
	Wait    bool          `help:"Wait for the receiver's answer."`
	Timeout time.Duration `default:"1m" help:"How long to wait for it."`
}

type testCommand struct {
	one
	waiting
}

func (c *testCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	asked, err := read[client.AcceptedDelivery](api.TestWebhook(ctx, site, c.Webhook, &client.TestWebhookParams{IdempotencyKey: onceKey()}))
	if err != nil {
		return err
	}
	return s.sent(ctx, api, c.one, c.waiting, asked)
}

type retryCommand struct {
	single
	waiting
}

func (c *retryCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	asked, err := read[client.AcceptedDelivery](api.RetryDelivery(ctx, site, c.Webhook, c.Delivery, &client.RetryDeliveryParams{IdempotencyKey: onceKey()}))
	if err != nil {
		return err
	}
	return s.sent(ctx, api, c.one, c.waiting, asked)
}

// between is how often is asked for what is waited for.
const between = 250 * time.Millisecond

// sent tells of a delivery that is on its way, or waits until it was tried once more and tells how that went.
func (s *session) sent(ctx context.Context, api *client.Client, webhook one, waiting waiting, asked answer[client.AcceptedDelivery]) error {
	id, before := asked.value.ID, asked.value.Attempts
	if !waiting.Wait {
		if !s.machine(asked.raw) {
			s.out.printf("%s\n", clean(id))
			s.say("It is on its way: pwh delivery %s %s shows what came of it.", webhook.Webhook, id)
		}
		return nil
	}
	for deadline := time.Now().Add(waiting.Timeout); ; {
		d, err := read[client.DeliveryDetails](api.ShowDelivery(ctx, s.Site, webhook.Webhook, id))
		if err != nil && !refusedWith(err, http.StatusNotFound) { // a dispatcher has yet to make it
			return err
		}
		if list := d.value.AttemptList; err == nil && d.value.Attempts > before && len(list) > 0 {
			return s.tell(d, list[len(list)-1])
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s was not tried within %s: look whether the webhook is enabled and a dispatcher runs", id, waiting.Timeout)
		}
		if !pause(ctx, between) {
			return ctx.Err()
		}
	}
}

func (s *session) tell(d answer[client.DeliveryDetails], last client.Attempt) error {
	delivered := d.value.Status == client.DeliveryStatusDelivered
	if !s.machine(d.raw) {
		t := newTable("ID", "TRY", "ANSWER", "TOOK", "STATUS")
		t.row(d.value.ID, strconv.Itoa(last.Number), statusOf(last), milliseconds(last.DurationMs), string(d.value.Status))
		t.note(s.trouble(client.DeliveryView{Status: d.value.Status, LastError: last.Error, NextAttemptAt: d.value.NextAttemptAt}))
		t.print(s.out, "")
	}
	if !delivered {
		return errors.New("the receiver did not take it: see above")
	}
	return nil
}

type recoverCommand struct {
	one
	Since  string  `required:"" placeholder:"TIME" help:"From which message on, such as 24h or 2026-11-01."`
	Until  string  `placeholder:"TIME" help:"Before which message; default now."`
	Status string  `default:"dead" help:"What is sent again: dead, cancelled or delivered."`
	Rate   float64 `placeholder:"N" help:"How many in a second; default the dispatchers' own."`
}

func (c *recoverCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	asked := client.Recover{Status: new(client.RecoverStatus(c.Status))}
	if asked.Since, err = s.instant("since", c.Since); err != nil {
		return err
	}
	if asked.Until, err = s.instantIfGiven("until", c.Until); err != nil {
		return err
	}
	if c.Rate != 0 {
		asked.RatePerSecond = &c.Rate
	}
	job, err := read[client.Recovery](api.RecoverDeliveries(ctx, site, c.Webhook, &client.RecoverDeliveriesParams{IdempotencyKey: onceKey()}, asked))
	if err != nil {
		return err
	}
	for shown := ""; ; {
		if progress := progressOf(job.value); progress != shown && !s.JSON {
			s.say("%s", progress)
			shown = progress
		}
		if state := job.value.State; state != client.RecoveryStateWaiting && state != client.RecoveryStateRunning {
			break
		}
		if !pause(ctx, between) {
			s.say("The recovery %s goes on without being watched.", job.value.ID)
			return nil
		}
		next, err := read[client.Recovery](api.ShowRecovery(ctx, site, c.Webhook, job.value.ID))
		if err != nil && ctx.Err() == nil {
			s.say("The recovery %s goes on, but cannot be watched.", job.value.ID)
			return err
		}
		if err == nil {
			job = next
		}
	}
	s.machine(job.raw)
	if job.value.State != client.RecoveryStateDone {
		return fmt.Errorf("the recovery %s: %s", job.value.State, textOrNone(job.value.Error))
	}
	return nil
}

func progressOf(job client.Recovery) string {
	total := "an unknown number"
	if job.Total != nil {
		total = strconv.FormatInt(*job.Total, 10)
	}
	return fmt.Sprintf("%s: %d of %s sent again", job.State, job.Done, total)
}
