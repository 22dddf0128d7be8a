package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lease is the right to evaluate a shard. The epoch rises with every change of owner.
type Lease struct {
	Shard    int
	Owner    string
	Epoch    int64
	LastSlot time.Time // the newest slot evaluated by anyone; zero: none yet
}

// ErrFenced is the error of a write by an owner that lost its lease.
var ErrFenced = errors.New("the lease has another owner now")

const acquireLease = `
	INSERT INTO evaluator_leases AS l (shard, owner, epoch, expires_at)
	VALUES ($1, $2, 1, now() + $3::interval)
	ON CONFLICT (shard) DO UPDATE
	SET owner = excluded.owner, expires_at = excluded.expires_at,
	    epoch = l.epoch + CASE WHEN l.owner = excluded.owner THEN 0 ELSE 1 END
	WHERE l.owner = excluded.owner OR l.expires_at < now()
	RETURNING epoch, last_slot`

// AcquireLease takes the shard if it is free, or renews the owner's own lease. It reports
// false while another owner holds it.
func (s *Store) AcquireLease(ctx context.Context, shard int, owner string, ttl time.Duration) (Lease, bool, error) {
	lease := Lease{Shard: shard, Owner: owner}
	var lastSlot *time.Time
	err := s.pool.QueryRow(ctx, acquireLease, shard, owner, ttl).Scan(&lease.Epoch, &lastSlot)
	if errors.Is(err, pgx.ErrNoRows) {
		return Lease{}, false, nil
	}
	if err != nil {
		return Lease{}, false, fmt.Errorf("acquire the lease of shard %d: %w", shard, err)
	}
	if lastSlot != nil {
		lease.LastSlot = lastSlot.UTC()
	}
	return lease, true, nil
}

// ReleaseLease lets another replica take over at once.
func (s *Store) ReleaseLease(ctx context.Context, lease Lease) error {
	_, err := s.pool.Exec(ctx, "UPDATE evaluator_leases SET expires_at = now() - interval '1 second' WHERE shard = $1 AND owner = $2 AND epoch = $3",
		lease.Shard, lease.Owner, lease.Epoch)
	if err != nil {
		return fmt.Errorf("release the lease of shard %d: %w", lease.Shard, err)
	}
	return nil
}
