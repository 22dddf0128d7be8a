package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/local/traffic"
	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// up runs the stack until ctx ends or something of it fails. Nothing is started before
// everything that can be checked beforehand was checked.
func up(ctx context.Context, environ []string, out *terminal) (err error) {
	began := time.Now()
	s, err := readSettings(environ)
	if err != nil {
		return err
	}
	place, lockErr := enter(s.dir)
	if err := allOf(append(claim(s.endpoints(devstack.Provider() == "embedded")), each(lockErr)...)); err != nil {
		if place != nil {
			err = errors.Join(err, place.leave())
		}
		return err
	}
	defer func() { err = errors.Join(err, place.leave()) }()
	if err := place.remove(envFile); err != nil { // of a stack that was killed
		return err
	}
	keep, err := place.secrets()
	if err != nil {
		return err
	}
	file, err := place.openLog()
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer file.Close()

	st := &stack{settings: s, home: place, out: out, file: file, secrets: keep, began: began}
	err = st.run(ctx)
	if ctx.Err() != nil {
		if errors.Is(err, context.Canceled) {
			err = nil // interrupted while it started
		}
		if err == nil {
			out.line("Stopped. The next start goes on with the same data.")
		}
	}
	return err
}

// stack is one run.
type stack struct {
	settings
	home    *home
	out     *terminal
	file    *os.File
	secrets secrets
	began   time.Time
	log     *slog.Logger
	engines *devstack.Stack
	demo    plausible.Demo
}

// The databases' names.
const (
	ownDatabase        = "plausible_webhooks"
	plausibleDatabase  = "plausible_db"
	clickhouseDatabase = "plausible_events_db"
)

// run starts everything in the order of need and stops it in the opposite one: the address file
// goes first, then the visitors, then the services drain, then the receiver, the engines last.
func (st *stack) run(ctx context.Context) (err error) {
	then := func(stop func() error) { err = errors.Join(err, stop()) }

	// Which of the two is met first does not matter: the services' level is known only when
	// their configuration is, and that needs the engines' addresses.
	st.log = logger(st.file, slog.LevelInfo)
	st.out.line("Starting Postgres, ClickHouse and NATS in %s …", tidy(st.dir))
	st.engines, err = devstack.Start(ctx, devstack.Options{
		Dir:        st.dir,
		Postgres:   &devstack.Engine{Port: st.postgres.port, Variable: st.postgres.variable},
		ClickHouse: &devstack.Engine{Port: st.clickhouse.port, Variable: st.clickhouse.variable},
		NATS:       &devstack.Engine{Port: st.nats.port, Variable: st.nats.variable},
		Log:        slog.New(alarm{st.log.Handler(), st.out}),
	})
	if err != nil {
		return err
	}
	defer then(st.engines.Stop)

	at := addresses{
		database:   st.engines.PostgresURL(ownDatabase),
		plausible:  st.engines.PostgresURL(plausibleDatabase),
		clickhouse: st.engines.ClickHouseURL(clickhouseDatabase),
		nats:       st.engines.NATSURL(),
	}
	if err := st.prepare(ctx, at); err != nil {
		return err
	}
	events, err := plausible.Open(at.clickhouse)
	if err != nil {
		return err
	}
	defer then(events.Close)

	listener, err := newReceiver(st.home, st.out)
	if err != nil {
		return err
	}
	if err := listener.listen(st.receiver.address(), st.log); err != nil {
		return err
	}
	defer listener.stop()

	services, err := loadServices(st.environment(st.secrets, at))
	if err != nil {
		return err
	}
	st.log = logger(st.file, services.common.LogLevel)
	running, err := services.start(st.log)
	if err != nil {
		return err
	}
	defer then(running.stop)
	defer func() {
		if ctx.Err() != nil {
			st.out.line("\nStopping; what is being delivered is finished first …")
		}
	}()

	if err := st.past(ctx, events); err != nil {
		return err
	}
	if err := running.await(ctx, st.metrics.url()); err != nil {
		return err
	}
	rest := newClient(st.api.url(), st.demo)
	webhookID, err := ensureDemo(ctx, rest, listener, st.receiver.url(), st.demo.Goals)
	if refused := (refusal{}); errors.As(err, &refused) {
		st.out.notice("The demo webhook was not created, as the environment does not allow its URL: %s", refused.Error())
	} else if err != nil {
		return fmt.Errorf("create the demo webhook: %w", err)
	} else if listener.secret(demoPath) == "" {
		st.out.notice("The secret of the demo webhook is lost, so its messages are not verified; delete it over REST and start again for a new one.")
	}
	if st.traffic {
		defer st.visitors(events)()
	}

	if err := st.home.writeEnv([][2]string{
		{"API_URL", st.api.url()},
		{"DATABASE_URL", at.database},
		{"PLAUSIBLE_DATABASE_URL", at.plausible},
		{"PLAUSIBLE_CLICKHOUSE_URL", at.clickhouse},
		{"NATS_URL", at.nats},
		{"DEMO_SITE", st.demo.Domain},
		{"DEMO_SITE_ID", strconv.FormatInt(st.demo.SiteID, 10)},
		{"DEMO_API_KEY", st.demo.OwnerKey},
		{"RECEIVER_URL", st.receiver.url()},
	}); err != nil {
		return err
	}
	defer then(func() error { return st.home.remove(envFile) })
	st.greet(rest, webhookID)

	select {
	case <-ctx.Done():
		return nil
	case err := <-running.ended:
		return err
	}
}

// prepare creates and seeds what is not there yet: Plausible's tables in both databases and the
// product's own schema.
func (st *stack) prepare(ctx context.Context, at addresses) error {
	var steps sync.WaitGroup
	var errs [3]error
	steps.Go(func() { errs[0] = plausible.CreateClickHouse(ctx, at.clickhouse) })
	steps.Go(func() {
		if errs[1] = plausible.CreatePostgres(ctx, at.plausible); errs[1] == nil {
			st.demo, errs[1] = plausible.Seed(ctx, at.plausible, st.secrets.PlausibleSecretKeyBase)
		}
	})
	steps.Go(func() {
		if errs[2] = createDatabase(ctx, st.engines.PostgresURL("postgres")); errs[2] == nil {
			errs[2] = migrate(ctx, at.database)
		}
	})
	steps.Wait()
	return errors.Join(errs[:]...)
}

func createDatabase(ctx context.Context, server string) error {
	pool, err := database.Open(ctx, "POSTGRES_PORT", server, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	var exists bool
	if err := pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", ownDatabase).Scan(&exists); err != nil || exists {
		return err
	}
	if _, err := pool.Exec(ctx, "CREATE DATABASE "+ownDatabase); err != nil {
		return fmt.Errorf("create the database %s: %w", ownDatabase, err)
	}
	return nil
}

func migrate(ctx context.Context, address string) error {
	pool, err := database.Open(ctx, "DATABASE_URL", address, 2)
	if err != nil {
		return err
	}
	defer pool.Close()
	return database.Migrate(ctx, pool)
}

// history is how much ordinary traffic a new demo site has behind it, so that charts of its past show
// something: it takes the very first start 0.3 s for each day.
const history = 10 * 24 * time.Hour

func (st *stack) past(ctx context.Context, events driver.Conn) error {
	if !st.traffic {
		return nil
	}
	var known uint64
	if err := events.QueryRow(ctx, "SELECT count() FROM events_v2 WHERE site_id = ?", st.demo.SiteID).Scan(&known); err != nil {
		return fmt.Errorf("count the demo site's events: %w", err)
	}
	if known > 0 {
		return nil
	}
	now := time.Now()
	never := now.Add(time.Hour)
	return visit.Insert(ctx, events, traffic.New(st.options(now.Add(-history), never)).Until(now))
}

// visitors lets traffic come until the returned function is called.
func (st *stack) visitors(events driver.Conn) (stop func()) {
	now := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		traffic.Run(ctx, traffic.New(st.options(now, now)), func(ctx context.Context, rows visit.Rows) error {
			return visit.Insert(ctx, events, rows)
		}, st.log)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (st *stack) options(start, live time.Time) traffic.Options {
	return traffic.Options{
		SiteID: uint64(st.demo.SiteID), Hostname: st.demo.Domain,
		Seed: uint64(start.UnixNano()), Start: start, Live: live,
	}
}

// greet tells a new user what there is and what to try.
func (st *stack) greet(rest client, webhookID string) {
	curl := fmt.Sprintf("curl -H 'Authorization: Bearer %s' '%s", rest.key, rest.base)
	next := "Soon somebody signs up, and within the first minute a post is on the front page of Hacker News."
	if !st.traffic {
		next = "No visitors come, as TRAFFIC is off; `make replay LOG=<access log>` brings some."
	}
	lines := []string{
		"",
		st.out.paint(green, "✔") + " " + st.out.paint(bold, "Plausible Webhooks is up") + fmt.Sprintf(" after %.1f s. Ctrl-C stops it.", time.Since(st.began).Seconds()),
		"",
		"  dashboard  " + st.out.paint(bold, st.api.url()+"/#key="+rest.key),
		"  API        " + st.api.url() + "/api  (to read and to try: " + st.api.url() + "/api/docs)",
		"  demo site  " + st.demo.Domain,
		"  demo key   " + st.demo.OwnerKey,
		"  receiver   " + st.receiver.url() + "  (verifies what arrives and prints it below)",
		"  metrics    " + st.metrics.url() + "/metrics",
		"  logs       " + tidy(st.home.path(logFile)),
		"  addresses  " + tidy(st.home.path(envFile)) + "  (source it in another terminal)",
		"",
		"  The webhooks of the demo site, with their triggers:",
		"    " + curl + "'",
	}
	if webhookID != "" {
		lines = append(lines, "  What was delivered to the receiver:", "    "+curl+"/"+webhookID+"/deliveries'")
	}
	lines = append(lines, "", next, "")
	st.out.line("%s", strings.Join(lines, "\n"))
}

// tidy shows a path as the user would type it.
func tidy(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if relative, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return path
}

// alarm shows the engines' errors in the terminal too: without an engine nothing works, and the
// services' complaints go only to the log.
type alarm struct {
	slog.Handler
	out *terminal
}

// Handle implements slog.Handler.
func (a alarm) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelError {
		text := record.Message
		record.Attrs(func(attr slog.Attr) bool {
			text += ", " + attr.String()
			return true
		})
		a.out.notice("%s", text)
	}
	return a.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (a alarm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return alarm{a.Handler.WithAttrs(attrs), a.out}
}

// WithGroup implements slog.Handler.
func (a alarm) WithGroup(name string) slog.Handler { return alarm{a.Handler.WithGroup(name), a.out} }
