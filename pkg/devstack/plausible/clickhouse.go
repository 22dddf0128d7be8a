// Package plausible is Plausible's side of the databases, for local use and tests:
// the tables as Community Edition v3.2 creates them, a demo site to look at, and
// events and sessions as Plausible's ingestion writes them.
package plausible

import (
	"context"
	"embed"
	"fmt"
	"net/url"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

//go:embed clickhouse.sql postgres.sql
var schema embed.FS

// Open connects to the database of a URL in the form of CLICKHOUSE_DATABASE_URL,
// http://user:password@host:8123/database.
func Open(address string) (driver.Conn, error) {
	options, err := clickhouse.ParseDSN(address)
	if err != nil {
		return nil, fmt.Errorf("read the ClickHouse URL: %w", err)
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	return conn, nil
}

// CreateClickHouse creates the URL's database and Plausible's tables in it, unless
// they exist already. The dictionary of locations is left out where the engine
// cannot have it; nothing in events_v2 and sessions_v2 but the names of places
// depends on it.
func CreateClickHouse(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("create Plausible's ClickHouse tables: %w", err)
	}
	database := strings.Trim(u.Path, "/")
	if database == "" {
		return fmt.Errorf("create Plausible's ClickHouse tables: the URL names no database")
	}
	u.Path = "/default"
	if err := execute(ctx, u.String(), "CREATE DATABASE IF NOT EXISTS `"+database+"`"); err != nil {
		return fmt.Errorf("create Plausible's ClickHouse tables: %w", err)
	}
	text, err := schema.ReadFile("clickhouse.sql")
	if err != nil {
		return err
	}
	statements := strings.Split(strings.ReplaceAll(string(text), "${database}", database), ";\n")
	if err := execute(ctx, address, statements...); err != nil {
		return fmt.Errorf("create Plausible's ClickHouse tables: %w", err)
	}
	return nil
}

func execute(ctx context.Context, address string, statements ...string) error {
	conn, err := Open(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, s := range statements {
		if strings.TrimSpace(s) == "" {
			continue
		}
		if err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%w, in %.60s…", err, strings.TrimSpace(s))
		}
	}
	return nil
}
