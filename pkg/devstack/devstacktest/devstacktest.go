// Package devstacktest gives tests real servers. A package that uses it has
//
//	func TestMain(m *testing.M) { devstacktest.Main(m) }
//
// The servers start when the first test asks for them and serve the whole process;
// each test gets a database of its own. A missing server fails the test, it never
// skips it. Package devstack tells where the servers come from.
package devstacktest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
)

// Main runs a package's tests, stops the servers that they started, and fails if a
// goroutine is left behind. It ends the process. Leaks that are known and not ours
// can be named as options.
func Main(m *testing.M, ignore ...goleak.Option) {
	process.begin()
	code := m.Run()
	if err := process.end(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the servers of the tests:", err)
		code = max(code, 1)
	}
	if code == 0 { // a failed test may well leave something behind
		if err := goleak.Find(append(ignore, knownLeaks...)...); err != nil {
			fmt.Fprintln(os.Stderr, "the tests left goroutines behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// timeout bounds what a test waits for a database, the start of its server included.
const timeout = 2 * time.Minute

// Postgres returns the URL of a new, empty database, which is dropped when the test ends.
func Postgres(t testing.TB) string {
	t.Helper()
	stack := process.postgres.get(t, devstack.Options{Postgres: &devstack.Engine{}})
	name := freshName()
	admin := func(statement string) error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		conn, err := pgx.Connect(ctx, stack.PostgresURL(""))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, statement)
		return err
	}
	if err := admin("CREATE DATABASE " + name); err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := admin("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return stack.PostgresURL(name)
}

// ClickHouse returns the URL of a new, empty database, which is dropped when the test
// ends.
func ClickHouse(t testing.TB) string {
	t.Helper()
	stack := process.clickhouse.get(t, devstack.Options{ClickHouse: &devstack.Engine{}})
	name := freshName()
	admin := func(statement string) error {
		options, err := clickhouse.ParseDSN(stack.ClickHouseURL("default"))
		if err != nil {
			return err
		}
		conn, err := clickhouse.Open(options)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return conn.Exec(ctx, statement)
	}
	if err := admin("CREATE DATABASE " + name); err != nil {
		t.Fatalf("create a ClickHouse database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := admin("DROP DATABASE " + name); err != nil {
			t.Errorf("drop the test's ClickHouse database: %v", err)
		}
	})
	return stack.ClickHouseURL(name)
}

// NATS returns the URL of a new server with JetStream and nothing in it, stopped when
// the test ends. With DEVSTACK=env it is the one server, with whatever is in it.
func NATS(t testing.TB) string {
	t.Helper()
	return Stack(t, devstack.Options{NATS: &devstack.Engine{}}).NATSURL()
}

// Stack returns servers of the test's own, to be restarted and killed, and stopped
// when the test ends. Without a folder in the options they get a temporary one; they
// are always fast.
func Stack(t testing.TB, o devstack.Options) *devstack.Stack {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Log == nil {
		o.Log = warnings.With("test", t.Name()) //nolint:sloglint // not the default logger, this package's own
	}
	o.Fast = true
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stack, err := start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Errorf("stop the test's servers: %v", err)
		}
	})
	return stack
}

var warnings = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

// freshName is unlike that of any other test, also of other processes.
func freshName() string { return "test_" + strings.ToLower(rand.Text()) }
