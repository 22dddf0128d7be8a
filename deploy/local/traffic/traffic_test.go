package traffic_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/local/traffic"
	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

var day = time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC)

func options(seed uint64, start, live time.Time) traffic.Options {
	return traffic.Options{SiteID: 1, Hostname: "demo.example.com", Seed: seed, Start: start, Live: live}
}

func TestSameSeedSameRowsHoweverOftenAsked(t *testing.T) {
	live := day.Add(2 * time.Hour)
	whole := traffic.New(options(1, day, live)).Until(live.Add(30 * time.Minute))
	g := traffic.New(options(1, day, live))
	var parts visit.Rows
	for at := day; at.Before(live.Add(30 * time.Minute)); {
		at = at.Add(7 * time.Second)
		if end := live.Add(30 * time.Minute); at.After(end) {
			at = end
		}
		rows := g.Until(at)
		parts.Events, parts.Sessions = append(parts.Events, rows.Events...), append(parts.Sessions, rows.Sessions...)
	}
	require.Equal(t, whole, parts)
	require.NotEqual(t, whole, traffic.New(options(2, day, live)).Until(live.Add(30*time.Minute)))
}

func TestRowsComeInOrderAndNeverFromTheFuture(t *testing.T) {
	live := day.Add(time.Hour)
	g := traffic.New(options(1, day, live))
	last := day
	for end := day; end.Before(live.Add(20 * time.Minute)); end = end.Add(5 * time.Second) {
		for _, e := range g.Until(end).Events {
			if e.Timestamp.Before(last) || !e.Timestamp.Before(end) {
				t.Fatalf("an event of %s after one of %s, asked for until %s", e.Timestamp, last, end)
			}
			last = e.Timestamp
		}
	}
}

func byTime(e plausible.Event, at time.Time) int { return e.Timestamp.Compare(at) }

// visitorsAt counts as a visitor_spike trigger does.
func visitorsAt(events []plausible.Event, slot time.Time) int {
	from, _ := slices.BinarySearchFunc(events, slot.Add(-traffic.SpikeWindow), byTime)
	to, _ := slices.BinarySearchFunc(events, slot, byTime)
	unique := map[uint64]bool{}
	for _, e := range events[from:to] {
		unique[e.UserID] = true
	}
	return len(unique)
}

func TestOrdinaryTrafficStaysBelowTheThresholdAllDay(t *testing.T) {
	for seed := range uint64(4) {
		never := day.Add(1000 * time.Hour)
		events := traffic.New(options(seed, day, never)).Until(day.Add(24 * time.Hour)).Events
		for slot := day.Add(10 * time.Minute); slot.Before(day.Add(24 * time.Hour)); slot = slot.Add(time.Minute) {
			if n := visitorsAt(events, slot); n >= traffic.SpikeThreshold {
				t.Fatalf("seed %d at %s: %d visitors", seed, slot, n)
			}
		}
	}
}

func TestSpikePassesTheThresholdSoonAndIsOverBeforeTheNext(t *testing.T) {
	for seed := range uint64(5) {
		for _, sinceMidnight := range []time.Duration{3 * time.Hour, 15 * time.Hour} { // the quietest and the busiest
			live := day.Add(sinceMidnight)
			events := traffic.New(options(seed, live.Add(-2*time.Hour), live)).Until(live.Add(25 * time.Minute)).Events
			for n := range 2 {
				spike := live.Add(time.Duration(n) * traffic.SpikeEvery)
				require.GreaterOrEqual(t, visitorsAt(events, spike.Add(30*time.Second)), traffic.SpikeThreshold, "seed %d, spike %d", seed, n)
				require.Less(t, visitorsAt(events, spike.Add(traffic.SpikeEvery)), traffic.SpikeThreshold, "seed %d, spike %d", seed, n)
			}
		}
	}
}

func TestSomebodySignsUpWithinSeconds(t *testing.T) {
	events := traffic.New(options(1, day, day)).Until(day.Add(5 * time.Second)).Events
	require.True(t, slices.ContainsFunc(events, func(e plausible.Event) bool { return e.Name == "Signup" }))
}

func TestRowsHoldTogether(t *testing.T) {
	g := traffic.New(options(3, day, day.Add(2*time.Hour)))
	rows := g.Until(day.Add(8 * time.Hour))
	state := map[uint64]plausible.Session{}
	for _, s := range rows.Sessions {
		before, known := state[s.SessionID]
		if s.Sign == -1 {
			s.Sign = 1
			require.Equal(t, before, s)
			continue
		}
		if known {
			require.Equal(t, before.Events+1, s.Events)
		}
		state[s.SessionID] = s
	}
	counted := map[uint64]int32{}
	for _, e := range rows.Events {
		s, known := state[e.SessionID]
		if !known || s.UserID != e.UserID || len(e.PropValues) != len(e.PropKeys) || e.ScrollDepth > 100 {
			t.Fatalf("an event that fits no visit: %+v, %+v", e, s)
		}
		if e.Name != visit.Engagement {
			counted[e.SessionID]++
		}
	}
	for id, n := range counted {
		require.Equal(t, state[id].Events, n)
	}
}

func TestSiteLooksAlive(t *testing.T) {
	events := traffic.New(options(5, day, day.Add(6*time.Hour))).Until(day.Add(12 * time.Hour)).Events
	names, sources, countries, pages := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	business, scrolled := 0, 0
	for _, e := range events {
		names[e.Name]++
		sources[e.ReferrerSource]++
		countries[e.CountryCode]++
		pages[e.Pathname]++
		if e.Name == "Purchase" && e.PropValues[0] == "business" {
			business++
		}
		if e.Name == visit.Engagement && strings.HasPrefix(e.Pathname, "/blog/") && e.ScrollDepth >= 75 {
			scrolled++
		}
	}
	for _, name := range []string{"pageview", "engagement", "Signup", "Purchase", "404"} {
		require.Positive(t, names[name], name)
	}
	require.Positive(t, business, "the goal with a property is reached")
	require.Positive(t, scrolled, "the scroll goal is reached")
	require.Subset(t, slices.Collect(maps.Keys(sources)), []string{"", "Google", "Hacker News", "newsletter"})
	require.Greater(t, len(countries), 8)
	require.Greater(t, len(pages), 20)
	require.Greater(t, names["pageview"], 10*names["Signup"], "few who come sign up")
}
