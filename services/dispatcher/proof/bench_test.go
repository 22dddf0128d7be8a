package proof

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
)

const (
	rounds = 3 // of each of the three, in turns, because machines drift; medians count

	barePosts       = 100_000
	benchDeliveries = 60_000
	riverJobs       = 20_000
	benchWebhooks   = 64

	calmRate       = 50 // per second
	calmTime       = 20 * time.Second
	halfTime       = 10 * time.Second
	waitingFirings = 1_000_000
	waitingBody    = 100 // bytes
	waitingTime    = 20 * time.Second

	hangingFirings = 10_000
	besideRate     = 500 // per second, to the others
	besideTime     = 20 * time.Second
	benchPatience  = time.Minute
)

// figures are the benchmark's last line.
type figures struct {
	Limit          float64 `json:"limit_per_s"`
	Dispatcher     float64 `json:"dispatcher_per_s"`
	River          float64 `json:"river_per_s"`
	ToLimit        float64 `json:"ratio_to_limit"`
	ToRiver        float64 `json:"ratio_to_river"`
	CPU            float64 `json:"cpu_s_per_10k"`
	CalmP50        float64 `json:"p50_ms_at_50"`
	CalmP99        float64 `json:"p99_ms_at_50"`
	HalfP99        float64 `json:"p99_ms_at_half"`
	Resident       float64 `json:"rss_mb"`
	ResidentLoaded float64 `json:"rss_mb_million_waiting"`
}

// BenchmarkDispatcher measures, on one machine that everything shares, (a) the limit: bare
// signed POSTs, (b) the dispatcher as it is shipped, from the stream to the acknowledgement
// after the commit, (c) River doing the same work; then the dispatcher's latency and memory.
func BenchmarkDispatcher(b *testing.B) {
	for range b.N { // once: see the Makefile
		newBench(b).run()
	}
}

// bench is the servers and who uses them, each a process of its own.
type bench struct {
	*testing.B
	dir      string
	program  string // the dispatcher's
	env      []string
	receiver *process
	bare     *process
	river    *process
	nats     *process
	postgres int // process id
	conn     *pgx.Conn
	js       jetstream.JetStream
	stream   jetstream.Stream
	consumer jetstream.Consumer
	webhooks []string
	vault    vault.Vault
	started  int // dispatchers
	sequence int // of firings
}

func newBench(b *testing.B) *bench {
	ctx := b.Context()
	w := &bench{B: b, dir: b.TempDir()}
	require.NoError(b, os.Chmod(w.dir, 0o711)) // Postgres may run as another user
	w.program = filepath.Join(w.dir, "dispatcher")
	build := exec.Command("go", "build", "-trimpath", "-o", w.program, "../cmd/dispatcher")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(b, err, "%s", output)

	engines, err := devstack.Start(ctx, devstack.Options{Dir: w.dir, Postgres: &devstack.Engine{}}) // durable, as in production
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, engines.Stop()) })
	w.conn, err = pgx.Connect(ctx, engines.PostgresURL("postgres"))
	require.NoError(b, err)
	for _, name := range []string{"webhooks", "river"} {
		_, err = w.conn.Exec(ctx, "CREATE DATABASE "+name)
		require.NoError(b, err)
	}
	require.NoError(b, w.conn.Close(ctx))
	w.conn, err = pgx.Connect(ctx, engines.PostgresURL("webhooks"))
	require.NoError(b, err)
	b.Cleanup(func() { w.conn.Close(context.Background()) })
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		require.NoError(b, w.conn.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&value))
		require.Equal(b, "on", value, setting)
	}
	w.postgres = postmaster(b, w.conn)
	w.nats = broker(b, filepath.Join(w.dir, "broker"), freePort(b))
	w.receiver, w.bare = role(b, "receiver"), role(b, "bare")
	w.river = role(b, "river", "DATABASE_URL="+engines.PostgresURL("river"))
	w.furnish(engines.PostgresURL("webhooks"), w.nats.ready)
	return w
}

// furnish makes the tables, the stream and the webhooks.
func (w *bench) furnish(postgresURL, natsURL string) {
	ctx := w.Context()
	pool, err := database.Open(ctx, "DATABASE_URL", postgresURL, 2)
	require.NoError(w, err)
	defer pool.Close()
	require.NoError(w, database.Migrate(ctx, pool))
	nc, err := nats.Connect(natsURL)
	require.NoError(w, err)
	w.Cleanup(nc.Close)
	w.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	require.NoError(w, err)
	w.stream, w.consumer, err = stream.Ensure(ctx, w.js, stream.Options{})
	require.NoError(w, err)

	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	w.env = append(os.Environ(), "DATABASE_URL="+postgresURL, "NATS_URL="+natsURL, "SECRETS_KEY="+key,
		"ALLOW_HTTP_TARGETS=true", "ALLOW_PRIVATE_TARGETS=127.0.0.0/8", "METRICS_ADDR=off")
	require.NoError(w, w.vault.UnmarshalText([]byte(key)))
	for i := range benchWebhooks {
		id := fmt.Sprintf("wh_%d", i)
		w.webhook(id, w.receiver.ready)
		w.webhooks = append(w.webhooks, id)
	}
}

func (w *bench) webhook(id, url string) {
	_, err := w.conn.Exec(w.Context(), `INSERT INTO webhooks (id, site_id, url, headers, timeout_seconds)
		VALUES ($1, 1, $2, '{"Authorization": "Bearer of-the-receiver"}', 30)`, id, url)
	require.NoError(w, err)
	_, err = w.conn.Exec(w.Context(), "INSERT INTO webhook_secrets (webhook_id, sealed) VALUES ($1, $2)", id, w.vault.Seal(signature.NewSecret().Reveal(), id))
	require.NoError(w, err)
}

func (w *bench) run() {
	fmt.Printf("%-12s %10s %8s   %s\n", "", "per second", "core-s", "per 10,000, by process")
	var limits, ours, rivers []measured
	for range rounds {
		limits = append(limits, w.measureBare())
		ours = append(ours, w.measureDispatcher())
		rivers = append(rivers, w.measureRiver())
	}
	limit, dispatcher, river := median("bare", limits), median("dispatcher", ours), median("River", rivers)
	f := figures{
		Limit: limit.rate, Dispatcher: dispatcher.rate, River: river.rate,
		ToLimit: dispatcher.rate / limit.rate, ToRiver: dispatcher.rate / river.rate,
		CPU: dispatcher.cpu(), Resident: dispatcher.resident,
	}
	fmt.Printf("the dispatcher makes %.2f of the limit and %.1f times River, with %.0f MB resident\n", f.ToLimit, f.ToRiver, f.Resident)
	f.CalmP50, f.CalmP99 = w.latency(calmRate, calmTime)
	_, f.HalfP99 = w.latency(int(f.Dispatcher/2), halfTime)
	f.ResidentLoaded = w.measureLoaded()
	w.measureIsolation()
	line, err := json.Marshal(f.rounded())
	require.NoError(w, err)
	fmt.Printf("%s\n", line)
}

func (f figures) rounded() map[string]json.Number {
	rounded := map[string]json.Number{}
	text, _ := json.Marshal(f)
	_ = json.Unmarshal(text, &rounded)
	for name, value := range rounded {
		exact, _ := value.Float64()
		rounded[name] = json.Number(fmt.Sprintf("%.3g", exact))
	}
	return rounded
}

// measured is one round of one of the three.
type measured struct {
	rate     float64                  // per second
	spent    map[string]time.Duration // processor time per 10,000, by process
	resident float64                  // megabytes, of the dispatcher
}

func (m measured) cpu() (seconds float64) {
	for _, spent := range m.spent {
		seconds += spent.Seconds()
	}
	return seconds
}

func median(name string, of []measured) measured {
	slices.SortFunc(of, func(a, b measured) int { return int(a.rate - b.rate) })
	m := of[len(of)/2]
	var parts []string
	for _, process := range []string{"sender", "dispatcher", "river", "receiver", "nats", "postgres"} {
		if spent, took := m.spent[process]; took {
			parts = append(parts, fmt.Sprintf("%s %.2f", process, spent.Seconds()))
		}
	}
	fmt.Printf("%-12s %10.0f %8.2f   %s   [%.0f-%.0f]\n", name, m.rate, m.cpu(), strings.Join(parts, ", "), of[0].rate, of[len(of)-1].rate)
	return m
}

// clocks read what processes have spent.
type clocks map[string]func() time.Duration

func (w *bench) clocks(name string, pid int, shared ...string) clocks {
	c := clocks{name: func() time.Duration { return cpu(pid) }, "receiver": func() time.Duration { return cpu(w.receiver.cmd.Process.Pid) }}
	for _, server := range shared {
		switch server {
		case "nats":
			c[server] = func() time.Duration { return cpu(w.nats.cmd.Process.Pid) }
		case "postgres":
			c[server] = func() time.Duration { return cpuOfFamily(w.postgres) }
		}
	}
	return c
}

// lap starts to measure; the returned function ends it, after so many.
func (c clocks) lap() func(n int) measured {
	before := map[string]time.Duration{}
	for name, read := range c {
		before[name] = read()
	}
	started := time.Now()
	return func(n int) measured {
		m := measured{rate: float64(n) / time.Since(started).Seconds(), spent: map[string]time.Duration{}}
		for name, read := range c {
			m.spent[name] = (read() - before[name]) * 10_000 / time.Duration(n)
		}
		return m
	}
}

func (w *bench) measureBare() measured {
	w.receiver.ask("reset")
	end := w.clocks("sender", w.bare.cmd.Process.Pid).lap()
	w.bare.ask("%s %d", w.receiver.ready, barePosts)
	return end(barePosts)
}

// measureRiver is from the first request's arrival to the last one's.
func (w *bench) measureRiver() measured {
	w.receiver.ask("reset")
	w.river.ask("insert %d %s", riverJobs, w.receiver.ready)
	w.river.ask("start")
	w.receiver.ask("await 1")
	end := w.clocks("river", w.river.cmd.Process.Pid, "postgres").lap()
	w.receiver.ask("await %d", riverJobs)
	m := end(riverJobs)
	require.Equal(w, fmt.Sprint(riverJobs), w.river.ask("stop"), "River has recorded every one")
	return m
}

// measureDispatcher is from the first request's arrival to the last acknowledgement, which
// follows the last commit.
func (w *bench) measureDispatcher() measured {
	w.clear()
	w.receiver.ask("reset")
	w.publish(benchDeliveries, bodySize)
	d := w.dispatcher()
	w.receiver.ask("await 1")
	end := w.clocks("dispatcher", d.cmd.Process.Pid, "nats", "postgres").lap()
	w.receiver.ask("await %d", benchDeliveries)
	w.settled()
	m := end(benchDeliveries)
	m.resident = residentMB(w, d.cmd.Process.Pid)
	d.stop()
	require.Equal(w, fmt.Sprint(benchDeliveries), w.receiver.ask("count"), "each was sent once")
	var recorded int
	require.NoError(w, w.conn.QueryRow(w.Context(), `
		SELECT count(*) FROM deliveries d JOIN attempts a ON a.delivery_id = d.id AND a.slot = d.slot
		WHERE d.status = 'delivered' AND d.attempts = 1`).Scan(&recorded))
	require.Equal(w, benchDeliveries, recorded, "each is recorded with its attempt")
	return m
}

// clear takes away what a round left behind.
func (w *bench) clear() {
	_, err := w.conn.Exec(w.Context(), "TRUNCATE deliveries, attempts")
	require.NoError(w, err)
	require.NoError(w, w.stream.Purge(w.Context()))
}

// running is a dispatcher at work.
type running struct {
	w   *bench
	cmd *exec.Cmd
}

// dispatcher starts the shipped program with its defaults; its log goes to a file.
func (w *bench) dispatcher() *running {
	w.started++
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("dispatcher-%d.log", w.started)))
	require.NoError(w, err)
	defer log.Close()
	cmd := exec.Command(w.program)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, log, log
	require.NoError(w, cmd.Start())
	r := &running{w, cmd}
	w.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it says that it was killed
		}
	})
	return r
}

func (r *running) stop() { require.NoError(r.w, interrupt(r.cmd)) }

// firing is the next one, of the wanted size.
func (w *bench) firing(size int) *nats.Msg {
	return w.firingFor(w.webhooks[w.sequence%len(w.webhooks)], size)
}

func (w *bench) firingFor(webhookID string, size int) *nats.Msg {
	w.sequence++
	now := time.Now()
	return stream.Encode(trigger.Firing{
		ID: fmt.Sprintf("msg_bench_%d", w.sequence), Slot: now.Truncate(10 * time.Second).UTC(), SiteID: 1,
		WebhookID: webhookID, TriggerID: "tr_bench", TriggerType: "visitor_spike", Type: "visitor_spike.fired",
		Payload: body(now, size), TraceContext: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	})
}

// publish puts firings into the stream, without waiting for each.
func (w *bench) publish(n, size int) {
	for range n {
		_, err := w.js.PublishMsgAsync(w.firing(size), jetstream.WithStallWait(benchPatience))
		require.NoError(w, err)
	}
	w.published()
}

func (w *bench) published() {
	select {
	case <-w.js.PublishAsyncComplete():
	case <-time.After(benchPatience):
		w.Fatal("the stream does not take the firings")
	}
}

// settled waits until everything is acknowledged.
func (w *bench) settled() {
	for deadline := time.Now().Add(benchPatience); ; time.Sleep(5 * time.Millisecond) {
		info, err := w.consumer.Info(w.Context())
		require.NoError(w, err)
		if info.NumPending == 0 && info.NumAckPending == 0 {
			return
		}
		require.True(w, time.Now().Before(deadline), "%d messages wait, %d are in flight", info.NumPending, info.NumAckPending)
	}
}

// latency is from the publication of a firing to the arrival of its request, in milliseconds,
// with a dispatcher that has been at work before.
func (w *bench) latency(rate int, lasting time.Duration) (p50, p99 float64) {
	w.clear()
	w.receiver.ask("reset")
	d := w.dispatcher()
	w.publish(10*benchWebhooks, bodySize)
	w.receiver.ask("await %d", 10*benchWebhooks)
	p50, p99 = w.sample(rate, lasting)
	w.settled()
	d.stop()
	fmt.Printf("from publication to arrival, at %d per second: p50 %.2f ms, p99 %.2f ms\n", rate, p50, p99)
	return p50, p99
}

// sample publishes at a rate for a while, and tells how long arrivals took.
func (w *bench) sample(rate int, lasting time.Duration) (p50, p99 float64) {
	w.receiver.ask("reset sampling")
	n := int(lasting.Seconds() * float64(rate))
	started := time.Now()
	for i := range n {
		time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		_, err := w.js.PublishMsgAsync(w.firing(bodySize))
		require.NoError(w, err)
	}
	w.published()
	w.receiver.ask("await %d", n)
	var count int
	_, err := fmt.Sscan(w.receiver.ask("latencies"), &count, &p50, &p99)
	require.NoError(w, err)
	require.Equal(w, n, count)
	return p50, p99
}

// measureIsolation is what the others notice of one webhook that hangs for 30 s on each of its firings.
func (w *bench) measureIsolation() {
	w.clear()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts connections, and nobody answers
	require.NoError(w, err)
	defer silent.Close()
	w.webhook("wh_hanging", "http://"+silent.Addr().String()+"/hook")
	d := w.dispatcher()
	for range hangingFirings {
		_, err := w.js.PublishMsgAsync(w.firingFor("wh_hanging", bodySize), jetstream.WithStallWait(benchPatience))
		require.NoError(w, err)
	}
	p50, p99 := w.sample(besideRate, besideTime)
	fmt.Printf("beside a webhook that hangs on each of %d firings, at %d per second to %d others: p50 %.2f ms, p99 %.2f ms\n",
		hangingFirings, besideRate, len(w.webhooks), p50, p99)
	require.NoError(w, d.cmd.Process.Kill()) // a stop would wait for what hangs
	_ = d.cmd.Wait()                         // it says that it was killed
	w.clear()
}

// measureLoaded is the dispatcher's memory while a million firings wait.
func (w *bench) measureLoaded() float64 {
	w.clear()
	w.receiver.ask("reset")
	started := time.Now()
	w.publish(waitingFirings, waitingBody)
	filled := time.Since(started)
	d := w.dispatcher()
	w.receiver.ask("await 1")
	time.Sleep(waitingTime)
	sent := w.receiver.ask("count")
	resident := residentMB(w, d.cmd.Process.Pid)
	info, err := w.consumer.Info(w.Context())
	require.NoError(w, err)
	require.NotZero(w, info.NumPending, "there is still something waiting")
	d.stop()
	fmt.Printf("with %d firings waiting (published in %s), %s sent in %s: %.0f MB resident\n", waitingFirings, filled.Round(100*time.Millisecond), sent, waitingTime, resident)
	w.clear()
	return resident
}
