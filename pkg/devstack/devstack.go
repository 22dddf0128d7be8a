// Package devstack runs the three servers that the product stands on, for a local
// stack and for tests: Postgres from real binaries, ClickHouse as the real engine
// behind a small HTTP front, and NATS with JetStream inside the process. Docker is
// not needed, and nothing is a stand-in.
//
// The environment variable DEVSTACK chooses where they come from:
//
//	embedded  they are started here, the default
//	docker    containers; linked by importing package docker, see there
//	env       running servers named by TEST_POSTGRES_URL, TEST_CLICKHOUSE_URL and TEST_NATS_URL
//
// A stack's processes end with the process that started them, however that ends.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// Options tell which servers to start and where their data lives.
type Options struct {
	// Dir holds the servers' data and logs and is kept between runs. Only one stack
	// at a time can use it.
	Dir string
	// The servers wanted; nil is not started.
	Postgres, ClickHouse, NATS *Engine
	// Fast gives up durability against a loss of power, for tests. The data survives
	// a killed process all the same.
	Fast bool
	// Log hears of servers that end unexpectedly, and of NATS' warnings. Nil is silent.
	Log *slog.Logger
}

// Engine is how one server is wanted.
type Engine struct {
	// Port on 127.0.0.1; 0 is any free one. A restart keeps the port.
	Port int
	// Variable is the environment variable that the port was read from, so that the
	// error about a taken port can name it. It may be empty.
	Variable string
}

// Server is one server of a stack. Its methods are not called at the same time.
type Server interface {
	// Start returns when the server answers. After a Stop or Kill it comes back with
	// the same URL and the same data.
	Start(ctx context.Context) error
	// Stop ends the server in good order. A server that does not run is no error.
	Stop() error
	// Kill ends the server at once, as a crash would.
	Kill() error
	// URL is where to reach the named database; NATS has none. It is known once the
	// server was started.
	URL(database string) string
}

// Stack is a set of running servers.
type Stack struct {
	mu                         sync.Mutex
	postgres, clickhouse, nats Server // nil: not wanted
}

// Start brings up the servers asked for and returns when each answers. If one does
// not, the others are stopped again.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch provider := Provider(); provider {
	case "embedded":
		return startEmbedded(ctx, o)
	case "env":
		return startExisting(ctx, o)
	case "docker":
		return nil, errors.New("DEVSTACK=docker is for tests; for the local stack in containers run docker compose up, or unset DEVSTACK")
	default:
		return nil, fmt.Errorf("DEVSTACK=%s is unknown: use embedded, docker or env", provider)
	}
}

// Provider is where servers come from: the variable DEVSTACK, or embedded.
func Provider() string {
	if p := os.Getenv("DEVSTACK"); p != "" {
		return p
	}
	return "embedded"
}

func startEmbedded(ctx context.Context, o Options) (*Stack, error) {
	if o.Dir == "" {
		return nil, errors.New("start the stack: no folder for its data is given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the stack: %w", err)
	}
	o.Dir = dir
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the stack: %w", err)
	}
	var postgres, clickhouse, nats Server
	if o.Postgres != nil {
		postgres = newPostgres(o)
	}
	if o.ClickHouse != nil {
		clickhouse = newClickHouse(o)
	}
	if o.NATS != nil {
		nats = newNATS(o)
	}
	return Assemble(ctx, postgres, clickhouse, nats)
}

// Assemble starts servers, all at the same time, and makes a stack of them; nil is
// one that is not wanted. If one does not start, none is left running.
func Assemble(ctx context.Context, postgres, clickhouse, nats Server) (*Stack, error) {
	s := &Stack{postgres: postgres, clickhouse: clickhouse, nats: nats}
	errs := make([]error, 3)
	var starting sync.WaitGroup
	for i, server := range s.servers() {
		if server != nil {
			starting.Go(func() { errs[i] = server.Start(ctx) })
		}
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Stack) servers() []Server { return []Server{s.postgres, s.clickhouse, s.nats} }

// PostgresURL is where the database is, once someone has created it. The database
// postgres always exists.
func (s *Stack) PostgresURL(database string) string { return url(s.postgres, database) }

// ClickHouseURL is the HTTP address of the database in the form of Plausible's
// CLICKHOUSE_DATABASE_URL. The database default always exists.
func (s *Stack) ClickHouseURL(database string) string { return url(s.clickhouse, database) }

// NATSURL is where clients connect.
func (s *Stack) NATSURL() string { return url(s.nats, "") }

// url is empty for a server that the stack does not have.
func url(s Server, database string) string {
	if s == nil {
		return ""
	}
	return s.URL(database)
}

// Stop ends all servers in good order and leaves no process. It may be called again.
func (s *Stack) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, 3)
	var stopping sync.WaitGroup
	for i, server := range s.servers() {
		if server != nil {
			stopping.Go(func() { errs[i] = server.Stop() })
		}
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// RestartPostgres stops Postgres if it runs and starts it again: same URL, same data.
func (s *Stack) RestartPostgres(ctx context.Context) error { return s.restart(ctx, s.postgres) }

// RestartClickHouse stops ClickHouse if it runs and starts it again: same URL, same data.
func (s *Stack) RestartClickHouse(ctx context.Context) error { return s.restart(ctx, s.clickhouse) }

// RestartNATS stops NATS if it runs and starts it again: same URL, same streams.
func (s *Stack) RestartNATS(ctx context.Context) error { return s.restart(ctx, s.nats) }

// KillPostgres ends Postgres as a crash would: no checkpoint, clients are cut off.
// RestartPostgres brings it back, through recovery.
func (s *Stack) KillPostgres() error { return s.kill(s.postgres) }

// KillClickHouse ends ClickHouse as a crash would. RestartClickHouse brings it back.
func (s *Stack) KillClickHouse() error { return s.kill(s.clickhouse) }

// KillNATS ends NATS and cuts off its clients. It runs in this process, so its files
// are closed in good order all the same. RestartNATS brings it back.
func (s *Stack) KillNATS() error { return s.kill(s.nats) }

var errNotInStack = errors.New("the stack was started without this server")

func (s *Stack) restart(ctx context.Context, server Server) error {
	if server == nil {
		return errNotInStack
	}
	if e, ok := server.(existing); ok {
		return e.refuse("restart")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := server.Stop(); err != nil {
		return err
	}
	return server.Start(ctx)
}

func (s *Stack) kill(server Server) error {
	if server == nil {
		return errNotInStack
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return server.Kill()
}
