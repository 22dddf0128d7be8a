package evaluator

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

func (a *archive) newcomers() *newcomers {
	return newNewcomers(a.events, a.store, slog.New(slog.DiscardHandler))
}

// from is a page view that a source brought so long before noon.
func from(source string, before time.Duration, visitor uint64) fixture.Event {
	return fixture.Event{Timestamp: noon.Add(-before), Name: "pageview", SiteID: 1, UserID: visitor, ReferrerSource: source}
}

// newSources asks for sources that are new in the half hour before the slot.
func (a *archive) newSources(n *newcomers, slot time.Time, statsFrom time.Time) []string {
	a.t.Helper()
	questions := []clickhouse.Question{
		{SiteID: 1, Question: trigger.Question{Ask: trigger.AskNewcomers, Metric: trigger.Visitors, By: trigger.BySource, Least: 1,
			Window: trigger.Window{From: slot.Add(-30 * time.Minute), To: slot}}},
		{SiteID: 1, Question: trigger.Question{Ask: trigger.AskRanking, Metric: trigger.Visitors, By: trigger.BySource, Least: 1,
			Window: trigger.Window{From: slot.Add(-30 * time.Minute), To: slot}}},
	}
	answers, err := a.events.Answer(a.t.Context(), questions, slot, 10*time.Second)
	require.NoError(a.t, err)
	all := len(answers[1].Ranking)
	require.NoError(a.t, n.keep(a.t.Context(), questions, answers, map[int64]time.Time{1: statsFrom}))
	assert.Len(a.t, answers[1].Ranking, all, "other questions stay as they are")
	names := []string{}
	for _, r := range answers[0].Ranking {
		names = append(names, r.Name)
	}
	return names
}

func TestNewcomersWereNeverSeenBefore(t *testing.T) {
	a := newArchive(t)
	a.insert(
		from("Google", 3*365*24*time.Hour, 1), from("Google", time.Minute, 2),
		from("Bing", time.Hour, 1), from("Bing", time.Minute, 2), // an hour before is not new
		from("Reddit", 29*time.Minute, 3), from("Reddit", time.Minute, 4), // the first is inside the window
		from("Lobsters", time.Minute, 5),
		from("Rare", 30*time.Minute, 6), // its first second
	)
	n := a.newcomers()
	assert.Equal(t, []string{"Reddit", "Lobsters", "Rare"}, a.newSources(n, noon, time.Time{}), "before any history is read")
	assert.Equal(t, 1, a.asked("first seen"))
	assert.Equal(t, []string{"Reddit", "Lobsters", "Rare"}, a.newSources(n, noon, time.Time{}))
	assert.Zero(t, a.asked("first seen"), "they are remembered")
	assert.Equal(t, []string{"Lobsters"}, a.newSources(n, noon.Add(10*time.Minute), time.Time{}), "the window has moved on")

	require.NoError(t, n.refresh(t.Context()))
	assert.Equal(t, 1, a.asked("values"))
	a.insert(from("Mastodon", -11*time.Minute, 7), from("Reddit", -12*time.Minute, 7))
	assert.Equal(t, []string{"Lobsters", "Mastodon"}, a.newSources(n, noon.Add(15*time.Minute), time.Time{}))
	assert.Equal(t, 1, a.asked("first seen"), "one is not among those read")

	again := a.newcomers() // a restart
	assert.Equal(t, []string{"Lobsters", "Mastodon"}, a.newSources(again, noon.Add(15*time.Minute), time.Time{}))
	assert.Equal(t, 1, a.asked("first seen"))
	require.NoError(t, again.refresh(t.Context()))
	assert.Zero(t, a.asked("values"), "within the hour there is nothing to read")
	a.newSources(again, noon.Add(75*time.Minute), time.Time{})
	require.NoError(t, again.refresh(t.Context()))
	assert.Equal(t, 1, a.asked("values"))

	third := a.newcomers()
	a.insert(from("Mastodon", -80*time.Minute, 8))
	assert.Empty(t, a.newSources(third, noon.Add(90*time.Minute), time.Time{}))
	assert.Zero(t, a.asked("first seen"), "everything is in the own database")
}

func TestNewcomersAfterAReset(t *testing.T) {
	a := newArchive(t)
	a.insert(from("Google", 48*time.Hour, 1), from("Bing", 2*time.Hour, 1), from("Google", time.Minute, 2), from("Bing", time.Minute, 2))
	n := a.newcomers()
	assert.Empty(t, a.newSources(n, noon, time.Time{}))
	require.NoError(t, n.refresh(t.Context()))

	reset := noon.Add(-24 * time.Hour)
	assert.Equal(t, []string{"Google"}, a.newSources(n, noon, reset), "it was seen only before the reset")
	assert.Equal(t, []string{"Google"}, a.newSources(a.newcomers(), noon, reset), "what is stored is not of these statistics")
	require.NoError(t, n.refresh(t.Context()))
	a.asked("first seen")
	assert.Equal(t, []string{"Google"}, a.newSources(n, noon, reset))
	assert.Equal(t, []string{"Google"}, a.newSources(a.newcomers(), noon, reset))
	assert.Zero(t, a.asked("first seen"))
	var rows int
	require.NoError(t, a.pool.QueryRow(t.Context(), "SELECT count(*) FROM seen_values").Scan(&rows))
	assert.Equal(t, 2, rows)
}

// A history that ClickHouse does not read within its time limit is waited for. The slot goes on.
func TestNewcomersOfAHistoryThatIsTooLong(t *testing.T) {
	a := newArchive(t)
	a.insert(from("Google", time.Minute, 1))
	n := a.newcomers()
	working := n.events
	n.events = a.open()
	require.NoError(t, n.events.Close())
	assert.Empty(t, a.newSources(n, noon, time.Time{}))
	require.Error(t, n.refresh(t.Context()))
	a.asked("first seen")
	assert.Empty(t, a.newSources(n, noon, time.Time{}))
	assert.Zero(t, a.asked("first seen"), "it is not tried again in every slot")

	n.events = working
	require.NoError(t, n.refresh(t.Context()))
	assert.Equal(t, []string{"Google"}, a.newSources(n, noon, time.Time{}))
	n.events = a.open()
	require.NoError(t, n.events.Close())
	a.insert(from("Bing", time.Minute, 1))
	questions := []clickhouse.Question{{SiteID: 1, Question: trigger.Question{Ask: trigger.AskNewcomers, By: trigger.BySource, Window: trigger.Window{From: noon.Add(-time.Hour), To: noon}}}}
	require.Error(t, n.keep(t.Context(), questions, []trigger.Answer{{Ranking: []trigger.Ranked{{Name: "Bing", Visitors: 1}}}}, nil), "what was read lets the slot be tried again")
}

func TestHistoriesAreReadInHalves(t *testing.T) {
	a := newArchive(t)
	for week := range 20 {
		a.insert(from(fmt.Sprint("Source ", week%7), time.Duration(week+1)*7*24*time.Hour, 1))
	}
	n := a.newcomers()
	histories := []clickhouse.History{{SiteID: 1, Dimension: trigger.BySource}}
	first := map[string]time.Time{}
	earliest := func(_ int, value string, at time.Time) {
		if known, isKnown := first[value]; !isKnown || at.Before(known) {
			first[value] = at
		}
	}
	require.NoError(t, n.halves(t.Context(), histories, noon.Add(-40*7*24*time.Hour), noon, earliest))
	assert.Equal(t, 2, a.asked("values"))
	assert.Len(t, first, 7)
	assert.Equal(t, noon.Add(-20*7*24*time.Hour), first["Source 5"])
}
