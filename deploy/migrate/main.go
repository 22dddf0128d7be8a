// Command migrate brings the schema of the product's own database up to date and ends. It waits
// for the database, and where several run at once, one applies and the others wait for it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/migrations"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

type config struct {
	DatabaseURL string `env:"DATABASE_URL,required,notEmpty"`
}

func main() {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "migrate: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	c, err := daemon.Load[config](os.Environ())
	if err != nil {
		return err
	}
	began := time.Now()
	pool, err := database.Open(ctx, "DATABASE_URL", c.DatabaseURL, 2)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := database.Migrate(ctx, pool); err != nil {
		return err
	}
	fmt.Printf("The schema of %s has version %d (%.1f s).\n", database.Redact(c.DatabaseURL), migrations.Latest(), time.Since(began).Seconds())
	return nil
}
