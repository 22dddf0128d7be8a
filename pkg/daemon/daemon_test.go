package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shout explains itself, as our own types do.
type shout string

func (s *shout) UnmarshalText(text []byte) error {
	if string(text) != strings.ToUpper(string(text)) {
		return errors.New("must be in capitals")
	}
	*s = shout(text)
	return nil
}

type exampleConfig struct {
	Config
	URL      string        `env:"EXAMPLE_URL,required,notEmpty"`
	Key      shout         `env:"EXAMPLE_KEY,required,notEmpty"`
	Interval time.Duration `env:"EXAMPLE_INTERVAL" envDefault:"10s"`
	Retries  int           `env:"EXAMPLE_RETRIES" envDefault:"3"`
}

func (c exampleConfig) Validate() []error {
	if c.Retries < 0 {
		return []error{errors.New("EXAMPLE_RETRIES must not be negative")}
	}
	return nil
}

func TestLoadReadsVariablesDefaultsAndFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("  SECRET\n"), 0o600))
	c, err := Load[exampleConfig]([]string{"EXAMPLE_URL=a=b", "EXAMPLE_KEY_FILE=" + file, "LOG_LEVEL=debug", "METRICS_ADDR=off", "UNKNOWN_FILE=/nowhere", "EXAMPLE_URL_FILE="})
	require.NoError(t, err)
	require.Equal(t, exampleConfig{Config: Config{MetricsAddr: "off", LogLevel: slog.LevelDebug}, URL: "a=b", Key: "SECRET", Interval: 10 * time.Second, Retries: 3}, c)

	c, err = Load[exampleConfig]([]string{"EXAMPLE_URL=a", "EXAMPLE_KEY=B", "METRICS_ADDR="})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:9090", c.MetricsAddr)
}

func TestLoadReportsEveryProblemAndNoSecret(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    string
	}{
		"nothing is set": {nil, "the configuration has 2 problems:\n  EXAMPLE_KEY is not set\n  EXAMPLE_URL is not set"},
		"all is wrong": {[]string{"EXAMPLE_URL=", "EXAMPLE_KEY=canary", "EXAMPLE_INTERVAL=canary", "EXAMPLE_RETRIES=canary", "PPROF=canary", "LOG_LEVEL=canary"},
			`the configuration has 6 problems:
  EXAMPLE_INTERVAL must be a duration such as 10s
  EXAMPLE_KEY must be in capitals
  EXAMPLE_RETRIES must be a whole number
  EXAMPLE_URL is empty
  LOG_LEVEL must be debug, info, warn or error
  PPROF must be true or false`},
		"Validate is asked too": {[]string{"EXAMPLE_URL=a", "EXAMPLE_RETRIES=-1"}, "the configuration has 2 problems:\n  EXAMPLE_KEY is not set\n  EXAMPLE_RETRIES must not be negative"},
		"both forms": {[]string{"EXAMPLE_URL=a", "EXAMPLE_KEY=CANARY", "EXAMPLE_KEY_FILE=/nowhere"},
			"the configuration has 1 problem:\n  EXAMPLE_KEY and EXAMPLE_KEY_FILE are both set: give one of them"},
		"no such file": {[]string{"EXAMPLE_URL=a", "EXAMPLE_KEY_FILE=/nowhere/key"},
			"the configuration has 2 problems:\n  EXAMPLE_KEY is not set\n  EXAMPLE_KEY_FILE cannot be read: open /nowhere/key: no such file or directory"},
	} {
		_, err := Load[exampleConfig](c.environ)
		require.EqualError(t, err, c.want, name)
		require.NotContains(t, strings.ToLower(err.Error()), "canary", name)
	}
}

func TestHealthTellsWhatDoesNotWork(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := NewService("example", slog.New(slog.DiscardHandler), registry, sdktrace.NewTracerProvider())
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "things_total"})
	s.Metrics.MustRegister(counter)
	address := freeAddress(t)
	stop, err := Serve(address, false, registry, s)
	require.NoError(t, err)
	defer stop()

	require.Equal(t, "200 ok\n", get(t, address, "/healthz"))
	require.Equal(t, "503 example: starting\n", get(t, address, "/readyz"))
	broken := errors.New("away")
	s.Ready("nats", func(context.Context) error { return broken })
	s.Ready("bounded", func(ctx context.Context) error {
		if deadline, is := ctx.Deadline(); !is || time.Until(deadline) > 2*time.Second {
			return errors.New("no deadline")
		}
		return nil
	})
	require.Equal(t, "503 example: nats: away\n", get(t, address, "/readyz"))
	broken = nil
	require.Equal(t, "200 ok\n", get(t, address, "/readyz"))
	require.Contains(t, get(t, address, "/metrics"), `things_total{service="example"} 0`)
	require.Contains(t, get(t, address, "/debug/pprof/"), "404")

	_, err = Serve(address, false, registry, s)
	require.ErrorContains(t, err, "METRICS_ADDR: listen tcp")
	stopNothing, err := Serve("off", false, registry, s)
	require.NoError(t, err)
	stopNothing()
}

func TestServeRunsWithItsSurroundings(t *testing.T) {
	address := freeAddress(t)
	ended := errors.New("ended")
	err := serve(t.Context(), "example", slog.New(slog.DiscardHandler), Config{MetricsAddr: address, Pprof: true}, func(ctx context.Context, s *Service) error {
		require.Contains(t, get(t, address, "/metrics"), "go_goroutines")
		require.Contains(t, get(t, address, "/debug/pprof/"), "200")
		_, span := s.Tracer.Start(ctx, "work")
		defer span.End()
		require.True(t, span.SpanContext().IsValid(), "spans have ids although nobody collects them")
		return ended
	})
	require.Equal(t, ended, err)
	_, err = net.Dial("tcp", address)
	require.Error(t, err, "it is closed")
}

func TestTraceContextTravels(t *testing.T) {
	require.Empty(t, TraceContext(t.Context()))
	ctx, span := sdktrace.NewTracerProvider().Tracer("").Start(t.Context(), "origin")
	defer span.End()
	text := TraceContext(ctx)
	require.Regexp(t, `^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`, text)
	arrived := trace.SpanContextFromContext(WithTraceContext(t.Context(), text))
	require.Equal(t, span.SpanContext().TraceID(), arrived.TraceID())
	for _, malformed := range []string{"", "x", text[:20], "00-00000000000000000000000000000000-0000000000000000-01"} {
		require.False(t, trace.SpanContextFromContext(WithTraceContext(t.Context(), malformed)).IsValid(), malformed)
	}
}

// TestSpansHaveIDsWithoutAnExporter: a trace goes on through them, and each has an id of its own.
func TestSpansHaveIDsWithoutAnExporter(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tracers, flush, err := NewTracers(t.Context(), "example")
	require.NoError(t, err)
	tracer := tracers.Tracer("")
	ctx, origin := tracer.Start(t.Context(), "origin")
	_, follows := tracer.Start(WithTraceContext(t.Context(), TraceContext(ctx)), "follows")
	_, other := tracer.Start(ctx, "other", trace.WithNewRoot())
	_, dropped := tracer.Start(WithTraceContext(t.Context(), "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"), "dropped")
	for _, span := range []trace.Span{origin, follows, other} {
		require.True(t, span.SpanContext().IsValid() && span.SpanContext().IsSampled())
		require.False(t, span.IsRecording())
	}
	require.Equal(t, origin.SpanContext().TraceID(), follows.SpanContext().TraceID())
	require.NotEqual(t, origin.SpanContext().SpanID(), follows.SpanContext().SpanID())
	require.NotEqual(t, origin.SpanContext().TraceID(), other.SpanContext().TraceID())
	require.Equal(t, "0123456789abcdef0123456789abcdef", dropped.SpanContext().TraceID().String())
	require.False(t, dropped.SpanContext().IsSampled(), "nor is what follows from what is not")
	require.NoError(t, flush(t.Context()))
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func get(t *testing.T, address, path string) string {
	t.Helper()
	response, err := client.Get("http://" + address + path)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.Status[:3] + " " + string(body)
}
