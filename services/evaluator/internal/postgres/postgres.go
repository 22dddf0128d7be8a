// Package postgres is the evaluator's side of the own database: it reads the triggers, and
// writes leases, states and firings.
package postgres

import "github.com/jackc/pgx/v5/pgxpool"

// Store holds the evaluator's statements.
type Store struct {
	pool *pgxpool.Pool
}

// New makes a store on an open pool.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }
