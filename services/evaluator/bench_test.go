package evaluator

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// mixedTriggers stores so many triggers of all types, evenly on the sites. The numbers in their
// configs differ, so that few questions are the same.
const mixedTriggers = `
	INSERT INTO triggers (id, webhook_id, site_id, type, name, config, filters, revised_at)
	SELECT 'tr_' || i, 'wh_1', site, kind.type, 'Benchmark',
	       replace(replace(kind.config, '"#1"', (i % 50 + 20)::text), '#2', 'Goal ' || i % 8)::jsonb,
	       CASE WHEN i % 10 = 3 AND kind.filtered THEN '[["is", "visit:country", ["DE"]]]'::jsonb ELSE '[]'::jsonb END, @saved
	FROM (SELECT i, 1 + i % @sites AS site, (i / @sites + i) % 20 AS turn FROM generate_series(0, @n - 1) AS i) AS numbered
	JOIN (VALUES
		('{0,1,2,3}'::int[],    'visitor_spike',      '{"threshold": "#1", "window_seconds": 300}', true),
		('{4,5,6,7}'::int[],    'goal_achieved',      '{"goal": {"event_name": "#2"}}', true),
		('{8,9,10}'::int[],     'goal_achieved',      '{"goal": {"page_path": "/page/"#1"*"}, "mode": "threshold", "threshold": "#1"000, "window_seconds": 3600}', true),
		('{11,12}'::int[],      'visitor_drop',       '{}', false),
		('{13}'::int[],         'metric_threshold',   '{"metric": "bounce_rate", "operator": ">", "threshold": 99, "window_seconds": 3600}', false),
		('{14}'::int[],         'metric_threshold',   '{"metric": "pageviews", "threshold": "#1"000000, "window_seconds": 600}', true),
		('{15}'::int[],         'metric_change',      '{"metric": "visitors", "percent": 9000, "window_seconds": 900}', false),
		('{16}'::int[],         'pageview_milestone', '{"every": 1000000}', false),
		('{17}'::int[],         'tracking_silence',   '{}', false),
		('{18}'::int[],         'goal_silence',       '{"goal": {"event_name": "#2"}}', false),
		('{19}'::int[],         'not_found_burst',    '{"threshold": 100000}', false)
	) AS kind (turns, type, config, filtered) ON turn = ANY (kind.turns)`

// spent is the queries and the time of each family of questions.
type spent struct {
	guard sync.Mutex
	on    map[string]tally
}

type tally struct {
	queries int
	took    time.Duration
}

func (s *spent) add(family string, took time.Duration) {
	s.guard.Lock()
	defer s.guard.Unlock()
	if s.on == nil {
		s.on = map[string]tally{}
	}
	t := s.on[family]
	s.on[family] = tally{t.queries + 1, t.took + took}
}

// take starts anew, and tells for so many slots what was spent until now on each.
func (s *spent) take(slots int) string {
	s.guard.Lock()
	defer s.guard.Unlock()
	var told []string
	for _, family := range slices.Sorted(maps.Keys(s.on)) {
		t := s.on[family]
		told = append(told, fmt.Sprintf("%s %.1f × %.1f ms", family, float64(t.queries)/float64(slots), ms(t.took)/float64(t.queries)))
	}
	s.on = nil
	return strings.Join(told, ", ")
}

// figures are of one regime and number of triggers.
type figures struct {
	p50, p95       time.Duration // of slots
	told50, told95 time.Duration // the same, until the messages of what fired are complete too
	queries        float64
	spent          string // on a slot, by family
}

// BenchmarkSlots measures whole slots, from the first query to the commit, and until the messages of what fired are complete,
// on the world of bench_world_test.go. Beside them, in the same minutes, stands what a query for each trigger costs,
// as peers ask. The last line is one JSON object.
//
//	make bench-evaluator
func BenchmarkSlots(b *testing.B) {
	defer debug.SetGCPercent(100) // which tidy changes
	const slots = 42              // of 10 s: each trigger of a long window has its turn seven times
	counts := []int{10, 1000, 10_000, 50_000}
	w := newBench(b)
	passing := time.Duration(2*(len(counts)+1)*(settling+slots)) * w.config.Interval
	present := time.Now().UTC().Truncate(time.Minute).Add(-passing) // an evaluator of its own goes on after them
	sites(b, w.config.PlausibleDatabaseURL)
	started := time.Now()
	live := newWorld(b, w.config.PlausibleClickHouseURL, present)
	fmt.Printf("%d event rows of %d sites written in %s\n", live.rows, worldSites, time.Since(started).Round(time.Second))
	_, err := w.pool.Exec(b.Context(), "INSERT INTO webhooks (id, site_id, url) VALUES ('wh_1', 1, 'https://example.com')")
	require.NoError(b, err)

	measured := map[string]map[int]figures{}
	single := map[string]time.Duration{}
	slot := present
	for _, regime := range []string{"fresh", "merged"} {
		arrive := func(slot time.Time) { live.flush(b, slot) }
		if regime == "merged" {
			live.flush(b, slot.Add(time.Duration((len(counts)+1)*(settling+slots))*w.config.Interval))
			live.optimize(b)
			arrive = func(time.Time) {}
		}
		measured[regime] = map[int]figures{}
		single[regime] = queryPerTrigger(b, w.config.PlausibleClickHouseURL, slot)
		measure := func(what string) (f figures) {
			f, slot = w.measure(b, slot, slots, arrive)
			fmt.Printf("%-6s %s: p50 %6.1f ms, p95 %6.1f ms (until messages are complete %6.1f and %6.1f), %.1f queries a slot, events in %d parts\n              %s\n",
				regime, what, ms(f.p50), ms(f.p95), ms(f.told50), ms(f.told95), f.queries, live.parts(b), f.spent)
			return f
		}
		for _, n := range counts {
			w.store(b, n, slot)
			measured[regime][n] = measure(fmt.Sprintf("%6d triggers", n))
		}
		w.store(b, 10_000, slot)
		measure(fmt.Sprintf("%6d triggers, of which %d filter by what the visit did", 10_000, w.filterByVisits(b)))
		fmt.Printf("%-6s a query for each trigger: %.2f ms each; the p95 of 10,000 triggers is as long as %.0f of them\n", regime, ms(single[regime]),
			float64(measured[regime][10_000].p95)/float64(single[regime]))
	}
	rss := w.residentMemory(b)
	marginal := func(regime string) float64 {
		return float64((measured[regime][50_000].p50 - measured[regime][10_000].p50).Nanoseconds()) / 1e3 / 40_000
	}
	cheaper := func(regime string) float64 {
		return float64(single[regime]) * 10_000 / float64(measured[regime][10_000].p50)
	}
	for _, regime := range []string{"fresh", "merged"} {
		fmt.Printf("%-6s %.1f µs for each further trigger; at 10,000, %.0f times cheaper than a query for each\n", regime, marginal(regime), cheaper(regime))
	}
	fmt.Printf("memory of an evaluator with 50,000 triggers: %.0f MB resident\n", rss)
	p95 := func(n int) map[string]float64 {
		return map[string]float64{"merged": rounded(ms(measured["merged"][n].p95)), "fresh": rounded(ms(measured["fresh"][n].p95))}
	}
	line, err := json.Marshal(map[string]any{
		"queries_per_slot": rounded(max(measured["fresh"][10_000].queries, measured["merged"][10_000].queries)), "p95_ms": map[string]any{"10000": p95(10_000), "50000": p95(50_000)},
		"marginal_us_per_trigger": rounded(max(marginal("fresh"), marginal("merged"))), "rss_mb_50000": rounded(rss),
		"cheaper_than_query_per_trigger": rounded(min(cheaper("fresh"), cheaper("merged"))),
	})
	require.NoError(b, err)
	b.ReportMetric(0, "ns/op")
	b.Cleanup(func() { fmt.Println(string(line)) })
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func rounded(x float64) float64 { return float64(int(x*10+0.5)) / 10 }

// sites makes Plausible's directory know all sites of the world.
func sites(b *testing.B, url string) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), url)
	require.NoError(b, err)
	defer conn.Close(b.Context())
	_, err = conn.Exec(b.Context(), `INSERT INTO sites (id, domain, timezone, native_stats_start_at, inserted_at, updated_at)
		SELECT i, 'site-' || i || '.example.com', 'Etc/UTC', now() - interval '1 year', now(), now() FROM generate_series(1, $1) AS i
		WHERE NOT EXISTS (SELECT FROM sites s WHERE s.id = i) ON CONFLICT DO NOTHING`, worldSites)
	require.NoError(b, err)
}

// store replaces all triggers by ones that were saved at that time. A goal fires for conversions since then.
func (w *bench) store(b *testing.B, n int, saved time.Time) {
	b.Helper()
	for _, statement := range []string{"DELETE FROM triggers", "DELETE FROM trigger_states", "DELETE FROM firings"} {
		_, err := w.pool.Exec(b.Context(), statement)
		require.NoError(b, err)
	}
	statement := strings.NewReplacer("@sites", strconv.Itoa(worldSites), "@n", strconv.Itoa(n), "@saved", fmt.Sprintf("to_timestamp(%d)", saved.Unix())).Replace(mixedTriggers)
	_, err := w.pool.Exec(b.Context(), statement)
	require.NoError(b, err)
	var stored int
	require.NoError(b, w.pool.QueryRow(b.Context(), "SELECT count(*) FROM triggers").Scan(&stored))
	require.Equal(b, n, stored)
	w.catalogue.drop()
}

// filterByVisits makes one in fifty triggers look at other rows of the visit, and tells how many they are.
func (w *bench) filterByVisits(b *testing.B) int64 {
	b.Helper()
	changed, err := w.pool.Exec(b.Context(), `UPDATE triggers
		SET filters = CASE WHEN substr(id, 4)::int % 100 = 0 THEN '[["has_done", ["is", "event:page", ["/page/7"]]]]'::jsonb ELSE '[["is", "visit:entry_page", ["/page/7"]]]'::jsonb END
		WHERE substr(id, 4)::int % 50 = 0`)
	require.NoError(b, err)
	return changed.RowsAffected()
}

// settling is how many slots are not counted: they make every state, and read all rows of the past
// that milestones need. The norms are refreshed among them, as is due once an hour.
const settling = 8

// measure evaluates slots after one another, each when its rows have arrived.
func (w *bench) measure(b *testing.B, from time.Time, slots int, arrive func(slot time.Time)) (figures, time.Time) {
	b.Helper()
	slot := from
	for i := range settling {
		slot = slot.Add(w.config.Interval)
		arrive(slot)
		_, err := w.evaluate(b.Context(), slot)
		require.NoError(b, err)
		require.NoError(b, w.complete(b.Context()))
		if i == settling/2 {
			require.NoError(b, w.norms.refresh(b.Context()))
		}
		tidy()
	}
	took, told := make([]time.Duration, slots), make([]time.Duration, slots)
	queries := w.queries.Load()
	w.spent.take(settling)
	for i := range took {
		slot = slot.Add(w.config.Interval)
		arrive(slot)
		started := time.Now()
		_, err := w.evaluate(b.Context(), slot)
		require.NoError(b, err)
		took[i] = time.Since(started)
		require.NoError(b, w.complete(b.Context()))
		told[i] = time.Since(started)
		tidy()
	}
	asked := w.queries.Load() - queries
	slices.Sort(took)
	slices.Sort(told)
	return figures{p50: took[slots/2], p95: took[slots*95/100], told50: told[slots/2], told95: told[slots*95/100], queries: float64(asked) / float64(slots), spent: w.spent.take(slots)}, slot
}

// queryPerTrigger is the median of what peers ask for each trigger: the visitors of one site.
func queryPerTrigger(b *testing.B, url string, slot time.Time) time.Duration {
	b.Helper()
	conn, err := fixture.Open(url)
	require.NoError(b, err)
	defer conn.Close()
	took := make([]time.Duration, 200)
	for i := range took {
		site := clickhouse.Question{SiteID: int64(1 + i*5%worldSites)}
		started := time.Now()
		var visitors uint64
		require.NoError(b, conn.QueryRow(b.Context(), fmt.Sprintf(`SELECT uniq(user_id) FROM events_v2 WHERE site_id = %d AND name != 'engagement'
			AND timestamp >= toDateTime(%d) AND timestamp < toDateTime(%d)`, site.SiteID, slot.Unix()-300, slot.Unix())).Scan(&visitors))
		took[i] = time.Since(started)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// residentMemory is that of an evaluator of its own, some slots after it took over, in MB.
func (w *bench) residentMemory(b testing.TB) float64 {
	b.Helper()
	require.NoError(b, w.shards.resign(b.Context()))
	program := filepath.Join(b.TempDir(), "evaluator")
	build := exec.CommandContext(b.Context(), "go", "build", "-o", program, "./cmd/evaluator")
	output, err := build.CombinedOutput()
	require.NoError(b, err, string(output))
	process := exec.CommandContext(b.Context(), program)
	process.Env = append(os.Environ(), "DATABASE_URL="+w.config.DatabaseURL, "PLAUSIBLE_DATABASE_URL="+w.config.PlausibleDatabaseURL,
		"PLAUSIBLE_CLICKHOUSE_URL="+w.config.PlausibleClickHouseURL, "PLAUSIBLE_BASE_URL=https://plausible.example.com", "NATS_URL="+w.config.NATSURL, "METRICS_ADDR=127.0.0.1:0", "LOG_LEVEL=error")
	process.Stderr = os.Stderr
	require.NoError(b, process.Start())
	defer func() {
		_ = process.Process.Signal(os.Interrupt)
		_ = process.Wait()
	}()
	before := w.lastCommittedSlot(b)
	require.Eventually(b, func() bool { return w.lastCommittedSlot(b).Sub(before) > 0 }, time.Minute, 100*time.Millisecond)
	settled := w.lastCommittedSlot(b).Add(6 * w.config.Interval)
	require.Eventually(b, func() bool { return !w.lastCommittedSlot(b).Before(settled) }, 3*time.Minute, 100*time.Millisecond)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Process.Pid))
	require.NoError(b, err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kB, err := strconv.ParseFloat(fields[1], 64)
			require.NoError(b, err)
			return kB / 1024
		}
	}
	b.Fatal("no resident memory is told")
	return 0
}

func (w *bench) lastCommittedSlot(b testing.TB) (slot time.Time) {
	b.Helper()
	require.NoError(b, w.pool.QueryRow(b.Context(), "SELECT max(last_slot) FROM evaluator_leases").Scan(&slot))
	return slot
}
