package api

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	demo "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

func TestConfigurationIsRefusedAsAWhole(t *testing.T) {
	_, err := daemon.Load[Config]([]string{"LISTEN_ADDR=8080", "SECRETS_KEY=canary", "ALLOW_PRIVATE_TARGETS=10.0.0.0", "ALLOW_HTTP_TARGETS=maybe"})
	require.EqualError(t, err, `the configuration has 8 problems:
  ALLOW_HTTP_TARGETS must be true or false
  ALLOW_PRIVATE_TARGETS "10.0.0.0" is not a network such as 10.0.0.0/8
  DATABASE_URL is not set
  LISTEN_ADDR must be an address such as 127.0.0.1:8080
  NATS_URL is not set
  PLAUSIBLE_DATABASE_URL is not set
  PLAUSIBLE_SECRET_KEY_BASE is not set
  SECRETS_KEY must be the base64 of 32 random bytes (openssl rand -base64 32), several with commas between them`)
	c, err := daemon.Load[Config]([]string{"DATABASE_URL=a", "PLAUSIBLE_DATABASE_URL=b", "PLAUSIBLE_SECRET_KEY_BASE=c", "NATS_URL=d",
		"SECRETS_KEY=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "ALLOW_PRIVATE_TARGETS=10.1.2.3/8, fd00::/8"})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8080", c.ListenAddr)
	require.Equal(t, "[10.0.0.0/8 fd00::/8]", fmt.Sprint(c.AllowPrivateTargets))
}

// installation is what Run needs.
func installation(t *testing.T, natsURL string) (Config, demo.Demo) {
	t.Helper()
	c := Config{
		ListenAddr: freeAddress(t), DatabaseURL: devstacktest.Postgres(t), PlausibleDatabaseURL: devstacktest.Postgres(t),
		PlausibleSecretKeyBase: secretKeyBase, NATSURL: natsURL, SecretsKey: testVault(t),
	}
	require.NoError(t, database.Migrate(t.Context(), openDatabase(t, c.DatabaseURL)))
	require.NoError(t, demo.CreatePostgres(t.Context(), c.PlausibleDatabaseURL))
	seeded, err := demo.Seed(t.Context(), c.PlausibleDatabaseURL, secretKeyBase)
	require.NoError(t, err)
	return c, seeded
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// running is Run at work; stop returns what it returned.
func running(t *testing.T, c Config) (ready func() string, stop func() error) {
	t.Helper()
	registry := prometheus.NewRegistry()
	s := daemon.NewService("api", slog.New(slog.DiscardHandler), registry, sdktrace.NewTracerProvider())
	health := freeAddress(t)
	closeHealth, err := daemon.Serve(health, false, registry, s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c, s) }()
	t.Cleanup(func() { cancel(); closeHealth() })
	ready = func() string { _, text := get(t, "http://"+health+"/readyz"); return text }
	await(t, func() bool { return ready() == "ok\n" })
	status, text := get(t, "http://"+c.ListenAddr+pathOpenAPI)
	require.Equal(t, 200, status, "ready is who can be asked: %s", text)
	return ready, func() error { cancel(); return <-ended }
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	return request(t, "GET", url, "", "")
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func request(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// await looks at a fact until it holds.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(30 * time.Second); !holds(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestStopFinishesWhatWasBegun(t *testing.T) {
	c, seeded := installation(t, devstacktest.NATS(t))
	_, stop := running(t, c)
	conn, err := net.Dial("tcp", c.ListenAddr)
	require.NoError(t, err)
	defer conn.Close()
	const body = `{"url": "https://example.com"}`
	_, err = fmt.Fprintf(conn, "POST /api/sites/%d/webhooks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		seeded.SiteID, seeded.OwnerKey, len(body))
	require.NoError(t, err)
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "100 Continue", "the handler reads the body")

	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	await(t, func() bool { // nothing new is taken
		probe, err := net.Dial("tcp", c.ListenAddr)
		if err != nil {
			return true
		}
		probe.Close()
		return false
	})
	_, err = io.WriteString(conn, body)
	require.NoError(t, err)
	_, err = reader.ReadString('\n') // the empty line after 100
	require.NoError(t, err)
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, 201, response.StatusCode)
	response.Body.Close()
	require.NoError(t, <-ended)
}

func TestNATSMayBeAway(t *testing.T) {
	stack := devstacktest.Stack(t, devstack.Options{NATS: &devstack.Engine{}})
	c, seeded := installation(t, stack.NATSURL())
	ready, stop := running(t, c)
	require.NoError(t, stack.KillNATS())
	await(t, func() bool { return strings.Contains(ready(), "nats: the connection is RECONNECTING") })
	status, text := request(t, "POST", "http://"+c.ListenAddr+"/api/sites/"+seeded.Domain+"/webhooks", seeded.OwnerKey, `{"url": "https://example.com"}`)
	require.Equal(t, 201, status, text)
	require.NoError(t, stack.RestartNATS(t.Context()))
	await(t, func() bool { return ready() == "ok\n" })
	require.NoError(t, stop())
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	good, _ := installation(t, devstacktest.NATS(t))
	s := func() *daemon.Service {
		return daemon.NewService("api", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), sdktrace.NewTracerProvider())
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.DatabaseURL = "postgres://u:canary@127.0.0.1:1/x" }, "Postgres of DATABASE_URL (postgres://u:xxxxx@127.0.0.1:1/x) did not answer"},
		{func(c *Config) { c.PlausibleDatabaseURL = "postgres://u:canary@127.0.0.1:1/x" }, "Postgres of PLAUSIBLE_DATABASE_URL (postgres://u:xxxxx@127.0.0.1:1/x) did not answer"},
		{func(c *Config) { c.DatabaseURL = "canary" }, "DATABASE_URL is not a Postgres URL"},
		{func(c *Config) { c.DatabaseURL = c.PlausibleDatabaseURL }, "the database of DATABASE_URL has no schema yet: run the migrations first"},
		{func(c *Config) { c.PlausibleDatabaseURL = c.DatabaseURL }, "the database of PLAUSIBLE_DATABASE_URL is not Plausible's"},
		{func(c *Config) { c.NATSURL = "nats://u:canary@127.0.0.1:1" }, "did not answer: context deadline exceeded (last answer: nats:"},
		{func(c *Config) { c.ListenAddr = taken.Addr().String() }, "LISTEN_ADDR: listen tcp"},
	} {
		config := good
		c.change(&config)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := Run(ctx, config, s())
		cancel()
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "canary")
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/unknown", "/api", "/api/sites/demo.example.com/unknown", "/api/sites/demo.example.com/webhooks/wh_1/unknown", "/api/openapi", "/metrics", "/%2e%2e/", "//x"} {
		response, err := w.server.Client().Get(w.server.URL + path)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, 404, response.StatusCode, path)
		require.JSONEq(t, `{"error":"There is nothing at this path."}`, strings.TrimSpace(string(text)))
		require.Equal(t, "application/json", response.Header.Get("Content-Type"))
	}
	a := w.do(w.demo.OwnerKey, "DELETE", w.demo.Domain+"/webhooks", "")
	require.Equal(t, 405, a.status)
	require.Contains(t, a.header.Get("Allow"), "POST")
	require.Contains(t, a.text, `"error"`)
	require.Equal(t, 405, w.do(w.demo.OwnerKey, "GET", w.demo.Domain+"/webhooks/wh_1/test", "").status)
	require.Equal(t, 405, w.do("", "BREW", w.demo.Domain+"/webhooks", "").status)
}

func TestEveryRequestIsObserved(t *testing.T) {
	w := newWorld(t)
	spans := tracetest.NewInMemoryExporter()
	registry := prometheus.NewRegistry()
	s := daemon.NewService("api", w.api.log, registry, sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	handler, err := w.api.handler(newObserver(s))
	require.NoError(t, err)
	w.server.Config.Handler = handler

	a := w.do(w.demo.OwnerKey, "GET", w.demo.Domain+"/webhooks?after=&canary=1", "", func(r *http.Request) {
		r.Header.Set("X-Request-Id", "my-request.1")
		r.Header.Set("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	})
	require.Equal(t, 200, a.status)
	require.Equal(t, "my-request.1", a.header.Get("X-Request-Id"))
	require.Equal(t, []string{"no-store", "nosniff"}, []string{a.header.Get("Cache-Control"), a.header.Get("X-Content-Type-Options")})
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	for _, part := range []string{`"event":"request"`, `"method":"GET"`, `"route":"/api/sites/:site_id/webhooks"`, `"status":200`, `"duration_ms":`,
		`"request_id":"my-request.1"`, `"site_id":` + itoa(w.demo.SiteID), `"trace_id":"0123456789abcdef0123456789abcdef"`} {
		require.Contains(t, lines[len(lines)-1], part)
	}
	require.NotContains(t, w.log.String(), "canary")

	for _, id := range []string{"", "a b", "\"x\"", strings.Repeat("x", 65)} {
		a := w.do("", "GET", "x/webhooks", "", func(r *http.Request) { r.Header.Set("X-Request-Id", id) })
		require.Regexp(t, `^[A-Z2-7]{26}$`, a.header.Get("X-Request-Id"), "%q", id)
	}
	w.do("", "GET", "x/canary/y", "")
	w.do("", "BREW", "x/canary", "")

	require.Equal(t, "GET /api/sites/:site_id/webhooks", spans.GetSpans()[0].Name)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP api_requests_total Requests by method, route and status.
# TYPE api_requests_total counter
api_requests_total{method="GET",route="/api/sites/:site_id/webhooks",service="api",status="200"} 1
api_requests_total{method="GET",route="/api/sites/:site_id/webhooks",service="api",status="401"} 4
api_requests_total{method="other",route="none",service="api",status="404"} 2
`), "api_requests_total"))
}

func TestPanicsAreInternalErrors(t *testing.T) {
	w := newWorld(t)
	w.api.directory = nil // no state of production: any fault of ours will do
	a := w.owner(500, "GET", "", "")
	require.Equal(t, `{"error":"internal error (request `+a.header.Get(echo.HeaderXRequestID)+`)"}`, a.text)
	require.Contains(t, w.log.String(), "auth.go", "the log has the stack")
	require.Contains(t, w.log.String(), `"level":"ERROR"`)
}
