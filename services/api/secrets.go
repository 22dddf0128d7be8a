package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

const (
	defaultOverlap = 24 * 60 * 60 // seconds
	longestOverlap = 7 * 24 * 60 * 60
)

// rotatedSecret is what messages are signed with from now on. One of the two is there: a secret is
// shown here and never again, the private half of a key never.
type rotatedSecret struct {
	Kind          postgres.SecretKind `json:"kind"`
	Secret        string              `json:"secret,omitempty"`
	PublicKey     string              `json:"public_key,omitempty"`
	PublicKeysURL string              `json:"public_keys_url,omitempty"`
	// OldExpireAt is until when those that were there before sign beside it.
	OldExpireAt time.Time `json:"old_expire_at"`
}

// rotateSecret makes a new secret (v1), or a new pair of keys (v1a), beside which the old ones sign
// for a while. A webhook has a secret from the start, and keys once it has asked for them.
func (a *api) rotateSecret(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	raw := []byte("{}")
	if c.Request().ContentLength != 0 {
		if raw, err = readBody(c); err != nil {
			return err
		}
	}
	var problems []strict.Problem
	o := strict.Read("", raw, &problems)
	kind := postgres.SecretKind(o.Text("kind", 0, 10))
	if !o.Has("kind") {
		kind = postgres.SharedSecret
	}
	if kind != postgres.SharedSecret && kind != postgres.KeyPair {
		o.Refuse("kind", "must be v1, a shared secret, or v1a, a pair of ed25519 keys")
	}
	overlap := time.Duration(o.Integer("overlap_seconds", defaultOverlap, 0, longestOverlap)) * time.Second
	o.End()
	if err := invalid(problems); err != nil {
		return err
	}
	answer, next := rotatedSecret{Kind: kind}, postgres.Secret{Kind: kind}
	if kind == postgres.KeyPair {
		key := signature.NewKey()
		answer.PublicKey, answer.PublicKeysURL = key.Public(), publicKeysURL(id)
		next.Sealed, next.PublicKey = a.vault.Seal(key.Reveal(), id), answer.PublicKey
	} else {
		secret := signature.NewSecret()
		answer.Secret = secret.Reveal()
		next.Sealed = a.vault.Seal(answer.Secret, id)
	}
	expire, err := a.store.RotateSecret(c.Request().Context(), by.site.ID, id, next, overlap)
	if err != nil {
		return err
	}
	answer.OldExpireAt = expire.UTC()
	a.announce(stream.ChangedWebhook, id)
	return c.JSON(http.StatusOK, answer)
}

// removeKeys ends the signatures with keys: from now on there are only those with secrets.
func (a *api) removeKeys(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	if err := a.store.RemoveKeys(c.Request().Context(), by.site.ID, id); err != nil {
		return err
	}
	a.announce(stream.ChangedWebhook, id)
	return c.NoContent(http.StatusNoContent)
}

// publicKeysURL is where anybody finds a webhook's public keys, within this server.
func publicKeysURL(id string) string { return "/api/public-keys/" + id }

type publicKeyView struct {
	PublicKey string     `json:"public_key"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// listPublicKeys needs no API key: receivers ask for what anybody may know, by an id that they were
// given. A webhook without keys is as one that does not exist.
func (a *api) listPublicKeys(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	keys, err := a.store.PublicKeys(c.Request().Context(), id)
	if err != nil {
		return err
	}
	views := make([]publicKeyView, len(keys))
	for i, k := range keys {
		views[i] = publicKeyView{k.PublicKey, utc(k.ExpiresAt)}
	}
	c.Response().Header().Set("Cache-Control", "public, max-age=300")
	return c.JSON(http.StatusOK, struct {
		PublicKeys []publicKeyView `json:"public_keys"`
	}{views})
}
