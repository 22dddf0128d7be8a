// Package signature signs and makes secrets as Standard Webhooks 1.0.0 says:
// HMAC-SHA256 over "{id}.{timestamp}.{body}", as "v1," and base64.
//
// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of a signed message.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const secretPrefix = "whsec_"

// Secret is the key that a webhook's owner shares with us. Its printed form is masked, so
// that no log, error or %v can leak it; Reveal gives the text.
type Secret struct{ key []byte }

// NewSecret makes a secret of 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program rather than return an error
	return Secret{key: key}
}

// ParseSecret reads "whsec_" and the base64 of 24 to 64 bytes.
func ParseSecret(text string) (Secret, error) {
	encoded, found := strings.CutPrefix(text, secretPrefix)
	if !found {
		return Secret{}, errors.New("a webhook secret starts with " + secretPrefix)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Secret{}, errors.New("a webhook secret is padded standard base64") // the decoder's text could quote it
	}
	if len(key) < 24 || len(key) > 64 {
		return Secret{}, fmt.Errorf("a webhook secret has 24 to 64 bytes, not %d", len(key))
	}
	return Secret{key: key}, nil
}

// Reveal is the secret's text, to be shown once or sealed.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// String masks the secret.
func (s Secret) String() string { return secretPrefix + "***" }

// Format masks the secret for every verb: %d and %x would reach the bytes otherwise.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// Sign returns the value of the webhook-signature header: one signature for each secret, in
// their order, with a space between. It panics without a secret: an unsigned message must
// never leave.
func Sign(id string, at time.Time, body []byte, secrets ...Secret) string {
	if len(secrets) == 0 {
		panic("signature: no secret to sign with")
	}
	var header []byte
	prefix := make([]byte, 0, len(id)+24)
	prefix = append(append(prefix, id...), '.')
	prefix = append(strconv.AppendInt(prefix, at.Unix(), 10), '.')
	for i, secret := range secrets {
		mac := hmac.New(sha256.New, secret.key)
		mac.Write(prefix)
		mac.Write(body)
		if i > 0 {
			header = append(header, ' ')
		}
		header = base64.StdEncoding.AppendEncode(append(header, "v1,"...), mac.Sum(nil))
	}
	return string(header)
}
