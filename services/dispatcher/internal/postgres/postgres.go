// Package postgres is the dispatcher's view of the own database. It writes deliveries,
// attempts and webhook_health, and reads webhooks and their secrets. Each method is one round
// trip; none is made per delivery.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// Store is safe for concurrent use.
type Store struct{ pool *pgxpool.Pool }

// New makes a store on a pool, which stays the caller's.
func New(pool *pgxpool.Pool) *Store { return &Store{pool} }

// Delivery is what is owed to a webhook, as it stood before the attempt that is made now.
type Delivery struct {
	ID           string
	Slot         time.Time
	SiteID       int64
	WebhookID    string
	TriggerID    string // may be empty
	Type         string
	Payload      []byte
	TraceContext string
	Attempts     int    // that were made
	LastError    string // of them
	// ScheduleStart is how many of them were made before its schedule of retries last began.
	ScheduleStart int
}

// Key is the primary key of a delivery.
type Key struct {
	ID   string
	Slot time.Time
}

// Ping asks whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.pool.Ping(ctx) }

// Partitions keeps the weekly partitions of the tables that the dispatcher writes.
func (s *Store) Partitions(ctx context.Context, keep time.Duration) error {
	return errors.Join(
		database.Partitions(ctx, s.pool, "deliveries", keep),
		database.Partitions(ctx, s.pool, "attempts", keep),
	)
}

// IsDataError tells an error that lies in the rows, which a repetition would meet again, from
// one that lies in the server or on the way to it.
func IsDataError(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || len(refused.Code) != 5 {
		return false
	}
	switch refused.Code[:2] {
	case "22", "23", "54": // data exception, integrity constraint, program limit
		return true
	}
	return false
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
