// Package dispatcher sends firings to webhooks, as signed POST requests, and keeps what
// became of each.
//
// # One delivery's way
//
// A firing arrives from JetStream (consume.go), or a waiting row comes due (claim.go). Its
// webhook is looked up (webhooks.go), it takes its turn among the requests to that webhook
// (lanes.go), one request is made (deliver.go, internal/sender), the answer is judged
// (verdict.go), and the outcome is written in a batch with others (record.go). Only then is
// the message acknowledged.
//
// # Guarantees
//
//   - A message is acknowledged after its delivery's outcome is committed, so a crash at any
//     point loses nothing. It may send again what was sent but not yet committed, with the
//     same webhook-id.
//   - What must wait, waits as a row: a retry for its time, and what is for a webhook that is
//     paused, limited, busier than its share or not answering for that webhook (backlog.go,
//     breaker.go). Never as a pending message. So do firings that go together (gather.go).
//   - A webhook has at most WEBHOOK_CONCURRENCY requests in flight here, and retries have
//     places of their own, so that receivers which hang hold up neither others nor new firings.
//   - What the api asks (commands.go, recover.go) is done once, by whichever dispatcher comes first.
//   - Faults of our own (database, broker, keys) cost a receiver no attempt.
//
// # Stopping
//
// Fetching and claiming end first, requests in flight get DRAIN_TIMEOUT, the last outcomes are
// committed and acknowledged, then connections close. What was not attempted goes back.
package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// Config is the dispatcher's configuration.
type Config struct {
	daemon.Config

	DatabaseURL string      `env:"DATABASE_URL,required,notEmpty"`
	NATSURL     string      `env:"NATS_URL,required,notEmpty"`
	SecretsKey  vault.Vault `env:"SECRETS_KEY,required,notEmpty"`

	AllowPrivateTargets target.Prefixes `env:"ALLOW_PRIVATE_TARGETS"`
	AllowHTTPTargets    bool            `env:"ALLOW_HTTP_TARGETS" envDefault:"false"`
	DenyTargets         target.Denied   `env:"DENY_TARGETS"`
	EgressProxy         sender.Proxy    `env:"EGRESS_PROXY"` // receivers see its address

	Concurrency        int           `env:"CONCURRENCY" envDefault:"256"`          // requests in flight
	WebhookConcurrency int           `env:"WEBHOOK_CONCURRENCY" envDefault:"16"`   // of them to one webhook
	DrainRate          float64       `env:"DRAIN_RATE_PER_SECOND" envDefault:"50"` // to one webhook, of what gathered while it was off
	DrainTimeout       time.Duration `env:"DRAIN_TIMEOUT" envDefault:"20s"`        // for requests in flight when stopping
	Retention          time.Duration `env:"RETENTION" envDefault:"2160h"`          // of deliveries, dead letters like all others, and of attempts
	StreamReplicas     int           `env:"STREAM_REPLICAS" envDefault:"1"`
}

// minRetention exceeds the three days and more that a delivery may wait between its firing
// and its last attempt.
const minRetention = 7 * 24 * time.Hour

// Validate names every variable that is out of its range.
func (c Config) Validate() []error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	check(c.Concurrency >= 4 && c.Concurrency <= 10_000, "CONCURRENCY must be between 4 and 10000, not %d", c.Concurrency)
	check(c.WebhookConcurrency >= 1 && c.WebhookConcurrency <= max(c.Concurrency, 1),
		"WEBHOOK_CONCURRENCY must be between 1 and CONCURRENCY (%d), not %d", c.Concurrency, c.WebhookConcurrency)
	check(c.DrainRate >= 0.01 && c.DrainRate <= 10_000, "DRAIN_RATE_PER_SECOND must be between 0.01 and 10000, not %g", c.DrainRate)
	check(c.DrainTimeout >= 0 && c.DrainTimeout <= 10*time.Minute, "DRAIN_TIMEOUT must be between 0s and 10m, not %s", c.DrainTimeout)
	check(c.Retention >= minRetention, "RETENTION must be at least %s, not %s", minRetention, c.Retention)
	check(c.StreamReplicas >= 1 && c.StreamReplicas <= 5, "STREAM_REPLICAS must be between 1 and 5, not %d", c.StreamReplicas)
	return problems
}

// Run dispatches until ctx ends, then stops in the order that the package's comment tells.
func Run(ctx context.Context, c Config, s *daemon.Service) error {
	pool, err := database.Open(ctx, "DATABASE_URL", c.DatabaseURL, poolSize)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := database.RequireSchema(ctx, pool); err != nil {
		return err
	}
	nc, err := stream.Connect(ctx, c.NATSURL, "plausible-webhooks dispatcher", s.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	return newDispatcher(c, s, postgres.New(pool), nc).run(ctx)
}

// poolSize: the recorder, the look-up, the claims, the sweep, batches, commands, recoveries, the watch
// over webhooks' health and the health check use one connection each, and no delivery uses any.
const poolSize = 10

// dispatcher is everything that one Run shares.
type dispatcher struct {
	config  Config
	service *daemon.Service
	log     *slog.Logger
	metrics *metrics

	store    *postgres.Store
	nc       *nats.Conn
	sender   *sender.Sender
	webhooks *cache
	recorder *recorder
	inFlight *inFlight
	lanes    *lanes
	breakers *breakers
	backlog  *backlog
	changes  *announced // webhooks
	asked    *announced // commands
	// gatherings are the webhooks whose next batch is not whole yet.
	gatherings *gatherings

	// places bounds the messages that are taken and have no outcome yet; the recorder bounds the
	// outcomes. When the database is away, both run out and fetching ends.
	places *places
	// fresh and due are the requests that may be in flight, for firings and for waiting rows.
	// They are apart so that neither can starve the other.
	fresh, due *places
	// madeDue hears that rows were made due, mayGo that a webhook may get something that is held for
	// it: claiming is worth it now.
	madeDue, mayGo chan struct{}
	// recoveries hears of one that begins.
	recoveries chan struct{}

	work context.Context // ends what is in flight; outlives the context of run by the drain
	crew *crew           // takes deliveries to their outcomes

	abandonedMu sync.Mutex
	abandoned   []postgres.Claim // claims that the stop left unattempted

	lastFetch clock
	// beforeCommit is for tests: false means that the process dies here.
	beforeCommit func([]outcome) bool
}

func newDispatcher(c Config, s *daemon.Service, store *postgres.Store, nc *nats.Conn) *dispatcher {
	policy := target.NewPolicy(c.AllowHTTPTargets, c.AllowPrivateTargets).Except(c.DenyTargets)
	d := &dispatcher{
		config:   c,
		service:  s,
		log:      s.Log,
		store:    store,
		nc:       nc,
		sender:   sender.New(policy, c.Concurrency).Through(c.EgressProxy),
		webhooks: newCache(c.SecretsKey, policy),
		inFlight: newInFlight(),
		changes:  newAnnounced(),
		asked:    newAnnounced(),
		crew:     newCrew(),
		places:   newPlaces(2 * c.Concurrency),
		fresh:    newPlaces(c.Concurrency - c.Concurrency/4),
		due:      newPlaces(c.Concurrency / 4),
		breakers: newBreakers(c.WebhookConcurrency),
		backlog:  newBacklog(),
		madeDue:  make(chan struct{}, 1),
		mayGo:    make(chan struct{}, 1),

		recoveries: make(chan struct{}, 1),
		gatherings: newGatherings(),
	}
	d.lanes = newLanes(d.breakers.width)
	d.metrics = newMetrics(s.Metrics, d)
	d.recorder = newRecorder(d, 4*c.Concurrency)
	return d
}

// flushTimeout bounds how long the stop waits, after the drain, for the last commit and the
// last acknowledgements.
const flushTimeout = 5 * time.Second

// run takes until ctx ends, and returns when everything it started has ended.
func (d *dispatcher) run(ctx context.Context) error {
	js, err := jetstream.New(d.nc)
	if err != nil {
		return fmt.Errorf("JetStream of NATS_URL: %w", err)
	}
	_, consumer, err := stream.Ensure(ctx, js, stream.Options{Replicas: d.config.StreamReplicas})
	if ctx.Err() != nil {
		return nil // stopped before it began
	}
	if err != nil {
		return fmt.Errorf("JetStream of NATS_URL (%s): %w", stream.Redact(d.config.NATSURL), err)
	}
	announcements, err := d.listen()
	if err != nil {
		return err
	}
	defer announcements.Unsubscribe() //nolint:errcheck // the connection may be gone already
	defer d.sender.Close()

	work, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	d.work = work

	var background, taking sync.WaitGroup
	maintaining, endMaintenance := context.WithCancel(work)
	background.Go(func() { d.heartbeat(maintaining) })
	background.Go(func() { d.sweep(ctx) })
	background.Go(func() { d.gather(ctx) })
	background.Go(func() { d.partition(ctx) })
	background.Go(func() { d.hear(ctx, js) })
	background.Go(func() { d.obey(ctx) })
	background.Go(func() { d.recover(ctx) })
	background.Go(func() { d.watchHealth(ctx, js) })
	recorded := make(chan struct{})
	go func() { defer close(recorded); d.recorder.run() }()
	d.ready()

	d.log.Info("dispatching", "concurrency", d.config.Concurrency, "nats", stream.Redact(d.config.NATSURL), "postgres", database.Redact(d.config.DatabaseURL))
	taking.Go(func() { d.consume(ctx, js, consumer) })
	taking.Go(func() { d.claimWaiting(ctx) })
	taking.Wait()

	drain := time.AfterFunc(d.config.DrainTimeout, giveUp)
	d.crew.wait()
	drain.Stop()
	close(d.recorder.in)
	bound := time.AfterFunc(flushTimeout, d.recorder.giveUp)
	<-recorded
	bound.Stop()
	endMaintenance()
	background.Wait()
	return errors.Join(d.putBack(ctx), d.flush())
}

// putBack gives up the claims of rows that the stop left unattempted, so that they are due for
// others at once.
func (d *dispatcher) putBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return d.store.Release(ctx, d.abandoned)
}

// flush sends the last acknowledgements on their way.
func (d *dispatcher) flush() error {
	if err := d.nc.FlushTimeout(flushTimeout); err != nil {
		return fmt.Errorf("send the last acknowledgements to NATS: %w", err)
	}
	return nil
}

// ready says what the dispatcher needs in order to do its work.
func (d *dispatcher) ready() {
	d.service.Ready("postgres", d.store.Ping)
	d.service.Ready("nats", func(context.Context) error {
		if !d.nc.IsConnected() {
			return errors.New("not connected")
		}
		return nil
	})
	d.lastFetch.now()
	d.service.Ready("consuming", func(context.Context) error {
		if ago := d.lastFetch.ago(); ago > stalled {
			return fmt.Errorf("no fetch has ended for %s", ago.Round(time.Second))
		}
		return nil
	})
}
