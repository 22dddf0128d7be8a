package clickhouse

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func seenOn(b *bench) {
	from := func(source, referrer, campaign, country string, e plausible.Event) plausible.Event {
		e.ReferrerSource, e.Referrer, e.UTMCampaign, e.CountryCode = source, referrer, campaign, country
		return e
	}
	other := from("Bing", "bing.com", "", "EE", at(9000, 3, "/"))
	other.SiteID = 2
	b.insert(
		from("Google", "google.com/search", "spring", "EE", at(90_000_000, 1, "/")), // three years ago
		from("Google", "google.com", "", "", at(7200, 1, "/")),
		from("Bing", "bing.com", "", "LV", at(3600, 2, "/")),
		scrolled(90, from("Yahoo", "yahoo.com", "", "LT", at(5000, 2, "/"))), // engagement brings nobody
		from("Yahoo", "yahoo.com", "", "", at(100, 2, "/")),
		other,
	)
	b.insertSessions(
		plausible.Session{SessionID: 1, SiteID: 1, UserID: 1, Start: noon.Add(-2 * time.Hour), Timestamp: noon.Add(-time.Hour), EntryPage: "/landing", Events: 1},
		plausible.Session{SessionID: 2, SiteID: 1, UserID: 2, Start: noon.Add(-time.Minute), Timestamp: noon, EntryPage: "/landing", Events: 1},
	)
}

func ago(secondsBefore int) time.Time { return noon.Add(-time.Duration(secondsBefore) * time.Second) }

func TestFirstSeen(t *testing.T) {
	b := newBench(t)
	seenOn(b)
	cases := []struct {
		candidate Candidate
		want      time.Time
	}{
		{Candidate{1, trigger.BySource, "Google", time.Time{}}, ago(90_000_000)},
		{Candidate{1, trigger.BySource, "Google", ago(7200)}, ago(7200)}, // statistics were reset since
		{Candidate{1, trigger.BySource, "Google", ago(7199)}, time.Time{}},
		{Candidate{1, trigger.BySource, "Bing", time.Time{}}, ago(3600)},
		{Candidate{2, trigger.BySource, "Bing", time.Time{}}, ago(9000)},
		{Candidate{2, trigger.BySource, "Google", time.Time{}}, time.Time{}},
		{Candidate{1, trigger.BySource, "Yahoo", time.Time{}}, ago(100)},
		{Candidate{1, trigger.ByReferrer, "google.com", time.Time{}}, ago(7200)},
		{Candidate{1, trigger.ByReferrer, "Google", time.Time{}}, time.Time{}}, // a source, no referrer
		{Candidate{1, trigger.ByCampaign, "spring", time.Time{}}, ago(90_000_000)},
		{Candidate{1, trigger.ByCountry, "LV", time.Time{}}, ago(3600)},
		{Candidate{1, trigger.ByCountry, "LT", time.Time{}}, time.Time{}},
		{Candidate{1, trigger.ByEntryPage, "/landing", time.Time{}}, ago(7200)},
		{Candidate{1, trigger.ByEntryPage, "/landing", ago(3600)}, ago(60)},
		{Candidate{1, trigger.ByEntryPage, "/", time.Time{}}, time.Time{}},
	}
	var candidates []Candidate
	for _, c := range cases {
		candidates = append(candidates, c.candidate)
	}
	first, err := b.FirstSeen(t.Context(), candidates)
	require.NoError(t, err)
	assert.EqualValues(t, 1, b.queries.Load())
	for i, c := range cases {
		assert.Equal(t, c.want, first[i], "%+v", c.candidate)
	}

	first, err = b.FirstSeen(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, first)
	assert.EqualValues(t, 1, b.queries.Load())
}

func TestValues(t *testing.T) {
	b := newBench(t)
	seenOn(b)
	histories := []History{
		{1, trigger.BySource, time.Time{}}, {1, trigger.ByCountry, time.Time{}}, {2, trigger.BySource, time.Time{}},
		{1, trigger.ByEntryPage, ago(3600)}, {1, trigger.ByReferrer, ago(7200)},
	}
	found := map[string]time.Time{}
	require.NoError(t, b.Values(t.Context(), histories, ago(60), func(no int, value string, first time.Time) {
		found[fmt.Sprint(no, " ", value)] = first
	}))
	assert.Equal(t, map[string]time.Time{
		"0 Google": ago(90_000_000), "0 Bing": ago(3600), "0 Yahoo": ago(100), "1 EE": ago(90_000_000), "1 LV": ago(3600), "2 Bing": ago(9000),
		"4 google.com": ago(7200), "4 bing.com": ago(3600), "4 yahoo.com": ago(100),
	}, found)
	assert.EqualValues(t, 1, b.queries.Load())
}
