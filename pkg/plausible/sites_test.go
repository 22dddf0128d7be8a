package plausible

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

func TestSitesOfByTeams(t *testing.T) {
	pool, directory, d := teams(t)
	exec(t, pool, `UPDATE sites SET domain_changed_from = 'former.example.com', domain_changed_at = now() WHERE domain = 'second.example.com'`)
	keys := map[string][]string{
		d.OwnerKey:      {"demo.example.com owner", "second.example.com owner"},
		"legacy":        {"demo.example.com owner", "other.example.org viewer", "second.example.com owner"},
		d.ViewerKey:     {"demo.example.com viewer", "second.example.com viewer"},
		d.EditorKey:     {"demo.example.com editor"},
		"guest":         {"second.example.com viewer"},
		"former member": nil,
		d.OtherSiteKey:  {"other.example.org owner"},
	}
	for key, want := range keys {
		sites, around, err := directory.SitesOf(t.Context(), key, database.Page[string]{Limit: 100})
		require.NoError(t, err)
		require.Equal(t, database.Around[string]{}, around)
		var got []string
		for _, s := range sites {
			got = append(got, s.Domain+" "+string(s.Role))
			// What is listed is what Access gives, with all that belongs to it.
			site, role, err := access(t, directory, key, s.Domain)
			require.NoError(t, err)
			require.Equal(t, SiteRole{Site: site, Role: role}, s)
		}
		require.Equal(t, want, got)
		for _, domain := range []string{d.Domain, d.OtherDomain, "second.example.com"} {
			if !slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(s, domain) }) {
				_, _, err := access(t, directory, key, domain)
				require.ErrorIs(t, err, ErrNoSite)
			}
		}
	}
	_, _, err := directory.SitesOf(t.Context(), "unknown", database.Page[string]{Limit: 100})
	require.ErrorIs(t, err, ErrUnknownKey)
}

func TestSitesOfByMemberships(t *testing.T) {
	directory, err := Open(t.Context(), v2(t), secret)
	require.NoError(t, err)
	for key, want := range map[string]SiteRole{
		"admin":  {Site{ID: 1, Domain: "old.example.com", Timezone: "Europe/Tallinn"}, "admin"},
		"viewer": {Site{ID: 1, Domain: "old.example.com", Timezone: "Europe/Tallinn"}, "viewer"},
		"nobody": {Site{ID: 2, Domain: "another.example.com", Timezone: "UTC"}, "owner"},
	} {
		sites, _, err := directory.SitesOf(t.Context(), key, database.Page[string]{Limit: 100})
		require.NoError(t, err)
		require.Equal(t, []SiteRole{want}, sites)
	}
	_, _, err = directory.SitesOf(t.Context(), "unknown", database.Page[string]{Limit: 100})
	require.ErrorIs(t, err, ErrUnknownKey)
}

func TestSitesOfInPages(t *testing.T) {
	pool, directory, d := current(t)
	want := []string{d.Domain}
	for i := range 6 {
		domain := fmt.Sprintf("%c.example.com", "zbyaxc"[i])
		exec(t, pool, fmt.Sprintf(`INSERT INTO sites (domain, team_id, domain_changed_from, inserted_at, updated_at) SELECT '%s', team_id, 'was-%s', now(), now() FROM sites WHERE id = %d`, domain, domain, d.SiteID))
		want = append(want, domain)
	}
	slices.Sort(want)
	list := func(page database.Page[string]) ([]string, database.Around[string]) {
		t.Helper()
		sites, around, err := directory.SitesOf(t.Context(), d.OwnerKey, page)
		require.NoError(t, err)
		var domains []string
		for _, s := range sites {
			domains = append(domains, s.Domain)
		}
		return domains, around
	}
	walk(t, want, list)

	// A position need not be a site's: what it was may be gone.
	between := "c.example.com/gone"
	next, _ := list(database.Page[string]{Limit: 1, After: &between})
	require.Equal(t, []string{"demo.example.com"}, next)
	previous, _ := list(database.Page[string]{Limit: 1, Before: &between})
	require.Equal(t, []string{"c.example.com"}, previous)
	for _, position := range []string{"a\x00", "\xff"} {
		for _, page := range []database.Page[string]{{Limit: 1, After: &position}, {Limit: 1, Before: &position}} {
			_, _, err := directory.SitesOf(t.Context(), d.OwnerKey, page)
			require.ErrorIs(t, err, ErrNoPosition)
		}
	}
}

// walk reads a list in pages of every size, there and back, and expects all of it each way.
func walk[T, P any](t *testing.T, want []T, list func(database.Page[P]) ([]T, database.Around[P])) {
	t.Helper()
	for limit := 1; limit <= len(want)+1; limit++ {
		var there, back []T
		page := database.Page[P]{Limit: limit}
		var around database.Around[P]
		for {
			var rows []T
			rows, around = list(page)
			require.Equal(t, page.After == nil, around.Before == nil, "only the first page has none before it")
			there = append(there, rows...)
			if around.After == nil {
				back = rows
				break
			}
			require.Len(t, rows, limit)
			page.After = around.After
		}
		require.Equal(t, want, there, "limit %d", limit)
		for around.Before != nil {
			var rows []T
			rows, around = list(database.Page[P]{Limit: limit, Before: around.Before})
			require.NotNil(t, around.After)
			back = append(slices.Clone(rows), back...)
		}
		require.Equal(t, want, back, "limit %d, backwards", limit)
	}
}

func TestWhatWasTakenAwayEndsAtOnce(t *testing.T) {
	pool, directory, d := current(t)
	role := func(key string) (Role, error) {
		_, role, err := access(t, directory, key, d.Domain)
		return role, err
	}
	listed := func(key string) int {
		sites, _, err := directory.SitesOf(t.Context(), key, database.Page[string]{Limit: 10})
		if err != nil {
			require.ErrorIs(t, err, ErrUnknownKey)
			return -1
		}
		return len(sites)
	}
	for _, c := range []struct {
		what, statement, key string
		role                 Role
		err                  error
		listed               int
	}{
		{"a role", `UPDATE team_memberships SET role = 'viewer' WHERE role = 'owner'`, d.OwnerKey, "viewer", nil, 1},
		{"a guest's role", `UPDATE guest_memberships SET role = 'viewer'`, d.EditorKey, "viewer", nil, 1},
		{"a guest's site", `DELETE FROM guest_memberships`, d.EditorKey, "", ErrNoSite, 0},
		{"a membership", `DELETE FROM team_memberships WHERE user_id = (SELECT id FROM users WHERE email = 'viewer@example.com')`, d.ViewerKey, "", ErrNoSite, 0},
		{"a key", `DELETE FROM api_keys WHERE user_id = (SELECT id FROM users WHERE email = 'owner@example.com')`, d.OwnerKey, "", ErrUnknownKey, -1},
		{"a user", `DELETE FROM users WHERE email = 'viewer@example.com'`, d.ViewerKey, "", ErrUnknownKey, -1},
	} {
		exec(t, pool, c.statement)
		got, err := role(c.key)
		require.Equal(t, []any{c.role, c.err}, []any{got, err}, c.what)
		require.Equal(t, c.listed, listed(c.key), c.what)
	}
}

// Every key of Plausible's may read, whatever scopes it has; the role tells what else.
func TestScopesNarrowNothing(t *testing.T) {
	pool, directory, d := current(t)
	for _, scopes := range []string{"{stats:read:*}", "{sites:provision:*}", "{}"} {
		exec(t, pool, `UPDATE api_keys SET scopes = '`+scopes+`'`)
		for key, want := range map[string]Role{d.OwnerKey: "owner", d.EditorKey: "editor", d.ViewerKey: "viewer"} {
			_, role, err := access(t, directory, key, d.Domain)
			require.NoError(t, err)
			require.Equal(t, want, role, scopes)
		}
	}
}

func TestSuperAdminsMayChangeEverySite(t *testing.T) {
	pool, _, d := teams(t)
	var viewer int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT id FROM users WHERE email = 'viewer@example.com'").Scan(&viewer))
	directory, err := Open(t.Context(), pool, secret, SuperAdmins(999999, viewer))
	require.NoError(t, err)
	for _, site := range []string{d.Domain, d.OtherDomain, fmt.Sprint(d.OtherSiteID)} {
		_, role, err := access(t, directory, d.ViewerKey, site)
		require.NoError(t, err)
		require.Equal(t, SuperAdmin, role)
	}
	_, _, err = access(t, directory, d.ViewerKey, "nothing.example.com")
	require.ErrorIs(t, err, ErrNoSite)
	sites, around, err := directory.SitesOf(t.Context(), d.ViewerKey, database.Page[string]{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []string{d.Domain, d.OtherDomain}, []string{sites[0].Domain, sites[1].Domain})
	require.Equal(t, []Role{SuperAdmin, SuperAdmin}, []Role{sites[0].Role, sites[1].Role})
	require.Equal(t, database.Around[string]{After: &d.OtherDomain}, around)

	// The others are what they were.
	_, role, err := access(t, directory, d.EditorKey, d.Domain)
	require.NoError(t, err)
	require.Equal(t, Role("editor"), role)
	_, _, err = access(t, directory, d.OwnerKey, d.OtherDomain)
	require.ErrorIs(t, err, ErrNoSite)
	exec(t, pool, fmt.Sprintf(`DELETE FROM api_keys WHERE user_id = %d`, viewer))
	_, _, err = access(t, directory, d.ViewerKey, d.Domain)
	require.ErrorIs(t, err, ErrUnknownKey)

	old, err := Open(t.Context(), v2(t), secret, SuperAdmins(3))
	require.NoError(t, err)
	_, role, err = access(t, old, "viewer", "another.example.com")
	require.NoError(t, err)
	require.Equal(t, SuperAdmin, role)
}

func TestAnySite(t *testing.T) {
	pool, directory, d := current(t)
	exec(t, pool, `UPDATE sites SET domain = 'new.example.com', domain_changed_from = 'demo.example.com' WHERE domain = 'demo.example.com'`)
	for name, id := range map[string]int64{"new.example.com": d.SiteID, "demo.example.com": d.SiteID, d.OtherDomain: d.OtherSiteID, fmt.Sprint(d.SiteID): d.SiteID} {
		site, err := directory.AnySite(t.Context(), name)
		require.NoError(t, err, name)
		require.Equal(t, id, site.ID, name)
		require.False(t, site.StatsAt.IsZero())
	}
	for _, name := range []string{"", "nothing.example.com", "999999", "99999999999999999999", "demo\x00", "\xff", "' OR true --", "%"} {
		_, err := directory.AnySite(t.Context(), name)
		require.ErrorIs(t, err, ErrNoSite, name)
	}
	old, err := Open(t.Context(), v2(t), secret)
	require.NoError(t, err)
	site, err := old.AnySite(t.Context(), "old.example.com")
	require.NoError(t, err)
	require.Equal(t, Site{ID: 1, Domain: "old.example.com", Timezone: "Europe/Tallinn"}, site)
}
