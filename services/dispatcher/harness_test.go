package dispatcher

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// These tests look at what is outside the dispatcher, and real: the rows in Postgres, the
// stream and its consumer in NATS, and what receivers get over TCP. There are no doubles.

func TestMain(m *testing.M) { devstacktest.Main(m) }

// patienceOfTests is for facts that have to come true; none of the tests waits for it in vain.
const patienceOfTests = 30 * time.Second

// world is a database, a broker and what the evaluator and the api would do with them.
type world struct {
	testing.TB
	config Config
	pool   *pgxpool.Pool
	nc     *nats.Conn
	js     jetstream.JetStream
	logs   *syncBuffer
}

func newWorld(t testing.TB) *world {
	return newWorldAt(t, devstacktest.Postgres(t), devstacktest.NATS(t))
}

// newWorldOn has servers of its own, to be restarted.
func newWorldOn(t testing.TB) (*world, *devstack.Stack) {
	stack := devstacktest.Stack(t, devstack.Options{Postgres: &devstack.Engine{}, NATS: &devstack.Engine{}})
	return newWorldAt(t, stack.PostgresURL("postgres"), stack.NATSURL()), stack
}

func newWorldAt(t testing.TB, postgresURL, natsURL string) *world {
	if test, ok := t.(*testing.T); ok {
		test.Parallel() // most of a test's time is spent waiting
	}
	w := &world{TB: t, logs: &syncBuffer{}}
	require.NoError(t, w.config.SecretsKey.UnmarshalText([]byte(base64.StdEncoding.EncodeToString(make([]byte, 32)))))
	w.config.DatabaseURL, w.config.NATSURL = postgresURL, natsURL
	w.config.AllowPrivateTargets = loopback
	w.config.AllowHTTPTargets = true
	w.config.Concurrency, w.config.WebhookConcurrency = 64, 16
	w.config.DrainRate = 50
	w.config.DrainTimeout, w.config.Retention, w.config.StreamReplicas = 5*time.Second, 2160*time.Hour, 1

	var err error
	w.pool, err = database.Open(t.Context(), "DATABASE_URL", postgresURL, 4)
	require.NoError(t, err)
	t.Cleanup(w.pool.Close)
	require.NoError(t, database.Migrate(t.Context(), w.pool))
	w.nc, err = nats.Connect(natsURL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(w.nc.Close)
	w.js, err = jetstream.New(w.nc)
	require.NoError(t, err)
	_, _, err = stream.Ensure(t.Context(), w.js, stream.Options{})
	require.NoError(t, err)
	return w
}

// loopback is where the receivers of tests listen.
var loopback = target.Prefixes{netip.MustParsePrefix("127.0.0.0/8")}

// running is a dispatcher that was started.
type running struct {
	*dispatcher
	registry *prometheus.Registry
	cancel   context.CancelFunc
	ended    chan error
}

// start runs a dispatcher until stop, or the test's end. prepare sees it first.
func (w *world) start(prepare ...func(*dispatcher)) *running {
	w.Helper()
	registry := prometheus.NewRegistry()
	s := daemon.NewService("dispatcher", slog.New(slog.NewJSONHandler(w.logs, nil)), registry, sdktrace.NewTracerProvider())
	ctx, cancel := context.WithCancel(context.Background())
	pool, err := database.Open(ctx, "DATABASE_URL", w.config.DatabaseURL, poolSize)
	require.NoError(w, err)
	nc, err := stream.Connect(ctx, w.config.NATSURL, "test", s.Log)
	require.NoError(w, err)
	r := &running{newDispatcher(w.config, s, postgres.New(pool), nc), registry, cancel, make(chan error, 1)}
	for _, f := range prepare {
		f(r.dispatcher)
	}
	go func() {
		defer pool.Close()
		defer nc.Close()
		r.ended <- r.run(ctx)
		close(r.ended)
	}()
	w.Cleanup(func() {
		cancel()
		for range r.ended { // until it has ended, whoever asked for its error
		}
	})
	return r
}

// stop ends it and waits.
func (r *running) stop() error {
	r.cancel()
	return <-r.ended
}

// options of a webhook; zero values are what most tests want.
type options struct {
	headers map[string]string
	paused  bool
	timeout int     // seconds
	rate    float64 // 0: none
	secrets []signature.Secret
}

var sequence struct {
	sync.Mutex
	n int
}

func fresh(prefix string) string {
	sequence.Lock()
	defer sequence.Unlock()
	sequence.n++
	return fmt.Sprintf("%s_%d", prefix, sequence.n)
}

// webhook stores a webhook as the api would.
func (w *world) webhook(url string, o options) string {
	w.Helper()
	id := fresh("wh")
	if o.timeout == 0 {
		o.timeout = 15
	}
	if o.headers == nil {
		o.headers = map[string]string{}
	}
	if o.secrets == nil {
		o.secrets = []signature.Secret{signature.NewSecret()}
	}
	headers, err := json.Marshal(o.headers)
	require.NoError(w, err)
	w.exec("INSERT INTO webhooks (id, site_id, url, headers, enabled, timeout_seconds) VALUES ($1, 1, $2, $3, $4, $5)", id, url, headers, !o.paused, o.timeout)
	if o.rate > 0 {
		w.exec("UPDATE webhooks SET rate_limit_per_second = $2 WHERE id = $1", id, o.rate)
	}
	for _, s := range o.secrets {
		w.exec("INSERT INTO webhook_secrets (webhook_id, sealed) VALUES ($1, $2)", id, w.config.SecretsKey.Seal(s.Reveal(), id))
	}
	return id
}

func (w *world) exec(sql string, args ...any) int64 {
	w.Helper()
	tag, err := w.pool.Exec(w.Context(), sql, args...)
	require.NoError(w, err)
	return tag.RowsAffected()
}

// firing is one for the webhook, with a slot of the current minute.
func firing(webhookID string) trigger.Firing {
	id := fresh("msg")
	return trigger.Firing{
		ID: id, Slot: time.Now().Truncate(10 * time.Second).UTC(), SiteID: 1, WebhookID: webhookID, TriggerID: "tr_1",
		TriggerType: "visitor_spike", Type: "visitor_spike.fired",
		Payload: fmt.Appendf(nil, `{"type":"visitor_spike.fired","data":{"id":%q,"name":"caf\u00e9 <&>"}}`, id),
	}
}

// publish is what the evaluator does; it returns the firings.
func (w *world) publish(firings ...trigger.Firing) []trigger.Firing {
	w.Helper()
	for _, f := range firings {
		_, err := w.js.PublishMsgAsync(stream.Encode(f))
		require.NoError(w, err)
	}
	select {
	case <-w.js.PublishAsyncComplete():
	case <-time.After(patienceOfTests):
		w.Fatal("the stream does not take the firings")
	}
	return firings
}

func (w *world) publishN(n int, webhookIDs ...string) []trigger.Firing {
	w.Helper()
	firings := make([]trigger.Firing, n)
	for i := range firings {
		firings[i] = firing(webhookIDs[i%len(webhookIDs)])
	}
	return w.publish(firings...)
}

func (w *world) count(where string, args ...any) (n int) {
	w.Helper()
	require.NoError(w, w.pool.QueryRow(w.Context(), "SELECT count(*) FROM deliveries WHERE "+where, args...).Scan(&n))
	return n
}

// eventually waits for a fact.
func (w *world) eventually(fact func() bool, what string, args ...any) {
	w.Helper()
	deadline := time.Now().Add(patienceOfTests)
	for !fact() {
		if time.Now().After(deadline) {
			w.Fatalf("did not come true: "+what, args...)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// row is what a test looks at of a delivery.
type row struct {
	Status    string
	Attempts  int
	Next      *time.Time
	Claimed   *time.Time
	LastError string
	Payload   []byte
	Finished  *time.Time
}

func (w *world) row(id string) row {
	w.Helper()
	var r row
	require.NoError(w, w.pool.QueryRow(w.Context(),
		"SELECT status, attempts, next_attempt_at, claimed_until, last_error, payload, finished_at FROM deliveries WHERE id = $1", id).
		Scan(&r.Status, &r.Attempts, &r.Next, &r.Claimed, &r.LastError, &r.Payload, &r.Finished), id)
	return r
}

// becomes waits for a delivery's status and number of attempts.
func (w *world) becomes(id, status string, attempts int) row {
	w.Helper()
	w.eventually(func() bool {
		return w.count("id = $1 AND status = $2 AND attempts = $3", id, status, attempts) == 1
	}, "delivery %s is %s after %d attempts; logs:\n%s", id, status, attempts, w.logs)
	return w.row(id)
}

// hurry makes a waiting delivery due now, its webhook's circuit notwithstanding.
func (w *world) hurry(id string) {
	w.Helper()
	w.exec("UPDATE webhook_health SET circuit_open_until = now() WHERE circuit_open_until IS NOT NULL")
	require.EqualValues(w, 1, w.exec("UPDATE deliveries SET next_attempt_at = now() WHERE id = $1 AND status = 'waiting'", id))
}

// settled waits until the stream owes nothing to the consumer, and nothing to be acknowledged.
func (w *world) settled() {
	w.Helper()
	w.eventually(func() bool {
		ctx, cancel := context.WithTimeout(w.Context(), 2*time.Second)
		defer cancel()
		consumer, err := w.js.Consumer(ctx, stream.Firings, stream.Dispatcher)
		if err != nil {
			return false
		}
		info, err := consumer.Info(ctx)
		return err == nil && info.NumPending == 0 && info.NumAckPending == 0
	}, "all messages are acknowledged; logs:\n%s", w.logs)
}

// request is what a receiver got.
type request struct {
	Header http.Header
	Body   []byte
	At     time.Time
}

func (r request) id() string { return r.Header.Get(signature.HeaderID) }

// receiver is a webhook's receiver. Its answer may be changed at any time.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	answer   http.HandlerFunc
}

func newReceiver(t testing.TB, answer http.HandlerFunc) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		body, _ := io.ReadAll(in.Body)
		r.mu.Lock()
		r.requests = append(r.requests, request{in.Header.Clone(), body, time.Now()})
		answer := r.answer
		r.mu.Unlock()
		answer(out, in)
	}))
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

// hold answers when release is closed, or when nobody waits for the answer any more.
func hold(release <-chan struct{}) http.HandlerFunc {
	return func(_ http.ResponseWriter, in *http.Request) {
		select {
		case <-release:
		case <-in.Context().Done():
		}
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func (r *receiver) answers(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) got() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request(nil), r.requests...)
}

// times is how often each delivery arrived.
func (r *receiver) times() map[string]int {
	times := map[string]int{}
	for _, req := range r.got() {
		times[req.id()]++
	}
	return times
}

// syncBuffer collects logs of several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = bytes.Buffer{}
}

func newVault(t testing.TB, fill byte) vault.Vault {
	var v vault.Vault
	require.NoError(t, v.UnmarshalText([]byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32)))))
	return v
}

type triggerFiring = trigger.Firing

func newWorldLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// counter counts statements by how they begin.
type counter struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *counter) add(sql string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	sql = strings.TrimSpace(sql)
	c.counts[sql[:min(len(sql), 9)]]++
}

func (c *counter) of(start string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[start]
}

func (c *counter) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	c.add(q.SQL)
	return ctx
}
func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (c *counter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.add("look")
	return ctx
}
func (c *counter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (c *counter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// startTraced is start with a count of the dispatcher's statements.
func (w *world) startTraced(c *counter) *running {
	w.Helper()
	config, err := pgxpool.ParseConfig(w.config.DatabaseURL)
	require.NoError(w, err)
	config.ConnConfig.Tracer = c
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	require.NoError(w, err)
	w.Cleanup(pool.Close)
	return w.start(func(d *dispatcher) { d.store = postgres.New(pool) })
}

func histogramCount(t testing.TB, h prometheus.Histogram) uint64 {
	var m dto.Metric
	require.NoError(t, h.Write(&m))
	return m.GetHistogram().GetSampleCount()
}

// benchBody is the size of a usual message, as in the measurements of peers.
const benchBody = 615

// fill publishes n firings without waiting for each.
func (w *world) fill(n int, webhookIDs []string) {
	w.Helper()
	for i := range n {
		f := firing(webhookIDs[i%len(webhookIDs)])
		f.Payload = fmt.Appendf(nil, `{"id":%q,"fill":%q}`, f.ID, strings.Repeat("x", benchBody-40))
		_, err := w.js.PublishMsgAsync(stream.Encode(f))
		require.NoError(w, err)
		if i%2000 == 1999 {
			<-w.js.PublishAsyncComplete()
		}
	}
	<-w.js.PublishAsyncComplete()
}
