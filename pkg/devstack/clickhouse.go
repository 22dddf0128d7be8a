package devstack

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// clickhouse is the engine behind its HTTP front, in a process of its own.
type clickhouse struct {
	want Engine
	dir  string
	log  *slog.Logger
	addr string // empty until the first start
	run  *child // nil: stopped
}

func newClickHouse(o Options) *clickhouse {
	return &clickhouse{want: *o.ClickHouse, dir: filepath.Join(o.Dir, "clickhouse"), log: o.Log}
}

func (c *clickhouse) URL(database string) string { return "http://" + c.addr + "/" + database }

func (c *clickhouse) Start(ctx context.Context) (err error) {
	if c.run != nil && c.run.running() {
		return nil
	}
	front, library, err := findClickHouse()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	if c.want.Port, err = c.want.claim("ClickHouse"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer in %s", startTimeout))
	defer cancel()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	lock, err := lockDir(ctx, filepath.Join(c.dir, "lock"))
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	defer lock.Close() // the process keeps it
	logPath := filepath.Join(c.dir, "clickhouse.log")
	log, err := openLog(logPath)
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	defer log.Close()

	theirs, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	said, says, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	defer said.Close()
	cmd := exec.Command(front, "-data", c.dir, "-listen", fmt.Sprintf("127.0.0.1:%d", c.want.Port))
	cmd.Env = append(os.Environ(), "CHDB_LIB_PATH="+library, "TZ=UTC")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, says, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = ownGroup()
	run, err := startChild(cmd, theirs, ours)
	says.Close()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}

	// The front prints its one line when the engine has answered a query.
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(said).ReadString('\n')
		ready <- line
	}()
	select {
	case line := <-ready:
		addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
		if !ok {
			run.end(time.Second)
			return fmt.Errorf("start ClickHouse: it ended with %s; its log ends with:\n%s", run.cmd.ProcessState, logTail(logPath))
		}
		c.addr = addr
	case <-ctx.Done():
		run.end(time.Second)
		return fmt.Errorf("start ClickHouse: %w; its log ends with:\n%s", context.Cause(ctx), logTail(logPath))
	}
	c.run = run
	go run.report("clickhouse", c.log)
	return nil
}

func (c *clickhouse) Stop() error {
	if c.run != nil {
		c.run.expected.Store(true)
		c.run.end(10*time.Second, os.Interrupt)
	}
	c.run = nil
	return nil
}

func (c *clickhouse) Kill() error {
	if c.run != nil {
		c.run.expected.Store(true)
		c.run.end(0)
	}
	c.run = nil
	return nil
}
