package pwh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

type webhooksCommand struct{ page }

func (c *webhooksCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	list, err := read[client.WebhookList](api.ListWebhooks(ctx, site, &client.ListWebhooksParams{Limit: &c.Limit, After: c.cursor()}))
	if err != nil || s.machine(list.raw) {
		return err
	}
	t := newTable("ID", "STATUS", "TRIGGERS", "URL")
	for _, w := range list.value.Webhooks {
		t.row(w.ID, standing(w.Enabled, w.Status), strconv.Itoa(len(w.Triggers)), w.URL)
		t.note(w.Description)
	}
	t.print(s.out, "The site has no webhooks: pwh create makes one.")
	s.goOn(list.value.Meta)
	return nil
}

// standing tells one that its owner disabled from one that the dispatcher did.
func standing(enabled bool, status client.WebhookStatus) string {
	if !enabled {
		return "off"
	}
	return string(status)
}

// one names a webhook.
type one struct {
	Webhook string `arg:"" help:"The webhook's id."`
}

type showCommand struct{ one }

func (c *showCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	w, err := read[client.Webhook](api.ShowWebhook(ctx, site, c.Webhook))
	if err != nil || s.machine(w.raw) {
		return err
	}
	s.showWebhook(w.value)
	return nil
}

func (s *session) showWebhook(w client.WebhookView) {
	s.field("Webhook", w.ID)
	s.field("URL", w.URL)
	if w.Description != "" {
		s.field("Description", w.Description)
	}
	status := standing(w.Enabled, w.Status)
	if w.DisabledReason != nil {
		status += ": " + *w.DisabledReason
	}
	s.field("Status", status)
	if w.FailingSince != nil {
		s.field("Failing", "since "+s.at(*w.FailingSince))
	}
	s.field("Format", string(w.Format))
	if w.Batch != nil {
		s.field("Batches", "of at most "+strconv.Itoa(w.Batch.MaxSize)+", after "+seconds(w.Batch.MaxWaitSeconds)+" at the latest")
	}
	if w.RateLimitPerSecond != nil {
		s.field("Rate", "at most "+number(*w.RateLimitPerSecond)+" per second")
	}
	s.field("Timeout", seconds(w.TimeoutSeconds))
	s.field("Created", s.at(w.CreatedAt))
	s.out.printf("\n")
	t := newTable("TRIGGER", "TYPE", "STATUS", "LAST FIRED")
	for _, trigger := range w.Triggers {
		status := string(trigger.State.Status)
		if !trigger.Enabled {
			status = "off"
		}
		t.row(trigger.ID, trigger.Type, status, s.atOrNone(trigger.State.LastFiredAt))
		t.note(trigger.Name)
		t.note(trigger.State.Explanation)
	}
	t.print(s.out, "It has no triggers, so nothing fires.")
}

func seconds(n int) string { return (time.Duration(n) * time.Second).String() }

type createCommand struct {
	Address     string   `arg:"" optional:"" name:"url" help:"Where messages are sent: an https URL."`
	Description string   `help:"What it is for."`
	Format      string   `help:"How messages are written: standard, slack, discord, teams or custom."`
	Trigger     []string `sep:"none" placeholder:"TYPE[:KEY=VALUE,…]" help:"What it is told: visitor_spike:threshold=100,name=Rush or goal_achieved:goal.event_name=Signup. Repeat it for more; pwh types TYPE lists the keys."`
	File        string   `placeholder:"FILE" help:"The whole webhook as JSON instead, - reads it from the standard input."`
}

func (c *createCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	body, err := c.body(ctx, s)
	if err != nil {
		return err
	}
	w, err := read[client.CreatedWebhook](api.CreateWebhookWithBody(ctx, site, &client.CreateWebhookParams{IdempotencyKey: onceKey()}, "application/json", bytes.NewReader(body)))
	if err != nil || s.machine(w.raw) {
		return err
	}
	s.field("Webhook", w.value.ID)
	s.field("Secret", w.value.Secret)
	for _, trigger := range w.value.Triggers {
		s.field("Trigger", trigger.ID+"  "+trigger.Name)
	}
	s.say("Keep the secret now: it verifies the messages, and is never shown again.")
	return nil
}

// body is what is sent. Triggers go as they were written, so that the api lists what is wrong with each.
func (c *createCommand) body(ctx context.Context, s *session) ([]byte, error) {
	switch given := c.Address != "" || c.Description != "" || c.Format != "" || len(c.Trigger) > 0; {
	case c.File != "" && given:
		return nil, usage("--file has the whole webhook: give nothing beside it")
	case c.File != "":
		return s.input(ctx, c.File, io.ReadAll)
	case c.Address == "":
		return nil, usage("a URL is needed, to which messages are sent: pwh create https://…")
	}
	fields := map[string]any{"url": c.Address}
	if c.Description != "" {
		fields["description"] = c.Description
	}
	if c.Format != "" {
		fields["format"] = c.Format
	}
	var triggers []map[string]any
	for _, text := range c.Trigger {
		trigger, err := parseTrigger(text)
		if err != nil {
			return nil, err
		}
		triggers = append(triggers, trigger)
	}
	if triggers != nil {
		fields["triggers"] = triggers
	}
	return json.Marshal(fields)
}

type deleteCommand struct {
	one
	Yes bool `help:"Do not ask."`
}

func (c *deleteCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	if !c.Yes {
		s.notes.printf("Delete %s with its triggers, and cancel what waits? [y/N] ", clean(c.Webhook))
		line, err := s.input(ctx, "-", func(r io.Reader) ([]byte, error) { return bufio.NewReader(r).ReadBytes('\n') })
		if ctx.Err() != nil {
			return err
		}
		if reply := strings.ToLower(strings.TrimSpace(string(line))); reply != "y" && reply != "yes" {
			s.notes.printf("\n")
			return usage("nothing was deleted: answer y, or give --yes")
		}
	}
	if _, err := read[struct{}](api.RemoveWebhook(ctx, site, c.Webhook, &client.RemoveWebhookParams{})); err != nil {
		return err
	}
	s.say("%s is deleted.", c.Webhook)
	return nil
}

type enableCommand struct{ one }

func (c *enableCommand) Run(ctx context.Context, s *session) error {
	return s.enable(ctx, c.Webhook, true, "%s is enabled: what waited is sent now.")
}

type disableCommand struct{ one }

func (c *disableCommand) Run(ctx context.Context, s *session) error {
	return s.enable(ctx, c.Webhook, false, "%s is disabled: what fires waits until pwh enable.")
}

func (s *session) enable(ctx context.Context, id string, enabled bool, sentence string) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	w, err := read[client.Webhook](api.PatchWebhook(ctx, site, id, &client.PatchWebhookParams{}, client.WebhookPatch{Enabled: &enabled}))
	if err != nil || s.machine(w.raw) {
		return err
	}
	s.say(sentence, w.value.ID)
	return nil
}

type rotateCommand struct {
	one
	Kind    string        `default:"v1" help:"v1: a shared secret; v1a: a pair of ed25519 keys, which signs beside it."`
	Overlap time.Duration `default:"24h" help:"How long the old one signs beside the new one."`
}

func (c *rotateCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	kind, overlap := client.RotateSecretKind(c.Kind), int(c.Overlap/time.Second)
	rotated, err := read[client.RotatedSecret](api.RotateSecret(ctx, site, c.Webhook, &client.RotateSecretParams{IdempotencyKey: onceKey()},
		client.RotateSecret{Kind: &kind, OverlapSeconds: &overlap}))
	if err != nil || s.machine(rotated.raw) {
		return err
	}
	if public := rotated.value.PublicKey; public != nil {
		s.field("Public key", *public)
		s.field("Found at", strings.TrimSuffix(s.URL, "/")+textOrNone(rotated.value.PublicKeysURL))
		s.say("It signs from now on; older keys do so until %s.", s.at(rotated.value.OldExpireAt))
		return nil
	}
	s.field("Secret", textOrNone(rotated.value.Secret))
	s.say("Keep it now: it is never shown again. The old one signs beside it until %s.", s.at(rotated.value.OldExpireAt))
	return nil
}
