package plausible

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	demo "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

const secret = "a secret key base"

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), "PLAUSIBLE_DATABASE_URL", url, 4)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func exec(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := pool.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// current is a database of Community Edition v3.2 with the demo's sites.
func current(t *testing.T) (*pgxpool.Pool, *Directory, demo.Demo) {
	t.Helper()
	url := devstacktest.Postgres(t)
	require.NoError(t, demo.CreatePostgres(t.Context(), url))
	seeded, err := demo.Seed(t.Context(), url, secret)
	require.NoError(t, err)
	pool := open(t, url)
	directory, err := Open(t.Context(), pool, secret)
	require.NoError(t, err)
	return pool, directory, seeded
}

// access is what a key may do with a site, taken apart.
func access(t *testing.T, directory *Directory, key, site string) (Site, Role, error) {
	t.Helper()
	granted, err := directory.Access(t.Context(), key, site)
	return granted.Site, granted.Role, err
}

func addKey(t *testing.T, pool *pgxpool.Pool, raw, email, team string) {
	t.Helper()
	column, value := "", ""
	if team != "" {
		column, value = "team_id, ", team+", "
	}
	exec(t, pool, fmt.Sprintf(`INSERT INTO api_keys (user_id, %sname, key_hash, key_prefix, inserted_at, updated_at)
		SELECT u.id, %s'k', '%s', 'k', now(), now() FROM users u WHERE u.email = '%s'`, column, value, HashKey(secret, raw), email))
}

// The vector is that of the description of Plausible's API keys.
func TestKeysAreHashedAsPlausibleDoes(t *testing.T) {
	require.Equal(t, "7f9d795cc5de48833b874612dd5baacd73b678eebce5208ca1ecf2e40177e9c6", HashKey(strings.Repeat("x", 64), strings.Repeat("k", 64)))
}

func TestRolesThatMayChange(t *testing.T) {
	for role, may := range map[Role]bool{SuperAdmin: true, "owner": true, "admin": true, "editor": true, "viewer": false, "billing": false, "guest": false, "": false} {
		require.Equal(t, may, role.CanChange(), role)
	}
}

// teams is current with members and guests of all kinds: keys of their names besides the demo's.
func teams(t *testing.T) (*pgxpool.Pool, *Directory, demo.Demo) {
	t.Helper()
	pool, directory, d := current(t)
	exec(t, pool,
		// A second site of the demo's team, to which the guest has no access.
		`INSERT INTO sites (id, domain, timezone, team_id, inserted_at, updated_at) SELECT 900, 'second.example.com', 'Etc/UTC', team_id, now(), now() FROM sites WHERE domain = 'demo.example.com'`,
		// A guest of the second site who only views it; and the demo's owner views the other team.
		`INSERT INTO users (email, name, inserted_at, updated_at) VALUES ('guest@example.com', 'g', now(), now())`,
		`INSERT INTO team_memberships (id, team_id, user_id, role, inserted_at, updated_at) SELECT 900, s.team_id, u.id, 'guest', now(), now() FROM sites s, users u WHERE s.id = 900 AND u.email = 'guest@example.com'`,
		`INSERT INTO guest_memberships (team_membership_id, site_id, role, inserted_at, updated_at) VALUES (900, 900, 'viewer', now(), now())`,
		// The viewer was a guest who edited before they joined the team.
		`INSERT INTO guest_memberships (team_membership_id, site_id, role, inserted_at, updated_at) SELECT m.id, 900, 'editor', now(), now() FROM team_memberships m JOIN users u ON u.id = m.user_id WHERE u.email = 'viewer@example.com'`,
		`INSERT INTO team_memberships (team_id, user_id, role, inserted_at, updated_at) SELECT s.team_id, u.id, 'viewer', now(), now() FROM sites s, users u WHERE s.domain = 'other.example.org' AND u.email = 'owner@example.com'`,
		// Stale since v3, and not to be read.
		`INSERT INTO site_memberships (site_id, user_id, role, inserted_at, updated_at) SELECT s.id, u.id, 'owner', now(), now() FROM sites s, users u WHERE u.email = 'viewer@example.com'`,
	)
	addKey(t, pool, "legacy", "owner@example.com", "NULL")
	addKey(t, pool, "guest", "guest@example.com", "(SELECT team_id FROM sites WHERE id = 900)")
	addKey(t, pool, "former member", "other@example.org", "(SELECT team_id FROM sites WHERE id = 900)")

	return pool, directory, d
}

func TestAccessByTeams(t *testing.T) {
	pool, directory, d := teams(t)
	for _, c := range []struct {
		who, key, site string
		role           Role
		err            error
	}{
		{"owner", d.OwnerKey, d.Domain, "owner", nil},
		{"owner, second site", d.OwnerKey, "second.example.com", "owner", nil},
		{"owner, by id", d.OwnerKey, "900", "owner", nil},
		{"owner, with a key of another team", d.OwnerKey, d.OtherDomain, "", ErrNoSite},
		{"owner, with a key of before teams", "legacy", d.Domain, "owner", nil},
		{"owner, with a key of before teams, the other team", "legacy", d.OtherDomain, "viewer", nil},
		{"viewer", d.ViewerKey, d.Domain, "viewer", nil},
		{"viewer, second site", d.ViewerKey, "second.example.com", "viewer", nil},
		{"viewer, other team", d.ViewerKey, d.OtherDomain, "", ErrNoSite},
		{"guest editor", d.EditorKey, d.Domain, "editor", nil},
		{"guest editor, second site", d.EditorKey, "second.example.com", "", ErrNoSite},
		{"guest viewer", "guest", "second.example.com", "viewer", nil},
		{"guest viewer, demo site", "guest", d.Domain, "", ErrNoSite},
		{"key of a team that its user has left", "former member", d.Domain, "", ErrNoSite},
		{"other owner", d.OtherSiteKey, d.OtherDomain, "owner", nil},
		{"other owner, demo site", d.OtherSiteKey, d.Domain, "", ErrNoSite},
		{"other owner, demo site by id", d.OtherSiteKey, fmt.Sprint(d.SiteID), "", ErrNoSite},
		{"unknown key", strings.Repeat("k", 64), d.Domain, "", ErrUnknownKey},
		{"unknown key and site", "x", "nothing.example.com", "", ErrUnknownKey},
		{"the hash instead of the key", HashKey(secret, d.OwnerKey), d.Domain, "", ErrUnknownKey},
		{"unknown site", d.OwnerKey, "nothing.example.com", "", ErrNoSite},
		{"unknown id", d.OwnerKey, "999999", "", ErrNoSite},
		{"too large an id", d.OwnerKey, "99999999999999999999", "", ErrNoSite},
		{"nothing", d.OwnerKey, "", "", ErrNoSite},
		{"NUL", d.OwnerKey, "demo\x00", "", ErrNoSite},
		{"not UTF-8", d.OwnerKey, "\xff", "", ErrNoSite},
		{"a pattern", d.OwnerKey, "demo.example.%", "", ErrNoSite},
		{"SQL", d.OwnerKey, "' OR true --", "", ErrNoSite},
	} {
		site, role, err := access(t, directory, c.key, c.site)
		require.Equal(t, []any{c.role, c.err}, []any{role, err}, c.who)
		require.Equal(t, err == nil, site.ID != 0, c.who)
	}
	site, _, err := access(t, directory, d.OwnerKey, d.Domain)
	require.NoError(t, err)
	require.Equal(t, []any{d.SiteID, d.Domain, "Europe/Tallinn"}, []any{site.ID, site.Domain, site.Timezone})
	require.WithinDuration(t, time.Now().AddDate(-1, 0, 0), site.StatsAt, 48*time.Hour)

	granted, err := directory.Access(t.Context(), d.EditorKey, d.Domain)
	require.NoError(t, err)
	var userID int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT user_id FROM api_keys WHERE key_hash = $1", HashKey(secret, d.EditorKey)).Scan(&userID))
	require.Equal(t, []any{userID, d.EditorKey[:6]}, []any{granted.UserID, granted.KeyPrefix})
}

func TestAFormerDomainWorksWhilePlausibleAcceptsIt(t *testing.T) {
	pool, directory, d := current(t)
	exec(t, pool, `UPDATE sites SET domain = 'new.example.com', domain_changed_from = 'demo.example.com', domain_changed_at = now() WHERE domain = 'demo.example.com'`)
	for _, name := range []string{"new.example.com", "demo.example.com"} {
		site, _, err := access(t, directory, d.OwnerKey, name)
		require.NoError(t, err, name)
		require.Equal(t, []any{d.SiteID, "new.example.com"}, []any{site.ID, site.Domain})
	}
	// The name's new bearer goes first.
	exec(t, pool, `INSERT INTO sites (id, domain, timezone, team_id, inserted_at, updated_at) SELECT 900, 'demo.example.com', 'Etc/UTC', team_id, now(), now() FROM sites WHERE domain = 'new.example.com'`)
	site, _, err := access(t, directory, d.OwnerKey, "demo.example.com")
	require.NoError(t, err)
	require.Equal(t, int64(900), site.ID)
	exec(t, pool, `DELETE FROM sites WHERE id = 900`, `UPDATE sites SET domain_changed_from = NULL`)
	_, _, err = access(t, directory, d.OwnerKey, "demo.example.com")
	require.ErrorIs(t, err, ErrNoSite)
}

func TestSitesAndGoals(t *testing.T) {
	pool, directory, d := current(t)
	exec(t, pool, `UPDATE goals SET event_name = ' Signup ' WHERE event_name = 'Signup'`)
	sites, err := directory.Sites(t.Context(), []int64{d.SiteID, d.OtherSiteID, 999999})
	require.NoError(t, err)
	require.Len(t, sites, 2)
	require.Equal(t, []string{d.OtherDomain, "Etc/UTC"}, []string{sites[d.OtherSiteID].Domain, sites[d.OtherSiteID].Timezone})
	require.False(t, sites[d.SiteID].StatsAt.IsZero())

	goals, err := directory.Goals(t.Context(), []int64{d.Goals.Signup, d.Goals.Purchase, d.Goals.Blog, d.Goals.BlogScroll, 999999})
	require.NoError(t, err)
	depth := 75
	require.Equal(t, map[int64]Goal{
		d.Goals.Signup:     {ID: d.Goals.Signup, SiteID: d.SiteID, DisplayName: "Signup", EventName: "Signup", CustomProps: map[string]string{}},
		d.Goals.Purchase:   {ID: d.Goals.Purchase, SiteID: d.SiteID, DisplayName: "Purchase business", EventName: "Purchase", CustomProps: map[string]string{"plan": "business"}},
		d.Goals.Blog:       {ID: d.Goals.Blog, SiteID: d.SiteID, DisplayName: "Visit /blog/*", PagePath: "/blog/*", CustomProps: map[string]string{}},
		d.Goals.BlogScroll: {ID: d.Goals.BlogScroll, SiteID: d.SiteID, DisplayName: "Scroll 75% on /blog/*", PagePath: "/blog/*", ScrollThreshold: &depth, CustomProps: map[string]string{}},
	}, goals)
	none, err := directory.Goals(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
}

// v2 is the tables of Community Edition v2.0: members of sites instead of teams, and goals
// without names.
func v2(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := open(t, devstacktest.Postgres(t))
	exec(t, pool,
		`CREATE TYPE site_membership_role AS ENUM ('owner', 'admin', 'viewer')`,
		`CREATE TABLE schema_migrations (version bigint PRIMARY KEY, inserted_at timestamp(0))`,
		`CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL)`,
		`CREATE TABLE sites (id bigserial PRIMARY KEY, domain varchar(255) NOT NULL UNIQUE, timezone varchar(255) NOT NULL DEFAULT 'UTC',
			native_stats_start_at timestamp(0), domain_changed_from varchar(255) UNIQUE)`,
		`CREATE TABLE site_memberships (id bigserial PRIMARY KEY, site_id bigint NOT NULL, user_id bigint NOT NULL, role site_membership_role NOT NULL)`,
		`CREATE TABLE goals (id bigserial PRIMARY KEY, site_id bigint NOT NULL, event_name text, page_path text)`,
		`CREATE EXTENSION citext`,
		`CREATE TABLE spike_notifications (id bigserial PRIMARY KEY, site_id bigint NOT NULL UNIQUE, threshold integer NOT NULL, last_sent timestamp(0), recipients citext[] NOT NULL DEFAULT '{}')`,
		`CREATE TABLE api_keys (id bigserial PRIMARY KEY, user_id bigint NOT NULL, name varchar(255) NOT NULL, key_hash varchar(255) NOT NULL, key_prefix varchar(255) NOT NULL,
			inserted_at timestamp(0), updated_at timestamp(0))`,
		`INSERT INTO schema_migrations VALUES (20230530161856)`,
		`INSERT INTO users (email) VALUES ('owner@x'), ('admin@x'), ('viewer@x'), ('nobody@x')`,
		`INSERT INTO sites (domain, timezone) VALUES ('old.example.com', 'Europe/Tallinn'), ('another.example.com', 'UTC')`,
		`INSERT INTO site_memberships (site_id, user_id, role) VALUES (1, 1, 'owner'), (1, 2, 'admin'), (1, 3, 'viewer'), (2, 4, 'owner')`,
		`INSERT INTO goals (site_id, event_name, page_path) VALUES (1, 'Signup', NULL), (1, NULL, '/a*')`,
	)
	for _, user := range []string{"owner", "admin", "viewer", "nobody"} {
		addKey(t, pool, user, user+"@x", "")
	}
	return pool
}

func TestVersion2IsReadToo(t *testing.T) {
	directory, err := Open(t.Context(), v2(t), secret)
	require.NoError(t, err)
	for key, want := range map[string]Role{"owner": "owner", "admin": "admin", "viewer": "viewer"} {
		for _, name := range []string{"old.example.com", "1"} {
			site, role, err := access(t, directory, key, name)
			require.NoError(t, err)
			require.Equal(t, want, role)
			require.Equal(t, Site{ID: 1, Domain: "old.example.com", Timezone: "Europe/Tallinn"}, site)
		}
	}
	_, _, err = access(t, directory, "nobody", "old.example.com")
	require.ErrorIs(t, err, ErrNoSite)
	_, _, err = access(t, directory, "unknown", "old.example.com")
	require.ErrorIs(t, err, ErrUnknownKey)
	goals, err := directory.Goals(t.Context(), []int64{1, 2})
	require.NoError(t, err)
	require.Equal(t, map[int64]Goal{
		1: {ID: 1, SiteID: 1, DisplayName: "Signup", EventName: "Signup", CustomProps: map[string]string{}},
		2: {ID: 2, SiteID: 1, DisplayName: "Visit /a*", PagePath: "/a*", CustomProps: map[string]string{}},
	}, goals)
}

func TestOpenRefusesWhatIsNotPlausible(t *testing.T) {
	empty := open(t, devstacktest.Postgres(t))
	_, err := Open(t.Context(), empty, secret)
	require.ErrorContains(t, err, "the database of PLAUSIBLE_DATABASE_URL is not Plausible's, or its role may not use the schema: it has no sites.id")

	old := v2(t)
	exec(t, old, `UPDATE schema_migrations SET version = 20230101000000`)
	_, err = Open(t.Context(), old, secret)
	require.ErrorContains(t, err, "too old: its schema is 20230101000000")

	gone := open(t, devstacktest.Postgres(t))
	gone.Close()
	_, err = Open(t.Context(), gone, secret)
	require.ErrorContains(t, err, "probe PLAUSIBLE_DATABASE_URL")
}
