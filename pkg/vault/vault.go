// Package vault keeps webhook secrets encrypted at rest: the api seals, the dispatcher opens.
// It is AES-256-GCM with a random nonce for each sealing, bound to what the secret belongs
// to, so that a ciphertext copied to another row does not open.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// keyIDSize is how much of the key's hash each ciphertext starts with, to find its key.
const keyIDSize = 4

// Vault seals with its first key and opens with any of them.
type Vault struct {
	keys []key
}

type key struct {
	id   [keyIDSize]byte
	aead cipher.AEAD
}

// UnmarshalText reads keys as base64 of 32 bytes each, with commas between them: the first
// one seals, the others are older ones that still open. It is what SECRETS_KEY holds.
func (v *Vault) UnmarshalText(text []byte) error {
	v.keys = nil
	for part := range strings.SplitSeq(string(text), ",") {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil || len(raw) != 32 {
			return errors.New("must be the base64 of 32 random bytes (openssl rand -base64 32), several with commas between them")
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return fmt.Errorf("make the cipher: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return fmt.Errorf("make the cipher: %w", err)
		}
		sum := sha256.Sum256(raw)
		v.keys = append(v.keys, key{id: [keyIDSize]byte(sum[:keyIDSize]), aead: aead})
	}
	return nil
}

// String keeps the keys out of printed configurations.
func (v Vault) String() string { return fmt.Sprintf("vault(%d keys)", len(v.keys)) }

// Seal encrypts a secret for its owner, the webhook's id.
func (v Vault) Seal(secret, owner string) []byte {
	first := v.keys[0]
	return first.aead.Seal(append([]byte(nil), first.id[:]...), nil, []byte(secret), []byte(owner))
}

// Current tells whether the first key sealed it, so that the others are not needed for it.
func (v Vault) Current(sealed []byte) bool {
	return len(sealed) >= keyIDSize && v.keys[0].id == [keyIDSize]byte(sealed[:keyIDSize])
}

// Open decrypts what Seal made for the same owner.
func (v Vault) Open(sealed []byte, owner string) (string, error) {
	if len(sealed) < keyIDSize {
		return "", errors.New("open secret: the ciphertext is too short")
	}
	for _, k := range v.keys {
		if k.id != [keyIDSize]byte(sealed[:keyIDSize]) {
			continue
		}
		secret, err := k.aead.Open(nil, nil, sealed[keyIDSize:], []byte(owner))
		if err != nil {
			return "", errors.New("open secret: it was sealed for another webhook, or damaged")
		}
		return string(secret), nil
	}
	return "", errors.New("open secret: it was sealed with a key that SECRETS_KEY does not hold")
}
