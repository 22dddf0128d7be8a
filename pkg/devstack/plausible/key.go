package plausible

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
)

// HashKey is what Plausible stores of an API key, by the installation's
// SECRET_KEY_BASE: the lowercase hex of SHA-256 over the two, secret first.
func HashKey(secretKeyBase, rawKey string) string {
	sum := sha256.Sum256([]byte(secretKeyBase + rawKey))
	return hex.EncodeToString(sum[:])
}

// demoKey is the raw API key of a demo user: 64 URL-safe characters like Plausible's,
// the same each time for one installation and unknown to those without its secret.
func demoKey(secretKeyBase, user string) string {
	mac := hmac.New(sha512.New, []byte(secretKeyBase))
	mac.Write([]byte("api key of " + user))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:48])
}
