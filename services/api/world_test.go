package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	demo "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

const secretKeyBase = "a secret key base of 64 characters, as Plausible's own one has it"

// world is an installation with the api's handler, as seen by its users. The oracles are the
// answers, the tables, the announcements and the log.
type world struct {
	t      *testing.T
	demo   demo.Demo
	api    *api
	own    *pgxpool.Pool // the product's database
	theirs *pgxpool.Pool // Plausible's
	log    *buffer
	heard  *nats.Subscription
	server *httptest.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{t: t, log: &buffer{}}
	w.own = openDatabase(t, devstacktest.Postgres(t))
	require.NoError(t, database.Migrate(ctx, w.own))
	theirs := devstacktest.Postgres(t)
	require.NoError(t, demo.CreatePostgres(ctx, theirs))
	var err error
	w.demo, err = demo.Seed(ctx, theirs, secretKeyBase)
	require.NoError(t, err)
	w.theirs = openDatabase(t, theirs)
	directory, err := plausible.Open(ctx, w.theirs, secretKeyBase)
	require.NoError(t, err)

	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	nc, err := stream.Connect(ctx, devstacktest.NATS(t), "test", log)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	w.heard, err = nc.SubscribeSync(stream.AllChanges)
	require.NoError(t, err)

	s := daemon.NewService("api", log, prometheus.NewRegistry(), sdktrace.NewTracerProvider())
	w.api = &api{
		log: s.Log, store: postgres.New(w.own), directory: directory, grants: newGrants(), vault: testVault(t),
		targets: target.NewPolicy(false, target.Prefixes{netip.MustParsePrefix("10.1.0.0/16")}), nats: nc,
	}
	stopping := make(chan struct{})
	w.api.stopping = stopping
	t.Cleanup(func() { close(stopping) })
	handler, err := w.api.handler(newObserver(s))
	require.NoError(t, err)
	w.server = httptest.NewServer(handler)
	t.Cleanup(w.server.Close)
	return w
}

func openDatabase(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), "DATABASE_URL", url, 10)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func testVault(t *testing.T) (v vault.Vault) {
	t.Helper()
	require.NoError(t, v.UnmarshalText([]byte(base64.StdEncoding.EncodeToString(make([]byte, 32)))))
	return v
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// answer is what a request came back with.
type answer struct {
	status int
	header http.Header
	text   string
}

// json is a field of the answer: "meta.after".
func (a answer) json(t *testing.T, path string) any {
	t.Helper()
	var value any
	require.NoError(t, json.Unmarshal([]byte(a.text), &value), "%s", a.text)
	for name := range strings.SplitSeq(path, ".") {
		object, is := value.(map[string]any)
		require.True(t, is, "no %s in %s", path, a.text)
		value = object[name]
	}
	return value
}

func (a answer) id(t *testing.T) string {
	t.Helper()
	id, is := a.json(t, "id").(string)
	require.True(t, is, "no id in %s", a.text)
	return id
}

// do sends a request to a path under /api/sites/, or to a whole one; edit changes it before.
func (w *world) do(key, method, path, body string, edit ...func(*http.Request)) answer {
	w.t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	if !strings.HasPrefix(path, "/api/") {
		path = "/api/sites/" + path
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, content)
	require.NoError(w.t, err)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, change := range edit {
		change(r)
	}
	response, err := w.server.Client().Do(r)
	require.NoError(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	a := answer{response.StatusCode, response.Header, strings.TrimSpace(string(text))}
	document, err := readDocument()
	require.NoError(w.t, err)
	document.requireConform(w.t, r, body, a)
	return a
}

// as is do under the demo site's webhooks, which must come back with a status.
func (w *world) as(key string, status int, method, path, body string) answer {
	w.t.Helper()
	a := w.do(key, method, w.demo.Domain+"/webhooks"+path, body)
	require.Equal(w.t, status, a.status, "%s %s %s: %s", method, path, body, a.text)
	return a
}

// owner is as for the site's owner.
func (w *world) owner(status int, method, path, body string) answer {
	w.t.Helper()
	return w.as(w.demo.OwnerKey, status, method, path, body)
}

// exec changes a database behind the api's back.
func (w *world) exec(pool *pgxpool.Pool, statement string, arguments ...any) {
	w.t.Helper()
	_, err := pool.Exec(w.t.Context(), statement, arguments...)
	require.NoError(w.t, err)
}

// announced are the subjects heard since the last call, up to the one of an announcement that
// is made now, so that nothing is waited for in vain.
func (w *world) announced() []string {
	w.t.Helper()
	require.NoError(w.t, stream.Announce(w.api.nats, stream.ChangedWebhook, "the-end"))
	var subjects []string
	for {
		m, err := w.heard.NextMsgWithContext(w.t.Context())
		require.NoError(w.t, err)
		if m.Subject == "changed.webhook.the-end" {
			return subjects
		}
		subjects = append(subjects, m.Subject)
	}
}

const (
	notFound = `{"error":"It does not exist, or the API key has no access to it."}`
	spike    = `{"type": "visitor_spike", "config": {"threshold": 100}}`
)
