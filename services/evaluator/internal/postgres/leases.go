package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Shards is into how many parts the sites are divided among the replicas.
const Shards = 16

// ShardOf is the shard that a site belongs to. Plausible's ids are sequential, so the remainder
// spreads them evenly: no hash could do better. site_shard in the schema is the same function.
func ShardOf(siteID int64) int { return int(siteID % Shards) }

// Lease is the right to evaluate a shard. The epoch rises whenever someone takes it. It lasts
// until its owner gives it up or misses its heartbeats for their time to live.
type Lease struct {
	Shard int
	Owner string
	Epoch int64
}

// ErrFenced is the error of a write by an owner that lost all its leases.
var ErrFenced = errors.New("the leases have other owners now")

// Heartbeat shows that a replica lives, and so renews all its leases, until ttl has passed.
func (s *Store) Heartbeat(ctx context.Context, owner string, ttl time.Duration) error {
	const statement = `
		INSERT INTO evaluator_replicas (owner, expires_at) VALUES ($1, now() + $2::interval)
		ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at`
	if _, err := s.pool.Exec(ctx, statement, owner, ttl); err != nil {
		return fmt.Errorf("renew the leases: %w", err)
	}
	return nil
}

// LiveReplicas counts those whose heartbeat has not expired.
func (s *Store) LiveReplicas(ctx context.Context) (live int, err error) {
	if err := s.pool.QueryRow(ctx, "SELECT count(*) FROM evaluator_replicas WHERE expires_at > now()").Scan(&live); err != nil {
		return 0, fmt.Errorf("count the replicas: %w", err)
	}
	return live, nil
}

// Leases reads what an owner holds, by shard.
func (s *Store) Leases(ctx context.Context, owner string) ([]Lease, error) {
	return s.leases(ctx, "read the leases", "SELECT shard, owner, epoch FROM evaluator_leases WHERE owner = $1 ORDER BY shard", owner)
}

// TakeLeases gives the owner up to limit shards that nobody holds. Shards that another replica
// takes, or an owner commits to, at this moment are left out: one that was taken a moment ago is seen
// by its epoch, for its new owner's first heartbeat may be younger than what this statement sees.
func (s *Store) TakeLeases(ctx context.Context, owner string, limit int) ([]Lease, error) {
	const statement = `
		WITH free AS MATERIALIZED (
			SELECT l.shard, l.epoch FROM evaluator_leases l
			WHERE l.owner IS DISTINCT FROM $1
			  AND NOT EXISTS (SELECT FROM evaluator_replicas r WHERE r.owner = l.owner AND r.expires_at > now())
		), locked AS MATERIALIZED (
			SELECT l.shard FROM evaluator_leases l JOIN free ON free.shard = l.shard AND free.epoch = l.epoch
			ORDER BY l.shard LIMIT $2 FOR UPDATE OF l SKIP LOCKED
		)
		UPDATE evaluator_leases l SET owner = $1, epoch = l.epoch + 1 FROM locked
		WHERE l.shard = locked.shard RETURNING l.shard, l.owner, l.epoch`
	return s.leases(ctx, "take leases", statement, owner, limit)
}

func (s *Store) leases(ctx context.Context, act, statement string, arguments ...any) ([]Lease, error) {
	rows, err := s.pool.Query(ctx, statement, arguments...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	leases, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lease])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	return leases, nil
}

// ReleaseLeases lets other replicas take the shards at once.
func (s *Store) ReleaseLeases(ctx context.Context, leases []Lease) error {
	const statement = `
		UPDATE evaluator_leases SET owner = NULL
		WHERE (shard, owner, epoch) IN (SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[]))`
	if _, err := s.pool.Exec(ctx, statement, leaseColumns(leases)...); err != nil {
		return fmt.Errorf("release leases: %w", err)
	}
	return nil
}

func leaseColumns(leases []Lease) []any {
	shards, owners, epochs := make([]int, len(leases)), make([]string, len(leases)), make([]int64, len(leases))
	for i, l := range leases {
		shards[i], owners[i], epochs[i] = l.Shard, l.Owner, l.Epoch
	}
	return []any{shards, owners, epochs}
}

// Resign ends a replica: it no longer counts, and its shards are free.
func (s *Store) Resign(ctx context.Context, owner string) error {
	if _, err := s.pool.Exec(ctx, "DELETE FROM evaluator_replicas WHERE owner = $1", owner); err != nil {
		return fmt.Errorf("resign: %w", err)
	}
	return nil
}

// RemoveDeadReplicas deletes the rows that replicas left which could not resign.
func (s *Store) RemoveDeadReplicas(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, "DELETE FROM evaluator_replicas WHERE expires_at < now()"); err != nil {
		return fmt.Errorf("remove dead replicas: %w", err)
	}
	return nil
}
