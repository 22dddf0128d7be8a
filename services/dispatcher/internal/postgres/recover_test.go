package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

// mortal is a store whose process dies: the statement with that number in its life, counted down
// to 0, loses its connection, before it is sent or before its answer is read.
type mortal struct {
	*Store
	left       atomic.Int64
	afterwards atomic.Bool
	deaths     atomic.Int64
}

func newMortal(t *testing.T, url string) *mortal {
	m := &mortal{}
	config, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	config.MaxConns = 1
	config.ConnConfig.Tracer = m
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	m.Store = New(pool)
	return m
}

func (m *mortal) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if m.left.Add(-1) == 0 && !m.afterwards.Load() {
		m.die(conn)
	}
	return ctx
}

func (m *mortal) TraceQueryEnd(_ context.Context, conn *pgx.Conn, _ pgx.TraceQueryEndData) {
	if m.left.Load() == 0 && m.afterwards.Load() {
		m.die(conn)
	}
}

func (m *mortal) die(conn *pgx.Conn) {
	m.deaths.Add(1)
	_ = conn.PgConn().Conn().Close()
}

// logsReopenings notes each delivery that is made due again.
const logsReopenings = `
CREATE TABLE reopened (id text, webhook_id text);
CREATE FUNCTION log_reopened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO reopened VALUES (NEW.id, NEW.webhook_id);
	RETURN NEW;
END $$;
CREATE TRIGGER reopened AFTER UPDATE ON deliveries FOR EACH ROW
	WHEN (OLD.status <> 'waiting' AND NEW.status = 'waiting') EXECUTE FUNCTION log_reopened();`

// TestRecoveryIsExact: dispatchers work on a recovery side by side and die at random statements,
// what was made due ends again meanwhile, and it may be cancelled. Each delivery that it is about is
// made due once, or, if cancelled, at most once; no other ever is; and the progress says how many.
func TestRecoveryIsExact(t *testing.T) {
	t.Parallel()
	url := devstacktest.Postgres(t)
	pool, err := database.Open(t.Context(), "DATABASE_URL", url, 4)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, database.Migrate(t.Context(), pool))
	_, err = pool.Exec(t.Context(), logsReopenings)
	require.NoError(t, err)
	dispatchers := []*mortal{newMortal(t, url), newMortal(t, url)}
	statuses := []string{"dead", "cancelled", "delivered"}
	world := 0
	deaths, cancelled := 0, 0

	rapid.Check(t, func(r *rapid.T) {
		world++
		webhook, command := fmt.Sprint("wh_", world), fmt.Sprint("cmd_", world)
		exec := func(sql string, args ...any) {
			_, err := pool.Exec(t.Context(), sql, args...)
			require.NoError(r, err)
		}
		exec("INSERT INTO webhooks (id, site_id, url) VALUES ($1, 1, 'https://example.com/')", webhook)
		recovered := rapid.SampledFrom(statuses).Draw(r, "recovered")
		base := slot.Add(-20 * 24 * time.Hour) // several partitions, the default one among them
		since, until := base.Add(5*24*time.Hour), base.Add(15*24*time.Hour)
		wanted := map[string]bool{}
		for i := range rapid.IntRange(0, 30).Draw(r, "deliveries") {
			id := fmt.Sprintf("msg_%d_%d", world, i)
			of := rapid.SampledFrom([]string{webhook, webhook, webhook, webhook, "wh_other"}).Draw(r, "webhook")
			status := rapid.SampledFrom(append(statuses, recovered, recovered, "waiting")).Draw(r, "status")
			at := base.Add(time.Duration(rapid.IntRange(0, 40).Draw(r, "slot")) * 12 * time.Hour)
			late := status != "waiting" && rapid.IntRange(0, 9).Draw(r, "late") == 0
			exec(`INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, attempts, payload, finished_at)
				VALUES ($1, $2, 1, $3, '{}', 'x.fired', $4, 3, '{}', CASE WHEN $4 <> 'waiting' THEN now() + CASE WHEN $5 THEN interval '1 hour' ELSE '-1 hour' END END)`,
				id, at, of, status, late)
			if of == webhook && status == recovered && !late && !at.Before(since) && at.Before(until) {
				wanted[id] = true
			}
		}
		exec(`INSERT INTO commands (id, site_id, site_domain, webhook_id, kind, since, until, status, rate_per_second)
			VALUES ($1, 1, 'example.com', $2, 'recover', $3, $4, $5, 10000)`, command, webhook, since, until, recovered)
		require.NoError(r, New(pool).StartRecovery(t.Context(), Command{ID: command}))

		cancelAfter := int64(rapid.IntRange(-30, 12).Draw(r, "cancel after steps")) // below 1: never
		var steps atomic.Int64
		var working sync.WaitGroup
		for _, d := range dispatchers {
			d.deaths.Store(0)
			d.left.Store(int64(rapid.IntRange(0, 25).Draw(r, "dies at statement"))) // 0: never
			d.afterwards.Store(rapid.Bool().Draw(r, "dies afterwards"))
			working.Go(func() {
				for running(t.Context(), pool, command) {
					_, _ = d.Recover(t.Context(), Pace{Rate: 50, Span: 400 * time.Microsecond, Count: time.Minute}) // 4 rows
					if steps.Add(1) == cancelAfter {
						_, _ = pool.Exec(t.Context(), "UPDATE commands SET cancelled_at = now() WHERE id = $1", command)
					}
					// What was made due is sent, and ends as before.
					_, _ = pool.Exec(t.Context(), `UPDATE deliveries SET status = $2, finished_at = clock_timestamp(), next_attempt_at = NULL
						WHERE webhook_id = $1 AND status = 'waiting' AND next_attempt_at IS NOT NULL`, webhook, recovered)
				}
			})
		}
		working.Wait()
		for _, d := range dispatchers {
			deaths += int(d.deaths.Load())
		}

		rows, err := pool.Query(t.Context(), "SELECT id FROM reopened WHERE webhook_id IN ($1, 'wh_other') AND id LIKE $2", webhook, fmt.Sprintf("msg\\_%d\\_%%", world))
		require.NoError(r, err)
		made, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(r, err)
		once := map[string]bool{}
		for _, id := range made {
			require.True(r, wanted[id], "%s is not what was asked for", id)
			require.False(r, once[id], "%s was made due twice", id)
			once[id] = true
		}
		var status string
		var total, done int
		require.NoError(r, pool.QueryRow(t.Context(), "SELECT status, coalesce(total, -1), done FROM command_progress WHERE command_id = $1", command).Scan(&status, &total, &done))
		require.Equal(r, len(made), done)
		if status == "cancelled" {
			cancelled++
			return
		}
		require.Equal(r, "done", status)
		require.Equal(r, len(wanted), total)
		require.Equal(r, len(wanted), done)
	})
	assert.Positive(t, deaths, "dispatchers died")
	assert.Positive(t, cancelled, "recoveries were cancelled")
	t.Logf("%d recoveries, %d deaths, %d cancelled", world, deaths, cancelled)
}

func running(ctx context.Context, pool *pgxpool.Pool, command string) bool {
	var n int
	err := pool.QueryRow(ctx, "SELECT count(*) FROM command_progress WHERE command_id = $1 AND status = 'running'", command).Scan(&n)
	return err != nil || n > 0
}

// recovery stores n dead deliveries and a recovery of them that runs.
func (f fixture) recovery(webhookID string, n int, rate any) {
	f.Helper()
	f.exec(`INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, attempts, payload, finished_at)
		SELECT format('msg_%s_%s', $1::text, lpad(i::text, 7, '0')), $2, 1, $1, '{}', 'x.fired', 'dead', 11, '{}', now() FROM generate_series(1, $3) AS i`, webhookID, slot, n)
	f.exec(`INSERT INTO commands (id, site_id, site_domain, webhook_id, kind, since, until, status, rate_per_second)
		VALUES ('cmd_' || $1::text, 1, 'example.com', $1, 'recover', $2::timestamptz, $2::timestamptz + interval '1 second', 'dead', $3)`, webhookID, slot, rate)
	require.NoError(f, f.StartRecovery(f.Context(), Command{ID: "cmd_" + webhookID}))
}

func (f fixture) step(pace Pace) Step {
	f.Helper()
	step, err := f.Recover(f.Context(), pace)
	require.NoError(f, err)
	return step
}

// A batch is spread over the second after it, and the next one begins where it ends.
func TestRecoveryKeepsItsRate(t *testing.T) {
	f := newFixture(t)
	f.webhook("wh_1", true)
	f.recovery("wh_1", 250, 100)
	f.webhook("wh_2", true)
	f.recovery("wh_2", 70, nil)
	f.exec("UPDATE command_progress SET next_batch_at = next_batch_at + interval '1 millisecond' WHERE command_id = 'cmd_wh_2'")
	pace := Pace{Rate: 50, Span: time.Second, Count: time.Minute}
	spread := func(webhookID string) string {
		return value[string](f, `
			SELECT concat_ws(' ', count(*), round(extract(epoch FROM max(next_attempt_at) - min(next_attempt_at)), 3),
				(SELECT round(extract(epoch FROM p.next_batch_at - min(d.next_attempt_at)), 3) FROM command_progress p WHERE p.command_id = 'cmd_' || $1::text))
			FROM deliveries d WHERE webhook_id = $1 AND status = 'waiting'`, webhookID)
	}
	assert.Equal(t, Step{CommandID: "cmd_wh_1", WebhookID: "wh_1", Status: "running"}, f.step(pace), "they are counted first")
	assert.Equal(t, int64(250), value[int64](f, "SELECT total FROM command_progress WHERE command_id = 'cmd_wh_1'"))
	assert.Equal(t, 100, f.step(pace).Made)
	assert.Equal(t, "100 0.990 1.000", spread("wh_1"))
	assert.Equal(t, "cmd_wh_2", f.step(pace).CommandID)
	assert.Equal(t, 50, f.step(pace).Made)
	assert.Equal(t, "50 0.980 1.000", spread("wh_2"))
	assert.Empty(t, f.step(pace), "nothing is to be done before the next batches")
	wait, err := f.UntilNextBatch(t.Context(), time.Hour)
	require.NoError(t, err)
	assert.LessOrEqual(t, wait, time.Second)

	f.exec("UPDATE command_progress SET next_batch_at = now() + interval '1 hour'")
	f.exec("UPDATE commands SET cancelled_at = now() WHERE id = 'cmd_wh_2'")
	assert.Equal(t, Step{CommandID: "cmd_wh_2", WebhookID: "wh_2", Status: "cancelled"}, f.step(pace), "a cancelled one does not wait")
	f.exec("DELETE FROM webhooks WHERE id = 'wh_1'")
	f.exec("UPDATE command_progress SET next_batch_at = now() WHERE command_id = 'cmd_wh_1'")
	assert.Equal(t, "failed", f.step(pace).Status)
	assert.Equal(t, "100 the webhook was removed", value[string](f, "SELECT concat_ws(' ', done, error) FROM command_progress WHERE command_id = 'cmd_wh_1'"))
	wait, err = f.UntilNextBatch(t.Context(), time.Hour)
	require.NoError(t, err)
	assert.Equal(t, time.Hour, wait, "none runs")
}

// A total that takes too long to count stays unknown, and the recovery goes on.
func TestRecoveryOfCountlessDeliveries(t *testing.T) {
	f := newFixture(t)
	f.webhook("wh_1", true)
	f.recovery("wh_1", 200_000, 10_000)
	pace := Pace{Rate: 50, Span: time.Second, Count: time.Millisecond}
	assert.Equal(t, "running", f.step(pace).Status)
	assert.Equal(t, sweepRows, f.step(pace).Made, "one batch is not larger than a sweep")
	assert.True(t, value[bool](f, "SELECT total IS NULL AND done = $1 FROM command_progress", sweepRows))
}

// What a recovery looks for, it finds by an index of the few, however many were delivered.
func TestRecoveryDoesNotReadWhatWasDelivered(t *testing.T) {
	f := newFixture(t)
	f.exec(`INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, payload, finished_at)
		SELECT 'msg_' || i, $1::timestamptz + i * interval '1 millisecond', 1, 'wh_1', '{}', 'x.fired', CASE WHEN i % 1000 = 0 THEN 'dead' ELSE 'delivered' END, '{}', now()
		FROM generate_series(1, 20000) AS i`, slot)
	f.exec("ANALYZE deliveries")
	for name, asked := range map[string]struct {
		sql  string
		args []any
	}{
		"count": {countSQL, []any{"wh_1", slot, slot.Add(time.Hour), time.Now().Add(time.Hour)}},
		"batch": {batchSQL, []any{"wh_1", slot, slot.Add(time.Hour), time.Now().Add(time.Hour), slot, "", 10, 50}},
	} {
		rows, err := f.pool.Query(t.Context(), "EXPLAIN (ANALYZE) "+spell(asked.sql, Dead), asked.args...)
		require.NoError(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		assert.NotContains(t, strings.Join(plan, "\n"), "Rows Removed by Filter", name)
	}
}
