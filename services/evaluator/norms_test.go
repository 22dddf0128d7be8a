package evaluator

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// archive is the own database and Plausible's ClickHouse, with a count of its queries by family.
type archive struct {
	t      *testing.T
	url    string
	pool   *pgxpool.Pool
	store  *postgres.Store
	events *clickhouse.Events

	mutex   sync.Mutex
	queries map[string]int
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{t: t, url: devstacktest.ClickHouse(t), queries: map[string]int{}}
	require.NoError(t, fixture.CreateClickHouse(t.Context(), a.url))
	var err error
	a.pool, err = database.Open(t.Context(), "DATABASE_URL", devstacktest.Postgres(t), 4)
	require.NoError(t, err)
	t.Cleanup(a.pool.Close)
	require.NoError(t, database.Migrate(t.Context(), a.pool))
	a.store, a.events = postgres.New(a.pool), a.open()
	return a
}

func (a *archive) open() *clickhouse.Events {
	a.t.Helper()
	events, err := clickhouse.Open(a.t.Context(), a.url, 30*time.Second, func(family string, _ time.Duration, _ error) {
		a.mutex.Lock()
		defer a.mutex.Unlock()
		a.queries[family]++
	})
	require.NoError(a.t, err)
	a.t.Cleanup(func() { _ = events.Close() })
	return events
}

// asked is how many queries of a family there were since it was asked last.
func (a *archive) asked(family string) int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	count := a.queries[family]
	a.queries[family] = 0
	return count
}

func (a *archive) insert(events ...fixture.Event) {
	a.t.Helper()
	conn, err := fixture.Open(a.url)
	require.NoError(a.t, err)
	defer conn.Close()
	require.NoError(a.t, fixture.InsertEvents(a.t.Context(), conn, events))
}

func (a *archive) norms() *norms { return newNorms(a.events, a.store, slog.New(slog.DiscardHandler)) }

var tallinn = plausible.Site{ID: 1, Timezone: "Europe/Tallinn"}

func normOver(metric trigger.Metric, length time.Duration, slot time.Time) clickhouse.Question {
	return clickhouse.Question{SiteID: 1, Question: trigger.Question{Ask: trigger.AskNorm, Metric: metric, Window: trigger.Window{From: slot.Add(-length), To: slot}}}
}

// refreshed asks, refreshes, and asks again.
func refreshed(t *testing.T, n *norms, site plausible.Site, q clickhouse.Question) *trigger.Norm {
	t.Helper()
	n.of(site, q)
	require.NoError(t, n.refresh(t.Context()))
	return n.of(site, q)
}

// weeksOfTraffic has more of it by day, and three hours in eight without any.
func weeksOfTraffic(from, to time.Time) []fixture.Event {
	random := rand.New(rand.NewPCG(1, 2))
	var events []fixture.Event
	for hour := from; hour.Before(to); hour = hour.Add(time.Hour) {
		if random.IntN(8) < 3 {
			continue
		}
		for range random.IntN(3 + 4*(hour.Hour()%12)/3) {
			e := fixture.Event{
				Timestamp: hour.Add(time.Duration(random.IntN(3600)) * time.Second), Name: "pageview", SiteID: 1, UserID: uint64(random.IntN(12)),
				Pathname: []string{"/", "/blog/a"}[random.IntN(2)], CountryCode: []string{"EE", "LV"}[random.IntN(2)],
			}
			if random.IntN(5) == 0 {
				e.Name = "Signup"
			}
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(x, y fixture.Event) int { return x.Timestamp.Compare(y.Timestamp) })
	return events
}

// directly is the norm by its definition: from the events themselves, window by window.
func directly(events []fixture.Event, from, to time.Time, length time.Duration, zone string, value func([]fixture.Event) float64) *trigger.Norm {
	location, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	var values [trigger.HoursOfWeek][]float64
	for end := from.Add(min(length, time.Hour)); !end.After(to); end = end.Add(min(length, time.Hour)) {
		hour := trigger.HourOfWeek(end.Add(-1), location)
		values[hour] = append(values[hour], value(between(events, end.Add(-length), end)))
	}
	norm := &trigger.Norm{}
	for i := range norm.Hours {
		var pooled []float64
		for d := -1; d <= 1; d++ {
			pooled = append(pooled, values[(i+d+trigger.HoursOfWeek)%trigger.HoursOfWeek]...)
		}
		var mean, variance float64
		for _, v := range pooled {
			mean += v / float64(len(pooled))
		}
		for _, v := range pooled {
			variance += (v - mean) * (v - mean) / float64(max(len(pooled)-1, 1))
		}
		if len(pooled) > 0 {
			norm.Hours[i] = trigger.Usual{Samples: int32(len(pooled)), Mean: float32(mean), Variance: float32(variance)}
		}
	}
	return norm
}

func sameNorm(t *testing.T, want, got *trigger.Norm) {
	t.Helper()
	require.NotNil(t, got)
	for i := range want.Hours {
		w, g := want.Hours[i], got.Hours[i]
		if !assert.Equal(t, w.Samples, g.Samples, "hour %d", i) || !assert.InDelta(t, w.Mean, g.Mean, 1e-4, "hour %d", i) || !assert.InDelta(t, w.Variance, g.Variance, 1e-3, "hour %d", i) {
			return
		}
	}
}

func visitorsAmong(meets func(fixture.Event) bool) func([]fixture.Event) float64 {
	return func(events []fixture.Event) float64 {
		visitors := map[uint64]bool{}
		for _, e := range events {
			if meets(e) {
				visitors[e.UserID] = true
			}
		}
		return float64(len(visitors))
	}
}

// The eight weeks before noon have the end of summer time: an hour of the week in Tallinn is then
// another one in UTC.
func TestNormsAreThoseOfTheirDefinition(t *testing.T) {
	a := newArchive(t)
	events := weeksOfTraffic(noon.Add(-9*7*24*time.Hour), noon.Add(3*time.Hour))
	a.insert(events...)
	estonian, problems := trigger.ParseFilters(json.RawMessage(`[["is", "visit:country", ["EE"]]]`))
	require.Empty(t, problems)

	cases := []struct {
		name   string
		metric trigger.Metric
		length time.Duration
		change func(*clickhouse.Question)
		value  func([]fixture.Event) float64
	}{
		{"visitors of five minutes", trigger.Visitors, 5 * time.Minute, func(*clickhouse.Question) {}, visitorsAmong(func(fixture.Event) bool { return true })},
		{"visitors of an hour", trigger.Visitors, time.Hour, func(*clickhouse.Question) {}, visitorsAmong(func(fixture.Event) bool { return true })},
		{"visitors of three hours", trigger.Visitors, 3 * time.Hour, func(*clickhouse.Question) {}, visitorsAmong(func(fixture.Event) bool { return true })},
		{"converting visitors", trigger.Visitors, time.Hour, func(q *clickhouse.Question) { q.Goal = &trigger.Goal{EventName: "Signup"} },
			visitorsAmong(func(e fixture.Event) bool { return e.Name == "Signup" })},
		{"filtered page views", trigger.Pageviews, 30 * time.Minute, func(q *clickhouse.Question) { q.Filters = estonian }, func(events []fixture.Event) (n float64) {
			for _, e := range events {
				if e.Name == "pageview" && e.CountryCode == "EE" {
					n++
				}
			}
			return n
		}},
	}
	n := a.norms()
	began := map[string]time.Time{}                                                                  // by case: nothing is known of before
	for _, slot := range []time.Time{noon.Add(normSettling), noon.Add(time.Hour + 10*time.Minute)} { // the first fill, and a further hour
		for _, c := range cases {
			q := normOver(c.metric, c.length, slot)
			c.change(&q)
			n.of(tallinn, q)
		}
		require.NoError(t, n.refresh(t.Context()))
		assert.Equal(t, 1, a.asked("cells"), "one for those with a goal and those without")
		closed := slot.Truncate(time.Hour)
		for _, c := range cases {
			t.Run(fmt.Sprint(c.name, " ", slot.Hour()), func(t *testing.T) {
				q := normOver(c.metric, c.length, slot)
				c.change(&q)
				got := n.of(tallinn, q)
				for hour := closed.Add(-normSpan); began[c.name].IsZero(); hour = hour.Add(time.Hour) {
					if c.value(between(events, hour.Add(min(0, time.Hour-c.length)), hour.Add(time.Hour))) > 0 {
						began[c.name] = hour.Add(max(0, c.length-time.Hour))
					}
				}
				first := closed.Add(-normSpan)
				if began[c.name].After(first) {
					first = began[c.name]
				}
				sameNorm(t, directly(events, first, closed, c.length, tallinn.Timezone, c.value), got)
				assert.InDelta(t, 56, got.Days, 1)
			})
		}
	}
}

// between needs events in their order.
func between(events []fixture.Event, from, to time.Time) []fixture.Event {
	place := func(at time.Time) int {
		i, _ := slices.BinarySearchFunc(events, at, func(e fixture.Event, at time.Time) int { return cmp.Compare(e.Timestamp.Unix(), at.Unix()) })
		return i
	}
	return events[place(from):place(to)]
}

func TestNormsSurviveARestart(t *testing.T) {
	a := newArchive(t)
	a.insert(weeksOfTraffic(noon.Add(-28*24*time.Hour), noon)...) // since the end of summer time
	slot := noon.Add(10 * time.Minute)
	q := normOver(trigger.Visitors, 5*time.Minute, slot)
	n := a.norms()
	assert.Nil(t, n.of(tallinn, q))
	want := refreshed(t, n, tallinn, q)
	require.NotNil(t, want)
	assert.Equal(t, 1, a.asked("cells"))
	require.NoError(t, n.refresh(t.Context()))
	assert.Zero(t, a.asked("cells"), "nothing is missing")

	assert.Equal(t, want, refreshed(t, a.norms(), tallinn, q))
	assert.Zero(t, a.asked("cells"), "it is in the own database")

	tokyo := tallinn
	tokyo.Timezone = "Asia/Tokyo"
	moved := refreshed(t, n, tokyo, q)
	assert.Zero(t, a.asked("cells"), "another zone orders the same cells anew")
	assert.Equal(t, want.Hours[0], moved.Hours[7], "it is seven hours later there")
}

func TestNormsWithoutClickHouseStayWhatTheyWere(t *testing.T) {
	a := newArchive(t)
	a.insert(weeksOfTraffic(noon.Add(-normSpan), noon)...)
	n := a.norms()
	want := refreshed(t, n, tallinn, normOver(trigger.Visitors, time.Hour, noon.Add(10*time.Minute)))
	require.NotNil(t, want)

	later := normOver(trigger.Visitors, time.Hour, noon.Add(70*time.Minute))
	n.events = a.open()
	require.NoError(t, n.events.Close())
	n.of(tallinn, later)
	require.Error(t, n.refresh(t.Context()))
	assert.Equal(t, want, n.of(tallinn, later))

	again := a.norms() // restarted meanwhile
	again.events = n.events
	again.of(tallinn, later)
	require.Error(t, again.refresh(t.Context()))
	assert.Equal(t, want, again.of(tallinn, later))

	n.events = a.events
	assert.NotEqual(t, want, refreshed(t, n, tallinn, later))
}

func TestLateRowsAndFurtherHoursAreMeasured(t *testing.T) {
	a := newArchive(t)
	visit := func(at time.Time, visitor uint64) fixture.Event {
		return fixture.Event{Timestamp: at, Name: "pageview", SiteID: 1, UserID: visitor}
	}
	a.insert(visit(noon.Add(-48*time.Hour), 1))
	n := a.norms()
	monday := func(q clickhouse.Question) trigger.Usual {
		return n.of(tallinn, q).Hours[trigger.HourOfWeek(noon.Add(-30*time.Minute), time.FixedZone("", 7200))]
	}
	first := normOver(trigger.Visitors, time.Hour, noon.Add(4*time.Minute))
	refreshed(t, n, tallinn, first)
	assert.Equal(t, trigger.Usual{Samples: 2}, monday(first), "10 and 11 o'clock UTC")
	a.insert(visit(noon.Add(-90*time.Minute), 1), visit(noon.Add(time.Minute), 2), visit(noon.Add(2*time.Minute), 3))
	assert.Zero(t, monday(normOver(trigger.Visitors, time.Hour, noon.Add(59*time.Minute))).Mean)

	for range 2 { // the second time there is nothing to do
		q := normOver(trigger.Visitors, time.Hour, noon.Add(63*time.Minute))
		refreshed(t, n, tallinn, q)
		assert.Equal(t, trigger.Usual{Samples: 3, Mean: 1, Variance: 1}, monday(q), "1, 0 and 2")
	}
	assert.Equal(t, 2, a.asked("cells"))
}

// A site that is two weeks old has no six weeks of zeros, and statistics that were reset have no past.
func TestNormsOfYoungAndResetSites(t *testing.T) {
	a := newArchive(t)
	events := weeksOfTraffic(noon.Add(-14*24*time.Hour), noon)
	a.insert(events...)
	slot := noon.Add(5 * time.Minute)
	all := visitorsAmong(func(fixture.Event) bool { return true })
	n := a.norms()

	q := normOver(trigger.Visitors, time.Hour, slot)
	got := refreshed(t, n, tallinn, q)
	began := events[0].Timestamp.Truncate(time.Hour)
	sameNorm(t, directly(events, began, noon, time.Hour, tallinn.Timezone, all), got)
	assert.Equal(t, int(noon.Sub(began)/(24*time.Hour)), got.Days)

	reset := tallinn
	reset.StatsAt = noon.Add(-100*time.Hour - 20*time.Minute)
	assert.Nil(t, n.of(reset, q))
	require.NoError(t, n.refresh(t.Context()))
	got = n.of(reset, q)
	for began = noon.Add(-100 * time.Hour); all(between(events, began, began.Add(time.Hour))) == 0; {
		began = began.Add(time.Hour)
	}
	sameNorm(t, directly(events, began, noon, time.Hour, tallinn.Timezone, all), got)
	assert.LessOrEqual(t, got.Days, 4)
	a.asked("cells")
	assert.Equal(t, got, refreshed(t, a.norms(), reset, q), "what is stored is of the new statistics")
	assert.Zero(t, a.asked("cells"))

	silent := q
	silent.Goal = &trigger.Goal{EventName: "Never"}
	assert.Equal(t, &trigger.Norm{}, refreshed(t, n, reset, silent), "known, and nothing")
}

func TestWhatCannotBeMeasuredHasNoNorm(t *testing.T) {
	a := newArchive(t)
	n := a.norms()
	assert.Nil(t, refreshed(t, n, tallinn, normOver(trigger.BounceRate, time.Hour, noon)))
	assert.Nil(t, refreshed(t, n, tallinn, normOver(trigger.Visitors, 7*time.Minute, noon)))
	assert.Zero(t, a.asked("cells"))
}

func TestForgottenSeriesAreNotRefreshed(t *testing.T) {
	a := newArchive(t)
	n := a.norms()
	refreshed(t, n, tallinn, normOver(trigger.Visitors, time.Hour, noon))
	for day := range 3 {
		refreshed(t, n, tallinn, normOver(trigger.Pageviews, time.Hour, noon.Add(time.Duration(day+1)*13*time.Hour)))
	}
	assert.Len(t, n.wanted, 1)
}

func TestNormsRefreshThemselves(t *testing.T) {
	a := newArchive(t)
	a.insert(weeksOfTraffic(noon.Add(-normSpan), noon)...)
	n := a.norms()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, n.run(ctx)) })
	q := normOver(trigger.Visitors, time.Hour, noon.Add(time.Minute))
	require.Eventually(t, func() bool { return n.of(tallinn, q) != nil }, 20*time.Second, 10*time.Millisecond)
	stop()
	running.Wait()
}

func BenchmarkNormOf(b *testing.B) {
	n := newNorms(&clickhouse.Events{}, nil, slog.New(slog.DiscardHandler))
	questions := make([]clickhouse.Question, 10_000)
	for i := range questions {
		questions[i] = normOver(trigger.Visitors, time.Hour, noon)
		questions[i].SiteID = int64(i)
		if i%2 == 0 {
			questions[i].Goal = &trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": "business"}}
		}
		n.of(tallinn, questions[i])
	}
	for b.Loop() {
		for _, q := range questions {
			n.of(tallinn, q)
		}
	}
}
