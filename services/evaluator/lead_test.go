package evaluator

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

func leasesPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), "DATABASE_URL", devstacktest.Postgres(t), 8)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, database.Migrate(t.Context(), pool))
	return pool
}

// replica is one that a test leads by hand.
func replica(t *testing.T, pool *pgxpool.Pool, owner string, terms terms) *shards {
	t.Helper()
	s := newShards(postgres.New(pool), owner, terms, slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry()))
	require.True(t, s.renewed(t.Context()))
	return s
}

func look(t *testing.T, s *shards) int {
	t.Helper()
	_, err := s.balance(t.Context())
	require.NoError(t, err)
	return len(s.held)
}

func TestReplicasShareTheShardsFairly(t *testing.T) {
	pool := leasesPool(t)
	a := replica(t, pool, "a", leaseTerms)
	assert.Equal(t, 16, look(t, a), "alone it takes all at once")
	b, c := replica(t, pool, "b", leaseTerms), replica(t, pool, "c", leaseTerms)
	assert.Equal(t, 0, look(t, b), "nothing is free yet")
	assert.Equal(t, 6, look(t, a), "it gives away what is above its part")
	assert.Equal(t, 6, look(t, b))
	assert.Equal(t, 4, look(t, c))
	assert.Equal(t, 10.0, testutil.ToFloat64(a.metrics.leaseChanges.WithLabelValues("released")))
	assert.Equal(t, 6.0, testutil.ToFloat64(a.metrics.shardsHeld))

	for _, s := range []*shards{a, b, c} {
		kept := len(s.held)
		grown, err := s.balance(t.Context())
		require.NoError(t, err)
		assert.False(t, grown)
		assert.Len(t, s.held, kept, "nothing moves while the replicas stay the same")
	}

	require.NoError(t, b.resign(t.Context()))
	require.NoError(t, c.resign(t.Context()))
	assert.Equal(t, 16, look(t, a))
	assert.Equal(t, 0.0, testutil.ToFloat64(c.metrics.shardsHeld))
	assert.Equal(t, 0.0, testutil.ToFloat64(a.metrics.leaseChanges.WithLabelValues("lost")))
}

func TestMoreReplicasThanShards(t *testing.T) {
	pool := leasesPool(t)
	replicas := make([]*shards, postgres.Shards+3)
	for i := range replicas {
		replicas[i] = replica(t, pool, string(rune('a'+i)), leaseTerms)
	}
	held := 0
	for _, s := range replicas {
		held += look(t, s)
	}
	assert.Equal(t, postgres.Shards, held)
	assert.Empty(t, replicas[len(replicas)-1].held, "it waits for one to leave")
}

// A replica that is not heard of loses its shards, and finds that out when it wakes up.
func TestPausedReplicaFindsItsShardsTaken(t *testing.T) {
	pool := leasesPool(t)
	paused := replica(t, pool, "paused", leaseTerms)
	require.Equal(t, 16, look(t, paused))
	_, err := pool.Exec(t.Context(), "UPDATE evaluator_replicas SET expires_at = now()")
	require.NoError(t, err)
	other := replica(t, pool, "other", leaseTerms)
	require.Equal(t, 16, look(t, other))

	require.True(t, paused.renewed(t.Context()), "it wakes up")
	assert.Equal(t, 0, look(t, paused))
	assert.Equal(t, 16.0, testutil.ToFloat64(paused.metrics.leaseChanges.WithLabelValues("lost")))
	assert.Equal(t, 8, look(t, other))
	assert.Equal(t, 8, look(t, paused), "then it has its part again")
}

// Two replicas lead at the same time; one stops, another dies, and each time the rest takes over.
func TestLeadTakesOver(t *testing.T) {
	pool := leasesPool(t)
	quick := terms{ttl: time.Second, renew: 200 * time.Millisecond, look: 20 * time.Millisecond}
	start := func(owner string) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		own := newShards(postgres.New(pool), owner, quick, slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry()))
		done := make(chan error, 1)
		go func() {
			done <- lead(ctx, own, func(ctx context.Context) error {
				for ctx.Err() == nil {
					if _, err := own.balance(ctx); err != nil && ctx.Err() == nil {
						return err
					}
					pause(ctx, quick.look)
				}
				return nil
			})
		}()
		return func() {
			cancel()
			require.NoError(t, <-done)
		}
	}
	holds := func(owner string) (n int) {
		err := pool.QueryRow(t.Context(), "SELECT count(*) FROM evaluator_leases WHERE owner = $1", owner).Scan(&n)
		assert.NoError(t, err)
		return n
	}
	share := func(owner string, want int, within time.Duration) {
		t.Helper()
		require.Eventually(t, func() bool { return holds(owner) == want }, within, 10*time.Millisecond, "%s holds %d", owner, want)
	}

	stopA := start("a")
	share("a", 16, 10*time.Second)
	stopB := start("b")
	defer stopB()
	share("b", 8, 10*time.Second)
	share("a", 8, 10*time.Second)
	stopA()
	assert.Zero(t, holds("a"), "its shards are free when it has stopped")
	share("b", 16, 10*time.Second)

	dead := replica(t, pool, "dead", quick)
	require.Eventually(t, func() bool {
		_, err := dead.balance(t.Context())
		return err == nil && dead.renewed(t.Context()) && len(dead.held) == 8 // its last sign of life
	}, 10*time.Second, 10*time.Millisecond)
	share("b", 16, 10*time.Second)
	assert.Zero(t, holds("dead"))
}

// replaceOwner lets another replica take so many of the bench's shards, as if the bench had been
// paused for longer than its leases.
func (b *bench) replaceOwner(shards int) {
	b.t.Helper()
	ctx, store := b.t.Context(), b.evaluator.store
	_, err := b.pool.Exec(ctx, "UPDATE evaluator_replicas SET expires_at = now() WHERE owner = $1", b.owner)
	require.NoError(b.t, err)
	require.NoError(b.t, store.Heartbeat(ctx, "another", leaseTerms.ttl))
	taken, err := store.TakeLeases(ctx, "another", shards)
	require.NoError(b.t, err)
	require.Len(b.t, taken, shards)
}

// One of two sites goes to another replica and comes back later: the other site goes on, and
// both are evaluated exactly once for each slot that they were held for.
func TestShardsGoAndComeOneByOne(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	lower, higher := b.demo.SiteID, b.demo.OtherSiteID
	require.Less(t, postgres.ShardOf(lower), postgres.ShardOf(higher), "for the shards to be taken in this order")
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	site := b.demo.SiteID
	b.demo.SiteID = higher
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	elsewhere := b.event("Signup", 5, 2)
	b.demo.SiteID = site
	require.Empty(t, b.slot(0))
	before := b.queries.Load()
	require.Empty(t, b.slot(10))
	perSlot := b.queries.Load() - before

	b.replaceOwner(postgres.ShardOf(lower) + 1)
	b.insert(b.event("Signup", 15, 1), elsewhere)
	fired := b.slot(20)
	require.Len(t, fired, 1, "the other site's")
	assert.Equal(t, higher, fired[0].Data.Site.ID)
	assert.Equal(t, 1.0, testutil.ToFloat64(b.evaluator.metrics.firings.WithLabelValues("goal_achieved.fired")))
	assert.Len(t, b.shards.held, postgres.Shards-postgres.ShardOf(lower)-1)

	require.NoError(t, b.evaluator.store.Resign(ctx, "another"))
	require.True(t, b.shards.renewed(ctx))
	grown, err := b.shards.balance(ctx)
	require.NoError(t, err)
	require.True(t, grown)
	require.NoError(t, b.shards.restore(ctx))
	due, since := b.shards.due(noon.Add(20 * time.Second))
	assert.Len(t, due, postgres.ShardOf(lower)+1, "the others have seen the slot")
	assert.Equal(t, noon.Add(10*time.Second), since)
	assert.Len(t, b.slot(20), 2, "with what the shard missed")
	assert.Equal(t, noon.Add(20*time.Second), b.lastSlot())

	before = b.queries.Load()
	assert.Empty(t, b.slot(30))
	assert.LessOrEqual(t, b.queries.Load()-before, perSlot+1, "however many shards: the late buckets' listing at most is added")
}

// The outbox belongs to who holds the site's shard.
func TestEachReplicaPublishesItsOwnShards(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	require.Len(t, b.slot(0), 1)
	b.replaceOwner(postgres.Shards)
	unpublished := func(owner string) int {
		firings, err := b.evaluator.store.Unpublished(t.Context(), owner, publishBatch)
		require.NoError(t, err)
		return len(firings)
	}
	assert.Equal(t, 0, unpublished(b.owner))
	assert.Equal(t, 1, unpublished("another"))
}
