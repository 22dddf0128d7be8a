// Package plausible is a read-only view of Plausible's own Postgres database: sites, goals,
// API keys and roles. It writes nothing, and reads nothing that is not needed: no salts, no
// password hashes.
//
// Supported are Community Edition v2.0 and later. Columns that came later are probed once,
// when the database is opened.
package plausible

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// oldestMigration is the last one of Community Edition v2.0.0.
const oldestMigration = 20230530161856

// Directory reads one Plausible installation.
type Directory struct {
	pool     *pgxpool.Pool
	keySalt  string // Plausible's SECRET_KEY_BASE, as its environment has it
	features features
}

// features tells what this release's tables have.
type features struct {
	teams       bool // v3.0: teams instead of site_memberships, keys bound to a team
	displayName bool // v2.1.2: goals.display_name
	scrollGoals bool // v3.0: goals.scroll_threshold
	customProps bool // v3.2: goals.custom_props
}

// Open probes the database behind the pool. It refuses one that is not Plausible's, or older
// than v2.0. secretKeyBase is needed only where API keys are checked.
func Open(ctx context.Context, pool *pgxpool.Pool, secretKeyBase string) (*Directory, error) {
	const probe = `
		SELECT count(*) FILTER (WHERE table_name = 'sites' AND column_name = 'domain') > 0
		   AND count(*) FILTER (WHERE table_name = 'api_keys' AND column_name = 'key_hash') > 0
		   AND count(*) FILTER (WHERE table_name = 'goals' AND column_name = 'page_path') > 0
		   AND count(*) FILTER (WHERE table_name = 'schema_migrations') > 0,
		       count(*) FILTER (WHERE table_name = 'sites' AND column_name = 'team_id') > 0
		   AND count(*) FILTER (WHERE table_name = 'team_memberships') > 0,
		       count(*) FILTER (WHERE table_name = 'goals' AND column_name = 'display_name') > 0,
		       count(*) FILTER (WHERE table_name = 'goals' AND column_name = 'scroll_threshold') > 0,
		       count(*) FILTER (WHERE table_name = 'goals' AND column_name = 'custom_props') > 0
		FROM information_schema.columns WHERE table_schema = ANY (current_schemas(false))`
	d := &Directory{pool: pool, keySalt: secretKeyBase}
	var isPlausible bool
	f := &d.features
	if err := pool.QueryRow(ctx, probe).Scan(&isPlausible, &f.teams, &f.displayName, &f.scrollGoals, &f.customProps); err != nil {
		return nil, fmt.Errorf("probe PLAUSIBLE_DATABASE_URL: %w", err)
	}
	if !isPlausible {
		return nil, errors.New("the database of PLAUSIBLE_DATABASE_URL is not Plausible's, or its role may not read it: sites, goals, api_keys and schema_migrations are needed")
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

// Site is a website that Plausible watches.
type Site struct {
	ID       int64
	Domain   string
	Timezone string    // IANA
	StatsAt  time.Time // rows older than this do not count: stats were reset, or began then; zero: all count
}

// Role is what a key's user may do with a site.
type Role string

// CanChange tells whether the role may change a site's settings, and so its webhooks.
func (r Role) CanChange() bool { return r == "owner" || r == "admin" || r == "editor" }

// The refusals of Access.
var (
	ErrUnknownKey = errors.New("the API key is unknown")
	ErrNoSite     = errors.New("the site does not exist or the key has no access to it")
)

// HashKey is Plausible's stored form of an API key: lower-case hex of SHA-256 over the secret
// key base and the key.
func HashKey(secretKeyBase, rawKey string) string {
	sum := sha256.Sum256([]byte(secretKeyBase + rawKey))
	return hex.EncodeToString(sum[:])
}

// A key with a team works for that team's sites only; one without, of before v3.0, for all that
// its user can see. A guest's role is the one that they have for this very site.
const accessByTeams = `
	SELECT s.id, s.domain, s.timezone, s.native_stats_start_at, coalesce(g.role::text, nullif(m.role::text, 'guest'))
	FROM api_keys k
	JOIN sites s ON k.team_id IS NULL OR s.team_id = k.team_id
	JOIN team_memberships m ON m.team_id = s.team_id AND m.user_id = k.user_id
	LEFT JOIN guest_memberships g ON g.team_membership_id = m.id AND g.site_id = s.id AND m.role::text = 'guest'
	WHERE k.key_hash = $1 AND (m.role::text <> 'guest' OR g.role IS NOT NULL)`

const accessByMemberships = `
	SELECT s.id, s.domain, s.timezone, s.native_stats_start_at, m.role::text
	FROM api_keys k
	JOIN site_memberships m ON m.user_id = k.user_id
	JOIN sites s ON s.id = m.site_id
	WHERE k.key_hash = $1`

func (d *Directory) accessQuery() string {
	if d.features.teams {
		return accessByTeams
	}
	return accessByMemberships
}

// Access finds what a raw API key may do with a site, which is named by its domain, by its
// former domain while Plausible still accepts that, or by its id. The errors are ErrUnknownKey
// and ErrNoSite, and those of the database.
func (d *Directory) Access(ctx context.Context, rawKey, site string) (Site, Role, error) {
	hash := HashKey(d.keySalt, rawKey)
	query, argument := d.accessQuery()+" AND (s.domain = $2 OR s.domain_changed_from = $2) ORDER BY s.domain = $2 DESC LIMIT 1", any(site)
	if !utf8.ValidString(site) || strings.ContainsRune(site, 0) { // Postgres would refuse it as an error of ours
		return Site{}, "", d.explainNoAccess(ctx, hash)
	}
	if id, err := strconv.ParseInt(site, 10, 64); err == nil {
		query, argument = d.accessQuery()+" AND s.id = $2", id
	}
	var found Site
	var role Role
	var statsAt *time.Time
	err := d.pool.QueryRow(ctx, query, hash, argument).Scan(&found.ID, &found.Domain, &found.Timezone, &statsAt, &role)
	if errors.Is(err, pgx.ErrNoRows) {
		return Site{}, "", d.explainNoAccess(ctx, hash)
	}
	if err != nil {
		return Site{}, "", fmt.Errorf("look up the key's access: %w", err)
	}
	if statsAt != nil {
		found.StatsAt = *statsAt
	}
	return found, role, nil
}

func (d *Directory) explainNoAccess(ctx context.Context, hash string) error {
	var known bool
	if err := d.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM api_keys WHERE key_hash = $1)", hash).Scan(&known); err != nil {
		return fmt.Errorf("look up the key: %w", err)
	}
	if !known {
		return ErrUnknownKey
	}
	return ErrNoSite
}

// Sites reads the sites with the given ids; those that no longer exist are missing in the map.
func (d *Directory) Sites(ctx context.Context, ids []int64) (map[int64]Site, error) {
	rows, err := d.pool.Query(ctx, "SELECT id, domain, timezone, native_stats_start_at FROM sites WHERE id = ANY ($1)", ids)
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	sites := map[int64]Site{}
	var s Site
	var statsAt *time.Time
	_, err = pgx.ForEachRow(rows, []any{&s.ID, &s.Domain, &s.Timezone, &statsAt}, func() error {
		s.StatsAt = time.Time{}
		if statsAt != nil {
			s.StatsAt = *statsAt
		}
		sites[s.ID] = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	return sites, nil
}

// Goal is a goal of a site. Exactly one of EventName and PagePath is set.
type Goal struct {
	ID              int64
	SiteID          int64
	DisplayName     string
	EventName       string
	PagePath        string // may contain * wildcards
	ScrollThreshold *int   // percent; nil: not a scroll goal
	CustomProps     map[string]string
}

func (d *Directory) goalColumns() string {
	columns := []string{"id", "site_id", "coalesce(event_name, '')", "coalesce(page_path, '')"}
	optional := func(has bool, column, otherwise string) {
		if !has {
			column = otherwise
		}
		columns = append(columns, column)
	}
	optional(d.features.displayName, "display_name", "coalesce(event_name, 'Visit ' || page_path)")
	optional(d.features.scrollGoals, "nullif(scroll_threshold, -1)", "NULL::smallint")
	optional(d.features.customProps, "custom_props", "'{}'::jsonb")
	return strings.Join(columns, ", ")
}

// Goals reads the goals with the given ids; those that no longer exist are missing in the map.
func (d *Directory) Goals(ctx context.Context, ids []int64) (map[int64]Goal, error) {
	rows, err := d.pool.Query(ctx, "SELECT "+d.goalColumns()+" FROM goals WHERE id = ANY ($1)", ids)
	if err != nil {
		return nil, fmt.Errorf("read goals: %w", err)
	}
	goals, err := pgx.CollectRows(rows, scanGoal)
	if err != nil {
		return nil, fmt.Errorf("read goals: %w", err)
	}
	byID := make(map[int64]Goal, len(goals))
	for _, g := range goals {
		byID[g.ID] = g
	}
	return byID, nil
}

func scanGoal(row pgx.CollectableRow) (Goal, error) {
	var g Goal
	err := row.Scan(&g.ID, &g.SiteID, &g.EventName, &g.PagePath, &g.DisplayName, &g.ScrollThreshold, &g.CustomProps)
	g.EventName, g.PagePath = strings.TrimSpace(g.EventName), strings.TrimSpace(g.PagePath)
	return g, err
}
