package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

const (
	defaultOverlap = 24 * 60 * 60 // seconds
	longestOverlap = 7 * 24 * 60 * 60
)

// RotateSecret implements rest.StrictServerInterface: it makes a new secret (v1), or a new pair of
// keys (v1a), beside which the old ones sign for a while. A webhook has a secret from the start, and
// keys once it has asked for them. A secret is shown here and never again, the private half of a key never.
func (a *api) RotateSecret(ctx context.Context, request rest.RotateSecretRequestObject) (rest.RotateSecretResponseObject, error) {
	by, id := callOf(ctx), request.ID
	raw := json.RawMessage("{}")
	if request.Body != nil {
		raw = *request.Body
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
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	answer, next := rest.RotatedSecret{Kind: rest.RotatedSecretKind(kind)}, postgres.Secret{Kind: kind}
	if kind == postgres.KeyPair {
		key := signature.NewKey()
		next.Sealed, next.PublicKey = a.vault.Seal(key.Reveal(), id), key.Public()
		answer.PublicKey, answer.PublicKeysURL = &next.PublicKey, new("/api/public-keys/"+id)
	} else {
		secret := signature.NewSecret().Reveal()
		next.Sealed, answer.Secret = a.vault.Seal(secret, id), &secret
	}
	expire, err := a.store.RotateSecret(ctx, by.site.ID, id, next, overlap)
	if err != nil {
		return nil, err
	}
	answer.OldExpireAt = expire.UTC()
	by.afterCommit(func() { a.announce(stream.ChangedWebhook, id) })
	return rest.RotateSecret200JSONResponse(answer), nil
}

// RemoveKeys implements rest.StrictServerInterface: from now on there are only signatures with secrets.
func (a *api) RemoveKeys(ctx context.Context, request rest.RemoveKeysRequestObject) (rest.RemoveKeysResponseObject, error) {
	by := callOf(ctx)
	if err := a.store.RemoveKeys(ctx, by.site.ID, request.ID); err != nil {
		return nil, err
	}
	by.afterCommit(func() { a.announce(stream.ChangedWebhook, request.ID) })
	return rest.RemoveKeys204Response{}, nil
}

// ListPublicKeys implements rest.StrictServerInterface. It needs no API key: receivers ask for what
// anybody may know, by an id that they were given. A webhook without keys is as one that does not exist.
func (a *api) ListPublicKeys(ctx context.Context, request rest.ListPublicKeysRequestObject) (rest.ListPublicKeysResponseObject, error) {
	keys, err := a.store.PublicKeys(ctx, request.ID)
	if err != nil {
		return nil, err
	}
	views := make([]rest.PublicKey, len(keys))
	for i, k := range keys {
		views[i] = rest.PublicKey{PublicKey: k.PublicKey, ExpiresAt: utc(k.ExpiresAt)}
	}
	return rest.ListPublicKeys200JSONResponse{
		Body:    rest.PublicKeyList{PublicKeys: views},
		Headers: rest.ListPublicKeys200ResponseHeaders{CacheControl: "public, max-age=300"},
	}, nil
}

// sealAnew seals with the first of SECRETS_KEY what an older one of them sealed, so that the older can be
// taken away. It is done at each start; usually there is nothing to do.
func (a *api) sealAnew(ctx context.Context) error {
	stored, err := a.store.Reseal(ctx, func(webhookID string, sealed []byte) []byte {
		if a.vault.Current(sealed) {
			return nil
		}
		secret, err := a.vault.Open(sealed, webhookID)
		if err != nil {
			a.log.Warn("a webhook's secret cannot be read: its messages cannot be signed until it is rotated, or its key is in SECRETS_KEY again", "webhook_id", webhookID, "error", err.Error())
			return nil
		}
		return a.vault.Seal(secret, webhookID)
	})
	if stored > 0 {
		a.log.Info("secrets were sealed with the first of SECRETS_KEY", "secrets", stored)
	}
	return err
}
