// Package api is the REST API: webhooks, triggers and the history of deliveries, for the users
// of a Plausible installation, who present the API keys that they have there.
//
// openapi.yaml says what there is; internal/rest is generated from it. A request's way: observe.go around
// everything, routes.go, auth.go (who is it, and which site) and limit.go, body.go, change.go (one
// transaction, with its audit and its answer), and the resource's file, which reads the body (documents.go)
// and answers from internal/postgres. Errors go to problem.go, the only place that makes statuses of them.
//
// The api writes the configuration and nothing else. Others hear of changes by an announcement
// over NATS after the commit; a lost one is only a delay, so that NATS can be away.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// Config is read from the environment by daemon.Load.
type Config struct {
	daemon.Config
	ListenAddr             string          `env:"LISTEN_ADDR" envDefault:"127.0.0.1:8080"`
	DatabaseURL            string          `env:"DATABASE_URL,required,notEmpty"`
	PlausibleDatabaseURL   string          `env:"PLAUSIBLE_DATABASE_URL,required,notEmpty"`
	PlausibleSecretKeyBase string          `env:"PLAUSIBLE_SECRET_KEY_BASE,required,notEmpty"` // API keys are checked with it
	NATSURL                string          `env:"NATS_URL,required,notEmpty"`
	SecretsKey             vault.Vault     `env:"SECRETS_KEY,required,notEmpty"`
	AllowPrivateTargets    target.Prefixes `env:"ALLOW_PRIVATE_TARGETS"`
	AllowHTTPTargets       bool            `env:"ALLOW_HTTP_TARGETS" envDefault:"false"`
	DenyTargets            target.Denied   `env:"DENY_TARGETS"`
	AdminToken             string          `env:"ADMIN_TOKEN"`                             // the operator's key for every site; empty: there is none
	AdminUserIDs           []int64         `env:"ADMIN_USER_IDS"`                          // Plausible's super admins
	CORSOrigins            []string        `env:"CORS_ORIGINS"`                            // whose pages may call the api; empty: those from here
	RateLimitPerMinute     int             `env:"RATE_LIMIT_PER_MINUTE" envDefault:"1200"` // of each key; 0: none
}

// Validate reports what the types alone do not refuse.
func (c Config) Validate() []error {
	var problems []error
	if _, port, err := net.SplitHostPort(c.ListenAddr); err != nil || port == "" {
		problems = append(problems, errors.New("LISTEN_ADDR must be an address such as 127.0.0.1:8080"))
	}
	if c.AdminToken != "" && len(c.AdminToken) < shortestToken {
		problems = append(problems, fmt.Errorf("ADMIN_TOKEN must have at least %d characters (openssl rand -hex 32)", shortestToken))
	}
	for _, origin := range c.CORSOrigins {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "") {
			problems = append(problems, fmt.Errorf("CORS_ORIGINS %q is not an origin such as https://example.com", origin))
		}
	}
	if c.RateLimitPerMinute < 0 {
		problems = append(problems, errors.New("RATE_LIMIT_PER_MINUTE must not be negative; 0 is no limit"))
	}
	return problems
}

// shortestToken is what nobody guesses, if it is random.
const shortestToken = 32

// Connections to each of the two databases, at most.
const poolSize = 10

// api is what the handlers share.
type api struct {
	log       *slog.Logger
	store     *postgres.Store
	directory *plausible.Directory
	grants    *grants
	vault     vault.Vault
	targets   target.Policy
	nats      *nats.Conn

	adminToken string
	origins    []string
	limiter    *limiter
	streams    atomic.Int64
	stopping   <-chan struct{} // closed when streams are to end
}

// Run serves until the context ends, and then finishes the requests that it has begun.
func Run(ctx context.Context, c Config, s *daemon.Service) error {
	own, err := database.Open(ctx, "DATABASE_URL", c.DatabaseURL, poolSize)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := database.RequireSchema(ctx, own); err != nil {
		return err
	}
	theirs, err := database.Open(ctx, "PLAUSIBLE_DATABASE_URL", c.PlausibleDatabaseURL, poolSize)
	if err != nil {
		return err
	}
	defer theirs.Close()
	directory, err := plausible.Open(ctx, theirs, c.PlausibleSecretKeyBase, plausible.SuperAdmins(c.AdminUserIDs...))
	if err != nil {
		return err
	}
	nc, err := stream.Connect(ctx, c.NATSURL, "plausible-webhooks api", s.Log)
	if err != nil {
		return err
	}
	defer func() {
		_ = nc.FlushTimeout(2 * time.Second) // the last announcements; a lost one is only a delay
		nc.Close()
	}()

	limiter, err := newLimiter(c.RateLimitPerMinute)
	if err != nil {
		return err
	}
	a := &api{
		log: s.Log, store: postgres.New(own), directory: directory, grants: newGrants(),
		vault: c.SecretsKey, targets: target.NewPolicy(c.AllowHTTPTargets, c.AllowPrivateTargets).Except(c.DenyTargets), nats: nc,
		adminToken: c.AdminToken, origins: c.CORSOrigins, limiter: limiter, stopping: ctx.Done(),
	}
	if err := a.sealAnew(ctx); err != nil {
		return err
	}
	handler, err := a.handler(newObserver(s))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.ListenAddr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	// Ready is who can be asked: from here on a request waits at most to be accepted.
	s.Ready("postgres", a.store.Ping)
	s.Ready("plausible", directory.Ping)
	s.Ready("nats", func(context.Context) error {
		if status := nc.Status(); status != nats.CONNECTED {
			return fmt.Errorf("the connection is %s", status)
		}
		return nil
	})
	return a.serve(ctx, listener, handler)
}

// drainTime is what begun requests get to end; each has a deadline of its own that is shorter.
const drainTime = 20 * time.Second

func (a *api) serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	a.log.Info("listening", "addr", listener.Addr().String())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		_ = server.Close() // it had its time
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// announce tells the other services which things were created, changed or removed. It is
// called after the commit.
func (a *api) announce(kind string, ids ...string) {
	for _, id := range ids {
		if err := stream.Announce(a.nats, kind, id); err != nil {
			a.log.Warn("a change was not announced: others will see it at their next reload", "kind", kind, "id", id, "error", err.Error())
		}
	}
}

func (a *api) announceChanges(webhookID string, changes postgres.Changes) {
	if changes.Webhook {
		a.announce(stream.ChangedWebhook, webhookID)
	}
	a.announce(stream.ChangedTrigger, changes.Triggers...)
}
