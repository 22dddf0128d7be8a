package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
)

// nats is a NATS server with JetStream inside this process.
type nats struct {
	want Engine
	dir  string
	log  *slog.Logger
	addr string // empty until the first start
	lock *os.File
	run  *server.Server // nil: stopped
}

func newNATS(o Options) *nats {
	return &nats{want: *o.NATS, dir: filepath.Join(o.Dir, "nats"), log: o.Log}
}

func (n *nats) URL(string) string { return "nats://" + n.addr }

func (n *nats) Start(ctx context.Context) (err error) {
	if n.run != nil {
		return nil
	}
	port := server.RANDOM_PORT // it takes a free one, and no other process can be quicker
	if n.want.Port != 0 {
		if port, err = n.want.claim("NATS"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	if n.lock, err = lockDir(ctx, filepath.Join(n.dir, "lock")); err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	defer func() {
		if err != nil {
			n.lock.Close()
		}
	}()
	run, err := server.NewServer(&server.Options{
		ServerName: "devstack",
		Host:       "127.0.0.1",
		Port:       port,
		JetStream:  true,
		StoreDir:   n.dir,
		NoSigs:     true, // signals belong to the program
	})
	if err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	fatal := make(chan error, 1)
	run.SetLoggerV2(natsLog{n.log.With("server", "nats"), fatal}, false, false, false)
	if err := begin(ctx, run, fatal); err != nil {
		run.Shutdown()
		run.WaitForShutdown()
		return fmt.Errorf("start NATS: %w", err)
	}
	n.run, n.addr = run, run.Addr().String()
	n.want.Port = run.Addr().(*net.TCPAddr).Port // a restart keeps it
	return nil
}

// begin returns when the server listens, JetStream included.
func begin(ctx context.Context, run *server.Server, fatal <-chan error) error {
	started := make(chan struct{})
	go func() {
		run.Start()
		close(started)
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-started:
	}
	select {
	case err := <-fatal:
		return err
	default:
	}
	if run.Addr() == nil || !run.JetStreamEnabled() {
		return errors.New("it does not listen, or not with JetStream")
	}
	return nil
}

func (n *nats) Stop() error {
	if n.run == nil {
		return nil
	}
	n.run.Shutdown()
	n.run.WaitForShutdown()
	n.run = nil
	return n.lock.Close()
}

func (n *nats) Kill() error { return n.Stop() }

// natsLog passes warnings and errors on. A fatal error does not end this process,
// which is not the server's, it fails the start.
type natsLog struct {
	log   *slog.Logger
	fatal chan<- error
}

func (l natsLog) Noticef(string, ...any) {}
func (l natsLog) Debugf(string, ...any)  {}
func (l natsLog) Tracef(string, ...any)  {}

func (l natsLog) Warnf(format string, v ...any) {
	l.log.Warn("NATS", "says", fmt.Sprintf(format, v...))
}
func (l natsLog) Errorf(format string, v ...any) {
	l.log.Error("NATS", "says", fmt.Sprintf(format, v...))
}

func (l natsLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default: // the first one tells
	}
}
