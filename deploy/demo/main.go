// Command demo stands in for a Plausible beside the containers: it creates and seeds Plausible's
// tables in the two databases that it is given, says in its log how to look at them, and lets
// visitors come to the demo site. It belongs to the profile "demo" and to nothing else.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/local/traffic"
	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

type config struct {
	daemon.Config
	PlausibleDatabaseURL   string `env:"PLAUSIBLE_DATABASE_URL,required,notEmpty"`
	PlausibleClickHouseURL string `env:"PLAUSIBLE_CLICKHOUSE_URL,required,notEmpty"`
	SecretKeyBase          string `env:"PLAUSIBLE_SECRET_KEY_BASE,required,notEmpty"`
}

func main() { daemon.Main("demo", run) }

func run(ctx context.Context, c config, s *daemon.Service) error {
	if err := plausible.CreateClickHouse(ctx, c.PlausibleClickHouseURL); err != nil {
		return err
	}
	if err := plausible.CreatePostgres(ctx, c.PlausibleDatabaseURL); err != nil {
		return err
	}
	demo, err := plausible.Seed(ctx, c.PlausibleDatabaseURL, c.SecretKeyBase)
	if err != nil {
		return err
	}
	events, err := plausible.Open(c.PlausibleClickHouseURL)
	if err != nil {
		return err
	}
	defer events.Close()
	s.Ready("clickhouse", events.Ping)
	// The key is of the demo's own secret and opens nothing but the demo.
	fmt.Printf("demo site %s, key %s\n", demo.Domain, demo.OwnerKey)

	now := time.Now()
	traffic.Run(ctx, traffic.New(traffic.Options{
		SiteID: uint64(demo.SiteID), Hostname: demo.Domain,
		Seed: uint64(now.UnixNano()), Start: now, Live: now,
	}), func(ctx context.Context, rows visit.Rows) error { return visit.Insert(ctx, events, rows) }, s.Log)
	return nil
}
