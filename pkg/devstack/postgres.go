package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres is a real Postgres server. It is reached on 127.0.0.1 only, where it
// trusts everyone.
type postgres struct {
	want Engine
	dir  string // of the server: data, log and lock
	fast bool
	log  *slog.Logger
	run  *child // nil: stopped

	account func() (account, error)
}

func newPostgres(o Options) *postgres {
	return &postgres{want: *o.Postgres, dir: filepath.Join(o.Dir, "postgres"), fast: o.Fast, log: o.Log, account: findAccount}
}

func (p *postgres) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.want.Port, database)
}

func (p *postgres) data() string    { return filepath.Join(p.dir, "data") }
func (p *postgres) logPath() string { return filepath.Join(p.dir, "postgres.log") }

func (p *postgres) Start(ctx context.Context) error {
	if p.run != nil && p.run.running() {
		return nil
	}
	b, err := findPostgres()
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer in %s", startTimeout))
	defer cancel()
	// A free port can be lost to another process before Postgres listens on it. If
	// nobody asked for that very port, the next one will do.
	anyPort := p.want.Port == 0
	for attempt := 1; ; attempt++ {
		wanted := p.want
		if p.want.Port, err = p.want.claim("Postgres"); err != nil {
			return err
		}
		if err = p.start(ctx, b); err == nil {
			return nil
		}
		if !anyPort || !errors.Is(err, errPortLost) || attempt == 5 {
			return fmt.Errorf("start Postgres: %w", err)
		}
		p.want = wanted
	}
}

// start brings the server up on its port.
func (p *postgres) start(ctx context.Context, b binaries) (err error) {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(ctx, filepath.Join(p.dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close() // the server's processes keep it
	account, err := p.account()
	if err != nil {
		return err
	}
	if err := account.own(p.dir); err != nil {
		return err
	}
	if err := p.initialize(ctx, b, account, lock); err != nil {
		return err
	}
	// With the lock held no server runs on this data, so a number left behind by a
	// killed one is of no process, or by now of one that has nothing to do with it.
	if err := os.Remove(filepath.Join(p.data(), "postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := openLog(p.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	logBegins, err := log.Seek(0, 2)
	if err != nil {
		return err
	}

	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", watched, "sh", b.postgres}, p.arguments()...)...)
	cmd.Dir = p.dir
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs, lock} // descriptors 3 and 4
	cmd.SysProcAttr = account.attributes()
	run, err := startChild(cmd, theirs, ours)
	if err != nil {
		return err
	}
	if err := p.awaitAnswer(ctx, run); err != nil {
		run.end(time.Second, syscall.SIGQUIT)
		if fresh := readFrom(p.logPath(), logBegins); strings.Contains(fresh, "could not bind") {
			return fmt.Errorf("port %d: %w", p.want.Port, errPortLost)
		}
		return fmt.Errorf("%w; its log ends with:\n%s", err, logTail(p.logPath()))
	}
	p.run = run
	go run.report("postgres", p.log)
	return nil
}

var errPortLost = errors.New("another process took it")

// watched runs Postgres in the shell's place, next to a watcher who asks it to shut
// down when this process is gone: the read from the pipe then fails. A farewell on
// the pipe means that Postgres has ended already.
const watched = `
{ exec 4<&-; read -r _ <&3 || kill -INT $$; } >/dev/null 2>&1 &
exec 3<&-
exec "$@"`

func (p *postgres) arguments() []string {
	settings := []string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(p.want.Port),
		"unix_socket_directories=", // their path may not be long, that of a test is
		"logging_collector=off",
		"max_connections=200",
		"timezone=UTC",
		"log_timezone=UTC",
		"dynamic_shared_memory_type=mmap", // files in the data folder: nothing stays behind elsewhere
	}
	if p.fast {
		// Commits still reach the system's memory, so they survive a killed server.
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	args := []string{"-D", p.data()}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args
}

// initialize creates the data folder unless it exists, whole or not at all.
func (p *postgres) initialize(ctx context.Context, b binaries, account account, lock *os.File) error {
	version, err := os.ReadFile(filepath.Join(p.data(), "PG_VERSION"))
	if err == nil {
		if v := strings.TrimSpace(string(version)); v != strconv.Itoa(b.version) {
			return fmt.Errorf("the data in %s is of Postgres %s and the program is %d: use that version, or another folder", p.data(), v, b.version)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := p.data() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	args := []string{"-D", fresh, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"}
	if b.version >= 17 {
		args = append(args, "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
	} else {
		args = append(args, "--locale=C.UTF-8")
	}
	if p.fast {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, b.initdb, args...)
	cmd.Dir = p.dir
	cmd.Env = environment()
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = account.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create its data in %s: %w:\n%s", fresh, err, strings.TrimSpace(string(out)))
	}
	return os.Rename(fresh, p.data())
}

// environment is this process's without what would steer Postgres' programs.
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "LC_") && !strings.HasPrefix(e, "LANG") {
			env = append(env, e)
		}
	}
	return append(env, "LC_ALL=C")
}

// awaitAnswer returns when this very server has answered a query.
func (p *postgres) awaitAnswer(ctx context.Context, run *child) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := p.ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-run.exited:
			return fmt.Errorf("it ended with %s", run.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", context.Cause(ctx), err)
		case <-again.C:
		}
	}
}

func (p *postgres) ask(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		return err
	}
	if data != p.data() {
		return fmt.Errorf("port %d: %w, a Postgres on %s", p.want.Port, errPortLost, data)
	}
	return nil
}

// Stop disconnects clients, lets Postgres write what it holds, and waits for it.
func (p *postgres) Stop() error {
	if p.run != nil {
		p.run.expected.Store(true)
		p.run.end(10*time.Second, syscall.SIGINT, syscall.SIGQUIT)
	}
	p.run = nil
	return nil
}

// Kill leaves the data as a crash of the server leaves it, to be recovered by the
// next start. Its processes of one connection each end by themselves.
func (p *postgres) Kill() error {
	if p.run != nil {
		p.run.expected.Store(true)
		p.run.end(0)
	}
	p.run = nil
	return nil
}

// readFrom returns a file's text from an offset on, or nothing.
func readFrom(path string, offset int64) string {
	text, err := os.ReadFile(path)
	if err != nil || int64(len(text)) < offset {
		return ""
	}
	return string(text[offset:])
}
