// Package daemon is what every service does around its Run function: configuration from the
// environment, logs, signals, metrics, health and traces. A service's Run knows no flags and no
// signals, so that tests and the local stack call the same one.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
)

// Config is the part of a service's configuration that is the same for all; embed it.
type Config struct {
	MetricsAddr string     `env:"METRICS_ADDR" envDefault:"127.0.0.1:9090"` // off: no metrics, no health
	Pprof       bool       `env:"PPROF" envDefault:"false"`                 // profiles on MetricsAddr too
	LogLevel    slog.Level `env:"LOG_LEVEL" envDefault:"info"`
}

func (c Config) common() Config { return c }

// Service is what a Run function gets from its surroundings.
type Service struct {
	Name    string
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  trace.Tracer
	health  *health
}

// NewService makes the surroundings of a Run function for tests and for the local stack,
// where several services share one process: metrics carry the service's name.
func NewService(name string, log *slog.Logger, registry prometheus.Registerer, tracers trace.TracerProvider) *Service {
	return &Service{
		Name:    name,
		Log:     log.With("service", name),
		Metrics: prometheus.WrapRegistererWith(prometheus.Labels{"service": name}, registry),
		Tracer:  tracers.Tracer("github.com/plausible-webhooks/plausible-webhooks/services/" + name),
		health:  newHealth(),
	}
}

// Ready adds a check to /readyz. It is called with a deadline of 2 s each time someone asks.
func (s *Service) Ready(name string, check func(context.Context) error) { s.health.add(name, check) }

// Main runs a service until it ends or the first SIGINT or SIGTERM; a second one ends it at
// once. It never returns.
func Main[C interface{ common() Config }](name string, run func(context.Context, C, *Service) error) {
	config, err := Load[C](os.Environ())
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(2)
	}
	common := config.common()
	log, lines := newLog(os.Stdout, common.LogLevel)
	slog.SetDefault(log) // what libraries write to the standard log becomes lines like the others

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer context.AfterFunc(ctx, stop)() // the second signal has its default effect

	err = serve(ctx, name, log, common, func(ctx context.Context, s *Service) error { return run(ctx, config, s) })
	if err != nil {
		log.Error("stopped", "service", name, "error", err.Error())
		os.Exit(1)
	}
	lines.flush()
	os.Exit(0)
}

func serve(ctx context.Context, name string, log *slog.Logger, common Config, run func(context.Context, *Service) error) error {
	tracers, flush, err := NewTracers(ctx, name)
	if err != nil {
		return err
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := flush(bounded); err != nil {
			log.Warn("traces were not flushed", "error", err.Error())
		}
	}()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	service := NewService(name, log, registry, tracers)
	closeHealth, err := Serve(common.MetricsAddr, common.Pprof, registry, service)
	if err != nil {
		return err
	}
	defer closeHealth()
	return run(ctx, service)
}
