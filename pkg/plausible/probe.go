package plausible

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// features tells what this release's tables have.
type features struct {
	teams             bool // v3.0: teams instead of site_memberships, keys bound to a team
	displayName       bool // v2.1.2: goals.display_name
	scrollGoals       bool // v3.0: goals.scroll_threshold
	customProps       bool // v3.2: goals.custom_props
	notifications     bool // spike_notifications, in every release so far
	dropNotifications bool // v2.1.2: spike_notifications.type
}

// table names columns of one table.
type table struct {
	name    string
	columns []string
}

// The columns that are read. Of those that came later, an older release has none.
var (
	always = []table{
		{"sites", []string{"id", "domain", "timezone", "native_stats_start_at", "domain_changed_from"}},
		{"goals", []string{"id", "site_id", "event_name", "page_path"}},
		{"api_keys", []string{"user_id", "key_hash", "key_prefix"}},
		{"schema_migrations", []string{"version"}},
	}
	byMemberships = []table{
		{"site_memberships", []string{"site_id", "user_id", "role"}},
	}
	byTeams = []table{
		{"sites", []string{"team_id"}},
		{"api_keys", []string{"team_id"}},
		{"team_memberships", []string{"id", "team_id", "user_id", "role"}},
		{"guest_memberships", []string{"team_membership_id", "site_id", "role"}},
	}
	later = []table{
		{"goals", []string{"display_name", "scroll_threshold", "custom_props"}},
	}
)

// probe asks the catalog, which shows a column whether or not the role may read it. What exists
// must be readable: without the right to see the teams of v3, for one, the roles would be taken
// from site_memberships, which v3 leaves behind as they were.
func (d *Directory) probe(ctx context.Context) error {
	rows, err := d.pool.Query(ctx, `
		SELECT c.relname, a.attname, has_column_privilege(c.oid, a.attnum, 'SELECT'), current_user::text
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relname IN ('sites', 'goals', 'api_keys', 'schema_migrations', 'site_memberships', 'team_memberships', 'guest_memberships', 'spike_notifications')
		  AND pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped`)
	if err != nil {
		return fmt.Errorf("probe PLAUSIBLE_DATABASE_URL: %w", err)
	}
	readable := map[string]bool{} // by table.column; those that do not exist are missing
	var name, column string
	var mayRead bool
	_, err = pgx.ForEachRow(rows, []any{&name, &column, &mayRead, &d.role}, func() error {
		readable[name+"."+column] = mayRead
		return nil
	})
	if err != nil {
		return fmt.Errorf("probe PLAUSIBLE_DATABASE_URL: %w", err)
	}
	has := func(column string) bool { _, exists := readable[column]; return exists }
	d.features = features{
		teams:             has("team_memberships.team_id"),
		displayName:       has("goals.display_name"),
		scrollGoals:       has("goals.scroll_threshold"),
		customProps:       has("goals.custom_props"),
		notifications:     has("spike_notifications.threshold"),
		dropNotifications: has("spike_notifications.type"),
	}
	required := slices.Concat(always, byMemberships)
	if d.features.teams {
		required = slices.Concat(always, byTeams)
	}
	for _, t := range required {
		for _, column := range t.columns {
			if !has(t.name + "." + column) {
				return fmt.Errorf("the database of PLAUSIBLE_DATABASE_URL is not Plausible's, or its role may not use the schema: it has no %s.%s", t.name, column)
			}
		}
	}
	var grants []string
	for _, t := range slices.Concat(required, later) {
		var refused []string
		for _, column := range t.columns {
			if has(t.name+"."+column) && !readable[t.name+"."+column] {
				refused = append(refused, column)
			}
		}
		if refused != nil {
			grants = append(grants, grant(d.role, t.name, refused))
		}
	}
	if grants != nil {
		return &NoGrantError{Grant: strings.Join(grants, "; ")}
	}
	return nil
}

// NoGrantError says that the role of PLAUSIBLE_DATABASE_URL may not read what it is asked for,
// which the operator of the installation can mend.
type NoGrantError struct {
	Grant string // the statement that is missing; more than one are separated by semicolons
}

func (e *NoGrantError) Error() string {
	return "the role of PLAUSIBLE_DATABASE_URL lacks a right in Plausible's Postgres, which deploy/plausible-grants.sql gives: " + e.Grant
}

func grant(role, table string, columns []string) string {
	return fmt.Sprintf("GRANT SELECT (%s) ON %s TO %s", strings.Join(columns, ", "), table, pgx.Identifier{role}.Sanitize())
}
