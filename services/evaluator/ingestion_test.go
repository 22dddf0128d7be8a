package evaluator

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// pulse is beats with a number of minutes between each and the next, the last of them at noon.
func pulse(minutesBetween ...int) []clickhouse.Beat {
	beats := make([]clickhouse.Beat, len(minutesBetween)+1)
	at := noon
	for i := len(beats) - 1; ; i-- {
		beats[i] = clickhouse.Beat{First: at, Last: at}
		if i == 0 {
			return beats
		}
		at = at.Add(-time.Duration(minutesBetween[i-1]) * time.Minute)
	}
}

// days are pauses that fill so many days: on each one long one, given in minutes, else short ones.
func days(short int, longest ...int) (minutes []int) {
	for _, long := range longest {
		minutes = append(minutes, long)
		left := 24*60 - long
		for ; left > short; left -= short {
			minutes = append(minutes, short)
		}
		minutes = append(minutes, left)
	}
	return minutes
}

func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		beats []clickhouse.Beat
		want  time.Duration
	}{
		"nothing known":                      {nil, learningPatience},
		"one event":                          {pulse(), learningPatience},
		"an hour of history":                 {pulse(30, 30), learningPatience},
		"less than two days":                 {pulse(days(5, 60)...), learningPatience},
		"an event each minute":               {pulse(days(1, 1, 1, 1, 1, 1, 1, 1)...), leastPatience},
		"twice the second longest":           {pulse(days(2, 10, 12, 30, 11, 10, 9, 8)...), 24 * time.Minute},
		"an outage was the longest":          {pulse(days(2, 3, 3, 300, 3, 3, 3, 3)...), 6 * time.Minute},
		"two in a day":                       {pulse(append(days(2, 3, 3, 3), 200, 200, 1030, 10)...), 6 * time.Minute},
		"two days of history":                {pulse(days(2, 20, 40)...), 40 * time.Minute},
		"quiet nights":                       {pulse(days(30, 360, 420, 400, 380, 300, 370, 350)...), mostPatience},
		"a pause of days is one of them":     {pulse(append(days(2, 3, 3), 2*24*60, 2, 2)...), 6 * time.Minute},
		"only a pause of days":               {pulse(3 * 24 * 60), mostPatience},
		"the pause within a minute is short": {[]clickhouse.Beat{{First: noon.Add(-49 * time.Hour), Last: noon.Add(-49 * time.Hour)}, {First: noon.Add(-10 * time.Second), Last: noon}}, mostPatience},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, patienceOf(c.beats)) })
	}
}

func TestPausesAreFromTheLastEventToTheFirst(t *testing.T) {
	beats := []clickhouse.Beat{
		{First: noon, Last: noon.Add(50 * time.Second)},
		{First: noon.Add(5 * time.Minute), Last: noon.Add(5*time.Minute + 9*time.Second)},
		{First: noon.Add(6 * time.Minute), Last: noon.Add(6 * time.Minute)},
	}
	assert.Equal(t, []postgres.Outage{{Began: noon.Add(50 * time.Second), Ended: noon.Add(5 * time.Minute)}}, pausesOf(beats, 4*time.Minute))
	assert.Empty(t, pausesOf(beats, 5*time.Minute))
	assert.Empty(t, pausesOf(nil, time.Minute))
}

// inlet is Plausible's ClickHouse and the own database, looked at by replicas of ingestion.
type inlet struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	now  time.Time // a whole minute of ClickHouse's clock, a little ago: events may not be in the future
	logs bytes.Buffer
}

func newInlet(t *testing.T) *inlet {
	in := &inlet{t: t, url: devstacktest.ClickHouse(t), pool: leasesPool(t), now: time.Now().UTC().Add(-3 * time.Hour).Truncate(time.Minute)}
	require.NoError(t, fixture.CreateClickHouse(t.Context(), in.url))
	return in
}

// replica is an ingestion that was just started.
func (in *inlet) replica() *ingestion {
	in.t.Helper()
	m := newMetrics(prometheus.NewRegistry())
	events, err := clickhouse.Open(in.t.Context(), in.url, 10*time.Second, m.query)
	require.NoError(in.t, err)
	in.t.Cleanup(func() { _ = events.Close() })
	store, log := postgres.New(in.pool), slog.New(slog.NewTextHandler(&in.logs, nil))
	return newIngestion(events, store, newSystem(store, log, m, 10*time.Second, func() {}), log, m)
}

func (in *inlet) minute(n int) time.Time { return in.now.Add(time.Duration(n) * time.Minute) }

// events happen on the sites, one a minute, from a minute on until before another.
func (in *inlet) events(from, to int, sites ...uint64) {
	in.t.Helper()
	conn, err := fixture.Open(in.url)
	require.NoError(in.t, err)
	defer conn.Close()
	var events []fixture.Event
	for minute := from; minute < to; minute++ {
		for _, site := range sites {
			events = append(events, fixture.Event{Timestamp: in.minute(minute), Name: "pageview", SiteID: site, UserID: 1, SessionID: 1})
		}
	}
	require.NoError(in.t, fixture.InsertEvents(in.t.Context(), conn, events))
}

// at lets a replica observe the slot at a minute.
func (in *inlet) at(i *ingestion, minute int) bool {
	in.t.Helper()
	_, newest, err := i.events.Now(in.t.Context())
	require.NoError(in.t, err)
	i.observe(in.t.Context(), in.minute(minute), newest)
	_, silent := i.silentSince()
	return silent
}

func (in *inlet) window(from, to int) trigger.Window {
	return trigger.Window{From: in.minute(from), To: in.minute(to)}
}

type told struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		Since       time.Time `json:"since"`
		Until       time.Time `json:"until"`
		TriggerID   string    `json:"trigger_id"`
		SiteID      int64     `json:"site_id"`
		Problem     string    `json:"problem"`
		Explanation string    `json:"explanation"`
	} `json:"data"`
}

// systemEvents are those in the outbox, the oldest first.
func systemEvents(t *testing.T, pool *pgxpool.Pool) []told {
	t.Helper()
	rows, err := pool.Query(t.Context(), "SELECT payload FROM system_events ORDER BY at, kind DESC")
	require.NoError(t, err)
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e told, err error) {
		var payload []byte
		if err := row.Scan(&payload); err != nil {
			return e, err
		}
		return e, json.Unmarshal(payload, &e)
	})
	require.NoError(t, err)
	return events
}

func (in *inlet) outages() []postgres.Outage {
	in.t.Helper()
	outages, err := postgres.New(in.pool).Outages(in.t.Context(), time.Time{})
	require.NoError(in.t, err)
	return outages
}

const threeDays = 3 * 24 * 60

func TestAnOutageBeginsLastsAndEnds(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1, 2)
	i := in.replica()
	assert.False(t, in.at(i, 0))
	assert.Equal(t, leastPatience, i.patience, "of an event each minute")
	assert.False(t, in.at(i, 1))
	assert.False(t, i.view().blind(in.window(-5, 1)))
	assert.True(t, in.at(i, 2))
	assert.True(t, i.view().blind(in.window(-5, 2)))
	assert.True(t, in.at(i, 3))
	assert.Equal(t, 1.0, testutil.ToFloat64(i.metrics.ingestionSilent))
	assert.Equal(t, 180.0, testutil.ToFloat64(i.metrics.ingestionLag))
	assert.Equal(t, []postgres.Outage{{Began: in.now}}, in.outages())
	require.NoError(t, i.learn(t.Context()))
	assert.True(t, in.at(i, 20), "it is not forgotten by learning")

	in.events(30, 32, 2)
	assert.False(t, in.at(i, 31), "one site suffices")
	assert.Equal(t, 0.0, testutil.ToFloat64(i.metrics.ingestionSilent))
	assert.Equal(t, []postgres.Outage{{Began: in.now, Ended: in.minute(30)}}, in.outages())
	events := systemEvents(t, in.pool)
	require.Len(t, events, 2)
	assert.Equal(t, "ingestion.silent", events[0].Type)
	assert.Equal(t, in.minute(2), events[0].Timestamp)
	assert.Equal(t, in.now, events[0].Data.Since)
	assert.Equal(t, "None of the 2 sites has had an event for 2 minutes, more than the usual pauses allow (2 minutes): nothing is concluded from silence or low numbers until events come in again.", events[0].Data.Explanation)
	assert.Equal(t, "ingestion.resumed", events[1].Type)
	assert.Equal(t, in.minute(30), events[1].Timestamp)
	assert.Equal(t, in.now, events[1].Data.Since)
	assert.Equal(t, in.minute(30), events[1].Data.Until)
	assert.Equal(t, "Events come in again, after 30 minutes without any of any site.", events[1].Data.Explanation)

	for _, c := range []struct {
		from, to int
		blind    bool
	}{
		{20, 31, true}, {28, 40, false}, {27, 40, true}, {30, 60, false}, {-10, 0, false}, {-10, 2, false}, {-10, 3, true}, {-1000, 1000, true},
	} {
		assert.Equal(t, c.blind, i.view().blind(in.window(c.from, c.to)), "%d to %d", c.from, c.to)
	}
	require.NoError(t, i.learn(t.Context()))
	assert.True(t, i.view().blind(in.window(20, 31)), "the rhythm has it too")
	assert.Equal(t, []postgres.Outage{{Began: in.now, Ended: in.minute(30)}}, in.outages(), "by the same key")
}

// Rows that come late divide an outage in two.
func TestLateRowsDivideAnOutage(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1, 2)
	i := in.replica()
	assert.True(t, in.at(i, 10))
	in.events(5, 6, 1)
	assert.True(t, in.at(i, 12), "still silent, and not anew")
	in.events(20, 21, 1)
	assert.False(t, in.at(i, 20))
	assert.Equal(t, []postgres.Outage{{Began: in.now, Ended: in.minute(5)}, {Began: in.minute(5), Ended: in.minute(20)}}, in.outages())
	assert.Len(t, systemEvents(t, in.pool), 2)
}

func TestReplicasMakeOneEventOfAnOutage(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1, 2)
	a, b := in.replica(), in.replica()
	assert.True(t, in.at(a, 4))
	assert.True(t, in.at(b, 5))
	in.events(30, 32, 1, 2)
	assert.False(t, in.at(b, 30))
	assert.False(t, in.at(a, 31))
	events := systemEvents(t, in.pool)
	require.Len(t, events, 2)
	assert.Equal(t, in.minute(4), events[0].Timestamp, "of the first that noticed")
	assert.Len(t, in.outages(), 1)
	assert.Equal(t, 1.0, testutil.ToFloat64(a.metrics.systemEvents.WithLabelValues("ingestion.silent")))
	assert.Equal(t, 0.0, testutil.ToFloat64(b.metrics.systemEvents.WithLabelValues("ingestion.silent")))
	assert.True(t, a.view().blind(in.window(20, 31)))
	assert.True(t, b.view().blind(in.window(20, 31)))
}

func TestAnOutageIsKnownAfterARestart(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1, 2)
	assert.True(t, in.at(in.replica(), 4))
	i := in.replica()
	assert.True(t, in.at(i, 10))
	assert.Len(t, systemEvents(t, in.pool), 1, "it was told already")

	in.events(30, 61, 1, 2)
	i = in.replica() // nobody saw the end
	assert.False(t, in.at(i, 60))
	assert.True(t, i.view().blind(in.window(0, 60)))
	events := systemEvents(t, in.pool)
	require.Len(t, events, 2)
	assert.Equal(t, in.minute(30), events[1].Data.Until)
}

// The machine with Plausible and the evaluator was down: no replica saw the outage.
func TestAnOutageThatNobodySawIsFoundAtTheStart(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1, 2)
	in.events(40, 46, 1, 2)
	i := in.replica()
	assert.False(t, in.at(i, 45))
	assert.True(t, i.view().blind(in.window(30, 45)))
	assert.False(t, i.view().blind(in.window(40, 45)))
	assert.Equal(t, []postgres.Outage{{Began: in.now, Ended: in.minute(40)}}, in.outages())
	assert.Empty(t, systemEvents(t, in.pool), "it is no news that the evaluator was down")
}

// The silence of a lone site is its own, however long it is.
func TestALoneSiteIsNeverIngestion(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, -100, 1)
	in.events(0, 1, 1)
	i := in.replica()
	assert.False(t, in.at(i, 100))
	assert.False(t, i.view().blind(in.window(0, 100)))
	assert.False(t, i.view().blind(in.window(-200, 0)))
	assert.Empty(t, in.outages())
	assert.Equal(t, 0.0, testutil.ToFloat64(i.metrics.ingestionPatience))
}

func TestWithoutAnyEventNothingIsSilent(t *testing.T) {
	in := newInlet(t)
	i := in.replica()
	assert.False(t, in.at(i, 100))
	assert.False(t, i.view().blind(in.window(0, 100)))
	assert.True(t, i.learned)
}

// What cannot be decided yet is not concluded, nor told.
func TestBeforeTheRhythmIsKnown(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1)
	i := in.replica()
	i.tried = true // and it has failed
	assert.False(t, in.at(i, 9))
	assert.False(t, i.view().blind(in.window(0, 9)))
	assert.False(t, in.at(i, 10))
	assert.True(t, i.view().blind(in.window(0, 10)))
	require.NoError(t, i.learn(t.Context()))
	assert.False(t, i.view().blind(in.window(0, 10)))
	assert.Empty(t, systemEvents(t, in.pool))
}

// An outage is judged while the database fails, and told when it answers.
func TestAnOutageIsToldWhenTheDatabaseAnswers(t *testing.T) {
	in := newInlet(t)
	in.events(-threeDays, 1, 1, 2)
	i := in.replica()
	assert.False(t, in.at(i, 0))
	rename := func(from, to string) {
		t.Helper()
		_, err := in.pool.Exec(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to)
		require.NoError(t, err)
	}
	rename("system_events", "away")
	assert.True(t, in.at(i, 5))
	assert.Empty(t, in.outages(), "an outage that is recorded was told")
	in.events(10, 11, 1)
	assert.False(t, in.at(i, 10))
	rename("away", "system_events")
	assert.False(t, in.at(i, 11))
	assert.Len(t, systemEvents(t, in.pool), 2)
	assert.Equal(t, []postgres.Outage{{Began: in.now, Ended: in.minute(10)}}, in.outages())
}

// One event from a computer whose clock is a year ahead must not hide silences for a year.
func TestAnEventOfTheFutureHidesNoSilence(t *testing.T) {
	in := newInlet(t)
	in.events(-30, 0, 1, 2)
	in.events(365*24*60, 365*24*60+1, 3)
	i := in.replica()
	require.False(t, in.at(i, 0))
	require.False(t, in.at(i, 8))
	require.True(t, in.at(i, 11))
	began, _ := i.silentSince()
	require.Equal(t, in.minute(-1), began)
	require.True(t, in.at(in.replica(), 12), "and a replica that starts now sees it too")
	in.events(20, 25, 1)
	require.False(t, in.at(i, 25))
}
