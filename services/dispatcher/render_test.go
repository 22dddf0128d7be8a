package dispatcher

import (
	"encoding/json"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// TestRenderedBytesAreSentAndSigned; the delivery keeps the standard message.
func TestRenderedBytesAreSentAndSigned(t *testing.T) {
	w := newWorld(t)
	w.start()
	for format, field := range map[string]string{"standard": "data", "slack": "blocks", "discord": "embeds", "teams": "attachments", "custom": "text"} {
		r := newReceiver(t, status(200))
		secret := signature.NewSecret()
		f := firing(w.webhook(r.URL, options{secrets: []signature.Secret{secret}}))
		if format == "custom" {
			w.exec(`UPDATE webhooks SET format = 'custom', template = '{text: "\(.type) <&>", site: .data.site.domain}' WHERE id = $1`, f.WebhookID)
		} else {
			w.exec("UPDATE webhooks SET format = $2 WHERE id = $1", f.WebhookID, format)
		}
		var err error
		f.Payload, err = json.Marshal(trigger.Example(trigger.VisitorSpikeType))
		require.NoError(t, err)
		w.publish(f)
		row := w.becomes(f.ID, "delivered", 1)
		assert.Equal(t, f.Payload, row.Payload, format)

		got := r.got()[0]
		var body map[string]any
		require.NoError(t, json.Unmarshal(got.Body, &body), format)
		assert.Contains(t, body, field, format)
		assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
		verifier, err := standardwebhooks.NewWebhook(secret.Reveal())
		require.NoError(t, err)
		assert.NoError(t, verifier.Verify(got.Body, got.Header), format)
		if format == "custom" {
			assert.Equal(t, `{"site":"demo.example.com","text":"visitor_spike.fired <&>"}`, string(got.Body))
		}
	}
}

// TestFailingTemplateCostsAnAttempt, of which its receiver hears nothing, and a corrected one is used by
// the next.
func TestFailingTemplateCostsAnAttempt(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	d := w.start()
	id := w.webhook(r.URL, options{})
	template := func(text string) {
		w.exec("UPDATE webhooks SET format = 'custom', template = $2 WHERE id = $1", id, text)
		d.webhooks.drop(id)
	}
	template(`.data.id + 1`)
	f := firing(id)
	w.publish(f)
	row := w.becomes(f.ID, "waiting", 1)
	assert.Contains(t, row.LastError, "the template failed: cannot add: string")
	assert.NotNil(t, row.Next, "it waits for the schedule")
	var headers, reason string
	var code *int
	require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT request_headers, status_code, error FROM attempts WHERE delivery_id = $1", f.ID).Scan(&headers, &code, &reason))
	assert.Equal(t, "{}", headers, "nothing was sent")
	assert.Nil(t, code)
	assert.Equal(t, row.LastError, reason)

	template("forgotten_function") // of another version
	w.hurry(f.ID)
	row = w.becomes(f.ID, "waiting", 2)
	assert.Equal(t, "the template uses forgotten_function/0, which templates do not have", row.LastError)
	assert.Empty(t, r.got())
	assert.Equal(t, 2.0, testutil.ToFloat64(d.metrics.attempts.WithLabelValues(string(unrendered))))

	template(".data.id")
	require.NoError(t, stream.Announce(w.nc, stream.ChangedWebhook, id))
	w.hurry(f.ID)
	w.becomes(f.ID, "delivered", 3)
	require.Len(t, r.got(), 1)
	assert.Equal(t, `"`+f.ID+`"`, string(r.got()[0].Body))
}

// TestTemplatesOpenNoCircuit: what a template does says nothing about the receiver.
func TestTemplatesOpenNoCircuit(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	w.start()
	id := w.webhook(r.URL, options{})
	w.exec(`UPDATE webhooks SET format = 'custom', template = 'if .type == "visitor_spike.fired" then error("no") else . end' WHERE id = $1`, id)
	for _, f := range w.publishN(3*tripAfter, id) {
		w.becomes(f.ID, "waiting", 1)
	}
	good := firing(id)
	good.Payload = []byte(`{"type":"webhook.ping"}`)
	w.publish(good)
	w.becomes(good.ID, "delivered", 1)
	require.Len(t, r.got(), 1)
}
