package plausible_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

// The vector is that of the description of Plausible's API keys.
func TestKeysAreHashedByPlausiblesRule(t *testing.T) {
	require.Equal(t, "7f9d795cc5de48833b874612dd5baacd73b678eebce5208ca1ecf2e40177e9c6",
		plausible.HashKey(strings.Repeat("x", 64), strings.Repeat("k", 64)))
}

func TestSeedIsTheSameEachTime(t *testing.T) {
	ctx := context.Background()
	address := devstacktest.Postgres(t)
	for range 2 {
		require.NoError(t, plausible.CreatePostgres(ctx, address))
	}
	secret := strings.Repeat("s", 64)
	demo, err := plausible.Seed(ctx, address, secret)
	require.NoError(t, err)
	again, err := plausible.Seed(ctx, address, secret)
	require.NoError(t, err)
	require.Equal(t, demo, again)

	conn, err := pgx.Connect(ctx, address)
	require.NoError(t, err)
	defer conn.Close(ctx)
	for key, want := range map[string]string{demo.OwnerKey: "owner", demo.ViewerKey: "viewer", demo.EditorKey: "editor", demo.OtherSiteKey: "none"} {
		require.Len(t, key, 64)
		require.Regexp(t, `^[A-Za-z0-9_-]+$`, key)
		var role string
		err := conn.QueryRow(ctx, `SELECT coalesce(g.role, m.role, 'none')
			FROM api_keys k JOIN sites s ON s.id = $2
			LEFT JOIN team_memberships m ON m.team_id = s.team_id AND m.user_id = k.user_id
			LEFT JOIN guest_memberships g ON g.team_membership_id = m.id AND g.site_id = s.id
			WHERE k.key_hash = $1`, plausible.HashKey(secret, key), demo.SiteID).Scan(&role)
		require.NoError(t, err)
		require.Equal(t, want, role)
	}
	goals := make(map[int64]bool)
	for _, id := range []int64{demo.Goals.Signup, demo.Goals.Purchase, demo.Goals.Pricing, demo.Goals.Blog, demo.Goals.BlogScroll} {
		goals[id] = true
	}
	require.Len(t, goals, 5)

	other, err := plausible.Seed(ctx, address, "another secret")
	require.NoError(t, err)
	require.NotEqual(t, demo.OwnerKey, other.OwnerKey)
	var keys int
	require.NoError(t, conn.QueryRow(ctx, "SELECT count(*) FROM api_keys").Scan(&keys))
	require.Equal(t, 4, keys, "the keys of the former secret are gone")
}

func TestGoalIsEitherAnEventOrAPage(t *testing.T) {
	ctx := context.Background()
	address := devstacktest.Postgres(t)
	require.NoError(t, plausible.CreatePostgres(ctx, address))
	demo, err := plausible.Seed(ctx, address, "secret")
	require.NoError(t, err)
	conn, err := pgx.Connect(ctx, address)
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `INSERT INTO goals (site_id, event_name, page_path, display_name, inserted_at, updated_at)
		VALUES ($1, 'a', '/a', 'both', now(), now())`, demo.SiteID)
	require.ErrorContains(t, err, "check_event_name_or_page_path")
}

func TestRowsComeBackAsTheyWent(t *testing.T) {
	ctx := context.Background()
	address := devstacktest.ClickHouse(t)
	for range 2 {
		require.NoError(t, plausible.CreateClickHouse(ctx, address))
	}
	conn, err := plausible.Open(address)
	require.NoError(t, err)
	defer conn.Close()

	at := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	require.NoError(t, plausible.InsertEvents(ctx, conn, []plausible.Event{
		{Timestamp: at, Name: "pageview", SiteID: 1, UserID: 1<<64 - 1, SessionID: 7, CountryCode: "EE", ReferrerSource: "Google"},
		{Timestamp: at, Name: "Purchase", SiteID: 1, UserID: 2, PropKeys: []string{"plan", "seats"}, PropValues: []string{"business", "5"}},
		{Timestamp: at, Name: "engagement", SiteID: 1, UserID: 2, Pathname: "/blog/a", ScrollDepth: 80, EngagementTime: 1500},
	}))
	var (
		visitors           uint64
		path, host, plan   string
		channel, country   string
		highest            uint64
		unknown, direct    uint64
		scrolled, migrated uint64
	)
	require.NoError(t, conn.QueryRow(ctx, `SELECT uniq(user_id), max(user_id), countIf(country_code = '\0\0'), countIf(acquisition_channel = 'Direct'),
		countIf(scroll_depth BETWEEN 75 AND 100), anyIf(pathname, name = 'pageview'), anyIf(hostname, name = 'pageview'),
		anyIf(meta.value[indexOf(meta.key, 'plan')], name = 'Purchase'), anyIf(acquisition_channel, name = 'pageview'),
		anyIf(country, name = 'pageview') FROM events_v2 WHERE site_id = 1 AND timestamp = toDateTime({at:DateTime}, 'UTC')`,
		clickhouse.Named("at", at)).Scan(&visitors, &highest, &unknown, &direct, &scrolled, &path, &host, &plan, &channel, &country))
	require.Equal(t, []any{uint64(2), uint64(1<<64 - 1), uint64(2), uint64(2), uint64(1), "/", "(none)", "business", "Referral", "EE"},
		[]any{visitors, highest, unknown, direct, scrolled, path, host, plan, channel, country})
	require.NoError(t, conn.QueryRow(ctx, "SELECT max(version)::UInt64 FROM schema_migrations").Scan(&migrated))
	require.Equal(t, uint64(20251106111224), migrated)

	first := plausible.Session{SessionID: 7, SiteID: 1, UserID: 9, Timestamp: at, Start: at, Events: 1, Pageviews: 1, IsBounce: true, EntryPage: "/"}
	taken, next := first, first
	taken.Sign = -1
	next.Events, next.Pageviews, next.IsBounce, next.Duration = 2, 2, false, 30
	require.NoError(t, plausible.InsertSessions(ctx, conn, []plausible.Session{first}))
	require.NoError(t, plausible.InsertSessions(ctx, conn, []plausible.Session{taken, next}))
	var visits, pageviews, bounces int64
	require.NoError(t, conn.QueryRow(ctx, "SELECT sum(sign), sum(sign * pageviews), sum(sign * is_bounce) FROM sessions_v2").Scan(&visits, &pageviews, &bounces))
	require.Equal(t, []int64{1, 2, 0}, []int64{visits, pageviews, bounces})
}
