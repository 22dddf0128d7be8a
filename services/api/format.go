package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/format"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// readFormat reads a webhook's format and template.
func readFormat(o *strict.Object) (format.Format, string) {
	names := make([]string, len(format.Names))
	for i, name := range format.Names {
		names[i] = string(name)
	}
	chosen := format.Format(o.Choice("format", names...))
	template := o.Text("template", 0, format.MaxTemplate)
	if chosen != format.Custom && template != "" {
		o.Refuse("template", `needs the format "custom"`)
	}
	return chosen, template
}

// checkFormat refuses a template that cannot be compiled, or that fails for every kind of message:
// what it does with one of them, a preview shows. A template that is the stored one is not judged
// again: after a new version knows it no longer, its owner must still be able to pause the webhook.
func checkFormat(ctx context.Context, o *strict.Object, d webhookDocument, stored postgres.Webhook) {
	if d.format != format.Custom || d.template == stored.Template && stored.Format == string(format.Custom) {
		return
	}
	renderer, err := format.Compile(d.format, d.template)
	if err != nil {
		o.Refuse("template", "%s", err)
		return
	}
	var first error
	for _, t := range trigger.Types() {
		if _, err = renderer.Render(ctx, mustMarshal(trigger.Example(t))); err == nil {
			return
		}
		if first == nil {
			first = fmt.Errorf("fails for every example of a message, for %s because %w", t, err)
		}
	}
	o.Refuse("template", "%s", first)
}

// PreviewMessage implements rest.StrictServerInterface: it shows what a format makes of an example
// message, before it is saved, and how it would be signed.
func (*api) PreviewMessage(ctx context.Context, request rest.PreviewMessageRequestObject) (rest.PreviewMessageResponseObject, error) {
	by, raw := callOf(ctx), *request.Body
	var problems []strict.Problem
	o := strict.Read("", raw, &problems)
	chosen, template := readFormat(o)
	types := make([]string, 0, len(trigger.Types()))
	for _, t := range trigger.Types() {
		types = append(types, string(t))
	}
	example := trigger.Example(trigger.Type(o.Choice("type", types...)))
	o.End()
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	message := mustMarshal(example)
	renderer, err := format.Compile(chosen, template)
	var body []byte
	if err == nil {
		body, err = renderer.Render(ctx, message)
	}
	if err != nil {
		return nil, invalid([]strict.Problem{{Field: "template", Message: err.Error()}})
	}
	secret, id, at := signature.NewSecret(), example.Data.ID, time.Now()
	return rest.PreviewMessage200JSONResponse{
		Type: example.Type, Message: message, Body: body, Secret: secret.Reveal(),
		Headers: map[string]string{
			"content-type": "application/json", "webhook-id": id, "webhook-timestamp": strconv.FormatInt(at.Unix(), 10),
			"webhook-signature": signature.Sign(id, at, body, secret),
		},
	}, nil
}
