package outgoing

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
)

// TestOwnHeadersNeverReplaceOurs, in any spelling, nor break the request.
func TestOwnHeadersNeverReplaceOurs(t *testing.T) {
	ours := []string{
		"content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature", "webhook-anything", "host", "content-length",
		"transfer-encoding", "connection", "expect", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade", "keep-alive",
		"accept-encoding", "x-forwarded-for", "idempotency-key",
	}
	rapid.Check(t, func(t *rapid.T) {
		name := []byte(rapid.SampledFrom(ours).Draw(t, "name"))
		for i := range name {
			if rapid.Bool().Draw(t, "upper") {
				name[i] = bytes.ToUpper(name[i : i+1])[0]
			}
		}
		require.Equal(t, http.Header{"X-Fine": {"theirs"}}, Own(map[string]string{string(name): "theirs", "X-Fine": "theirs"}))
	})
	for name, value := range map[string]string{"X-A": "a\r\nX: y", "X-B": "a\nb", "X-C": "a\x00", "X D": "space", "X-É": "name", "": "empty", "X:": "colon"} {
		assert.Empty(t, Own(map[string]string{name: value}), "%q: %q", name, value)
	}
}

func TestAWebhookWithoutASecretCannotBeSigned(t *testing.T) {
	_, err := Signers(vault.Vault{}, "wh_1", nil)
	require.EqualError(t, err, "the webhook has no secret to sign with")
}
