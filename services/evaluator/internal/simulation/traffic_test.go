package simulation

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

func day(year int, month time.Month, date int) time.Time {
	return time.Date(year, month, date, 0, 0, 0, 0, time.UTC)
}

func of(siteID uint64, rows []Row) (events []plausible.Event) {
	for _, r := range rows {
		if r.SiteID == siteID {
			events = append(events, r.Event)
		}
	}
	slices.SortStableFunc(events, func(a, b plausible.Event) int {
		return cmp.Or(a.Timestamp.Compare(b.Timestamp), cmp.Compare(a.SessionID, b.SessionID), cmp.Compare(reads(a), reads(b)))
	})
	return events
}

// reads is 1 for an engagement row, which follows its page also within a second.
func reads(e plausible.Event) int {
	if e.Name == "engagement" {
		return 1
	}
	return 0
}

func TestTheSameScenarioMakesTheSameTraffic(t *testing.T) {
	s := Scenario{Seed: 7, From: day(2026, 6, 1), To: day(2026, 6, 2), Sites: 2, Visitors: 5, Skew: 1}
	first, again := Generate(s), Generate(s)
	require.NotEmpty(t, first.Events)
	require.Equal(t, first, again)

	s.Sites = 3
	assert.Equal(t, of(2, first.Events), of(2, Generate(s).Events), "a site does not depend on the others")
	s.Seed = 8
	assert.NotEqual(t, of(1, first.Events), of(1, Generate(s).Events))
}

// visitorsWithin is how many unique visitors the 5-minute windows of a span have, in the mean.
func visitorsWithin(events []plausible.Event, from, to time.Time) float64 {
	type one struct {
		window int64
		user   uint64
	}
	distinct := map[one]bool{}
	for _, e := range events {
		if e.Name != "engagement" && !e.Timestamp.Before(from) && e.Timestamp.Before(to) {
			distinct[one{e.Timestamp.Unix() / 300, e.UserID}] = true
		}
	}
	return float64(len(distinct)) / float64(to.Sub(from)/currentSpan)
}

func TestTrafficHasTheWantedNumberOfVisitors(t *testing.T) {
	s := Scenario{Seed: 1, From: day(2026, 6, 1), To: day(2026, 6, 8), Sites: 4, Visitors: 20, Skew: 1}
	traffic := Generate(s)
	for site, want := range map[uint64]float64{1: 20, 2: 10, 4: 5} {
		events := of(site, traffic.Events)
		assert.InEpsilon(t, want, visitorsWithin(events, s.From, s.To), 0.05, "site %d", site)
	}
	busy, quiet := 0.0, 0.0
	for d := range 5 {
		afternoon := s.From.AddDate(0, 0, d).Add(15 * time.Hour)
		busy += visitorsWithin(of(1, traffic.Events), afternoon, afternoon.Add(2*time.Hour))
		quiet += visitorsWithin(of(1, traffic.Events), afternoon.Add(-12*time.Hour), afternoon.Add(-10*time.Hour))
	}
	assert.InEpsilon(t, 9, busy/quiet, 0.3, "of 1.8 and 0.2 times the mean")
}

func TestDaysOfClockChangesHaveTheirHours(t *testing.T) {
	for _, c := range []struct {
		zone        string
		year, hours int
		month       time.Month
		date        int
	}{
		{"Europe/Tallinn", 2026, 23, time.March, 29},
		{"Europe/Tallinn", 2026, 25, time.October, 25},
		{"Europe/Tallinn", 2026, 24, time.October, 24},
		{"America/New_York", 2026, 23, time.March, 8},
		{"America/New_York", 2026, 25, time.November, 1},
	} {
		local := zone(t, c.zone)
		midnight := time.Date(c.year, c.month, c.date, 0, 0, 0, 0, local)
		s := Scenario{Seed: 3, From: midnight.AddDate(0, 0, -3).UTC().Truncate(time.Hour), To: midnight.AddDate(0, 0, 3).UTC(), Sites: 1, Visitors: 40, Zones: []*time.Location{local}}
		hours, peaks := map[int64]bool{}, map[int]map[int]int{}
		for _, r := range Generate(s).Events {
			at := r.Timestamp.In(local)
			if at.YearDay() == midnight.YearDay() {
				hours[r.Timestamp.Unix()/3600] = true
			}
			if peaks[at.YearDay()] == nil {
				peaks[at.YearDay()] = map[int]int{}
			}
			peaks[at.YearDay()][at.Hour()]++
		}
		assert.Len(t, hours, c.hours, "%s", midnight)
		for offset := -2; offset <= 2; offset++ {
			byHour := peaks[midnight.YearDay()+offset]
			busiest := slices.MaxFunc(slices.Collect(maps.Keys(byHour)), func(a, b int) int { return cmp.Compare(byHour[a], byHour[b]) })
			assert.InDelta(t, 16, busiest, 2, "the clock of the site tells when it is busy")
		}
	}
}

func TestRowsBecomeVisibleSoonOrLate(t *testing.T) {
	s := Scenario{Seed: 5, From: day(2026, 6, 1), To: day(2026, 6, 4), Sites: 1, Visitors: 50, Late: 0.05}
	traffic := Generate(s)
	late := 0
	for i, r := range traffic.Events {
		delay := r.VisibleAt.Sub(r.Timestamp)
		require.GreaterOrEqual(t, delay, time.Duration(0))
		require.Less(t, delay, 2*time.Minute)
		if delay >= usualDelay {
			late++
		}
		require.False(t, i > 0 && r.VisibleAt.Before(traffic.Events[i-1].VisibleAt), "they are in order")
	}
	assert.InEpsilon(t, 0.05, float64(late)/float64(len(traffic.Events)), 0.1)

	noon := s.From.Add(36 * time.Hour)
	seen := traffic.Visible(noon)
	assert.False(t, seen.Events[len(seen.Events)-1].VisibleAt.After(noon))
	assert.True(t, traffic.Events[len(seen.Events)].VisibleAt.After(noon))
	assert.True(t, traffic.Sessions[len(seen.Sessions)].VisibleAt.After(noon))

	s.Late = -1
	for _, r := range Generate(s).Events {
		require.Less(t, r.VisibleAt.Sub(r.Timestamp), usualDelay)
	}
}

// Sessions must be what Plausible's ingestion makes of the events.
func TestSessionsFollowTheirEvents(t *testing.T) {
	s := Scenario{
		Seed: 9, From: day(2026, 6, 1), To: day(2026, 6, 5), Sites: 2, Visitors: 30, Skew: 1,
		Changes: []Change{{From: day(2026, 6, 2).Add(10 * time.Hour), To: day(2026, 6, 2).Add(12 * time.Hour)}},
	}
	traffic := Generate(s)
	latest, versions := map[uint64]plausible.Session{}, map[uint64]int32{}
	for _, r := range traffic.Sessions {
		versions[r.SessionID] += int32(r.Sign)
		require.GreaterOrEqual(t, versions[r.SessionID], int32(0), "what is taken back was written before")
		require.LessOrEqual(t, versions[r.SessionID], int32(1))
		if r.Sign == 1 {
			latest[r.SessionID] = r.Session
		} else {
			require.Equal(t, latest[r.SessionID].Events, r.Events)
		}
	}

	type made struct {
		events, views int32
		last          time.Time
		entry         string
		custom        bool
	}
	visits, days, starts := map[uint64]*made{}, map[uint64]map[int64]bool{}, map[uint64]int{}
	duplicates, reading, overnight := 0, 0, 0
	for site := range uint64(2) {
		var before plausible.Event
		for _, e := range of(site+1, traffic.Events) {
			if e.Name == before.Name && e.SessionID == before.SessionID && e.Timestamp.Equal(before.Timestamp) && e.Pathname == before.Pathname {
				duplicates++
			}
			before = e
			v := visits[e.SessionID]
			if v == nil {
				require.NotEqual(t, "engagement", e.Name, "a visit does not begin with reading")
				v = &made{last: e.Timestamp}
				visits[e.SessionID] = v
				starts[e.UserID]++
				if days[e.UserID] == nil {
					days[e.UserID] = map[int64]bool{}
				}
				days[e.UserID][e.Timestamp.Unix()/86400] = true
			}
			require.LessOrEqual(t, e.Timestamp.Sub(v.last), sessionGap)
			if e.Timestamp.Unix()/86400 != v.last.Unix()/86400 {
				overnight++
			}
			v.last = e.Timestamp
			if e.Name == "engagement" {
				reading++
				continue
			}
			state := latest[e.SessionID]
			require.Equal(t, state.UserID, e.UserID, "also past midnight")
			v.events++
			if e.Name == "pageview" {
				v.views++
				v.entry = cmp.Or(v.entry, e.Pathname)
			}
			v.custom = v.custom || e.Name != "pageview" && e.Name != "Scroll Marker"
		}
	}
	require.Len(t, latest, len(visits))
	for id, v := range visits {
		state := latest[id]
		require.Equal(t, []any{v.events, v.views, v.entry, v.views < 2 && !v.custom}, []any{state.Events, state.Pageviews, state.EntryPage, state.IsBounce})
		require.Equal(t, state.Timestamp.Sub(state.Start), time.Duration(state.Duration)*time.Second)
	}
	returned := 0
	for user, on := range days {
		require.Len(t, on, 1, "another day, another user_id")
		if starts[user] > 1 {
			returned++
		}
	}
	assert.NotZero(t, duplicates)
	assert.NotZero(t, reading)
	assert.NotZero(t, overnight)
	assert.NotZero(t, returned)
}

func TestChangesHappenWhereAndWhenTheyShould(t *testing.T) {
	start := day(2026, 6, 2)
	s := Scenario{Seed: 11, From: day(2026, 6, 1), To: day(2026, 6, 3), Sites: 2, Visitors: 40, Changes: []Change{
		{SiteID: 1, From: start.Add(12 * time.Hour), To: start.Add(14 * time.Hour), Factor: 4, Source: "Slashdot"},
		{SiteID: 2, From: start.Add(12 * time.Hour), To: start.Add(14 * time.Hour)},
	}}
	traffic := Generate(s)
	s.Changes = nil
	usual := Generate(s)
	during := func(site uint64, rows []Row) []plausible.Event {
		return slices.DeleteFunc(of(site, rows), func(e plausible.Event) bool {
			return e.Timestamp.Before(start.Add(12*time.Hour+30*time.Minute)) || !e.Timestamp.Before(start.Add(14*time.Hour))
		})
	}
	assert.InEpsilon(t, 4*len(during(1, usual.Events)), len(during(1, traffic.Events)), 0.1)
	from := 0
	for _, e := range during(1, traffic.Events) {
		if e.ReferrerSource == "Slashdot" {
			from++
		}
	}
	assert.InEpsilon(t, 0.75*float64(len(during(1, traffic.Events))), from, 0.1)
	assert.Empty(t, during(2, traffic.Events))
	assert.NotEmpty(t, during(2, usual.Events))
}

// 30 days of a hundred sites. It tells how many rows a second come out.
func BenchmarkGenerate(b *testing.B) {
	s := Scenario{Seed: 1, From: day(2026, 6, 1), To: day(2026, 7, 1), Sites: 100, Visitors: 12, Skew: 1}
	rows := 0
	for b.Loop() {
		t := Generate(s)
		rows += len(t.Events) + len(t.Sessions)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(rows)/float64(b.N), "rows")
}
