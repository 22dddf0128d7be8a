package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	neturl "net/url"
	"os"
	"time"
)

// existing is a server that runs elsewhere and is taken as it is.
type existing struct {
	name, variable string
	address        *neturl.URL
}

// startExisting makes a stack of the servers that the TEST_ variables name.
func startExisting(ctx context.Context, o Options) (*Stack, error) {
	var servers [3]Server
	var errs []error
	for i, e := range []struct {
		want           *Engine
		name, variable string
	}{
		{o.Postgres, "Postgres", "TEST_POSTGRES_URL"},
		{o.ClickHouse, "ClickHouse", "TEST_CLICKHOUSE_URL"},
		{o.NATS, "NATS", "TEST_NATS_URL"},
	} {
		if e.want == nil {
			continue
		}
		value := os.Getenv(e.variable)
		if value == "" {
			errs = append(errs, fmt.Errorf("DEVSTACK=env: %s is not set", e.variable))
			continue
		}
		address, err := neturl.Parse(value)
		if err != nil || address.Host == "" {
			errs = append(errs, fmt.Errorf("DEVSTACK=env: %s is not a URL", e.variable))
			continue
		}
		servers[i] = existing{e.name, e.variable, address}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return Assemble(ctx, servers[0], servers[1], servers[2])
}

// Start checks that somebody listens. What he speaks, the first query will tell.
func (e existing) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.address.Host)
	if err != nil {
		return fmt.Errorf("reach %s, which %s names: %w", e.name, e.variable, err)
	}
	return conn.Close()
}

// Stop does nothing: the server is not ours.
func (e existing) Stop() error { return nil }

func (e existing) Kill() error { return e.refuse("kill") }

func (e existing) refuse(what string) error {
	return fmt.Errorf("DEVSTACK=env: %s is not ours to %s", e.name, what)
}

func (e existing) URL(database string) string {
	u := *e.address
	if database != "" {
		u.Path = "/" + database
	}
	return u.String()
}
