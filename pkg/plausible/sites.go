package plausible

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// Site is a website that Plausible watches.
type Site struct {
	ID       int64
	Domain   string
	Timezone string    // IANA
	StatsAt  time.Time // rows older than this do not count: stats were reset, or began then; zero: all count
}

// Role is what a key's user may do with a site: owner, admin, editor, viewer or billing, as
// Plausible has it, or SuperAdmin.
type Role string

// SuperAdmin is the role of those whom the option SuperAdmins names, with every site.
const SuperAdmin Role = "super_admin"

// CanChange tells whether the role may change a site's settings, and so its webhooks.
func (r Role) CanChange() bool {
	return r == "owner" || r == "admin" || r == "editor" || r == SuperAdmin
}

// SiteRole is a site with the role that a key has there.
type SiteRole struct {
	Site
	Role Role
}

// Grant is what a key may do with a site, and whose it is.
type Grant struct {
	SiteRole
	UserID    int64
	KeyPrefix string // the key's beginning, which Plausible shows its users too
}

// The refusals of Access, AnySite and SitesOf.
var (
	ErrUnknownKey = errors.New("the API key is unknown")
	ErrNoSite     = errors.New("the site does not exist or the key has no access to it")
	ErrNoPosition = errors.New("the page begins at what cannot be a domain")
)

// HashKey is Plausible's stored form of an API key: lower-case hex of SHA-256 over the secret
// key base and the key.
func HashKey(secretKeyBase, rawKey string) string {
	sum := sha256.Sum256([]byte(secretKeyBase + rawKey))
	return hex.EncodeToString(sum[:])
}

const everySite = `
	SELECT s.id, s.domain, s.timezone, s.native_stats_start_at, 'super_admin'
	FROM sites s
	WHERE true`

// A key with a team works for that team's sites only; one without, of before v3.0, for all that
// its user can see. A guest's role is the one that they have for this very site.
const sitesByTeams = `
	SELECT s.id, s.domain, s.timezone, s.native_stats_start_at, coalesce(g.role::text, m.role::text)
	FROM team_memberships m
	JOIN sites s ON s.team_id = m.team_id
	LEFT JOIN guest_memberships g ON g.team_membership_id = m.id AND g.site_id = s.id AND m.role::text = 'guest'
	WHERE m.user_id = $1 AND (m.team_id = $2 OR $2::bigint IS NULL) AND (m.role::text <> 'guest' OR g.role IS NOT NULL)`

const sitesByMemberships = `
	SELECT s.id, s.domain, s.timezone, s.native_stats_start_at, m.role::text
	FROM site_memberships m
	JOIN sites s ON s.id = m.site_id
	WHERE m.user_id = $1`

// sitesOf is the query of the sites that a key can see, to which conditions can be added. It is
// asked anew each time: a key or a role that was taken away has ended.
//
// The key's scopes are not asked. Plausible issues two, stats:read:* and sites:provision:*, and
// takes every key to hold stats:read:* and sites:read:* besides: so every key may look. Who may
// change is told by the role, for Community Edition issues stats:read:* alone, to owners too.
func (d *Directory) sitesOf(ctx context.Context, rawKey string) (whose Grant, query string, arguments []any, err error) {
	team := "NULL::bigint"
	if d.features.teams {
		team = "team_id"
	}
	var teamID *int64
	err = d.pool.QueryRow(ctx, "SELECT user_id, "+team+", key_prefix FROM api_keys WHERE key_hash = $1", HashKey(d.keySalt, rawKey)).
		Scan(&whose.UserID, &teamID, &whose.KeyPrefix)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return whose, "", nil, ErrUnknownKey
	case err != nil:
		return whose, "", nil, fmt.Errorf("look up the key: %w", err)
	case slices.Contains(d.superAdmins, whose.UserID):
		return whose, everySite, nil, nil
	case d.features.teams:
		return whose, sitesByTeams, []any{whose.UserID, teamID}, nil
	default:
		return whose, sitesByMemberships, []any{whose.UserID}, nil
	}
}

// Access finds what a raw API key may do with a site, which is named by its domain, by its
// former domain while Plausible still accepts that, or by its id. The errors are ErrUnknownKey
// and ErrNoSite, and those of the database.
func (d *Directory) Access(ctx context.Context, rawKey, site string) (Grant, error) {
	granted, query, arguments, err := d.sitesOf(ctx, rawKey)
	if err != nil {
		return Grant{}, err
	}
	granted.SiteRole, err = d.named(ctx, query, arguments, site)
	return granted, err
}

// AnySite finds a site by the names of Access, for the operator, who needs no key. The errors
// are ErrNoSite and those of the database.
func (d *Directory) AnySite(ctx context.Context, site string) (Site, error) {
	found, err := d.named(ctx, everySite, nil, site)
	return found.Site, err
}

// SitesOf lists the sites that a raw API key can see, by domain, with its role in each. The
// page's positions are domains. The errors are ErrUnknownKey and ErrNoPosition, and those of the
// database.
func (d *Directory) SitesOf(ctx context.Context, rawKey string, page database.Page[string]) ([]SiteRole, database.Around[string], error) {
	_, query, arguments, err := d.sitesOf(ctx, rawKey)
	if err != nil {
		return nil, database.Around[string]{}, err
	}
	return d.list(ctx, query, arguments, page)
}

// AllSites lists every site, for the operator, as SitesOf does.
func (d *Directory) AllSites(ctx context.Context, page database.Page[string]) ([]SiteRole, database.Around[string], error) {
	return d.list(ctx, everySite, nil, page)
}

func (d *Directory) list(ctx context.Context, query string, arguments []any, page database.Page[string]) ([]SiteRole, database.Around[string], error) {
	for _, position := range []*string{page.After, page.Before} {
		if position != nil && !storable(*position) {
			return nil, database.Around[string]{}, ErrNoPosition
		}
	}
	end, arguments := tail(page, "s.domain", false, arguments)
	rows, err := d.pool.Query(ctx, query+end, arguments...)
	if err != nil {
		return nil, database.Around[string]{}, fmt.Errorf("list sites: %w", err)
	}
	sites, err := pgx.CollectRows(rows, scanSite)
	if err != nil {
		return nil, database.Around[string]{}, fmt.Errorf("list sites: %w", err)
	}
	sites, around := database.Cut(page, sites, func(s SiteRole) string { return s.Domain })
	return sites, around, nil
}

// Sites reads the sites with the given ids; those that no longer exist are missing in the map.
func (d *Directory) Sites(ctx context.Context, ids []int64) (map[int64]Site, error) {
	rows, err := d.pool.Query(ctx, everySite+" AND s.id = ANY ($1)", ids)
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	sites, err := pgx.CollectRows(rows, scanSite)
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	byID := make(map[int64]Site, len(sites))
	for _, s := range sites {
		byID[s.ID] = s.Site
	}
	return byID, nil
}

// named finds the one of a query's sites that has the name. A domain's bearer goes before the
// one that had it formerly.
func (d *Directory) named(ctx context.Context, query string, arguments []any, name string) (SiteRole, error) {
	if !storable(name) {
		return SiteRole{}, ErrNoSite
	}
	parameter := fmt.Sprintf("$%d", len(arguments)+1)
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		query, arguments = query+" AND s.id = "+parameter, append(arguments, id)
	} else {
		query += fmt.Sprintf(" AND (s.domain = %[1]s OR s.domain_changed_from = %[1]s) ORDER BY s.domain = %[1]s DESC LIMIT 1", parameter)
		arguments = append(arguments, name)
	}
	rows, err := d.pool.Query(ctx, query, arguments...)
	if err != nil {
		return SiteRole{}, fmt.Errorf("look up the site: %w", err)
	}
	found, err := pgx.CollectOneRow(rows, scanSite)
	if errors.Is(err, pgx.ErrNoRows) {
		return SiteRole{}, ErrNoSite
	}
	if err != nil {
		return SiteRole{}, fmt.Errorf("look up the site: %w", err)
	}
	return found, nil
}

// storable tells whether a text could be in a column: others Postgres refuses as an error of ours.
func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

func scanSite(row pgx.CollectableRow) (SiteRole, error) {
	var s SiteRole
	var statsAt *time.Time
	err := row.Scan(&s.ID, &s.Domain, &s.Timezone, &statsAt, &s.Role)
	if statsAt != nil {
		s.StatsAt = *statsAt
	}
	return s, err
}
