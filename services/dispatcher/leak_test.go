package dispatcher

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
)

// TestSecretsStayInside: unique strings put where secrets stand are nowhere to be found but at the
// receiver, whatever becomes of a delivery. (What a receiver answers is shown on purpose.)
func TestSecretsStayInside(t *testing.T) {
	const canary = "CANARY7f3a9"
	w := newWorld(t)
	receiver := newReceiver(t, func(out http.ResponseWriter, in *http.Request) {
		switch {
		case strings.HasPrefix(in.URL.Path, "/ok"):
		case strings.HasPrefix(in.URL.Path, "/hang"):
			<-in.Context().Done()
		default:
			out.WriteHeader(http.StatusInternalServerError)
		}
	})
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	d := w.start(func(d *dispatcher) { d.service.Tracer = provider.Tracer("test") })

	secret, key := signature.NewSecret(), signature.NewKey()
	headers := map[string]string{"Authorization": "Bearer " + canary, "X-Key": canary}
	for url, attempted := range map[string]string{
		receiver.URL + "/ok/" + canary + "?token=" + canary:                    "delivered",
		receiver.URL + "/fail/" + canary + "?token=" + canary:                  "waiting",
		receiver.URL + "/hang/" + canary:                                       "waiting",
		"http://" + strings.ToLower(canary) + ".invalid/" + canary:             "waiting",
		"http://127.0.0.1:1/" + canary:                                         "waiting",
		"http://10.0.0.1/" + canary:                                            "waiting",
		"http://user:" + canary + "@127.0.0.1/":                                "waiting",
		"http://127.0.0.1/%zz" + canary:                                        "waiting",
		"gopher://127.0.0.1/" + canary:                                         "waiting",
		strings.Replace(receiver.URL, "http:", "https:", 1) + "/tls/" + canary: "waiting",
	} {
		id := w.webhook(url, options{secrets: []signature.Secret{secret}, headers: headers, timeout: 1})
		w.exec("INSERT INTO webhook_secrets (webhook_id, sealed, kind, public_key) VALUES ($1, $2, 'v1a', $3)", id, w.config.SecretsKey.Seal(key.Reveal(), id), key.Public())
		f := w.publish(firing(id))[0]
		w.becomes(f.ID, attempted, 1)
	}
	// Secrets that cannot be read are a fault, of which the log tells.
	broken := w.webhook(receiver.URL, options{})
	w.exec("UPDATE webhook_secrets SET sealed = $2 WHERE webhook_id = $1", broken, w.config.SecretsKey.Seal(canary, broken))
	w.becomes(w.publish(firing(broken))[0].ID, "waiting", 0)

	metrics, err := d.registry.Gather()
	require.NoError(t, err)
	require.NoError(t, d.stop())
	var rows string
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT (SELECT string_agg(d::text, ' ') FROM deliveries d) || (SELECT string_agg(a::text, ' ') FROM attempts a) ||
		coalesce((SELECT string_agg(h::text, ' ') FROM webhook_health h), '')`).Scan(&rows))
	document, err := json.Marshal(metrics)
	require.NoError(t, err)
	forbidden := []string{canary, strings.ToLower(canary), base64.StdEncoding.EncodeToString([]byte(canary))[:12]}
	for _, signer := range []signature.Signer{secret, key} {
		_, encoded, _ := strings.Cut(signer.Reveal(), "_")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		require.NoError(t, err)
		forbidden = append(forbidden, encoded, string(raw), fmt.Sprintf("%x", raw[:8]), strings.Trim(fmt.Sprint(raw[:8]), "[]"))
	}
	for place, text := range map[string]string{"logs": w.logs.String(), "rows": rows, "metrics": string(document), "traces": fmt.Sprintf("%+v", spans.GetSpans())} {
		assert.NotEmpty(t, text)
		for _, canary := range forbidden {
			assert.NotContains(t, text, canary, place)
		}
	}
	got := receiver.got()
	require.NotEmpty(t, got)
	assert.Equal(t, canary, got[0].Header.Get("X-Key"), "the receiver gets it")
	for _, r := range got {
		for _, signer := range []signature.Signer{secret, key} {
			for name, accepts := range verifiers(t, signer) {
				assert.True(t, accepts(r.Body, r.Header), "%s: both kinds sign", name)
			}
		}
	}
}

// TestEgressProxyIsOurs: its failure costs a receiver no attempt, and its password is nowhere.
func TestEgressProxyIsOurs(t *testing.T) {
	const canary = "CANARY5c1d2"
	w := newWorld(t)
	receiver := newReceiver(t, status(200))
	require.NoError(t, w.config.EgressProxy.UnmarshalText([]byte("http://user:"+canary+"@127.0.0.1:1")))
	d := w.start()
	f := w.publish(firing(w.webhook(receiver.URL, options{})))[0]
	row := w.becomes(f.ID, "waiting", 0)
	assert.Equal(t, "it could not be sent: the egress proxy could not be reached", row.LastError)
	require.NotNil(t, row.Next)
	w.settled()
	require.NoError(t, d.stop())
	assert.Empty(t, receiver.got())
	assert.Contains(t, w.logs.String(), "egress proxy")
	assert.NotContains(t, w.logs.String()+fmt.Sprintf("%+v", w.config), canary)
	assert.NotContains(t, w.logs.String(), base64.StdEncoding.EncodeToString([]byte("user:"+canary)))

	w.config.EgressProxy = Config{}.EgressProxy // it works again: here, because none is needed
	w.start()
	w.hurry(f.ID)
	w.becomes(f.ID, "delivered", 1)
}
