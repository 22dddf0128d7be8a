package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// SecretKind is how a secret signs.
type SecretKind string

// The kinds, as the signatures of Standard Webhooks are marked.
const (
	SharedSecret SecretKind = "v1"  // HMAC-SHA256
	KeyPair      SecretKind = "v1a" // ed25519
)

// Secret is what a webhook's messages are signed with.
type Secret struct {
	Kind      SecretKind
	Sealed    []byte
	PublicKey string // of a KeyPair
}

// mostSecrets is how many of a kind sign at the same time: each makes the header longer.
const mostSecrets = 3

// Whatever expires earlier does so still.
const (
	expireSecrets = `
		UPDATE webhook_secrets SET expires_at = least(expires_at, now() + $3::interval)
		WHERE webhook_id = $1 AND kind = $2 AND (expires_at IS NULL OR expires_at > now())`
	// The oldest go where there are too many, and what has expired goes in any case.
	trimSecrets = `
		DELETE FROM webhook_secrets WHERE webhook_id = $1 AND (expires_at <= now() OR id IN (
			SELECT id FROM webhook_secrets WHERE webhook_id = $1 AND kind = $2 AND expires_at > now() ORDER BY id DESC OFFSET $3))`
	addSecret = `
		INSERT INTO webhook_secrets (webhook_id, kind, sealed, public_key) VALUES ($1, $2, $3, nullif($4, ''))`
)

// RotateSecret adds a secret to a webhook. Those of its kind that were there sign beside it for as long
// as the overlap, at most two of them; it returns when they end.
func (s *Store) RotateSecret(ctx context.Context, siteID int64, webhookID string, next Secret, overlap time.Duration) (expire time.Time, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := readWebhook(ctx, tx, siteID, webhookID, " FOR UPDATE OF w"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, expireSecrets, webhookID, next.Kind, overlap); err != nil {
			return wrap("expire secrets", err)
		}
		if _, err := tx.Exec(ctx, trimSecrets, webhookID, next.Kind, mostSecrets-1); err != nil {
			return wrap("remove expired secrets", err)
		}
		if _, err := tx.Exec(ctx, addSecret, webhookID, next.Kind, next.Sealed, next.PublicKey); err != nil {
			return wrap("add a secret", err)
		}
		return wrap("add a secret", tx.QueryRow(ctx, "SELECT now() + $1::interval", overlap).Scan(&expire))
	})
	return expire, err
}

// RemoveKeys ends a webhook's signatures with key pairs.
func (s *Store) RemoveKeys(ctx context.Context, siteID int64, webhookID string) error {
	if err := s.requireWebhook(ctx, siteID, webhookID); err != nil {
		return err
	}
	_, err := s.db(ctx).Exec(ctx, "DELETE FROM webhook_secrets WHERE webhook_id = $1 AND kind = $2", webhookID, KeyPair)
	return wrap("remove keys", err)
}

// Secrets reads what a webhook's messages are signed with now, sealed, in the order of the dispatchers.
func (s *Store) Secrets(ctx context.Context, webhookID string) ([][]byte, error) {
	rows, err := s.db(ctx).Query(ctx, `
		SELECT sealed FROM webhook_secrets
		WHERE webhook_id = $1 AND (expires_at IS NULL OR expires_at > now()) ORDER BY created_at DESC, id DESC`, webhookID)
	if err != nil {
		return nil, wrap("read secrets", err)
	}
	sealed, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	return sealed, wrap("read secrets", err)
}

// PublicKey is one that a webhook's messages can be verified with.
type PublicKey struct {
	PublicKey string
	ExpiresAt *time.Time
}

// PublicKeys reads those of a webhook, the newest first; ErrNotFound if there are none.
func (s *Store) PublicKeys(ctx context.Context, webhookID string) ([]PublicKey, error) {
	rows, err := s.db(ctx).Query(ctx, `
		SELECT public_key, expires_at FROM webhook_secrets
		WHERE webhook_id = $1 AND public_key IS NOT NULL AND (expires_at IS NULL OR expires_at > now()) ORDER BY id DESC`, webhookID)
	if err != nil {
		return nil, wrap("read public keys", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PublicKey])
	if err == nil && len(keys) == 0 {
		return nil, ErrNotFound
	}
	return keys, wrap("read public keys", err)
}

// sealedAtOnce is how many secrets are read at a time.
const sealedAtOnce = 500

// Reseal gives each secret to reseal, and stores what it returns instead, unless that is nil or the secret has
// changed meanwhile. It returns how many were stored.
func (s *Store) Reseal(ctx context.Context, reseal func(webhookID string, sealed []byte) []byte) (stored int64, err error) {
	type row struct {
		ID        int64
		WebhookID string
		Sealed    []byte
	}
	for last := int64(0); ; {
		rows, err := s.db(ctx).Query(ctx, "SELECT id, webhook_id, sealed FROM webhook_secrets WHERE id > $1 ORDER BY id LIMIT $2", last, sealedAtOnce)
		if err != nil {
			return stored, wrap("read secrets", err)
		}
		secrets, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			return stored, wrap("read secrets", err)
		}
		for _, old := range secrets {
			next := reseal(old.WebhookID, old.Sealed)
			if next == nil {
				continue
			}
			tag, err := s.db(ctx).Exec(ctx, "UPDATE webhook_secrets SET sealed = $3 WHERE id = $1 AND sealed = $2", old.ID, old.Sealed, next)
			if err != nil {
				return stored, wrap("seal a secret anew", err)
			}
			stored += tag.RowsAffected()
		}
		if len(secrets) < sealedAtOnce {
			return stored, nil
		}
		last = secrets[len(secrets)-1].ID
	}
}
