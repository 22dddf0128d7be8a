package postgres

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

const ttl = 15 * time.Second

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func openStore(t *testing.T) (*Store, *pgxpool.Pool) {
	t.Helper()
	pool, err := database.Open(t.Context(), "DATABASE_URL", devstacktest.Postgres(t), 8)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, database.Migrate(t.Context(), pool))
	return New(pool), pool
}

func take(t *testing.T, s *Store, owner string, limit int) []Lease {
	t.Helper()
	require.NoError(t, s.Heartbeat(t.Context(), owner, ttl))
	leases, err := s.TakeLeases(t.Context(), owner, limit)
	require.NoError(t, err)
	return leases
}

func expire(t *testing.T, pool *pgxpool.Pool, owner string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), "UPDATE evaluator_replicas SET expires_at = now() WHERE owner = $1", owner)
	require.NoError(t, err)
}

func TestShardOfAgreesWithTheSchema(t *testing.T) {
	_, pool := openStore(t)
	rows, err := pool.Query(t.Context(), "SELECT id, site_shard(id) FROM (SELECT generate_series(1, 1000) UNION ALL VALUES (0), (9223372036854775807)) AS sites (id)")
	require.NoError(t, err)
	sites := [Shards]int{}
	var id int64
	var shard int
	_, err = pgx.ForEachRow(rows, []any{&id, &shard}, func() error {
		assert.Equal(t, ShardOf(id), shard, "site %d", id)
		sites[shard]++
		return nil
	})
	require.NoError(t, err)
	for shard, n := range sites {
		assert.InDelta(t, 1000/Shards, n, 2, "shard %d", shard)
	}
}

func TestEveryShardIsTakenOnce(t *testing.T) {
	s, pool := openStore(t)
	const replicas = 6
	taken := make([][]Lease, replicas)
	var taking sync.WaitGroup
	for i := range taken {
		taking.Go(func() {
			owner := strconv.Itoa(i)
			if assert.NoError(t, s.Heartbeat(t.Context(), owner, ttl)) {
				var err error
				taken[i], err = s.TakeLeases(t.Context(), owner, 3)
				assert.NoError(t, err)
			}
		})
	}
	taking.Wait()
	owners := map[int]string{}
	for _, leases := range taken {
		for _, l := range leases {
			assert.Empty(t, owners[l.Shard], "shard %d was taken already", l.Shard)
			assert.Equal(t, int64(1), l.Epoch)
			owners[l.Shard] = l.Owner
		}
	}
	var held int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM evaluator_leases WHERE owner IS NOT NULL").Scan(&held))
	assert.Len(t, owners, held)
}

func TestLeasesEndWithTheirOwner(t *testing.T) {
	ctx := t.Context()
	s, pool := openStore(t)
	require.Len(t, take(t, s, "a", Shards), Shards, "alone it takes all at once")
	assert.Empty(t, take(t, s, "b", Shards), "while a lives")
	assert.Empty(t, take(t, s, "a", Shards), "its own are not taken again")

	expire(t, pool, "a")
	live, err := s.LiveReplicas(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, live)
	some := take(t, s, "b", 4)
	require.Len(t, some, 4)
	assert.Equal(t, Lease{Shard: 0, Owner: "b", Epoch: 2}, some[0])

	require.NoError(t, s.Heartbeat(ctx, "a", ttl), "it was only late: it keeps the rest")
	assert.Empty(t, take(t, s, "b", Shards))
	rest, err := s.Leases(ctx, "a")
	require.NoError(t, err)
	assert.Len(t, rest, 12)

	require.NoError(t, s.ReleaseLeases(ctx, rest[10:]))
	assert.Len(t, take(t, s, "b", Shards), 2)
	require.NoError(t, s.ReleaseLeases(ctx, rest[10:]), "those have another owner by now")
	assert.Empty(t, take(t, s, "c", Shards))
	require.NoError(t, s.Resign(ctx, "a"))
	assert.Len(t, take(t, s, "c", Shards), 10)

	expire(t, pool, "c")
	require.NoError(t, s.RemoveDeadReplicas(ctx))
	assert.Len(t, take(t, s, "b", Shards), 10)
}

func TestNobodyHoldsAShardWithoutAHeartbeat(t *testing.T) {
	s, _ := openStore(t)
	_, err := s.TakeLeases(t.Context(), "silent", 1)
	require.Error(t, err)
}

func state(site int64) State {
	return State{TriggerID: "tr_" + strconv.FormatInt(site, 10), SiteID: site, State: trigger.State{Revision: 1, Status: trigger.StatusOK, Since: noon, LastSlot: noon}}
}

func firing(site int64) Firing {
	return Firing{Firing: trigger.Firing{ID: "f_" + strconv.FormatInt(site, 10), Slot: noon, SiteID: site, Payload: []byte("{}")}}
}

func written(t *testing.T, pool *pgxpool.Pool) (states, firings []string) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), `
		SELECT coalesce((SELECT array_agg(trigger_id ORDER BY trigger_id) FROM trigger_states), '{}'),
		       coalesce((SELECT array_agg(id ORDER BY id) FROM firings), '{}')`).Scan(&states, &firings))
	return states, firings
}

// An owner that was paused writes for those of its shards that nobody took, and for no other.
func TestCommitWritesTheShardsStillHeld(t *testing.T) {
	ctx := t.Context()
	s, pool := openStore(t)
	mine := take(t, s, "a", 3)
	expire(t, pool, "a")
	theirs := take(t, s, "b", 2)
	require.Equal(t, []int{0, 1}, []int{theirs[0].Shard, theirs[1].Shard})

	all := Result{Leases: mine, Slot: noon, States: []State{state(1), state(2)}, Firings: []Firing{firing(1), firing(2)}}
	did, err := s.Commit(ctx, all)
	require.NoError(t, err)
	assert.Equal(t, Result{Leases: mine[2:], Slot: noon, States: []State{state(2)}, Firings: []Firing{firing(2)}}, did)
	states, firings := written(t, pool)
	assert.Equal(t, []string{"tr_2"}, states)
	assert.Equal(t, []string{"f_2"}, firings)

	lastSlots, err := s.Standings(ctx, append(theirs, mine...), func(int, string, trigger.State) {})
	require.NoError(t, err)
	assert.Len(t, lastSlots, 3, "stale leases name no shard")
	assert.Zero(t, lastSlots[1])
	assert.Equal(t, noon, lastSlots[2])

	all.Leases = mine[:2]
	did, err = s.Commit(ctx, all)
	require.ErrorIs(t, err, ErrFenced)
	assert.Empty(t, did.Leases)
	states, _ = written(t, pool)
	assert.Equal(t, []string{"tr_2"}, states)
}

// An owner that lost a shard and took it again has another epoch: what it began before is void.
func TestAnEarlierEpochOfTheSameOwnerIsFenced(t *testing.T) {
	s, _ := openStore(t)
	earlier := take(t, s, "a", 1)
	require.NoError(t, s.ReleaseLeases(t.Context(), earlier))
	require.Len(t, take(t, s, "a", 1), 1)
	_, err := s.Commit(t.Context(), Result{Leases: earlier, Slot: noon})
	require.ErrorIs(t, err, ErrFenced)
}

// While an owner commits, nobody waits for its shards and nobody takes them.
func TestAShardBeingCommittedIsNotTaken(t *testing.T) {
	ctx := t.Context()
	s, pool := openStore(t)
	mine := take(t, s, "a", 1)
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, fence, append(leaseColumns(mine), noon)...)
	require.NoError(t, err)
	expire(t, pool, "a")
	others := take(t, s, "b", Shards)
	assert.Len(t, others, Shards-1)
	require.NoError(t, tx.Commit(ctx))
	assert.Len(t, take(t, s, "b", Shards), 1)
}

// pause stops a connection's owner where it is about to send a batch.
type pause struct{ begun, over chan struct{} }

func (p pause) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	close(p.begun)
	<-p.over
	return ctx
}
func (pause) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (pause) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
func (pause) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (pause) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The database ends the transaction of an owner that is paused in the middle of its commit.
func TestAnOwnerPausedWhileItCommitsLosesItsShards(t *testing.T) {
	s, pool := openStore(t)
	mine := take(t, s, "a", 1)
	config, paused := pool.Config(), pause{make(chan struct{}), make(chan struct{})}
	config.ConnConfig.Tracer = paused
	its, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer its.Close()
	wakeUp := sync.OnceFunc(func() { close(paused.over) })
	defer wakeUp()
	committed := make(chan error, 1)
	go func() {
		_, err := New(its).Commit(t.Context(), Result{Leases: mine, Slot: noon, States: []State{state(0)}})
		committed <- err
	}()
	<-paused.begun
	expire(t, pool, "a")
	require.Len(t, take(t, s, "b", Shards), Shards-1, "the shard is locked")
	require.Eventually(t, func() bool {
		taken, err := s.TakeLeases(t.Context(), "b", Shards)
		return err == nil && len(taken) == 1
	}, ttl-time.Second, 50*time.Millisecond)
	wakeUp()
	require.Error(t, <-committed)
	states, _ := written(t, pool)
	assert.Empty(t, states)
}

func TestStandingsHoldTheStatesOfTheirShards(t *testing.T) {
	ctx := t.Context()
	s, pool := openStore(t)
	_, err := pool.Exec(ctx, `
		INSERT INTO webhooks (id, site_id, url) VALUES ('wh_1', 1, 'https://example.com');
		INSERT INTO triggers (id, webhook_id, site_id, type, name, config)
		SELECT 'tr_' || site, 'wh_1', site, 'visitor_spike', 'Test', '{}' FROM unnest(ARRAY [1, 2, 17]) AS site`)
	require.NoError(t, err)
	leases := take(t, s, "a", Shards)
	_, err = s.Commit(ctx, Result{Leases: leases, Slot: noon, States: []State{state(1), state(2), state(17), state(33)}})
	require.NoError(t, err)
	states := map[string]trigger.State{}
	lastSlots, err := s.Standings(ctx, leases[1:2], func(shard int, id string, state trigger.State) {
		assert.Equal(t, 1, shard)
		states[id] = state
	})
	require.NoError(t, err)
	assert.Equal(t, map[int]time.Time{1: noon}, lastSlots)
	assert.Equal(t, map[string]trigger.State{"tr_1": state(1).State, "tr_17": state(17).State}, states, "the trigger of site 33 is gone")
}
