package plausible

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

func goalsInPages(t *testing.T, directory *Directory, siteID int64, want []int64) {
	t.Helper()
	walk(t, want, func(page database.Page[int64]) ([]int64, database.Around[int64]) {
		goals, around, err := directory.GoalsOf(t.Context(), siteID, page)
		require.NoError(t, err)
		var ids []int64
		for _, g := range goals {
			require.Equal(t, siteID, g.SiteID)
			ids = append(ids, g.ID)
		}
		return ids, around
	})
}

func TestGoalsOfInPages(t *testing.T) {
	pool, directory, d := current(t)
	exec(t, pool, fmt.Sprintf(`INSERT INTO goals (site_id, event_name, display_name, inserted_at, updated_at) VALUES (%d, 'Theirs', 'Theirs', now(), now())`, d.OtherSiteID))
	want := []int64{d.Goals.Signup, d.Goals.Purchase, d.Goals.Pricing, d.Goals.Blog, d.Goals.BlogScroll}
	slices.Sort(want)
	slices.Reverse(want)
	goalsInPages(t, directory, d.SiteID, want)

	all, _, err := directory.GoalsOf(t.Context(), d.SiteID, database.Page[int64]{Limit: 100})
	require.NoError(t, err)
	byID, err := directory.Goals(t.Context(), want)
	require.NoError(t, err)
	for _, g := range all {
		require.Equal(t, byID[g.ID], g)
	}
	bySite, err := directory.GoalsBySite(t.Context(), []int64{d.SiteID, d.OtherSiteID, 999999})
	require.NoError(t, err)
	slices.Reverse(all)
	require.Equal(t, all, bySite[d.SiteID])
	require.Equal(t, "Theirs", bySite[d.OtherSiteID][len(bySite[d.OtherSiteID])-1].DisplayName)
	require.NotContains(t, bySite, int64(999999))
	none, around, err := directory.GoalsOf(t.Context(), 999999, database.Page[int64]{Limit: 100})
	require.NoError(t, err)
	require.Empty(t, none)
	require.Equal(t, database.Around[int64]{}, around)
}

// The columns that v2.1.2, v3.0 and v3.2 brought, one after the other.
func TestGoalsOfEveryRelease(t *testing.T) {
	pool := v2(t)
	open := func() *Directory {
		directory, err := Open(t.Context(), pool, secret)
		require.NoError(t, err)
		return directory
	}
	newest := func() Goal {
		goals, _, err := open().GoalsOf(t.Context(), 1, database.Page[int64]{Limit: 1})
		require.NoError(t, err)
		require.Len(t, goals, 1)
		return goals[0]
	}
	goalsInPages(t, open(), 1, []int64{2, 1})
	want := Goal{ID: 2, SiteID: 1, DisplayName: "Visit /a*", PagePath: "/a*", CustomProps: map[string]string{}}
	require.Equal(t, want, newest())

	exec(t, pool, `ALTER TABLE goals ADD COLUMN display_name text NOT NULL DEFAULT 'A'`)
	want.DisplayName = "A"
	require.Equal(t, want, newest())

	exec(t, pool, `ALTER TABLE goals ADD COLUMN scroll_threshold smallint NOT NULL DEFAULT -1`)
	require.Equal(t, want, newest())
	exec(t, pool, `UPDATE goals SET scroll_threshold = 0`)
	top := 0
	want.ScrollThreshold = &top
	require.Equal(t, want, newest())

	exec(t, pool, `ALTER TABLE goals ADD COLUMN custom_props jsonb NOT NULL DEFAULT '{"plan": "free"}'`)
	want.CustomProps = map[string]string{"plan": "free"}
	require.Equal(t, want, newest())
}

// Rows of before Plausible's constraint do not take the list away.
func TestGoalsThatAreNeitherAreLeftOut(t *testing.T) {
	for _, release := range []func(*testing.T) *pgxpool.Pool{
		v2,
		func(t *testing.T) *pgxpool.Pool {
			pool := v2(t)
			exec(t, pool, `ALTER TABLE goals ADD COLUMN display_name text NOT NULL DEFAULT 'A'`)
			return pool
		},
	} {
		pool := release(t)
		exec(t, pool, `INSERT INTO goals (site_id, event_name, page_path) VALUES (1, NULL, NULL), (1, 'Both', '/both')`)
		directory, err := Open(t.Context(), pool, secret)
		require.NoError(t, err)
		goalsInPages(t, directory, 1, []int64{4, 2, 1})
		goals, err := directory.Goals(t.Context(), []int64{3, 4})
		require.NoError(t, err)
		require.Len(t, goals, 1)
		require.Equal(t, []string{"Both", ""}, []string{goals[4].EventName, goals[4].PagePath})
	}
}
