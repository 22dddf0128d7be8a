package dispatcher

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	svix "github.com/svix/svix-webhooks/go"
	"pgregory.net/rapid"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
)

// verifiers are what a receiver checks a message with: for a secret two libraries that know nothing
// of this project, for a key the standard library's ed25519 and the text of the public key.
func verifiers(t require.TestingT, signer signature.Signer) map[string]func(body []byte, header http.Header) bool {
	if key, ok := signer.(signature.Key); ok {
		public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key.Public(), "whpk_"))
		require.NoError(t, err)
		return map[string]func([]byte, http.Header) bool{"ed25519": func(body []byte, header http.Header) bool {
			signed := slices.Concat([]byte(header.Get("webhook-id")+"."+header.Get("webhook-timestamp")+"."), body)
			return slices.ContainsFunc(strings.Split(header.Get("webhook-signature"), " "), func(entry string) bool {
				encoded, found := strings.CutPrefix(entry, "v1a,")
				made, err := base64.StdEncoding.DecodeString(encoded)
				return found && err == nil && len(public) == ed25519.PublicKeySize && ed25519.Verify(public, signed, made)
			})
		}}
	}
	reference, err := standardwebhooks.NewWebhook(signer.Reveal())
	require.NoError(t, err)
	second, err := svix.NewWebhook(signer.Reveal())
	require.NoError(t, err)
	return map[string]func([]byte, http.Header) bool{
		"standard-webhooks": func(body []byte, header http.Header) bool { return reference.Verify(body, header) == nil },
		"svix":              func(body []byte, header http.Header) bool { return second.Verify(body, header) == nil },
	}
}

func signed(body []byte, at time.Time, signers ...signature.Signer) http.Header {
	header := http.Header{}
	for _, f := range outgoing.Sign("msg_1", body, at, signers) {
		header.Set(f.Name, f.Value)
	}
	return header
}

// TestVerifiedByOthers: what we sign is accepted with each secret and each key that signed it, in
// whatever company, and with no other; and not when anything that is signed differs.
func TestVerifiedByOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(t, "body")
		signers := make([]signature.Signer, rapid.IntRange(1, 4).Draw(t, "signers"))
		for i := range signers {
			signers[i] = signature.NewSecret()
			if rapid.Bool().Draw(t, "is a key") {
				signers[i] = signature.NewKey()
			}
		}
		header := signed(body, time.Now(), signers...)
		other := bytes.Clone(body)
		other[rapid.IntRange(0, len(body)-1).Draw(t, "byte")] ^= 1
		spoilt := map[string]http.Header{}
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			spoilt[name+" missing"] = header.Clone()
			spoilt[name+" missing"].Del(name)
		}
		spoilt["another id"] = header.Clone()
		spoilt["another id"].Set("webhook-id", "msg_2")
		spoilt["another second"] = header.Clone()
		at, err := strconv.Atoi(header.Get("webhook-timestamp"))
		require.NoError(t, err)
		spoilt["another second"].Set("webhook-timestamp", strconv.Itoa(at-1))

		for _, signer := range signers {
			for name, accepts := range verifiers(t, signer) {
				require.True(t, accepts(body, header), name)
				require.False(t, accepts(other, header), "%s: another body", name)
				for what, wrong := range spoilt {
					require.False(t, accepts(body, wrong), "%s: %s", name, what)
				}
			}
		}
		for _, stranger := range []signature.Signer{signature.NewSecret(), signature.NewKey()} {
			for name, accepts := range verifiers(t, stranger) {
				require.False(t, accepts(body, header), "%s: a stranger", name)
			}
		}
	})
}

// TestReceiversCanTrustTheList: the header that we make is read entry by entry, so that neither a
// part of a signature nor one of another version passes. It is the verifiers that are asked, about
// what they could be shown.
func TestReceiversCanTrustTheList(t *testing.T) {
	body := []byte(`{"type":"webhook.ping"}`)
	for _, signer := range []signature.Signer{signature.NewSecret(), signature.NewKey()} {
		header := signed(body, time.Now(), signer)
		good := header.Get("webhook-signature")
		version, encoded, _ := strings.Cut(good, ",")
		wrong := signed(body, time.Now(), signature.NewSecret(), signature.NewKey()).Get("webhook-signature")
		for name, accepts := range verifiers(t, signer) {
			for list, want := range map[string]bool{
				good: true, wrong + " " + good: true, good + " " + wrong: true, "v2," + encoded + " " + good + " v3,": true,
				strings.Repeat(wrong+" ", 5000) + good: true,
				"":                                     false, version: false, version + ",": false, version + "," + encoded[:len(encoded)/2]: false, good + "x": false,
				"v2," + encoded: false, wrong: false, strings.Replace(good, ",", " ", 1): false, strings.Repeat(wrong+" ", 5000): false,
			} {
				header.Set("webhook-signature", list)
				assert.Equal(t, want, accepts(body, header), "%s: %.80q", name, list)
			}
		}
	}
	secret := signature.NewSecret()
	for name, accepts := range verifiers(t, secret) {
		for age, want := range map[time.Duration]bool{0: true, 4 * time.Minute: true, -4 * time.Minute: true, 5*time.Minute + 2*time.Second: false, -5*time.Minute - 2*time.Second: false} {
			assert.Equal(t, want, accepts(body, signed(body, time.Now().Add(-age), secret)), "%s: %s old", name, age)
		}
	}
}
