// Package evaluator finds out when triggers fire.
//
// The road of the data, slot by slot: lead.go shares the sites among the replicas, slots.go waits
// until a slot is closed, catalogue.go knows the triggers, plan.go turns them into a constant number
// of questions to Plausible's ClickHouse, missed.go asks what was missed where slots were left out,
// evaluate.go steps every trigger's state with the answers and commits states and firings together,
// message.go writes what receivers will read, context.go adds what was going on, publish.go brings the
// outbox to JetStream.
//
// ask.go answers the api. "Why did it not fire?": results.go remembers what came of each slot, as
// packing.go packs it. "What would it have done?": preview.go takes an unsaved trigger, rehearsal.go
// steps it through the past, history.go answers its questions about that, and suggestion.go looks for
// the threshold that fires as often as is wanted.
//
// Guarantees: a firing is committed with the state that made it, so it is made exactly once;
// its message is completed once, before it is published; its id is derived from facts, so that
// publishing it again changes nothing; a failed query leaves every state untouched, and the slot is
// tried again.
package evaluator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// Config is the evaluator's configuration, from the environment.
type Config struct {
	daemon.Config
	DatabaseURL            string        `env:"DATABASE_URL,required,notEmpty"`
	PlausibleDatabaseURL   string        `env:"PLAUSIBLE_DATABASE_URL,required,notEmpty"`
	PlausibleClickHouseURL string        `env:"PLAUSIBLE_CLICKHOUSE_URL,required,notEmpty"`
	PlausibleBaseURL       string        `env:"PLAUSIBLE_BASE_URL,required,notEmpty"` // for the links in messages
	NATSURL                string        `env:"NATS_URL,required,notEmpty"`
	Interval               time.Duration `env:"EVALUATION_INTERVAL" envDefault:"10s"`
	Delay                  time.Duration `env:"EVALUATION_DELAY" envDefault:"15s"` // how long rows may take to become visible
	QueryTimeout           time.Duration `env:"QUERY_TIMEOUT" envDefault:"10s"`
	Retention              time.Duration `env:"RETENTION" envDefault:"2160h"` // of firings
	StreamReplicas         int           `env:"STREAM_REPLICAS" envDefault:"1"`
}

// Validate implements the check that daemon.Load asks for.
func (c Config) Validate() []error {
	var problems []error
	if c.Interval < time.Second || trigger.Overlap%c.Interval != 0 {
		problems = append(problems, fmt.Errorf("EVALUATION_INTERVAL must be whole seconds that divide %s, such as 10s", trigger.Overlap))
	}
	if c.Delay < 0 || c.Delay > time.Minute {
		problems = append(problems, errors.New("EVALUATION_DELAY must be between 0s and 1m: rows that come later are counted all the same"))
	}
	if c.QueryTimeout < time.Second {
		problems = append(problems, errors.New("QUERY_TIMEOUT must be at least 1s"))
	}
	if c.Retention < 48*time.Hour {
		problems = append(problems, errors.New("RETENTION must be at least 48h"))
	}
	if base := c.PlausibleBaseURL; base != "" && !strings.HasPrefix(base, "http://") && !strings.HasPrefix(base, "https://") {
		problems = append(problems, errors.New("PLAUSIBLE_BASE_URL must be a URL such as https://plausible.example.com"))
	}
	return problems
}

// Run evaluates until ctx ends. It may run in several replicas: they share the sites, and each
// takes over what another leaves.
func Run(ctx context.Context, c Config, s *daemon.Service) error {
	pool, err := database.Open(ctx, "DATABASE_URL", c.DatabaseURL, 8)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := database.RequireSchema(ctx, pool); err != nil {
		return err
	}
	plausiblePool, err := database.Open(ctx, "PLAUSIBLE_DATABASE_URL", c.PlausibleDatabaseURL, 2)
	if err != nil {
		return err
	}
	defer plausiblePool.Close()
	directory, err := plausible.Open(ctx, plausiblePool, "")
	if err != nil {
		return err
	}
	metrics := newMetrics(s.Metrics)
	events, err := clickhouse.Open(ctx, c.PlausibleClickHouseURL, c.QueryTimeout, metrics.query)
	if err != nil {
		return err
	}
	defer events.Close() //nolint:errcheck // nothing is in flight
	s.Log.Info("Plausible's ClickHouse was probed", "event", "probe", "found", events.Describe())
	nc, err := stream.Connect(ctx, c.NATSURL, "plausible-webhooks evaluator", s.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(publishBatch))
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if _, _, err := stream.Ensure(ctx, js, stream.Options{Replicas: c.StreamReplicas}); err != nil {
		return err
	}

	store := postgres.New(pool)
	known := newCatalogue(store, directory, events.Unavailable, s.Log)
	subscription, err := nc.Subscribe(stream.AllChanges, func(*nats.Msg) { known.drop() })
	if err != nil {
		return fmt.Errorf("listen for changes: %w", err)
	}
	defer subscription.Unsubscribe() //nolint:errcheck // the connection closes next

	own := newShards(store, rand.Text(), leaseTerms, s.Log, metrics)
	p := newPublisher(store, own.owner, events, js, s.Log, metrics)
	e := newEvaluator(c, s, events, store, known, metrics, own, p.wake)
	s.Ready("postgres", pool.Ping)
	s.Ready("plausible postgres", directory.Ping)
	s.Ready("plausible clickhouse", func(ctx context.Context) error { _, _, err := events.Now(ctx); return err })
	s.Ready("nats", func(context.Context) error {
		if !nc.IsConnected() {
			return fmt.Errorf("the connection is %s", nc.Status())
		}
		return nil
	})
	return lead(ctx, own,
		func(ctx context.Context) error { return e.run(ctx, p.wake) },
		p.run,
		e.norms.run,
		e.newcomers.run,
		e.ingestion.run,
		e.results.run,
		func(ctx context.Context) error { return serve(ctx, nc, e, s.Log) },
		func(ctx context.Context) error {
			return upkeep(ctx, s.Log, store, p, func(ctx context.Context) error {
				return database.Partitions(ctx, pool, "firings", c.Retention)
			})
		},
	)
}
