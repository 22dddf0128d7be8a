// Package plausible is a read-only view of Plausible's own Postgres database: sites, goals,
// API keys, roles and e-mail notifications. It writes nothing, and reads nothing that is not
// needed: no salts, no password hashes, no addresses. deploy/plausible-grants.sql lets a role
// read this much and no more.
//
// Supported are Community Edition v2.0 and later. Tables and columns that came later are probed
// once, when the database is opened: after an upgrade of Plausible it is to be opened anew.
package plausible

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// oldestMigration is the last one of Community Edition v2.0.0.
const oldestMigration = 20230530161856

// Directory reads one Plausible installation.
type Directory struct {
	pool        *pgxpool.Pool
	keySalt     string // Plausible's SECRET_KEY_BASE, as its environment has it
	superAdmins []int64
	role        string // of Postgres, whose rights count
	features    features
}

// Option changes how a Directory sees an installation.
type Option func(*Directory)

// SuperAdmins names the users whose keys may do everything with every site, whatever team the
// key is of: Plausible's ADMIN_USER_IDS. Plausible's own API treats their keys so, but from
// v2.1 on not in Community Edition, which has no such users: there the list is this product's
// alone.
func SuperAdmins(userIDs ...int64) Option {
	return func(d *Directory) { d.superAdmins = userIDs }
}

// Open probes the database behind the pool. It refuses one that is not Plausible's, is older
// than v2.0, or may not be read as far as it must be, which is a NoGrantError. secretKeyBase is
// needed only where API keys are checked.
func Open(ctx context.Context, pool *pgxpool.Pool, secretKeyBase string, options ...Option) (*Directory, error) {
	d := &Directory{pool: pool, keySalt: secretKeyBase}
	for _, option := range options {
		option(d)
	}
	if err := d.probe(ctx); err != nil {
		return nil, err
	}
	var version int64
	if err := pool.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM schema_migrations").Scan(&version); err != nil {
		return nil, fmt.Errorf("read the version of PLAUSIBLE_DATABASE_URL: %w", err)
	}
	if version < oldestMigration {
		return nil, fmt.Errorf("the Plausible of PLAUSIBLE_DATABASE_URL is too old: its schema is %d, Community Edition v2.0 has %d", version, int64(oldestMigration))
	}
	return d, nil
}

// Ping tells whether the database answers.
func (d *Directory) Ping(ctx context.Context) error { return d.pool.Ping(ctx) }
