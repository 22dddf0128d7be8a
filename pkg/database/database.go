// Package database opens the product's own Postgres database and guards its schema's version.
// It holds no queries: those stand in the services that own the tables.
package database

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/plausible-webhooks/plausible-webhooks/migrations"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/patience"
)

// Open connects to a Postgres server and waits for its first answer. name says in errors which
// database is meant, by its variable: DATABASE_URL. Errors never show the password.
func Open(ctx context.Context, name, rawURL string, maxConns int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(rawURL)
	if err != nil {
		return nil, fmt.Errorf("%s is not a Postgres URL such as postgres://user:password@host:5432/database", name)
	}
	if maxConns > 0 {
		config.MaxConns = maxConns
	}
	config.ConnConfig.RuntimeParams["application_name"] = "plausible-webhooks"
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	err = patience.Await(ctx, func(ctx context.Context) error {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return pool.Ping(attempt)
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("Postgres of %s (%s) did not answer: %w", name, Redact(rawURL), err)
	}
	return pool, nil
}

// Redact is a URL without its password and query, fit for logs and errors.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "an unreadable URL"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}

// Migrate brings the schema to migrations.Latest. Several may call it at once: one applies,
// the others wait for it.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	// Serialised by a session lock, on a connection beside the pool: a pool of one would wait for itself.
	conn, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const lock = 7306085716 // any number, as long as it is only ours
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lock); err != nil {
		return fmt.Errorf("migrate: wait for the lock: %w", err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", lock) //nolint:errcheck // the session's end unlocks too, a moment later

	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Postgres())
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// RequireSchema refuses a database whose schema is older than this program needs. A newer one
// is accepted: during an upgrade the migrations run first.
func RequireSchema(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) error {
	var exists bool
	if err := db.QueryRow(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&exists); err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if !exists {
		return errors.New("the database of DATABASE_URL has no schema yet: run the migrations first")
	}
	var version int64
	if err := db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&version); err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if version < migrations.Latest() {
		return fmt.Errorf("the schema of DATABASE_URL has version %d, this program needs %d: run the migrations first", version, migrations.Latest())
	}
	return nil
}

// Partitions keeps the weekly partitions of a table that the caller owns: made two weeks
// ahead, dropped when they are older than keep. It is cheap enough to be called hourly.
func Partitions(ctx context.Context, pool *pgxpool.Pool, table string, keep time.Duration) error {
	if _, err := pool.Exec(ctx, "SELECT create_partitions($1::text::regclass, now(), now() + interval '14 days')", table); err != nil {
		return fmt.Errorf("create partitions of %s: %w", table, err)
	}
	if _, err := pool.Exec(ctx, "SELECT drop_partitions($1::text::regclass, now() - $2::interval)", table, keep); err != nil {
		return fmt.Errorf("drop partitions of %s: %w", table, err)
	}
	return nil
}
