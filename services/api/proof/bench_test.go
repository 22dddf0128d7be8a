// Package proof shows what is claimed of the api, on real servers and the real process: how fast
// it reads and writes with a long history behind it (make bench-api).
package proof

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	demo "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

const (
	deliveries = 1_000_000 // half of them of the first webhook
	webhooks   = 200       // on four sites
	fullSites  = 4
	emptySites = 10 // where webhooks are created: a site may have 100

	readRate     = 300 // per second
	warmUp       = 5 * time.Second
	readTime     = 30 * time.Second
	activityRate = 20 // as when each of 200 overviews asks every 10 s
	activityTime = 10 * time.Second
	createRate   = 50
	createTime   = 10 * time.Second
	patience     = 10 * time.Second // for one answer

	secretKeyBase = "a secret key base of 64 characters, as Plausible's own one has it"
)

// What was delivered a while ago and what is few stand everywhere in the 90 days; webhook 1's firings
// went together, so that most of its rows are in no list.
const history = `
	INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, next_attempt_at, last_error, payload, created_at, finished_at, batch_id)
	SELECT 'msg_' || md5(i::text), at, ($1::bigint[])[1 + w % 4], 'wh_bench_' || w, CASE WHEN i % 50021 = 4 THEN 'tr_bench_rare' ELSE 'tr_bench_' || w || '_' || i / 400 % 10 END,
	       ARRAY['msg_' || md5(i::text)], CASE WHEN i % 50021 = 8 THEN 'new_source.fired' WHEN i % 5 = 0 THEN 'visitor_spike.resolved' ELSE 'visitor_spike.fired' END,
	       status, 1, NULL, CASE status WHEN 'dead' THEN 'answered 500' ELSE '' END, convert_to('{"note": "' || repeat('x', 600) || '"}', 'UTF8'), at + interval '15 s',
	       CASE WHEN status <> 'waiting' THEN at + interval '15 s' END, CASE status WHEN 'batched' THEN 'msg_' || md5((i - i % 100)::text) END
	FROM (SELECT i, w, date_trunc('second', now()) - i * interval '7.7 seconds' AS at,
	             CASE WHEN i % 10007 = 1 THEN 'cancelled' WHEN i % 1009 = 2 THEN 'dead' WHEN i % 2003 = 3 THEN 'waiting' WHEN w = 1 AND i % 100 > 1 THEN 'batched' ELSE 'delivered' END AS status
	      FROM (SELECT i, CASE WHEN i % 2 = 0 THEN 0 ELSE 1 + i / 2 % ($2::int - 1) END AS w FROM generate_series(0, $3::int - 1) AS i) AS spread) AS numbered`

const attemptsOfHistory = `
	INSERT INTO attempts (delivery_id, slot, number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings)
	SELECT id, slot, 1, created_at, 12.5, '{"Content-Type": "application/json", "User-Agent": "Plausible-Webhooks", "Webhook-Id": "msg"}', CASE status WHEN 'dead' THEN 500 ELSE 200 END,
	       '{"Content-Type": "text/plain"}', 'ok', '{"dns": 0.1, "connect": 0.2, "tls": 1, "first_byte": 3}'
	FROM deliveries`

// figures are the benchmark's last line.
type figures struct {
	List     float64 `json:"list_p99_ms"`
	Activity float64 `json:"activity_p99_ms"`
	Create   float64 `json:"create_p99_ms"`
	Rate     float64 `json:"requests_per_s"` // of the reads
	Resident float64 `json:"rss_mb"`
}

// BenchmarkAPI measures what the users of an installation notice that has a long history, on a machine
// that the api, Postgres, NATS and the users share.
func BenchmarkAPI(b *testing.B) {
	for range b.N { // once: see the Makefile
		newBench(b).run()
	}
}

// bench is the servers, and the api as a process of its own.
type bench struct {
	*testing.B
	conn       *pgx.Conn
	postgres   int // process id
	api        *exec.Cmd
	client     *http.Client
	address    string
	key        string
	full, free []string // domains of sites
	cursors    []string // of deep pages
	delivery   []string // some of the first webhook's
}

func newBench(b *testing.B) *bench {
	ctx, dir := b.Context(), b.TempDir()
	require.NoError(b, os.Chmod(dir, 0o711))                                                                                // Postgres may run as another user
	engines, err := devstack.Start(ctx, devstack.Options{Dir: dir, Postgres: &devstack.Engine{}, NATS: &devstack.Engine{}}) // durable, as in production
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, engines.Stop()) })
	w := &bench{B: b, client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	b.Cleanup(w.client.CloseIdleConnections)

	theirs := engines.PostgresURL("plausible")
	require.NoError(b, demo.CreatePostgres(ctx, theirs))
	seeded, err := demo.Seed(ctx, theirs, secretKeyBase)
	require.NoError(b, err)
	w.key = seeded.OwnerKey
	ids := w.sites(theirs, seeded.SiteID)

	admin, err := pgx.Connect(ctx, engines.PostgresURL("postgres"))
	require.NoError(b, err)
	_, err = admin.Exec(ctx, "CREATE DATABASE webhooks")
	require.NoError(b, err)
	require.NoError(b, admin.Close(ctx))
	w.fill(engines.PostgresURL("webhooks"), ids)
	w.start(dir, engines, theirs)
	return w
}

// sites makes the demo site's team have more of them.
func (w *bench) sites(url string, ofTeam int64) (ids []int64) {
	conn, err := pgx.Connect(w.Context(), url)
	require.NoError(w, err)
	defer conn.Close(context.Background())
	for i := range fullSites + emptySites {
		var id int64
		domain := fmt.Sprintf("bench-%d.example.com", i)
		require.NoError(w, conn.QueryRow(w.Context(), `INSERT INTO sites (domain, team_id, inserted_at, updated_at)
			SELECT $1, team_id, now(), now() FROM sites WHERE id = $2 RETURNING id`, domain, ofTeam).Scan(&id))
		if i < fullSites {
			w.full, ids = append(w.full, domain), append(ids, id)
		} else {
			w.free = append(w.free, domain)
		}
	}
	return ids
}

// fill makes the webhooks with their triggers, and the history.
func (w *bench) fill(url string, sites []int64) {
	ctx := w.Context()
	pool, err := database.Open(ctx, "DATABASE_URL", url, 1)
	require.NoError(w, err)
	defer pool.Close()
	require.NoError(w, database.Migrate(ctx, pool))
	w.conn, err = pgx.Connect(ctx, url)
	require.NoError(w, err)
	w.Cleanup(func() { w.conn.Close(context.Background()) })
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		require.NoError(w, w.conn.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&value))
		require.Equal(w, "on", value, setting)
	}
	var backend int
	require.NoError(w, w.conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend))
	w.postgres = parent(backend)
	started := time.Now()
	for _, step := range []struct {
		statement string
		arguments []any
	}{
		{"SELECT create_partitions(t::regclass, now() - interval '90 days', now() + interval '14 days') FROM unnest(ARRAY['deliveries', 'attempts']) AS t", nil},
		{"INSERT INTO webhooks (id, site_id, url) SELECT 'wh_bench_' || n, ($1::bigint[])[1 + n % 4], 'https://example.com/hook' FROM generate_series(0, $2::int - 1) AS n", []any{sites, webhooks}},
		{`INSERT INTO triggers (id, webhook_id, site_id, type, name, config)
			SELECT 'tr_' || id || '_' || n, id, site_id, 'visitor_spike', 'Benchmark', '{"threshold": 100, "window_seconds": 300}' FROM webhooks, generate_series(0, 4) AS n`, nil},
		{history, []any{sites, webhooks, deliveries}},
		{attemptsOfHistory, nil},
		{"VACUUM (ANALYZE) deliveries", nil},
		{"VACUUM (ANALYZE) attempts", nil},
		{"CHECKPOINT", nil},
	} {
		_, err := w.conn.Exec(ctx, step.statement, step.arguments...)
		require.NoError(w, err, step.statement)
	}
	rows, err := w.conn.Query(ctx, "SELECT id FROM deliveries WHERE webhook_id = 'wh_bench_0' AND status = 'delivered' AND trigger_id LIKE '%_7' LIMIT 1000")
	require.NoError(w, err)
	w.delivery, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(w, err)
	var partitions int
	require.NoError(w, w.conn.QueryRow(ctx, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'deliveries'::regclass").Scan(&partitions))
	fmt.Printf("%d deliveries with their attempts in %d partitions, of %d webhooks, made in %s\n", deliveries, partitions, webhooks, time.Since(started).Round(time.Second))
}

// start runs the shipped program with its defaults, but for the limit of requests; its log goes to a file.
func (w *bench) start(dir string, engines *devstack.Stack, plausible string) {
	program := filepath.Join(dir, "api")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../cmd/api")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(w, err, "%s", output)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w, err)
	addr := listener.Addr().String()
	require.NoError(w, listener.Close())
	log, err := os.Create(filepath.Join(dir, "api.log"))
	require.NoError(w, err)
	defer log.Close()
	w.api = exec.Command(program)
	w.api.Env = append(os.Environ(), "DATABASE_URL="+engines.PostgresURL("webhooks"), "PLAUSIBLE_DATABASE_URL="+plausible, "PLAUSIBLE_SECRET_KEY_BASE="+secretKeyBase,
		"NATS_URL="+engines.NATSURL(), "SECRETS_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)), "LISTEN_ADDR="+addr, "METRICS_ADDR=off",
		"RATE_LIMIT_PER_MINUTE=60000") // counted, as always, but never reached
	w.api.Stdout, w.api.Stderr = log, log
	require.NoError(w, w.api.Start())
	w.Cleanup(func() {
		require.NoError(w, w.api.Process.Signal(syscall.SIGINT))
		require.NoError(w, w.api.Wait())
	})
	w.address = "http://" + addr + "/api/sites/"
	require.Eventually(w, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond)
}

func (w *bench) run() {
	for range 40 {
		w.cursors = append(w.cursors, w.deepCursor())
	}
	w.load(readRate, warmUp, w.read)
	reads := w.load(readRate, readTime, w.read)
	activities := w.load(activityRate, activityTime, w.activity)
	creates := w.load(createRate, createTime, w.create)
	f := figures{
		List: percentile(reads.lists(), 99), Activity: percentile(activities.took[overview], 99), Create: percentile(creates.took["create"], 99),
		Rate: reads.rate, Resident: residentMB(w, w.api.Process.Pid),
	}
	fmt.Printf("%s, %d processors, shared by the api, Postgres, NATS and the users\n", processor(w), runtime.NumCPU())
	fmt.Printf("%-34s %8s %8s %8s %8s\n", "", "requests", "p50 ms", "p95 ms", "p99 ms")
	for _, measured := range []measured{reads, activities, creates} {
		for _, kind := range slices.Sorted(maps.Keys(measured.took)) {
			took := measured.took[kind]
			fmt.Printf("%-34s %8d %8.2f %8.2f %8.2f\n", kind, len(took), percentile(took, 50), percentile(took, 95), percentile(took, 99))
		}
	}
	fmt.Printf("core-seconds for 10,000 reads: api %.2f, Postgres %.2f; for 10,000 activities: api %.2f, Postgres %.2f; for 10,000 creates: api %.2f, Postgres %.2f; the api had %.0f MB resident\n",
		reads.api, reads.postgres, activities.api, activities.postgres, creates.api, creates.postgres, f.Resident)
	line, err := json.Marshal(map[string]json.Number{
		"list_p99_ms": rounded(f.List), "activity_p99_ms": rounded(f.Activity), "create_p99_ms": rounded(f.Create), "requests_per_s": rounded(f.Rate), "rss_mb": rounded(f.Resident),
	})
	require.NoError(w, err)
	fmt.Printf("%s\n", line)
}

func rounded(f float64) json.Number { return json.Number(strconv.FormatFloat(f, 'g', 3, 64)) }

// request is one of a user's. Its kind is what the table tells it by.
type request struct {
	kind, method, path, body string
}

// deepCursor is one of a page somewhere in the long history.
func (w *bench) deepCursor() string {
	to := time.Now().Add(-time.Duration(rand.Int64N(int64(80 * 24 * time.Hour)))).UTC().Format(time.RFC3339)
	var page struct{ Meta struct{ After string } }
	require.NoError(w, json.Unmarshal(w.send(request{method: "GET", path: w.full[0] + "/webhooks/wh_bench_0/deliveries?to=" + to}), &page))
	require.NotEmpty(w, page.Meta.After)
	return page.Meta.After
}

// Lists' kinds begin with this.
const list = "list: "

// read is one of the mix. Half of the histories asked for are the long one.
func (w *bench) read(i int) request {
	number := 0
	if rand.IntN(2) == 1 {
		number = rand.IntN(webhooks)
	}
	site := w.full[number%fullSites]
	webhook := site + "/webhooks/wh_bench_" + strconv.Itoa(number)
	day := func(before int) string { return time.Now().AddDate(0, 0, -before).UTC().Format(time.RFC3339) }
	span := rand.IntN(80)
	long := w.full[0] + "/webhooks/wh_bench_0/deliveries"
	cursor := w.cursors[rand.IntN(len(w.cursors))]
	get := func(kind, path string) request { return request{kind: kind, method: "GET", path: path} }
	switch i % 20 {
	case 0, 1, 2, 3:
		return get(list+"newest deliveries", webhook+"/deliveries")
	case 4, 5, 6:
		status := []string{"delivered", "waiting", "dead", "cancelled"}[rand.IntN(4)]
		return get(list+"by status", webhook+"/deliveries?limit=100&status="+status)
	case 7, 8:
		trigger := []string{"tr_bench_rare", fmt.Sprintf("tr_bench_%d_%d", number, rand.IntN(10))}[rand.IntN(2)]
		return get(list+"by trigger", webhook+"/deliveries?trigger_id="+trigger)
	case 9:
		kind := []string{"new_source.fired", "visitor_spike.resolved"}[rand.IntN(2)]
		return get(list+"by type", webhook+"/deliveries?type="+kind)
	case 10:
		return get(list+"by time", webhook+"/deliveries?from="+url.QueryEscape(day(span+7))+"&to="+url.QueryEscape(day(span)))
	case 11, 12:
		return get(list+"deep", long+"?after="+cursor)
	case 13:
		return get(list+"deep, back", long+"?before="+cursor)
	case 14:
		return get(list+"deep, dead", long+"?status=dead&after="+cursor)
	case 15:
		return get(list+"by trigger and type", webhook+"/deliveries?type=new_source.fired&trigger_id="+fmt.Sprintf("tr_bench_%d_%d", number, rand.IntN(10)))
	case 16:
		return get(list+"webhooks", site+"/webhooks")
	case 17, 18:
		return get("a webhook", webhook)
	default:
		return get("a delivery", long+"/"+w.delivery[rand.IntN(len(w.delivery))])
	}
}

// overview is the activity of a site with 50 webhooks.
const overview = "activity of 50 webhooks"

// activity is asked of all sites in turn; the first has the webhook with half of all deliveries.
func (w *bench) activity(i int) request {
	return request{kind: overview, method: "GET", path: w.full[i%fullSites] + "/webhooks/activity"}
}

func (w *bench) create(i int) request {
	return request{"create", "POST", w.free[i%len(w.free)] + "/webhooks", `{"url": "https://example.com/hook", "triggers": [{"type": "visitor_spike", "config": {"threshold": 100}}]}`}
}

// send returns the answer's body; another status than success ends the benchmark.
func (w *bench) send(r request) []byte {
	body, err := w.try(r)
	require.NoError(w, err)
	return body
}

func (w *bench) try(r request) ([]byte, error) {
	q, err := http.NewRequestWithContext(w.Context(), r.method, w.address+r.path, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Authorization", "Bearer "+w.key)
	if r.body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	response, err := w.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", r.method, r.path, response.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// measured is what a load took, by kind, and what it cost for 10,000.
type measured struct {
	took          map[string][]time.Duration
	rate          float64
	api, postgres float64 // core-seconds
}

func (m measured) lists() (all []time.Duration) {
	for kind, took := range m.took {
		if strings.HasPrefix(kind, list) {
			all = append(all, took...)
		}
	}
	return all
}

// load sends requests at a rate for a while, whether or not the ones before are answered. What one
// took is counted from when it was to be sent, so that one which had to wait says so.
func (w *bench) load(rate int, lasting time.Duration, next func(int) request) measured {
	n := int(lasting.Seconds() * float64(rate))
	kinds, took, errs := make([]string, n), make([]time.Duration, n), make([]error, n)
	api, postgres, started := cpu(w.api.Process.Pid), cpuOfFamily(w.postgres), time.Now()
	var answers sync.WaitGroup
	for i := range n {
		intended := started.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(intended))
		answers.Go(func() {
			r := next(i)
			kinds[i] = r.kind
			_, errs[i] = w.try(r)
			took[i] = time.Since(intended)
		})
	}
	answers.Wait()
	m := measured{took: map[string][]time.Duration{}, rate: float64(n) / time.Since(started).Seconds()}
	m.api = (cpu(w.api.Process.Pid) - api).Seconds() * 10_000 / float64(n)
	m.postgres = (cpuOfFamily(w.postgres) - postgres).Seconds() * 10_000 / float64(n)
	for i := range n {
		require.NoError(w, errs[i])
		m.took[kinds[i]] = append(m.took[kinds[i]], took[i])
	}
	return m
}

// percentile is in milliseconds.
func percentile(took []time.Duration, percent float64) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return float64(sorted[int(math.Ceil(float64(len(sorted))*percent/100))-1]) / float64(time.Millisecond)
}

// ---------------------------------------------------------------- time and memory, as the system counts them

// tick is the unit of processor time in /proc: Linux' USER_HZ is 100 everywhere.
const tick = 10 * time.Millisecond

// stat reads a field of /proc/<pid>/stat, counted from the one after the name; 0 if the process has ended.
func stat(pid, field int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(raw)
	n, _ := strconv.ParseInt(strings.Fields(text[strings.LastIndexByte(text, ')')+1:])[field], 10, 64) // the system writes numbers there
	return n
}

func parent(pid int) int { return int(stat(pid, 1)) }

// cpu is the processor time that a process has used, with the children that it has waited for.
func cpu(pid int) (spent time.Duration) {
	const utime = 11
	for i := range 4 {
		spent += time.Duration(stat(pid, utime+i)) * tick
	}
	return spent
}

// cpuOfFamily is that of a process and of all its children.
func cpuOfFamily(pid int) time.Duration {
	sum := cpu(pid)
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		if child, _ := strconv.Atoi(filepath.Base(entry)); parent(child) == pid {
			sum += cpu(child)
		}
	}
	return sum
}

// residentMB is the most memory that a process had, in megabytes, at any time until now.
func residentMB(t testing.TB, pid int) float64 {
	kib, err := strconv.ParseFloat(strings.Fields(after(t, fmt.Sprintf("/proc/%d/status", pid), "VmHWM:"))[0], 64)
	require.NoError(t, err)
	return kib * 1024 / 1e6
}

// processor is the machine's, by its name.
func processor(t testing.TB) string {
	line, _, _ := strings.Cut(after(t, "/proc/cpuinfo", "model name"), "\n")
	return strings.TrimLeft(line, "\t :")
}

func after(t testing.TB, path, mark string) string {
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	_, text, found := strings.Cut(string(raw), mark)
	require.True(t, found, "%s in %s", mark, path)
	return text
}
