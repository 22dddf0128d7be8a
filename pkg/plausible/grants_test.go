package plausible

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// reader is a connection of the role that deploy/plausible-grants.sql makes, which may try to
// write: not the default of its transactions is on trial, but its rights.
func reader(t *testing.T, admin *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	var existed bool
	require.NoError(t, admin.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'plausible_webhooks')").Scan(&existed))
	runGrants(t, admin)
	exec(t, admin, `ALTER ROLE plausible_webhooks PASSWORD 'test'`)
	t.Cleanup(func() {
		statements := `DROP OWNED BY plausible_webhooks`
		if !existed {
			statements += `; DROP ROLE plausible_webhooks`
		}
		_, err := admin.Exec(context.WithoutCancel(t.Context()), statements)
		require.NoError(t, err)
	})
	address, err := url.Parse(admin.Config().ConnString())
	require.NoError(t, err)
	address.User = url.UserPassword("plausible_webhooks", "test")
	config, err := pgxpool.ParseConfig(address.String())
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["default_transaction_read_only"] = "off"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func runGrants(t *testing.T, admin *pgxpool.Pool) {
	t.Helper()
	grants, err := os.ReadFile("../../deploy/plausible-grants.sql")
	require.NoError(t, err)
	exec(t, admin, string(grants))
}

// everything calls each method once; none may fail.
func everything(t *testing.T, directory *Directory, key, domain string) {
	t.Helper()
	site, _, err := access(t, directory, key, domain)
	require.NoError(t, err)
	_, err = directory.AnySite(t.Context(), domain)
	require.NoError(t, err)
	listed, _, err := directory.SitesOf(t.Context(), key, database.Page[string]{Limit: 10})
	require.NoError(t, err)
	require.NotEmpty(t, listed)
	sites, err := directory.Sites(t.Context(), []int64{site.ID})
	require.NoError(t, err)
	require.Len(t, sites, 1)
	goals, _, err := directory.GoalsOf(t.Context(), site.ID, database.Page[int64]{Limit: 10})
	require.NoError(t, err)
	require.NotEmpty(t, goals)
	byID, err := directory.Goals(t.Context(), []int64{goals[0].ID})
	require.NoError(t, err)
	require.Len(t, byID, 1)
	notifications, err := directory.Notifications(t.Context(), site.ID)
	require.NoError(t, err)
	require.NotEmpty(t, notifications)
	require.NoError(t, directory.Ping(t.Context()))
}

func TestTheGrantsAreEnoughAndNoMore(t *testing.T) {
	admin, _, d := current(t)
	exec(t, admin, fmt.Sprintf(`INSERT INTO spike_notifications (site_id, threshold, inserted_at, updated_at) VALUES (%d, 1, now(), now())`, d.SiteID))
	pool := reader(t, admin)
	directory, err := Open(t.Context(), pool, secret)
	require.NoError(t, err)
	everything(t, directory, d.OwnerKey, d.Domain)

	var readable, writable, readOnly string
	require.NoError(t, admin.QueryRow(t.Context(), `
		WITH tables AS (SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'v'))
		SELECT (SELECT string_agg(relname || ': ' || columns, '; ' ORDER BY relname) FROM (
		         SELECT relname, CASE WHEN has_table_privilege('plausible_webhooks', t.oid, 'SELECT') THEN '*' ELSE string_agg(attname, ', ' ORDER BY attname) END AS columns
		         FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0
		         WHERE has_column_privilege('plausible_webhooks', t.oid, a.attnum, 'SELECT') GROUP BY t.oid, relname) AS r),
		       (SELECT coalesce(string_agg(relname, ', '), '') FROM tables WHERE CASE WHEN relname LIKE '%_seq'
		         THEN has_sequence_privilege('plausible_webhooks', oid, 'USAGE, SELECT, UPDATE')
		         ELSE has_table_privilege('plausible_webhooks', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
		           OR has_any_column_privilege('plausible_webhooks', oid, 'INSERT, UPDATE, REFERENCES') END),
		       (SELECT array_to_string(rolconfig, ', ') FROM pg_roles WHERE rolname = 'plausible_webhooks')`).Scan(&readable, &writable, &readOnly))
	require.Equal(t, "api_keys: key_hash, key_prefix, team_id, user_id; goals: *; guest_memberships: *; schema_migrations: *; sites: *; "+
		"spike_notifications: recipients, site_id, threshold, type; team_memberships: *", readable)
	require.Empty(t, writable)
	require.Contains(t, readOnly, "default_transaction_read_only=on")

	for _, statement := range []string{
		"SELECT password_hash FROM users",
		"SELECT email FROM users",
		"SELECT salt FROM salts",
		"SELECT name FROM api_keys",
		"SELECT * FROM api_keys",
		"SELECT last_sent FROM spike_notifications",
		"SELECT slug FROM shared_links",
		"SELECT token_hash FROM plugins_api_tokens",
		"SELECT id FROM site_memberships",
		"INSERT INTO goals (site_id, event_name, display_name, inserted_at, updated_at) VALUES (1, 'x', 'x', now(), now())",
		"UPDATE sites SET public = true",
		"UPDATE spike_notifications SET last_sent = now()",
		"UPDATE team_memberships SET role = 'owner'",
		"DELETE FROM api_keys",
		"TRUNCATE guest_memberships",
		"DROP TABLE goals",
	} {
		_, err := pool.Exec(t.Context(), statement)
		require.Regexp(t, "permission denied|must be owner", err, statement)
	}

	// What was granted by hand before ends when the file is run again.
	exec(t, admin, `GRANT SELECT ON api_keys, users TO plausible_webhooks`, `GRANT SELECT (salt) ON salts TO plausible_webhooks`)
	runGrants(t, admin)
	for _, statement := range []string{"SELECT name FROM api_keys", "SELECT password_hash FROM users", "SELECT salt FROM salts"} {
		_, err := pool.Exec(t.Context(), statement)
		require.ErrorContains(t, err, "permission denied")
	}
	everything(t, directory, d.OwnerKey, d.Domain)
}

// After the upgrade from v2 to v3, whose tables the role may not read yet, the memberships of v2
// are still there. They must not be believed.
func TestTheGrantsFollowAnUpgrade(t *testing.T) {
	admin := v2(t)
	exec(t, admin, `INSERT INTO spike_notifications (site_id, threshold) VALUES (1, 1)`)
	pool := reader(t, admin)
	directory, err := Open(t.Context(), pool, secret)
	require.NoError(t, err)
	everything(t, directory, "owner", "old.example.com")

	exec(t, admin,
		`CREATE TABLE team_memberships (id bigserial PRIMARY KEY, team_id bigint NOT NULL, user_id bigint NOT NULL, role varchar(255) NOT NULL)`,
		`CREATE TABLE guest_memberships (id bigserial PRIMARY KEY, team_membership_id bigint NOT NULL, site_id bigint NOT NULL, role varchar(255) NOT NULL)`,
		`ALTER TABLE sites ADD COLUMN team_id bigint DEFAULT 1`,
		`ALTER TABLE api_keys ADD COLUMN team_id bigint`,
		`INSERT INTO team_memberships (team_id, user_id, role) VALUES (1, 1, 'viewer')`,
	)
	_, err = Open(t.Context(), pool, secret)
	var refused *NoGrantError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, `GRANT SELECT (team_id) ON api_keys TO "plausible_webhooks"; `+
		`GRANT SELECT (id, team_id, user_id, role) ON team_memberships TO "plausible_webhooks"; `+
		`GRANT SELECT (team_membership_id, site_id, role) ON guest_memberships TO "plausible_webhooks"`, refused.Grant)

	runGrants(t, admin)
	directory, err = Open(t.Context(), pool, secret)
	require.NoError(t, err)
	_, role, err := access(t, directory, "owner", "old.example.com")
	require.NoError(t, err)
	require.Equal(t, Role("viewer"), role)
	everything(t, directory, "owner", "old.example.com")
}

// The statement that an error names is the one that was missing.
func TestAMissingGrantIsNamed(t *testing.T) {
	admin, _, d := current(t)
	exec(t, admin, fmt.Sprintf(`INSERT INTO spike_notifications (site_id, threshold, inserted_at, updated_at) VALUES (%d, 1, now(), now())`, d.SiteID))
	pool := reader(t, admin)
	for _, table := range []string{"sites", "goals", "api_keys", "schema_migrations", "team_memberships", "guest_memberships"} {
		exec(t, admin, "REVOKE SELECT ON "+table+" FROM plausible_webhooks")
		_, err := Open(t.Context(), pool, secret)
		var refused *NoGrantError
		require.ErrorAs(t, err, &refused, table)
		require.Contains(t, err.Error(), "deploy/plausible-grants.sql")
		exec(t, admin, refused.Grant)
		directory, err := Open(t.Context(), pool, secret)
		require.NoError(t, err)
		everything(t, directory, d.OwnerKey, d.Domain)
	}

	// The notifications are asked for rarely: their right is missed when they are.
	for _, lost := range []string{"SELECT", "SELECT (type)", "SELECT (recipients)"} {
		exec(t, admin, "REVOKE "+lost+" ON spike_notifications FROM plausible_webhooks")
		directory, err := Open(t.Context(), pool, secret)
		require.NoError(t, err)
		_, err = directory.Notifications(t.Context(), d.SiteID)
		var refused *NoGrantError
		require.ErrorAs(t, err, &refused, lost)
		require.Equal(t, `GRANT SELECT (site_id, threshold, recipients, type) ON spike_notifications TO "plausible_webhooks"`, refused.Grant)
		exec(t, admin, refused.Grant)
		everything(t, directory, d.OwnerKey, d.Domain)
	}
}

// A role of another name, with the right for whole tables as it was documented once, is enough.
func TestWholeTablesMayBeGranted(t *testing.T) {
	admin, _, d := current(t)
	exec(t, admin, fmt.Sprintf(`INSERT INTO spike_notifications (site_id, threshold, inserted_at, updated_at) VALUES (%d, 1, now(), now())`, d.SiteID))
	role := strings.ToLower(t.Name())
	exec(t, admin, `CREATE ROLE `+role,
		`GRANT SELECT ON sites, goals, api_keys, schema_migrations, site_memberships, teams, team_memberships, guest_memberships TO `+role)
	t.Cleanup(func() {
		_, err := admin.Exec(context.WithoutCancel(t.Context()), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(t, err)
	})
	config := admin.Config()
	config.ConnConfig.RuntimeParams["role"] = role
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	directory, err := Open(t.Context(), pool, secret)
	require.NoError(t, err)
	_, err = directory.Notifications(t.Context(), d.SiteID)
	var refused *NoGrantError
	require.ErrorAs(t, err, &refused)
	exec(t, admin, refused.Grant)
	everything(t, directory, d.OwnerKey, d.Domain)
}
