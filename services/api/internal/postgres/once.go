package postgres

import (
	"context"
	"time"
)

// Once is a request that changes something a single time, however often it is sent.
type Once struct {
	ID      [32]byte // of its sender and its Idempotency-Key
	Request [32]byte // of what it asks for
}

// keepAnswers is how long an answer is given again.
const keepAnswers = 24 * time.Hour

// A row is there from the beginning of the transaction, so that a second request with the same id
// waits for its end. Old rows go with new ones, a few at a time.
const (
	forgetAnswers = `
		DELETE FROM answers WHERE id IN (SELECT id FROM answers WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED)`
	beginOnce = `
		INSERT INTO answers (id, request) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET request = EXCLUDED.request, sealed = NULL, created_at = now() WHERE answers.created_at < now() - $3::interval`
	selectAnswer = `SELECT sealed, request FROM answers WHERE id = $1`
	updateAnswer = `UPDATE answers SET sealed = $2 WHERE id = $1`
)

// Begin claims an id within a transaction of InTx. If it was used before, it returns the answer that was
// kept, and what was asked for then.
func (s *Store) Begin(ctx context.Context, o Once) (sealed []byte, request [32]byte, known bool, err error) {
	if _, err := s.db(ctx).Exec(ctx, forgetAnswers, keepAnswers); err != nil {
		return nil, request, false, wrap("forget answers", err)
	}
	claimed, err := s.db(ctx).Exec(ctx, beginOnce, o.ID[:], o.Request[:], keepAnswers)
	if err != nil {
		return nil, request, false, wrap("begin once", err)
	}
	if claimed.RowsAffected() == 1 {
		return nil, request, false, nil
	}
	var asked []byte
	err = s.db(ctx).QueryRow(ctx, selectAnswer, o.ID[:]).Scan(&sealed, &asked)
	copy(request[:], asked)
	return sealed, request, true, wrap("read an answer", err)
}

// KeepAnswer keeps the answer of a request that Begin claimed.
func (s *Store) KeepAnswer(ctx context.Context, o Once, sealed []byte) error {
	_, err := s.db(ctx).Exec(ctx, updateAnswer, o.ID[:], sealed)
	return wrap("keep an answer", err)
}
