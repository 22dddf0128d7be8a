// Package docker makes a stack of containers, for DEVSTACK=docker: the same servers
// as in production. It is a package of its own because the client of Docker is
// large; only what imports it carries it.
//
// The images are those of POSTGRES_IMAGE, CLICKHOUSE_IMAGE and NATS_IMAGE, or the
// ones below. A container's port stays the same over restarts, and its data as well;
// both are gone once the stack is stopped for good by the end of this process.
package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
)

// Images by default: Postgres and ClickHouse as Plausible's Community Edition runs them.
const (
	postgresImage   = "postgres:18-alpine"
	clickhouseImage = "clickhouse/clickhouse-server:25.11-alpine"
	natsImage       = "nats:2.12-alpine"
)

// Start runs a container for each server asked for and returns when each answers.
func Start(ctx context.Context, o devstack.Options) (*devstack.Stack, error) {
	if err := available(ctx); err != nil {
		return nil, err
	}
	var postgres, clickhouse, nats devstack.Server
	if o.Postgres != nil {
		postgres = &server{
			want: *o.Postgres, image: image("POSTGRES_IMAGE", postgresImage), port: 5432,
			env:    map[string]string{"POSTGRES_HOST_AUTH_METHOD": "trust"},
			ready:  wait.ForExec([]string{"pg_isready", "-U", "postgres", "-h", "127.0.0.1"}),
			format: "postgres://postgres@%s/%s?sslmode=disable",
		}
	}
	if o.ClickHouse != nil {
		clickhouse = &server{
			want: *o.ClickHouse, image: image("CLICKHOUSE_IMAGE", clickhouseImage), port: 8123,
			env:    map[string]string{"CLICKHOUSE_SKIP_USER_SETUP": "1"},
			ready:  wait.ForHTTP("/ping").WithPort("8123/tcp"),
			format: "http://%s/%s",
		}
	}
	if o.NATS != nil {
		nats = &server{
			want: *o.NATS, image: image("NATS_IMAGE", natsImage), port: 4222,
			cmd:    []string{"--jetstream", "--store_dir", "/data", "--http_port", "8222"},
			ready:  wait.ForHTTP("/healthz").WithPort("8222/tcp"),
			extra:  "8222/tcp",
			format: "nats://%s%.0s",
		}
	}
	return devstack.Assemble(ctx, postgres, clickhouse, nats)
}

func available(ctx context.Context) (err error) {
	// The client panics where it finds no trace of Docker at all.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("DEVSTACK=docker, but Docker cannot be reached: %v", p)
		}
	}()
	provider, err := testcontainers.NewDockerProvider()
	if err == nil {
		err = provider.Health(ctx)
	}
	if err != nil {
		return fmt.Errorf("DEVSTACK=docker, but Docker cannot be reached: %w", err)
	}
	return nil
}

func image(variable, otherwise string) string {
	if name := os.Getenv(variable); name != "" {
		return name
	}
	return otherwise
}

// server is one container. Its methods are not called at the same time.
type server struct {
	want    devstack.Engine
	image   string
	port    int // inside
	extra   string
	env     map[string]string
	cmd     []string
	ready   wait.Strategy
	format  string // of the URL: address, database
	outside string // address on this machine
	run     *testcontainers.DockerContainer
}

func (s *server) URL(database string) string { return fmt.Sprintf(s.format, s.outside, database) }

func (s *server) Start(ctx context.Context) error {
	if s.run != nil { // a container that was stopped keeps its port and its data
		if err := s.run.Start(ctx); err != nil {
			return fmt.Errorf("start the container of %s: %w", s.image, err)
		}
		return nil
	}
	port, err := freePort(s.want)
	if err != nil {
		return fmt.Errorf("start the container of %s: %w", s.image, err)
	}
	inside := fmt.Sprintf("%d/tcp", s.port)
	exposed := []string{inside}
	if s.extra != "" {
		exposed = append(exposed, s.extra)
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	s.run, err = testcontainers.Run(ctx, s.image,
		testcontainers.WithExposedPorts(exposed...),
		testcontainers.WithEnv(s.env),
		testcontainers.WithCmd(s.cmd...),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.PortBindings = network.PortMap{
				network.MustParsePort(inside): {{HostIP: loopback, HostPort: strconv.Itoa(port)}},
			}
			if s.extra != "" {
				h.PortBindings[network.MustParsePort(s.extra)] = []network.PortBinding{{HostIP: loopback}}
			}
		}),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, wait.ForListeningPort(inside), s.ready),
	)
	if err != nil {
		return errors.Join(fmt.Errorf("start a container of %s: %w", s.image, err), testcontainers.TerminateContainer(s.run))
	}
	s.outside = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return nil
}

func (s *server) Stop() error { return s.end(10 * time.Second) }

func (s *server) Kill() error { return s.end(0) }

func (s *server) end(grace time.Duration) error {
	if s.run == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.run.Stop(ctx, &grace); err != nil {
		return fmt.Errorf("stop the container of %s: %w", s.image, err)
	}
	return nil
}

// freePort has to know the port beforehand: one that Docker picks changes with each
// start of the container.
func freePort(e devstack.Engine) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(e.Port)))
	if err != nil {
		return 0, fmt.Errorf("port %d is taken, set %s to another one: %w", e.Port, e.Variable, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
