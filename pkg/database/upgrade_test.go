package database

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/migrations"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

// Each migration can be taken back, and made again: nothing of it is left behind.
func TestMigrationsGoBack(t *testing.T) {
	ctx := t.Context()
	pool := open(t, devstacktest.Postgres(t))
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Postgres())
	require.NoError(t, err)
	schema := func() (objects []string) {
		rows, err := pool.Query(ctx, `
			SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns WHERE table_schema = 'public'
			UNION ALL SELECT indexname || ': ' || indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`)
		require.NoError(t, err)
		objects, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return objects
	}
	var before [][]string
	for _, source := range provider.ListSources() {
		before = append(before, schema())
		_, err := provider.UpTo(ctx, source.Version)
		require.NoError(t, err)
	}
	for i, source := range slices.Backward(provider.ListSources()) {
		_, err := provider.Down(ctx)
		require.NoError(t, err, source.Path)
		if i > 0 { // the first leaves goose's own table
			require.Equal(t, before[i], schema(), source.Path)
		}
	}
	_, err = provider.Up(ctx)
	require.NoError(t, err)
}

// Shards go on where the only one stood, whose owner can neither write nor return; and back.
func TestUpgradeToShardsKeepsTheLastSlot(t *testing.T) {
	ctx := t.Context()
	pool := open(t, devstacktest.Postgres(t))
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Postgres())
	require.NoError(t, err)
	_, err = provider.UpTo(ctx, 1)
	require.NoError(t, err)
	_, err = pool.Exec(ctx, "INSERT INTO evaluator_leases (shard, owner, epoch, expires_at, last_slot) VALUES (0, 'only', 7, now() + interval '15 s', '2026-11-23T12:00:00Z')")
	require.NoError(t, err)

	_, err = provider.UpTo(ctx, 2)
	require.NoError(t, err)
	var shards, free, inGap, epoch int
	require.NoError(t, pool.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE owner IS NULL), count(*) FILTER (WHERE last_slot = '2026-11-23T12:00:00Z'), max(epoch)
		FROM evaluator_leases`).Scan(&shards, &free, &inGap, &epoch))
	require.Equal(t, []int{16, 16, 16, 7}, []int{shards, free, inGap, epoch})

	_, err = provider.DownTo(ctx, 1)
	require.NoError(t, err)
	rows, err := pool.Query(ctx, "SELECT shard || '/' || epoch || '/' || (last_slot AT TIME ZONE 'UTC') || '/' || (expires_at < now()) FROM evaluator_leases")
	require.NoError(t, err)
	leases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"0/7/2026-11-23 12:00:00/true"}, leases)
}
