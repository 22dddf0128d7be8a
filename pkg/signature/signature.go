// Package signature signs, and makes what is signed with, as Standard Webhooks 1.0.0 says: over
// "{id}.{timestamp}.{body}" HMAC-SHA256 with a secret that is shared ("v1,") or ed25519 with a
// key of which the receiver needs only the public half ("v1a,"), in base64.
//
// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The headers of a signed message.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// The beginnings of what is signed with, as text, by which they are told apart.
const (
	secretPrefix = "whsec_"
	keyPrefix    = "whsk_"
	publicPrefix = "whpk_"
)

// Signer makes one of a message's signatures: a Secret or a Key. Their printed form is masked, so
// that no log, error or %v can leak them.
type Signer interface {
	Reveal() string // the text, to be shown once or sealed
	fmt.Formatter

	// appendTo appends the signature of signed and body together.
	appendTo(header, signed, body []byte) []byte
}

// Parse reads a secret or a private key.
func Parse(text string) (Signer, error) {
	if strings.HasPrefix(text, keyPrefix) {
		return ParseKey(text)
	}
	return ParseSecret(text)
}

// Secret is the key that a webhook's owner shares with us.
type Secret struct {
	key  func() []byte // a function, because fmt looks into unexported fields without asking Format
	macs *sync.Pool    // of hash.Hash, keyed: half of a signature's cost is the keying
}

func newSecret(key []byte) Secret {
	return Secret{
		key:  func() []byte { return key },
		macs: &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }},
	}
}

// NewSecret makes a secret of 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program rather than return an error
	return newSecret(key)
}

// ParseSecret reads "whsec_" and the base64 of 24 to 64 bytes.
func ParseSecret(text string) (Secret, error) {
	encoded, found := strings.CutPrefix(text, secretPrefix)
	if !found {
		return Secret{}, errors.New("a webhook secret starts with " + secretPrefix)
	}
	key, err := decode(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("a webhook secret %w", err)
	}
	if len(key) < 24 || len(key) > 64 {
		return Secret{}, fmt.Errorf("a webhook secret has 24 to 64 bytes, not %d", len(key))
	}
	return newSecret(key), nil
}

// decode reads base64 of which each value has one spelling. The decoder itself skips line breaks,
// and its error could quote what it read.
func decode(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("must be padded standard base64")
	}
	return raw, nil
}

// Reveal is the secret's text.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key()) }

// String masks the secret.
func (s Secret) String() string { return secretPrefix + "***" }

// Format masks the secret for every verb: %d and %x would reach the bytes otherwise.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

func (s Secret) appendTo(header, signed, body []byte) []byte {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	mac.Write(signed)
	mac.Write(body)
	var sum [sha256.Size]byte
	return base64.StdEncoding.AppendEncode(append(header, "v1,"...), mac.Sum(sum[:0]))
}

// Key is a private ed25519 key. Receivers need to know nothing secret in order to verify.
type Key struct {
	private func() ed25519.PrivateKey // as in Secret
}

// NewKey makes a random key.
func NewKey() Key {
	_, private, _ := ed25519.GenerateKey(nil) // never fails, as crypto/rand
	return Key{private: func() ed25519.PrivateKey { return private }}
}

// ParseKey reads "whsk_" and the base64 of the 32 bytes of the seed and the 32 of its public key.
func ParseKey(text string) (Key, error) {
	encoded, found := strings.CutPrefix(text, keyPrefix)
	if !found {
		return Key{}, errors.New("a private webhook key starts with " + keyPrefix)
	}
	raw, err := decode(encoded)
	if err != nil {
		return Key{}, fmt.Errorf("a private webhook key %w", err)
	}
	if len(raw) != ed25519.PrivateKeySize {
		return Key{}, fmt.Errorf("a private webhook key has %d bytes, not %d", ed25519.PrivateKeySize, len(raw))
	}
	private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if !bytes.Equal(raw, private) {
		// Two signatures of one message with two public halves would reveal the private one.
		return Key{}, errors.New("a private webhook key ends with the public key that belongs to it")
	}
	return Key{private: func() ed25519.PrivateKey { return private }}, nil
}

// Public is the text of the public key, "whpk_" and base64, which anybody may know.
func (k Key) Public() string {
	return publicPrefix + base64.StdEncoding.EncodeToString(k.private()[ed25519.SeedSize:])
}

// Reveal is the private key's text.
func (k Key) Reveal() string { return keyPrefix + base64.StdEncoding.EncodeToString(k.private()) }

// String masks the key.
func (k Key) String() string { return keyPrefix + "***" }

// Format masks the key for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

func (k Key) appendTo(header, signed, body []byte) []byte {
	signature := ed25519.Sign(k.private(), slices.Concat(signed, body))
	return base64.StdEncoding.AppendEncode(append(header, "v1a,"...), signature)
}

// Sign returns the value of the webhook-signature header: one signature of each signer, in their
// order, with a space between; a receiver takes the one that it can verify. It panics without a
// signer: an unsigned message must never leave.
func Sign(id string, at time.Time, body []byte, signers ...Signer) string {
	if len(signers) == 0 {
		panic("signature: nothing to sign with")
	}
	header := make([]byte, 0, 48*len(signers))
	signed := make([]byte, 0, len(id)+24)
	signed = append(append(signed, id...), '.')
	signed = append(strconv.AppendInt(signed, at.Unix(), 10), '.')
	for i, signer := range signers {
		if i > 0 {
			header = append(header, ' ')
		}
		header = signer.appendTo(header, signed, body)
	}
	return string(header)
}
