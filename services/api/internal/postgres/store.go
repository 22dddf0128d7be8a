// Package postgres keeps the configuration, which the api writes, and reads what the other
// services write: the triggers' states, the deliveries and the webhooks' health.
//
// Every method is told the site and touches no row of another one.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Store is the api's view of the own database.
type Store struct{ pool *pgxpool.Pool }

// New makes a store of an open pool.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Ping tells whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.pool.Ping(ctx) }

// What the callers tell apart.
var (
	ErrNotFound = errors.New("the site has no such thing")
	ErrFull     = errors.New("the site has as many webhooks as it may have")
	ErrBusy     = errors.New("a recovery of the webhook is running")
	ErrAway     = errors.New("the database does not answer")
)

// querier is what a pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

type txKey struct{}

// db is where a method works: in the transaction of its context, or in none.
func (s *Store) db(ctx context.Context) querier {
	if tx, within := ctx.Value(txKey{}).(pgx.Tx); within {
		return tx
	}
	return s.pool
}

// InTx makes what is called with do's context one transaction, and commits it unless do returns an
// error. That error is passed on as it is.
func (s *Store) InTx(ctx context.Context, do func(ctx context.Context) error) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return do(context.WithValue(ctx, txKey{}, tx)) })
}

// inTx commits what do did, unless it returns an error. That error is passed on as it is: it
// may be the caller's own. Within a transaction of InTx it is that which commits.
func (s *Store) inTx(ctx context.Context, do func(tx pgx.Tx) error) error {
	if tx, within := ctx.Value(txKey{}).(pgx.Tx); within {
		return do(tx)
	}
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return wrap("begin", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // after a commit there is nothing to roll back
	if err := do(tx); err != nil {
		return err
	}
	return wrap("commit", tx.Commit(ctx))
}

// wrap says what was being done, and marks the errors that another try may not have.
func wrap(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case away(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrAway, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// away tells a server that cannot be talked to from one that refuses a statement: connection
// exceptions (08), insufficient resources (53) and operator intervention (57P).
func away(err error) bool {
	if refused := new(pgconn.PgError); errors.As(err, &refused) {
		return strings.HasPrefix(refused.Code, "08") || strings.HasPrefix(refused.Code, "53") || strings.HasPrefix(refused.Code, "57P")
	}
	connecting, network := new(pgconn.ConnectError), net.Error(nil)
	return errors.As(err, &connecting) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}
