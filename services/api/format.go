package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/format"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
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

// previewMessage shows what a format makes of an example message, before it is saved.
func (*api) previewMessage(c echo.Context, _ access) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	var problems []strict.Problem
	o := strict.Read("", raw, &problems)
	chosen, template := readFormat(o)
	types := make([]string, 0, len(trigger.Types()))
	for _, t := range trigger.Types() {
		types = append(types, string(t))
	}
	example := trigger.Example(trigger.Type(o.Choice("type", types...)))
	o.End()
	if err := invalid(problems); err != nil {
		return err
	}
	message := mustMarshal(example)
	renderer, err := format.Compile(chosen, template)
	var body []byte
	if err == nil {
		body, err = renderer.Render(c.Request().Context(), message)
	}
	if err != nil {
		return invalid([]strict.Problem{{Field: "template", Message: err.Error()}})
	}
	return c.JSON(http.StatusOK, struct {
		Type    string          `json:"type"`
		Message json.RawMessage `json:"message"`
		Body    json.RawMessage `json:"body"` // what would be sent
	}{example.Type, message, body})
}
