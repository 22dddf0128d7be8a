package api

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFormatsAreStored(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "format": "custom", "template": "{text: .type}"}`)
	id := created.id(t)
	shows := func(format string, template any) {
		t.Helper()
		shown := w.owner(200, "GET", "/"+id, "")
		require.Equal(t, []any{format, template}, []any{shown.json(t, "format"), shown.json(t, "template")})
	}
	shows("custom", "{text: .type}")
	w.announced()

	w.owner(200, "PATCH", "/"+id, `{"description": "d"}`)
	shows("custom", "{text: .type}")
	w.owner(200, "PATCH", "/"+id, `{"format": "custom"}`)
	shows("custom", "{text: .type}")
	w.announced()
	w.owner(200, "PATCH", "/"+id, `{"template": "{text: .data}"}`)
	shows("custom", "{text: .data}")
	require.Equal(t, []string{"changed.webhook." + id}, w.announced())
	w.owner(200, "PUT", "/"+id, w.owner(200, "GET", "/"+id, "").text)
	shows("custom", "{text: .data}")
	require.Empty(t, w.announced())

	require.JSONEq(t, `{"error": "template is required: a jq expression that makes the body of the message.", "errors": [
		{"field": "template", "message": "is required: a jq expression that makes the body of the message"}]}`,
		w.owner(422, "PATCH", "/"+id, `{"template": null}`).text)
	w.owner(422, "PATCH", "/"+id, `{"format": "slack", "template": "."}`)
	w.owner(200, "PATCH", "/"+id, `{"format": "slack"}`) // to which the stored template means nothing
	shows("slack", nil)
	w.owner(422, "PATCH", "/"+id, `{"template": "."}`)
	w.owner(200, "PATCH", "/"+id, `{"format": "custom", "template": "."}`)
	w.owner(200, "PATCH", "/"+id, `{"format": null}`)
	shows("standard", nil)
}

// TestStoredTemplatesAreNotJudgedAgain: a template that a new version knows no longer stands in
// nobody's way but its own.
func TestStoredTemplatesAreNotJudgedAgain(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.exec(w.own, "UPDATE webhooks SET format = 'custom', template = 'forgotten_function' WHERE id = $1", id)
	w.owner(200, "PATCH", "/"+id, `{"enabled": false}`)
	w.owner(200, "PATCH", "/"+id, `{"template": "forgotten_function"}`)
	require.Contains(t, w.owner(422, "PATCH", "/"+id, `{"template": "forgotten_function | ."}`).text, "uses forgotten_function/0, which templates do not have")
}

func TestPreviewShowsWhatWouldBeSent(t *testing.T) {
	w := newWorld(t)
	preview := w.owner(200, "POST", "/preview", `{"format": "custom", "template": "{text: \"\\(.data.site.domain): \\(.data.value)\", t: .type}", "type": "visitor_spike"}`)
	require.Equal(t, map[string]any{"text": "demo.example.com: 143", "t": "visitor_spike.fired"}, preview.json(t, "body"))
	require.Equal(t, "visitor_spike.fired", preview.json(t, "type"))
	require.Equal(t, "visitor_spike.fired", preview.json(t, "message").(map[string]any)["type"])

	standard := w.owner(200, "POST", "/preview", `{}`)
	require.Equal(t, standard.json(t, "message"), standard.json(t, "body"))
	require.NotEmpty(t, w.as(w.demo.ViewerKey, 200, "POST", "/preview", `{"format": "slack"}`).json(t, "body").(map[string]any)["blocks"], "who may look may preview")
	require.NotEmpty(t, w.owner(200, "POST", "/preview", `{"format": "discord"}`).json(t, "body").(map[string]any)["embeds"])
	require.NotEmpty(t, w.owner(200, "POST", "/preview", `{"format": "teams"}`).json(t, "body").(map[string]any)["attachments"])

	for body, want := range map[string]string{
		`{"format": "slack", "template": "."}`:                                `template needs the format \"custom\"`,
		`{"format": "custom"}`:                                                "template is required",
		`{"format": "custom", "template": "."  , "url": "https://a.example"}`: "url is not a known field",
		`{"format": "custom", "template": ".type.x"}`:                         "template the template failed: expected an object",
		`{"format": "custom", "template": "repeat(1) | empty"}`:               "it takes more than 250000 steps",
		`{"format": "custom", "template": "input"}`:                           "template uses input/0",
		`{"type": "visitors"}`:                                                "type must be one of",
	} {
		require.Contains(t, w.owner(422, "POST", "/preview", body).text, want, body)
	}
}
