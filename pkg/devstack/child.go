package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// startTimeout bounds how long a server may take until it answers, recovery after
	// a crash and a busy machine included.
	startTimeout = 60 * time.Second
	// lockPatience is how long a stack waits for the servers of one that just ended.
	lockPatience = 20 * time.Second
)

// child is a server in a process of its own. The process has one side of a pipe of
// which this process holds the other, and ends when that is gone.
type child struct {
	cmd    *exec.Cmd
	life   *os.File      // our side of the pipe
	exited chan struct{} // closed when the process has ended and was waited for
	err    error         // how it ended; read after exited

	expected atomic.Bool // its end was asked for
}

// startChild starts a command whose own copy of the pipe is already in its files,
// and closes that copy here.
func startChild(cmd *exec.Cmd, theirs, ours *os.File) (*child, error) {
	err := cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, err
	}
	c := &child{cmd: cmd, life: ours, exited: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		_, _ = ours.WriteString(farewell) // nobody may be listening any more
		ours.Close()
		close(c.exited)
	}()
	return c, nil
}

// farewell tells a watcher that the process has ended already and its number may
// belong to another one by now.
const farewell = "ended\n"

// end sends one signal after the other, each with its time to work, and then kills.
func (c *child) end(grace time.Duration, signals ...os.Signal) {
	for _, s := range signals {
		if c.cmd.Process.Signal(s) != nil {
			break // it has ended
		}
		timeout := time.NewTimer(grace)
		select {
		case <-c.exited:
			timeout.Stop()
			return
		case <-timeout.C:
		}
	}
	_ = c.cmd.Process.Kill() // it fails if it has ended meanwhile
	<-c.exited
}

func (c *child) running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// ownGroup puts a server into a process group of its own, so that Ctrl-C in a
// terminal reaches the program alone, who then stops its servers in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// report logs an end that nobody here asked for.
func (c *child) report(server string, log *slog.Logger) {
	<-c.exited
	if !c.expected.Load() {
		log.Error("server ended unexpectedly", "server", server, "error", c.err)
	}
}

// logTail returns the last lines of a server's log, to be shown with an error.
func logTail(path string) string {
	const lines = 15
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimSpace(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// maxLog is where a server's log begins anew, when the server starts. Bytes.
const maxLog = 16 << 20

func openLog(path string) (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(path, flags, 0o600)
}

// lockDir makes sure that one stack at a time uses a server's data. The lock is held
// by every process that inherited the file, so having it proves that the server of
// an earlier stack has ended with all its processes. Such a server is waited for.
func lockDir(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("waited %s", lockPatience))
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another process uses the data, it holds %s: %w", path, context.Cause(ctx))
		case <-again.C:
		}
	}
}
