// What these tests look at: real servers, asked over the network, and the process
// list and locks of the operating system for what is left of them.
package devstack_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// runAsChild makes this binary a program that starts a stack in the folder named,
// prints its addresses, and waits to be killed.
const runAsChild = "DEVSTACK_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(runAsChild); dir != "" {
		s, err := devstack.Start(context.Background(), everything(dir))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_ = json.NewEncoder(os.Stdout).Encode([]string{s.PostgresURL("postgres"), s.ClickHouseURL("default"), s.NATSURL()})
		select {}
	}
	devstacktest.Main(m)
}

func everything(dir string) devstack.Options {
	return devstack.Options{Dir: dir, Fast: true, Postgres: &devstack.Engine{}, ClickHouse: &devstack.Engine{}, NATS: &devstack.Engine{}}
}

func query(t testing.TB, address, statement string) (value string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, address)
	require.NoError(t, err)
	defer conn.Close(ctx)
	if strings.HasPrefix(statement, "SELECT") || strings.HasPrefix(statement, "SHOW") {
		require.NoError(t, conn.QueryRow(ctx, statement).Scan(&value))
	} else {
		_, err = conn.Exec(ctx, statement)
		require.NoError(t, err)
	}
	return value
}

// requireNoProcess waits until no process works in the folder. One that nobody has
// waited for yet does not work any more.
func requireNoProcess(t testing.TB, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	var found string
	require.Eventually(t, func() bool {
		found = ""
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, file := range all {
			if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), dir) {
				found = strings.ReplaceAll(string(line), "\x00", " ")
				return false
			}
			if cwd, err := os.Readlink(filepath.Join(filepath.Dir(file), "cwd")); err == nil && strings.HasPrefix(cwd, dir) {
				found = file
				return false
			}
		}
		return true
	}, 20*time.Second, 5*time.Millisecond, "%s", &found)
}

func TestPostgresKeepsItsDataAndAddress(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := devstacktest.Stack(t, devstack.Options{Dir: dir, Postgres: &devstack.Engine{}})
	address := s.PostgresURL("postgres")
	require.Equal(t, "UTF8", query(t, address, "SHOW server_encoding"))
	require.Equal(t, "UTC", query(t, address, "SHOW timezone"))
	require.Equal(t, "ÄÖ", query(t, address, "SELECT upper('äö')"))
	query(t, address, "CREATE TABLE t (a text)")
	for i, again := range []func() error{
		func() error { return s.RestartPostgres(ctx) },
		func() error { return errorsOf(s.KillPostgres(), s.RestartPostgres(ctx)) },
		func() error { return errorsOf(s.KillPostgres(), s.KillPostgres(), s.RestartPostgres(ctx)) },
		func() error { return errorsOf(s.Stop(), s.Stop(), s.RestartPostgres(ctx)) },
	} {
		query(t, address, fmt.Sprintf("INSERT INTO t VALUES ('%d')", i))
		require.NoError(t, again())
		require.Equal(t, address, s.PostgresURL("postgres"))
		require.Equal(t, fmt.Sprint(i+1), query(t, address, "SELECT count(*)::text FROM t"))
	}
	require.NoError(t, s.Stop())
	requireNoProcess(t, dir)

	// Another stack on the same data.
	s = devstacktest.Stack(t, devstack.Options{Dir: dir, Postgres: &devstack.Engine{}})
	require.Equal(t, "4", query(t, s.PostgresURL("postgres"), "SELECT count(*)::text FROM t"))
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestKilledPostgresCutsItsClientsOff(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := devstacktest.Stack(t, devstack.Options{Dir: dir, Postgres: &devstack.Engine{}})
	conn, err := pgx.Connect(ctx, s.PostgresURL("postgres"))
	require.NoError(t, err)
	defer conn.Close(ctx)
	asked := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(600)")
		asked <- err
	}()
	require.Eventually(t, func() bool {
		return query(t, s.PostgresURL("postgres"), "SELECT count(*)::text FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'") == "1"
	}, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, s.KillPostgres())
	require.Error(t, <-asked)
	require.FileExists(t, filepath.Join(dir, "postgres", "data", "postmaster.pid"), "as a crash leaves it")
	require.NoError(t, s.RestartPostgres(ctx))
	query(t, s.PostgresURL("postgres"), "SELECT 'recovered'")
}

// After a reboot or in a new container the number in the file a crash left behind
// may be that of any process, this one for example.
func TestForeignPostmasterNumberDoesNotStopAStart(t *testing.T) {
	dir := t.TempDir()
	s := devstacktest.Stack(t, devstack.Options{Dir: dir, Postgres: &devstack.Engine{}})
	require.NoError(t, s.KillPostgres())
	file := filepath.Join(dir, "postgres", "data", "postmaster.pid")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "\n")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "%d\n%s", os.Getpid(), rest), 0o600))
	require.NoError(t, s.RestartPostgres(context.Background()))
}

func TestServersEndWithTheirParent(t *testing.T) {
	dir := t.TempDir()
	var client *pgx.Conn
	asked := make(chan error, 1)
	startAndKill(t, exec.Command(os.Args[0]), dir, func(addresses []string) {
		// A client in the middle of something does not keep Postgres.
		var err error
		client, err = pgx.Connect(context.Background(), addresses[0])
		require.NoError(t, err)
		go func() {
			_, err := client.Exec(context.Background(), "SELECT pg_sleep(600)")
			asked <- err
		}()
	})
	defer client.Close(context.Background())
	require.Error(t, <-asked)
	requireNoProcess(t, dir)
	s, err := devstack.Start(context.Background(), everything(dir))
	require.NoError(t, err, "the data is free and whole")
	require.NoError(t, s.Stop())
}

// startAndKill runs a stack in another process and kills that once the stack is up
// and used.
func startAndKill(t testing.TB, cmd *exec.Cmd, dir string, use func(addresses []string)) {
	t.Helper()
	cmd.Env = append(os.Environ(), runAsChild+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var addresses []string
	require.NoError(t, json.NewDecoder(bufio.NewReader(out)).Decode(&addresses))
	use(addresses)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
}

func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this user is ordinary, all other tests are this one")
	}
	// The binary and the data have to be where an ordinary user gets at them.
	dir, err := os.MkdirTemp("", "devstack-ordinary-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	program, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "program"), program, 0o755))
	data := filepath.Join(dir, "data")
	require.NoError(t, os.Mkdir(data, 0o700))
	require.NoError(t, os.Chown(data, 65534, 65534))

	cmd := exec.Command(filepath.Join(dir, "program"))
	cmd.Dir = "."
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	startAndKill(t, cmd, data, func(addresses []string) {
		require.Equal(t, "1", query(t, addresses[0], "SELECT '1'"))
	})
	requireNoProcess(t, data)
}

func TestTakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	taken := &devstack.Engine{Port: l.Addr().(*net.TCPAddr).Port, Variable: "THE_PORT"}
	for name, o := range map[string]devstack.Options{
		"Postgres": {Postgres: taken, NATS: &devstack.Engine{}}, "ClickHouse": {ClickHouse: taken}, "NATS": {NATS: taken},
	} {
		o.Dir = t.TempDir()
		_, err := devstack.Start(context.Background(), o)
		require.ErrorContains(t, err, fmt.Sprintf("start %s: port %d is taken; set THE_PORT to another one", name, taken.Port))
	}
}

func TestStackStartsOnTheWantedPorts(t *testing.T) {
	var ports []int
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		require.NoError(t, l.Close())
	}
	s := devstacktest.Stack(t, devstack.Options{
		Postgres: &devstack.Engine{Port: ports[0]}, ClickHouse: &devstack.Engine{Port: ports[1]}, NATS: &devstack.Engine{Port: ports[2]},
	})
	require.Equal(t, []string{
		fmt.Sprintf("postgres://postgres@127.0.0.1:%d/db?sslmode=disable", ports[0]),
		fmt.Sprintf("http://127.0.0.1:%d/db", ports[1]),
		fmt.Sprintf("nats://127.0.0.1:%d", ports[2]),
	}, []string{s.PostgresURL("db"), s.ClickHouseURL("db"), s.NATSURL()})
}

func TestMissingEnginesSayWhatToDo(t *testing.T) {
	t.Setenv("ENGINES_DIR", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	for _, o := range []devstack.Options{{Postgres: &devstack.Engine{}}, {ClickHouse: &devstack.Engine{}}} {
		o.Dir = t.TempDir()
		_, err := devstack.Start(context.Background(), o)
		require.ErrorContains(t, err, "run `make engines`")
	}
}

func TestOneStackUsesADataFolder(t *testing.T) {
	dir := t.TempDir()
	devstacktest.Stack(t, everything(dir))
	for _, o := range []devstack.Options{{Postgres: &devstack.Engine{}}, {ClickHouse: &devstack.Engine{}}, {NATS: &devstack.Engine{}}} {
		o.Dir = dir
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := devstack.Start(ctx, o)
		cancel()
		require.ErrorContains(t, err, "another process uses the data")
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := devstack.Start(ctx, everything(dir))
	require.ErrorIs(t, err, context.Canceled)
	requireNoProcess(t, dir)
}

func TestClickHouseKeepsItsDataAndAddress(t *testing.T) {
	ctx := context.Background()
	s := devstacktest.Stack(t, devstack.Options{ClickHouse: &devstack.Engine{}})
	address := s.ClickHouseURL("plausible_events_db")
	require.NoError(t, plausible.CreateClickHouse(ctx, address))
	for i, again := range []func() error{
		func() error { return s.RestartClickHouse(ctx) },
		func() error { return errorsOf(s.KillClickHouse(), s.RestartClickHouse(ctx)) },
	} {
		require.NoError(t, insertEvent(ctx, address))
		require.NoError(t, again())
		require.Equal(t, address, s.ClickHouseURL("plausible_events_db"))
		conn, err := plausible.Open(address)
		require.NoError(t, err)
		var count uint64
		require.NoError(t, conn.QueryRow(ctx, "SELECT count() FROM events_v2").Scan(&count))
		require.Equal(t, uint64(i+1), count)
		require.NoError(t, conn.Close())
	}
	require.NoError(t, s.KillClickHouse())
	require.Error(t, insertEvent(ctx, address))
}

func insertEvent(ctx context.Context, address string) error {
	conn, err := plausible.Open(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return plausible.InsertEvents(ctx, conn, []plausible.Event{{Timestamp: time.Now(), Name: "pageview", SiteID: 1, UserID: 1}})
}

func TestNATSKeepsItsStreamsAndAddress(t *testing.T) {
	ctx := context.Background()
	s := devstacktest.Stack(t, devstack.Options{NATS: &devstack.Engine{}})
	address := s.NATSURL()
	conn, err := nats.Connect(address, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
	require.NoError(t, err)
	for i, again := range []func() error{
		func() error { return s.RestartNATS(ctx) },
		func() error { return errorsOf(s.KillNATS(), s.RestartNATS(ctx)) },
	} {
		require.Eventually(t, conn.IsConnected, 10*time.Second, time.Millisecond)
		ack, err := js.Publish(ctx, "s.a", []byte("x"), jetstream.WithMsgID(fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, uint64(i+1), ack.Sequence)
		require.NoError(t, again())
		require.Equal(t, address, s.NATSURL())
	}
}

func TestNothingAskedForIsAStackOfNothing(t *testing.T) {
	s := devstacktest.Stack(t, devstack.Options{})
	require.Empty(t, s.PostgresURL("a")+s.ClickHouseURL("a")+s.NATSURL())
	require.Error(t, s.RestartPostgres(context.Background()))
	require.Error(t, s.KillNATS())
}

func TestExistingServersAreTakenAsTheyAre(t *testing.T) {
	s := devstacktest.Stack(t, everything(""))
	t.Setenv("DEVSTACK", "env")
	t.Setenv("TEST_POSTGRES_URL", s.PostgresURL("postgres"))
	t.Setenv("TEST_CLICKHOUSE_URL", s.ClickHouseURL("default"))
	t.Setenv("TEST_NATS_URL", s.NATSURL())
	there, err := devstack.Start(context.Background(), everything(t.TempDir()))
	require.NoError(t, err)
	require.Equal(t, []string{s.PostgresURL("a"), s.ClickHouseURL("a"), s.NATSURL()}, []string{there.PostgresURL("a"), there.ClickHouseURL("a"), there.NATSURL()})
	require.ErrorContains(t, there.RestartNATS(context.Background()), "not ours")
	require.ErrorContains(t, there.KillPostgres(), "not ours")
	require.NoError(t, there.Stop())
	require.Equal(t, "1", query(t, s.PostgresURL("postgres"), "SELECT '1'"))

	t.Setenv("TEST_NATS_URL", "")
	_, err = devstack.Start(context.Background(), everything(t.TempDir()))
	require.EqualError(t, err, "DEVSTACK=env: TEST_NATS_URL is not set")
	t.Setenv("DEVSTACK", "docker")
	_, err = devstack.Start(context.Background(), everything(t.TempDir()))
	require.ErrorContains(t, err, "docker compose up")
	t.Setenv("DEVSTACK", "cloud")
	_, err = devstack.Start(context.Background(), everything(t.TempDir()))
	require.ErrorContains(t, err, "DEVSTACK=cloud is unknown")
}
