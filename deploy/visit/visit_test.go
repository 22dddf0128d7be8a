package visit_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

var noon = time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)

func page(after time.Duration, path string) visit.Action {
	return visit.Action{At: noon.Add(after), Name: visit.Pageview, Path: path}
}

func TestOneVisitOverSeveralActions(t *testing.T) {
	tracker := visit.New(7, "example.com", 1, nil)
	reader := visit.Visitor{ID: 42, Country: "EE", Device: "Desktop"}
	first := page(0, "/")
	first.Origin = visit.Origin{Source: "Google", Referrer: "google.com"}
	tracker.Record(reader, first)
	tracker.Record(reader, visit.Action{At: noon.Add(20 * time.Second), Name: visit.Engagement, Path: "/", ScrollDepth: 80, EngagementTime: 19 * time.Second})
	tracker.Record(reader, page(21*time.Second, "/pricing"))
	tracker.Record(reader, visit.Action{At: noon.Add(90500 * time.Millisecond), Name: "Signup", Path: "/pricing", PropKeys: []string{"plan"}, PropValues: []string{"pro"}})
	rows := tracker.Take()

	require.Len(t, rows.Events, 4)
	for _, e := range rows.Events {
		require.Equal(t, rows.Sessions[0].SessionID, e.SessionID)
		require.Equal(t, "Google", e.ReferrerSource, "the source is the visit's, in every row of it")
	}
	require.EqualValues(t, 80, rows.Events[1].ScrollDepth)
	require.EqualValues(t, 19000, rows.Events[1].EngagementTime)

	// Engagement leaves no session row; each other action after the first leaves two.
	require.Len(t, rows.Sessions, 5)
	var signs []int8
	var visits, pageviews, events, bounces int
	for _, s := range rows.Sessions {
		signs = append(signs, s.Sign)
		visits += int(s.Sign)
		pageviews += int(s.Sign) * int(s.Pageviews)
		events += int(s.Sign) * int(s.Events)
		if s.IsBounce {
			bounces += int(s.Sign)
		}
		require.Equal(t, noon, s.Start, "all rows of a visit lie in one partition")
	}
	require.Equal(t, []int8{1, -1, 1, -1, 1}, signs)
	require.Equal(t, []int{1, 2, 3, 0}, []int{visits, pageviews, events, bounces})
	for i := 1; i < len(rows.Sessions); i += 2 {
		taken := rows.Sessions[i]
		taken.Sign = 1
		require.Equal(t, rows.Sessions[i-1], taken, "what is taken back is what was said")
	}
	last := rows.Sessions[4]
	require.Equal(t, "/", last.EntryPage)
	require.Equal(t, "/pricing", last.ExitPage)
	require.EqualValues(t, 90, last.Duration)
	require.Equal(t, noon.Add(90*time.Second), last.Timestamp)
	require.Zero(t, tracker.Take().Len(), "rows are taken once")
}

func TestVisitEndsAfterHalfAnHour(t *testing.T) {
	for _, test := range []struct {
		idle   time.Duration
		visits int
	}{
		{30 * time.Minute, 1},
		{30*time.Minute + 59*time.Second, 1}, // whole minutes count
		{31 * time.Minute, 2},
	} {
		tracker := visit.New(1, "example.com", 1, nil)
		tracker.Record(visit.Visitor{ID: 1}, page(0, "/"))
		tracker.Record(visit.Visitor{ID: 1}, page(test.idle, "/again"))
		sessions := map[uint64]bool{}
		for _, e := range tracker.Take().Events {
			sessions[e.SessionID] = true
		}
		require.Len(t, sessions, test.visits, "idle for %s", test.idle)
	}
}

func TestEngagementKeepsAVisitAliveButBeginsNone(t *testing.T) {
	tracker := visit.New(1, "example.com", 1, nil)
	engagement := func(after time.Duration) visit.Action {
		return visit.Action{At: noon.Add(after), Name: visit.Engagement, Path: "/"}
	}
	tracker.Record(visit.Visitor{ID: 1}, engagement(0))
	require.Zero(t, tracker.Take().Len())
	tracker.Record(visit.Visitor{ID: 1}, page(0, "/"))
	tracker.Record(visit.Visitor{ID: 1}, engagement(25*time.Minute))
	tracker.Record(visit.Visitor{ID: 1}, page(50*time.Minute, "/more"))
	rows := tracker.Take()
	require.Equal(t, rows.Events[0].SessionID, rows.Events[2].SessionID)
}

func TestVisitThatBeginsWithAnEventHasNoEntryPage(t *testing.T) {
	tracker := visit.New(1, "example.com", 1, nil)
	tracker.Record(visit.Visitor{ID: 1}, visit.Action{At: noon, Name: "404", Path: "/gone"})
	tracker.Record(visit.Visitor{ID: 1}, page(time.Second, "/found"))
	rows := tracker.Take()
	require.Empty(t, rows.Sessions[0].EntryPage)
	require.False(t, rows.Sessions[0].IsBounce)
	require.Equal(t, "/found", rows.Sessions[2].EntryPage)
}

func TestRowsBearTheStampWhileTheGapIsTheVisitors(t *testing.T) {
	fast := func(at time.Time) time.Time { return noon.Add(at.Sub(noon) / 3600) }
	tracker := visit.New(1, "example.com", 1, fast)
	tracker.Record(visit.Visitor{ID: 1}, page(0, "/"))
	tracker.Record(visit.Visitor{ID: 1}, page(2*time.Hour, "/"))
	rows := tracker.Take()
	require.NotEqual(t, rows.Events[0].SessionID, rows.Events[1].SessionID)
	require.Equal(t, noon.Add(2*time.Second), rows.Events[1].Timestamp)
}

func TestFinishedVisitsAreForgotten(t *testing.T) {
	tracker := visit.New(1, "example.com", 1, nil)
	for i := range 5000 {
		tracker.Record(visit.Visitor{ID: uint64(i)}, page(time.Duration(i)*time.Minute, "/"))
	}
	require.Less(t, tracker.Live(), 1100)
}
