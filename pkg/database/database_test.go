package database

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/migrations"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := Open(t.Context(), "DATABASE_URL", url, 4)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func TestOpenSaysWhichDatabaseAndNoPassword(t *testing.T) {
	for url, want := range map[string]string{
		"canary":                               "DATABASE_URL is not a Postgres URL such as postgres://user:password@host:5432/database",
		"postgres://u:canary@127.0.0.1:port/x": "DATABASE_URL is not a Postgres URL such as postgres://user:password@host:5432/database",
		"postgres://u:canary@127.0.0.1:1/x?sslmode=disable&password=canary": "Postgres of DATABASE_URL (postgres://u:xxxxx@127.0.0.1:1/x) did not answer: context deadline exceeded (last answer:",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := Open(ctx, "DATABASE_URL", url, 0)
		cancel()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "canary")
	}
}

func TestOpenSpeaksUTC(t *testing.T) {
	pool := open(t, devstacktest.Postgres(t))
	var zone, name string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT current_setting('timezone'), current_setting('application_name')").Scan(&zone, &name))
	require.Equal(t, []string{"UTC", "plausible-webhooks"}, []string{zone, name})
	require.Equal(t, int32(4), pool.Config().MaxConns)
}

func TestRedact(t *testing.T) {
	for raw, want := range map[string]string{
		"postgres://u:canary@h:5/d?password=canary#canary": "postgres://u:xxxxx@h:5/d",
		"nats://h:4222":         "nats://h:4222",
		"postgres://u:ca%nary@": "an unreadable URL",
	} {
		require.Equal(t, want, Redact(raw))
	}
}

func TestManyMayMigrateAtOnce(t *testing.T) {
	url := devstacktest.Postgres(t)
	errs := make(chan error, 8)
	var migrating sync.WaitGroup
	for range cap(errs) {
		pool := open(t, url)
		migrating.Go(func() { errs <- Migrate(t.Context(), pool) })
	}
	migrating.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	pool := open(t, url)
	var applied, version int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*), max(version_id) FROM goose_db_version WHERE version_id > 0").Scan(&applied, &version))
	require.Equal(t, []int64{migrations.Latest(), migrations.Latest()}, []int64{applied, version})
	require.NoError(t, Migrate(t.Context(), pool), "again it changes nothing")
	var locks int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&locks))
	require.Zero(t, locks)
}

// One connection must be enough for the lock's holder and the migration together not to wait
// for each other for ever.
func TestMigrateEndsWithASmallPool(t *testing.T) {
	pool, err := Open(t.Context(), "DATABASE_URL", devstacktest.Postgres(t), 1)
	require.NoError(t, err)
	defer pool.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, Migrate(ctx, pool))
}

func TestRequireSchema(t *testing.T) {
	pool := open(t, devstacktest.Postgres(t))
	require.EqualError(t, RequireSchema(t.Context(), pool), "the database of DATABASE_URL has no schema yet: run the migrations first")
	require.NoError(t, Migrate(t.Context(), pool))
	require.NoError(t, RequireSchema(t.Context(), pool))

	_, err := pool.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	require.NoError(t, err)
	require.NoError(t, RequireSchema(t.Context(), pool), "a newer one will do: the migrations run first")

	_, err = pool.Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id > 0")
	require.NoError(t, err)
	require.EqualError(t, RequireSchema(t.Context(), pool),
		fmt.Sprintf("the schema of DATABASE_URL has version 0, this program needs %d: run the migrations first", migrations.Latest()))
}

func TestPartitionsComeAndGo(t *testing.T) {
	ctx := t.Context()
	pool := open(t, devstacktest.Postgres(t))
	require.NoError(t, Migrate(ctx, pool))
	partitions := func() (names []string) {
		rows, err := pool.Query(ctx, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'firings'::regclass AND inhrelid::regclass::text <> 'firings_default' ORDER BY 1")
		require.NoError(t, err)
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return names
	}
	insert := func(id string, slot time.Time) {
		_, err := pool.Exec(ctx, `INSERT INTO firings (id, slot, site_id, webhook_id, trigger_id, trigger_type, type, payload) VALUES ($1, $2, 1, 'w', 't', 'x', 'x.fired', '{}')`, id, slot)
		require.NoError(t, err)
	}
	where := func() map[string]string {
		rows, err := pool.Query(ctx, "SELECT id, tableoid::regclass::text FROM firings")
		require.NoError(t, err)
		found := map[string]string{}
		var id, table string
		_, err = pgx.ForEachRow(rows, []any{&id, &table}, func() error { found[id] = table; return nil })
		require.NoError(t, err)
		return found
	}
	week := func(at time.Time) string {
		year, number := at.UTC().ISOWeek()
		return fmt.Sprintf("firings_%dw%02d", year, number)
	}
	var now time.Time
	require.NoError(t, pool.QueryRow(ctx, "SELECT now()").Scan(&now))
	day := 24 * time.Hour
	require.Equal(t, []string{week(now.Add(-7 * day)), week(now), week(now.Add(7 * day)), week(now.Add(14 * day))}, partitions())

	insert("now", now)
	insert("last week", now.Add(-7*day))
	insert("long ago", now.Add(-100*day))
	insert("lately, without a week", now.Add(-21*day))
	require.Equal(t, map[string]string{"now": week(now), "last week": week(now.Add(-7 * day)), "long ago": "firings_default", "lately, without a week": "firings_default"}, where())

	require.NoError(t, Partitions(ctx, pool, "firings", 30*day))
	require.Equal(t, map[string]string{"now": week(now), "last week": week(now.Add(-7 * day)), "lately, without a week": "firings_default"}, where())
	require.Len(t, partitions(), 4)

	// A week that already has rows in the default partition keeps them there, and new ones join them.
	_, err := pool.Exec(ctx, "SELECT create_partitions('firings', now() - interval '28 days', now())")
	require.NoError(t, err)
	require.NotContains(t, partitions(), week(now.Add(-21*day)))
	require.Contains(t, partitions(), week(now.Add(-28*day)))

	// A week goes when all of it is older, not before.
	require.NoError(t, Partitions(ctx, pool, "firings", 7*day))
	require.Equal(t, []string{week(now.Add(-7 * day)), week(now), week(now.Add(7 * day)), week(now.Add(14 * day))}, partitions())
	require.NoError(t, Partitions(ctx, pool, "firings", time.Hour))
	require.NotContains(t, where(), "long ago")
	require.Contains(t, partitions(), week(now))
	require.ErrorContains(t, Partitions(ctx, pool, "nothing", day), "create partitions of nothing")

	var working sync.WaitGroup
	errs := make(chan error, 16)
	for i := range cap(errs) {
		table := []string{"firings", "deliveries", "attempts"}[i%3]
		working.Go(func() { errs <- Partitions(ctx, pool, table, 30*day) })
	}
	working.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}
