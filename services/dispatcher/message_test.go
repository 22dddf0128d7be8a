package dispatcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

func TestHeadersThatCannotBeReadAreAFaultOfOurs(t *testing.T) {
	c := newCache(vault.Vault{}, target.Policy{})
	for _, document := range []string{`[]`, `{"a": 1}`, `{"a": {}}`, `x`, ``} {
		w := c.prepare(postgres.Webhook{ID: "wh_1", URL: "https://example.com", Headers: []byte(document)})
		require.Error(t, w.fault, document)
	}
}

func TestShownHeadersMaskTheOwners(t *testing.T) {
	own := http.Header{"Authorization": {"Bearer canary"}}
	w := &webhook{shownHead: shownHead(outgoing.Lasting(own), own), signers: []signature.Signer{signature.NewSecret()}}
	sent := outgoing.Sign("msg_1", []byte("{}"), noon, w.signers)
	var shown map[string]string
	require.NoError(t, json.Unmarshal([]byte(w.shownHeaders(sent)), &shown))
	assert.Len(t, shown, 6)
	assert.Equal(t, sent[2].Value, shown["Webhook-Signature"])
	assert.Equal(t, "***", shown["Authorization"])
	assert.Equal(t, "msg_1", shown["Webhook-Id"])
	assert.Equal(t, "application/json", shown["Content-Type"])
	assert.Regexp(t, `^Plausible-Webhooks/\S+$`, shown["User-Agent"])
}

// TestDocumentsAreJSON, whatever a receiver sends.
func TestDocumentsAreJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "texts")
		var got map[string]string
		fields := []outgoing.Field{}
		for name, value := range texts {
			fields = append(fields, outgoing.Field{Name: name, Value: value})
		}
		require.NoError(t, json.Unmarshal([]byte(object(fields)), &got))
		require.Len(t, got, len(texts))
		for name, value := range texts {
			require.Equal(t, value, got[name])
		}
		var timings map[string]float64
		document := shownTimings(sender.Timings{
			DNS:  time.Duration(rapid.Int64().Draw(t, "dns")),
			Body: time.Duration(rapid.Int64().Draw(t, "body")),
		})
		require.NoError(t, json.Unmarshal([]byte(document), &timings), document)
	})
	assert.Empty(t, object(nil))
}

func TestPrepareFindsFaults(t *testing.T) {
	v := newVault(t, 1)
	c := newCache(v, target.NewPolicy(false, nil))
	good := v.Seal(signature.NewSecret().Reveal(), "wh_1")
	row := postgres.Webhook{ID: "wh_1", URL: "https://example.com/", Headers: []byte("{}"), TimeoutSeconds: 5, Enabled: true, Sealed: [][]byte{good}}
	w := c.prepare(row)
	require.NoError(t, w.fault)
	require.Nil(t, w.refused)
	assert.Equal(t, 5*time.Second, w.timeout)

	for name, spoil := range map[string]func(*postgres.Webhook){
		"no secret":         func(r *postgres.Webhook) { r.Sealed = nil },
		"another webhook's": func(r *postgres.Webhook) { r.Sealed = [][]byte{good, v.Seal(signature.NewSecret().Reveal(), "wh_2")} },
		"no secret in it":   func(r *postgres.Webhook) { r.Sealed = [][]byte{v.Seal("canary", "wh_1")} },
		"headers":           func(r *postgres.Webhook) { r.Headers = []byte("[]") },
	} {
		bad := row
		spoil(&bad)
		err := c.prepare(bad).fault
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "canary")
	}
	for _, u := range []string{"http://example.com/", "https://127.0.0.1/", "https://canary@example.com/", "::"} {
		bad := row
		bad.URL = u
		refused := c.prepare(bad).refused
		require.NotNil(t, refused, u)
		assert.Equal(t, sender.Refused, refused.Class)
		assert.NotContains(t, refused.Text, "canary")
	}
}

func TestCacheForgets(t *testing.T) {
	c := newCache(newVault(t, 1), target.Policy{})
	of := []*delivery{{Delivery: postgres.Delivery{WebhookID: "wh_1"}}, {Delivery: postgres.Delivery{WebhookID: "wh_1"}}}
	_, absent := c.get(of)
	assert.Equal(t, []string{"wh_1"}, absent)

	generation := c.generation()
	c.put([]*webhook{{id: "wh_1", loaded: time.Now()}}, generation)
	found, absent := c.get(of)
	assert.Len(t, found, 1)
	assert.Empty(t, absent)

	c.drop("wh_1")
	_, absent = c.get(of)
	assert.Len(t, absent, 1)
	c.put([]*webhook{{id: "wh_1", loaded: time.Now()}}, generation) // it was read before the change
	_, absent = c.get(of)
	assert.Len(t, absent, 1)

	c.put([]*webhook{{id: "wh_1", loaded: time.Now().Add(-cacheTime)}}, c.generation())
	_, absent = c.get(of)
	assert.Len(t, absent, 1)
	c.expire()
	assert.Empty(t, c.byID)
}

// TestHealthIsWrittenWhenItChanges, and only then.
func TestHealthIsWrittenWhenItChanges(t *testing.T) {
	w := &webhook{id: "wh_1"}
	w.enabled.Store(true)
	assert.Nil(t, w.react(verdict{decision: delivered}, noon, false, false))
	assert.Equal(t, &postgres.Health{WebhookID: "wh_1", FailedAt: noon, Error: "500"}, w.react(verdict{decision: retry, reason: "500"}, noon, false, false))
	assert.Nil(t, w.react(verdict{decision: retry}, noon, false, false))
	assert.Nil(t, w.react(verdict{decision: dead}, noon, false, false))
	later := noon.Add(failureNote)
	assert.Equal(t, &postgres.Health{WebhookID: "wh_1", FailedAt: later, Error: "502"}, w.react(verdict{decision: retry, reason: "502"}, later, false, false), "it fails still")
	assert.Equal(t, &postgres.Health{WebhookID: "wh_1"}, w.react(verdict{decision: delivered}, noon, false, false))
	assert.Nil(t, w.react(verdict{decision: delivered}, noon, false, false))
	gone := w.react(verdict{decision: disabled, reason: "gone"}, noon, false, false)
	assert.Equal(t, noon, gone.FailedAt)
	assert.Contains(t, gone.Disable, "gone")
	assert.False(t, w.enabled.Load())
	assert.Nil(t, w.react(verdict{decision: disabled}, noon, false, false))

	other := &postgres.Health{WebhookID: "wh_0", FailedAt: noon}
	health := healthOf([]outcome{{health: gone}, {}, {health: other}, {health: &postgres.Health{WebhookID: "wh_1"}}})
	assert.Equal(t, []postgres.Health{*other, {WebhookID: "wh_1", Disable: gone.Disable}}, health, "the last one counts, but a disabling stays")
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Concurrency: 256, WebhookConcurrency: 16, DrainRate: 50, DrainTimeout: 20 * time.Second, Retention: 2160 * time.Hour, StreamReplicas: 1}
	require.Empty(t, good.Validate())
	bad := Config{Concurrency: 1, WebhookConcurrency: 2, DrainTimeout: -1, Retention: time.Hour, StreamReplicas: 7}
	text := errors.Join(bad.Validate()...).Error()
	for _, name := range []string{"CONCURRENCY", "WEBHOOK_CONCURRENCY", "DRAIN_RATE_PER_SECOND", "DRAIN_TIMEOUT", "RETENTION", "STREAM_REPLICAS"} {
		assert.Contains(t, text, name)
	}
}

// FuzzDecode: whatever a message holds, it becomes a firing that a row can hold, or an error.
func FuzzDecode(f *testing.F) {
	f.Add("msg_1", "2026-11-23T12:00:00Z", "visitor_spike.fired", "1", "tr_1", "wh_1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", []byte("{}"))
	f.Add("", "x", "..", "-", "\x00", "a.b", "\xff", []byte(nil))
	f.Fuzz(func(t *testing.T, id, slot, kind, site, triggerID, webhookID, trace string, data []byte) {
		header := nats.Header{}
		for name, value := range map[string]string{
			jetstream.MsgIDHeader: id, "Firing-Slot": slot, "Firing-Type": kind, "Firing-Site": site,
			"Firing-Trigger": triggerID, "Firing-Webhook": webhookID, "traceparent": trace,
		} {
			header.Set(name, value)
		}
		got, err := stream.Decode(header, data)
		if err != nil {
			return
		}
		for _, text := range []string{got.ID, got.TriggerID, got.WebhookID, got.Type} {
			if text == "" || bytes.ContainsAny([]byte(text), "\x00\r\n ") || len(text) > 200 {
				t.Errorf("%q was taken", text)
			}
		}
		if !bytes.Equal(got.Payload, data) {
			t.Error("the payload is not the message's")
		}
	})
}
