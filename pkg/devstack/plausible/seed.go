package plausible

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Demo is what Seed put into the database.
type Demo struct {
	SiteID      int64
	Domain      string // demo.example.com, in the time zone Europe/Tallinn
	OtherSiteID int64
	OtherDomain string // other.example.org, of another team
	Goals       DemoGoals

	// Raw API keys. Each is bound to its user's team, as those of v3 are.
	OwnerKey     string // owns the demo site's team
	ViewerKey    string // views all sites of that team
	EditorKey    string // a guest who edits the demo site
	OtherSiteKey string // owns the other site's team, and has nothing to do with the demo site
}

// DemoGoals are the ids of the demo site's goals, one of each kind.
type DemoGoals struct {
	Signup     int64 // event Signup
	Purchase   int64 // event Purchase with the property plan=business
	Pricing    int64 // page /pricing
	Blog       int64 // pages /blog/*
	BlogScroll int64 // 75 % of a page of /blog/* was scrolled through
}

// Seed puts demo sites, users, goals and API keys into Plausible's tables, once: run
// again it changes nothing and returns the same, unless the secret is another one,
// which makes other keys.
func Seed(ctx context.Context, address, secretKeyBase string) (Demo, error) {
	d := Demo{Domain: "demo.example.com", OtherDomain: "other.example.org"}
	err := inTransaction(ctx, address, func(tx pgx.Tx) error {
		s := seeder{ctx: ctx, tx: tx, secret: secretKeyBase}
		owner, viewer := s.user("owner@example.com", "Olivia Owner"), s.user("viewer@example.com", "Victor Viewer")
		editor, other := s.user("editor@example.com", "Edith Editor"), s.user("other@example.org", "Otto Other")

		// The numbers make the teams' identifiers, by which a second run finds them.
		team, otherTeam := s.team(1, "Demo"), s.team(2, "Other")
		d.SiteID = s.site(team, d.Domain, "Europe/Tallinn")
		d.OtherSiteID = s.site(otherTeam, d.OtherDomain, "Etc/UTC")

		s.member(team, owner, "owner")
		s.member(team, viewer, "viewer")
		s.guest(s.member(team, editor, "guest"), d.SiteID, "editor")
		s.member(otherTeam, other, "owner")

		d.Goals = DemoGoals{
			Signup:     s.goal(d.SiteID, goal{name: "Signup", event: "Signup"}),
			Purchase:   s.goal(d.SiteID, goal{name: "Purchase business", event: "Purchase", props: `{"plan": "business"}`}),
			Pricing:    s.goal(d.SiteID, goal{name: "Visit /pricing", page: "/pricing"}),
			Blog:       s.goal(d.SiteID, goal{name: "Visit /blog/*", page: "/blog/*"}),
			BlogScroll: s.goal(d.SiteID, goal{name: "Scroll 75% on /blog/*", page: "/blog/*", scroll: 75}),
		}
		d.OwnerKey = s.key(owner, team, "owner")
		d.ViewerKey = s.key(viewer, team, "viewer")
		d.EditorKey = s.key(editor, team, "editor")
		d.OtherSiteKey = s.key(other, otherTeam, "other")
		return s.err
	})
	if err != nil {
		return Demo{}, fmt.Errorf("seed Plausible's Postgres: %w", err)
	}
	return d, nil
}

// seeder makes sure that rows exist and returns their ids. After the first error it
// does nothing.
type seeder struct {
	ctx    context.Context
	tx     pgx.Tx
	secret string
	err    error
}

// id runs an upsert. It touches the row that exists already, for only then does
// RETURNING return it.
func (s *seeder) id(upsert string, args ...any) (id int64) {
	if s.err == nil {
		s.err = s.tx.QueryRow(s.ctx, upsert, args...).Scan(&id)
	}
	return id
}

func (s *seeder) user(email, name string) int64 {
	return s.id(`INSERT INTO users (email, name, email_verified, inserted_at, updated_at) VALUES ($1, $2, true, now(), now())
		ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id`, email, name)
}

func (s *seeder) team(number int, name string) int64 {
	return s.id(`INSERT INTO teams (identifier, name, setup_complete, setup_at, accept_traffic_until, inserted_at, updated_at)
		VALUES ($1, $2, true, now(), now() + interval '100 years', now(), now())
		ON CONFLICT (identifier) DO UPDATE SET name = excluded.name RETURNING id`,
		fmt.Sprintf("00000000-0000-4000-8000-%012d", number), name)
}

func (s *seeder) site(team int64, domain, timezone string) int64 {
	return s.id(`INSERT INTO sites (domain, timezone, team_id, native_stats_start_at, stats_start_date, inserted_at, updated_at)
		VALUES ($1, $2, $3, now() - interval '1 year', now() - interval '1 year', now() - interval '1 year', now())
		ON CONFLICT (domain) DO UPDATE SET timezone = excluded.timezone RETURNING id`, domain, timezone, team)
}

func (s *seeder) member(team, user int64, role string) int64 {
	return s.id(`INSERT INTO team_memberships (team_id, user_id, role, inserted_at, updated_at) VALUES ($1, $2, $3, now(), now())
		ON CONFLICT (team_id, user_id) DO UPDATE SET role = excluded.role RETURNING id`, team, user, role)
}

func (s *seeder) guest(membership, site int64, role string) int64 {
	return s.id(`INSERT INTO guest_memberships (team_membership_id, site_id, role, inserted_at, updated_at) VALUES ($1, $2, $3, now(), now())
		ON CONFLICT (team_membership_id, site_id) DO UPDATE SET role = excluded.role RETURNING id`, membership, site, role)
}

// goal is one of a page and of an event, with what belongs to it.
type goal struct {
	name, event, page, props string
	scroll                   int // per cent; 0: not a scroll goal
}

func (s *seeder) goal(site int64, g goal) int64 {
	if g.props == "" {
		g.props = "{}"
	}
	if g.scroll == 0 {
		g.scroll = -1
	}
	return s.id(`INSERT INTO goals (site_id, display_name, event_name, page_path, custom_props, scroll_threshold, inserted_at, updated_at)
		VALUES ($1, $2, nullif($3, ''), nullif($4, ''), $5, $6, now(), now())
		ON CONFLICT (site_id, display_name) DO UPDATE SET updated_at = goals.updated_at RETURNING id`,
		site, g.name, g.event, g.page, g.props, g.scroll)
}

func (s *seeder) key(user, team int64, name string) string {
	raw := demoKey(s.secret, name)
	hash := HashKey(s.secret, raw)
	s.id(`WITH old AS (DELETE FROM api_keys WHERE user_id = $1 AND name = 'Demo' AND key_hash <> $3)
		INSERT INTO api_keys (user_id, team_id, name, key_hash, key_prefix, inserted_at, updated_at)
		VALUES ($1, $2, 'Demo', $3, $4, now(), now())
		ON CONFLICT (key_hash) DO UPDATE SET updated_at = api_keys.updated_at RETURNING id`, user, team, hash, raw[:6])
	return raw
}
