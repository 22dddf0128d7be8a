package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

// The long history is of 24,000 deliveries in 8 weeks and the partition of the rest; rare ones stand in
// all of it. One third of it went with others, and is in no list.
const (
	longHistory = `
		INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, batch_id, payload, finished_at)
		SELECT 'msg_' || lpad(n::text, 5, '0'), date_trunc('week', now()) - interval '57 days' + n / 4 * interval '13 minutes', 1, 'wh_long',
		       CASE WHEN n % 6001 = 5 THEN 'tr_rare' ELSE 'tr_' || n % 3 END, '{x}', CASE WHEN n % 5003 = 5 THEN 'rare.fired' ELSE 'visitor_spike.fired' END,
		       status, CASE WHEN status = 'batched' THEN 'msg_00001' END, '{}', CASE WHEN status NOT IN ('waiting', 'gathering') THEN now() END
		FROM (SELECT n, CASE WHEN n % 4001 = 1 THEN 'dead' WHEN n % 4001 = 2 THEN 'cancelled' WHEN n % 4001 = 3 THEN 'waiting' WHEN n % 4001 = 4 THEN 'gathering'
		                     WHEN n % 3 = 0 AND n % 6001 <> 5 AND n % 5003 <> 5 THEN 'batched' ELSE 'delivered' END AS status
		      FROM generate_series(0, 23999) n) AS numbered`
	// All that is new is dead, and what was delivered is old.
	deadHistory = `
		INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, payload, finished_at)
		SELECT 'msg_dead_' || n, now() - n * interval '5 minutes', 1, 'wh_dead', 'tr_dead', '{x}', 'visitor_spike.fired', CASE WHEN n < 11900 THEN 'dead' ELSE 'delivered' END, '{}', now()
		FROM generate_series(0, 11999) n`
)

func newHistory(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), "DATABASE_URL", devstacktest.Postgres(t), 1)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, database.Migrate(t.Context(), pool))
	for _, statement := range []string{
		"SELECT create_partitions('deliveries', now() - interval '50 days', now() + interval '14 days')",
		"INSERT INTO webhooks (id, site_id, url) VALUES ('wh_long', 1, 'https://example.com'), ('wh_dead', 1, 'https://example.com')",
		longHistory, deadHistory,
	} {
		_, err := pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	return pool
}

// node is a part of a plan, as EXPLAIN tells of it after it was carried out.
type node struct {
	Type    string  `json:"Node Type"`
	Index   string  `json:"Index Name"`
	Rows    float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Hit     int     `json:"Shared Hit Blocks"`
	Read    int     `json:"Shared Read Blocks"`
	Plans   []node  `json:"Plans"`
}

func (n node) each(visit func(node)) {
	visit(n)
	for _, child := range n.Plans {
		child.each(visit)
	}
}

// explain carries a query out with the plan that the store would, and returns it.
func explain(t *testing.T, pool *pgxpool.Pool, query string, arguments []any) node {
	t.Helper()
	literals := make([]string, len(arguments))
	for i, argument := range arguments {
		switch a := argument.(type) {
		case string:
			literals[i] = "'" + a + "'"
		case time.Time:
			literals[i] = "'" + a.UTC().Format(time.RFC3339Nano) + "'"
		default:
			literals[i] = fmt.Sprint(a)
		}
	}
	var plans []struct{ Plan node }
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		for _, statement := range []string{readInOrder, "PREPARE explained AS " + query} {
			if _, err := tx.Exec(t.Context(), statement); err != nil {
				return err
			}
		}
		var raw string
		if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained("+strings.Join(literals, ", ")+")").Scan(&raw); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), "DEALLOCATE explained"); err != nil {
			return err
		}
		return json.Unmarshal([]byte(raw), &plans)
	}))
	require.Len(t, plans, 1)
	return plans[0].Plan
}

// requireInOrder fails unless a plan reads indexes in the order of the list, and of them at most so many
// rows, one more in each partition, and the pages on which those are.
func requireInOrder(t *testing.T, plan node, rows int) {
	t.Helper()
	var scans, read, removed int
	plan.each(func(n node) {
		switch n.Type {
		case "Index Scan":
			require.NotEmpty(t, n.Index)
			if n.Loops > 0 {
				scans++
			}
			read += int(n.Rows * n.Loops)
			removed += int(n.Removed * n.Loops)
		default:
			require.Contains(t, []string{"Limit", "Merge Append", "Append", "Subquery Scan", "WindowAgg", "Result"}, n.Type)
		}
	})
	require.NotZero(t, scans)
	require.LessOrEqual(t, read, rows+scans)
	require.Zero(t, removed, "each row that an index names is one of the list")
	require.LessOrEqual(t, plan.Hit+plan.Read, 2*rows+4*scans, "one page of the heap for each row, a descent for each scan")
}

func TestListsReadOnlyTheirPage(t *testing.T) {
	pool := newHistory(t)
	middle := Position{time.Now().AddDate(0, 0, -28).UTC().Truncate(time.Microsecond), "msg_12000"}
	from, to := middle.At.AddDate(0, 0, -14), middle.At.AddDate(0, 0, 14)
	one := func(text string) *string { return &text }
	filters := map[string]DeliveryFilter{
		"none":              {},
		"delivered":         {Status: one("delivered")},
		"waiting":           {Status: one("waiting")},
		"dead":              {Status: one("dead")},
		"cancelled":         {Status: one("cancelled")},
		"a rare trigger":    {TriggerID: one("tr_rare")},
		"a common trigger":  {TriggerID: one("tr_1")},
		"no such trigger":   {TriggerID: one("tr_none")},
		"a rare type":       {Type: one("rare.fired")},
		"a common type":     {Type: one("visitor_spike.fired")},
		"status and type":   {Status: one("delivered"), Type: one("rare.fired")},
		"dead of a trigger": {Status: one("dead"), TriggerID: one("tr_rare")},
		"trigger and type":  {TriggerID: one("tr_1"), Type: one("rare.fired")},
		"all three":         {Status: one("delivered"), TriggerID: one("tr_1"), Type: one("rare.fired")},
	}
	pages := map[string]Page{"first": {Limit: 50}, "deep": {Limit: 50, After: &middle}, "back": {Limit: 50, Before: &middle}}
	for _, statistics := range []string{"", "ANALYZE deliveries"} { // what the planner knows must not matter
		if statistics != "" {
			_, err := pool.Exec(t.Context(), statistics)
			require.NoError(t, err)
		}
		for name, filter := range filters {
			for place, page := range pages {
				for _, webhook := range []string{"wh_long", "wh_dead"} {
					within := filter
					within.From, within.To = &from, &to
					for span, f := range map[string]DeliveryFilter{"ever": filter, "four weeks": within} {
						t.Run(strings.Join([]string{name, place, webhook, span, statistics}, "/"), func(t *testing.T) {
							rows, asked := page.Limit+1, 0
							for _, value := range []*string{f.Status, f.TriggerID, f.Type} {
								if value != nil {
									asked++
								}
							}
							if asked > 1 {
								rows = maxWalk
							}
							query, arguments := f.list(webhook, page)
							requireInOrder(t, explain(t, pool, query, arguments), rows)
						})
					}
				}
			}
		}
	}
}

// One delivery is found by its key, in each partition.
func TestDeliveryIsReadByItsKey(t *testing.T) {
	pool := newHistory(t)
	requireInOrder(t, explain(t, pool, selectDelivery, []any{"wh_long", "msg_12000"}), 2)
	requireInOrder(t, explain(t, pool, selectAttempts, []any{"msg_12000", time.Now()}), 1)
}

// The settings are for the one statement: others on the connection are planned as ever.
func TestReadingInOrderEndsWithTheStatement(t *testing.T) {
	pool := newHistory(t)
	s := New(pool)
	const settings = "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ('enable_sort', 'enable_seqscan', 'enable_bitmapscan', 'plan_cache_mode')"
	var within, afterwards string
	require.NoError(t, s.inOrder(t.Context(), settings, nil, func(r pgx.Rows) (err error) {
		within, err = pgx.CollectExactlyOneRow(r, pgx.RowTo[string])
		return err
	}))
	require.NoError(t, pool.QueryRow(t.Context(), settings).Scan(&afterwards))
	require.Equal(t, []string{"off off off force_generic_plan", "on on on auto"}, []string{within, afterwards})
}

// Pages of filters that no index serves together may be short, and still show everything once, in both
// directions.
func TestShortPagesLoseNothing(t *testing.T) {
	pool := newHistory(t)
	s := New(pool)
	status, kind, trigger := "delivered", "rare.fired", "tr_dead"
	for name, test := range map[string]struct {
		webhook string
		filter  DeliveryFilter
		where   string
	}{
		"few among many":   {"wh_long", DeliveryFilter{Status: &status, Type: &kind}, "type = 'rare.fired' AND status = 'delivered'"},
		"all at the end":   {"wh_dead", DeliveryFilter{Status: &status, TriggerID: &trigger}, "status = 'delivered'"},
		"none among many":  {"wh_dead", DeliveryFilter{TriggerID: &trigger, Type: &kind}, "false"},
		"none in any walk": {"wh_long", DeliveryFilter{TriggerID: &trigger, Type: &kind}, "false"},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := pool.Query(t.Context(), "SELECT id FROM deliveries WHERE webhook_id = $1 AND "+test.where+" ORDER BY slot DESC, id DESC", test.webhook)
			require.NoError(t, err)
			expected, err := pgx.AppendRows([]string(nil), rows, pgx.RowTo[string])
			require.NoError(t, err)
			read := func(page Page) ([]string, Around) {
				deliveries, around, err := s.Deliveries(t.Context(), 1, test.webhook, test.filter, page)
				require.NoError(t, err)
				require.LessOrEqual(t, len(deliveries), page.Limit)
				var ids []string
				for _, d := range deliveries {
					ids = append(ids, d.ID)
				}
				return ids, around
			}
			for _, limit := range []int{2, 50, 100} {
				forward, around := read(Page{Limit: limit})
				require.Nil(t, around.Before)
				for around.After != nil {
					var page []string
					page, around = read(Page{Limit: limit, After: around.After})
					forward = append(forward, page...)
				}
				require.Equal(t, expected, forward)
				back, around := read(Page{Limit: limit, Before: &Position{}})
				for around.Before != nil {
					require.NotNil(t, around.After)
					var page []string
					page, around = read(Page{Limit: limit, Before: around.Before})
					back = append(page, back...)
				}
				require.Equal(t, expected, back)
			}
		})
	}
}
