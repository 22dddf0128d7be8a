// Command clickhouse-front serves the ClickHouse engine of CHDB_LIB_PATH over HTTP
// on this machine. It is a process of its own because the library is large, takes
// over signals, and ends the process where a server would log an error.
//
// When it is ready it prints one line, "ready 127.0.0.1:port". It ends on SIGINT,
// on SIGTERM, and when its standard input reaches the end, so that it never
// outlives the process that holds the other side of that pipe.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/internal/chdb"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/internal/front"
)

func main() {
	data := flag.String("data", "", "folder of the data, kept between runs")
	listen := flag.String("listen", "127.0.0.1:0", "address to serve; of this machine only")
	verbose := flag.Bool("verbose", false, "log each failed query")
	flag.Parse()

	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))

	life, err := takeStandardInput()
	if err != nil {
		log.Error("clickhouse-front cannot watch its standard input", "error", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, err := io.Copy(io.Discard, life)
		cancel(fmt.Errorf("standard input ended: %w", errors.Join(err, io.EOF)))
	}()
	if err := run(ctx, *data, *listen, log); err != nil {
		log.Error("clickhouse-front ends", "error", err)
		os.Exit(1)
	}
}

// takeStandardInput moves standard input elsewhere and leaves an empty one behind.
// The engine is made from ClickHouse's client, which looks there for an INSERT's rows:
// on a pipe that nobody writes to, it would now and then wait for them for ever.
func takeStandardInput() (*os.File, error) {
	moved, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer empty.Close()
	return os.NewFile(uintptr(moved), "standard input"), unix.Dup2(int(empty.Fd()), 0)
}

// run serves until ctx ends. Requests in flight then have a moment to finish.
func run(ctx context.Context, data, listen string, log *slog.Logger) error {
	if data == "" {
		return errors.New("name the folder of the data with -data")
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("listen on %q: an address of this machine only is needed, like 127.0.0.1:8123", listen)
	}
	incoming := filepath.Join(data, "incoming")
	if err := errors.Join(os.RemoveAll(incoming), os.MkdirAll(incoming, 0o700)); err != nil {
		return fmt.Errorf("prepare %s: %w", data, err)
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	engine, err := chdb.Open(filepath.Join(data, "engine"))
	if err != nil {
		return err
	}
	handler, err := front.New(engine, incoming, log)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("ready %s\n", listener.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// What is on disk is complete at any time, so it is enough to be brief: a request
	// that does not end by itself now is killed as its connection closes.
	brief, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	if server.Shutdown(brief) != nil {
		_ = server.Close()
		return nil // the engine may still be busy; the process ends under it
	}
	engine.Close()
	return nil
}
