package evaluator

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// filtered changes a stored trigger's filters.
func (b *bench) filtered(id, filters string) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), "UPDATE triggers SET filters = $2 WHERE id = $1", id, filters)
	require.NoError(b.t, err)
	b.catalogue.drop()
}

func (b *bench) visit(second int, visitor uint64, country, path, source string) fixture.Event {
	e := b.event("pageview", second, visitor)
	e.CountryCode, e.Pathname, e.ReferrerSource = country, path, source
	return e
}

func TestFiltersChooseWhatCounts(t *testing.T) {
	b := newBench(t)
	estonians := b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	b.filtered(estonians, `[["is", "visit:country", ["EE"]], ["or", [["contains", "event:page", ["blog"]], ["is", "visit:source", ["Direct / None"]]]]]`)
	b.insert(b.visit(-5, 1, "EE", "/blog/a", "Google"), b.visit(-5, 2, "DE", "/blog/a", "Google"), b.visit(-5, 3, "EE", "/other", "Google"))
	assert.Empty(t, b.slot(0), "one of them is an Estonian that reads the blog")
	b.insert(b.visit(5, 4, "EE", "/other", ""))
	fired := b.slot(10)
	require.Len(t, fired, 1)
	assert.Equal(t, 2.0, fired[0].Data.Value)
	assert.Equal(t, []trigger.Ranked{{Name: "/blog/a", Visitors: 1}, {Name: "/other", Visitors: 1}}, fired[0].Data.Context.TopPages, "the context is of the same visitors")
}

// TestFiltersAskWhatTheVisitDid: long before the event, and also right after it, while its slot is read again.
func TestFiltersAskWhatTheVisitDid(t *testing.T) {
	b := newBench(t)
	b.filtered(b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`), `[["has_done", ["is", "event:page", ["/pricing"]]]]`)
	assert.Empty(t, b.slot(-10))
	b.insert(b.visit(-3600, 1, "EE", "/pricing", ""), b.event("Signup", -5, 1), b.event("Signup", -4, 2), b.event("Signup", -3, 3))
	fired := b.slot(0)
	require.Len(t, fired, 1)
	assert.Equal(t, 1.0, fired[0].Data.Value)
	assert.Empty(t, b.slot(10))
	b.insert(b.visit(12, 3, "EE", "/pricing", ""))
	fired = b.slot(20)
	require.Len(t, fired, 1)
	assert.Equal(t, 1.0, fired[0].Data.Value)
	assert.Empty(t, b.slot(30))
}

func TestVisitorsStayAway(t *testing.T) {
	b := newBench(t)
	never := b.trigger(trigger.VisitorDropType, `{"threshold": 1, "window_seconds": 60}`, trigger.Options{NotifyResolved: true})
	assert.Empty(t, b.slot(0))
	_, why := b.explanation(never)
	assert.Contains(t, why, "no visitors that could stay away")
	b.insert(b.visit(5, 1, "EE", "/", ""))
	assert.Empty(t, b.slot(10))
	fired := b.slot(70)
	require.Len(t, fired, 1)
	assert.Equal(t, "visitor_drop.fired", fired[0].Type)
	assert.Equal(t, 0.0, fired[0].Data.Value)
	b.insert(b.visit(75, 2, "EE", "/", ""))
	resolved := b.slot(80)
	require.Len(t, resolved, 1)
	assert.Equal(t, "visitor_drop.resolved", resolved[0].Type)
}

func TestMetricsOfVisitsAndRates(t *testing.T) {
	b := newBench(t)
	rate := b.trigger(trigger.MetricThresholdType, `{"metric": "conversion_rate", "goal": {"event_name": "Signup"}, "operator": "<", "threshold": 30, "window_seconds": 60, "min_volume": 4}`)
	bounces := b.trigger(trigger.MetricThresholdType, `{"metric": "bounce_rate", "operator": ">", "threshold": 60, "window_seconds": 60}`)
	b.insert(b.event("Signup", -5, 1), b.visit(-5, 1, "EE", "/", ""), b.visit(-5, 2, "EE", "/", ""))
	assert.Empty(t, b.slot(0), "too few to tell")
	status, _ := b.explanation(rate)
	assert.Equal(t, "insufficient_data", status)
	b.insert(b.visit(5, 3, "EE", "/", ""), b.visit(5, 4, "EE", "/", ""))
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	defer conn.Close()
	at := noon.Add(5 * time.Second)
	visit := func(id uint64, bounce bool) fixture.Session {
		return fixture.Session{SessionID: id, SiteID: uint64(b.demo.SiteID), UserID: id, Timestamp: at, Start: at, Events: 1, Pageviews: 1, IsBounce: bounce, EntryPage: "/"}
	}
	require.NoError(t, fixture.InsertSessions(t.Context(), conn, []fixture.Session{visit(1, true), visit(2, true), visit(3, false)}))
	values := map[string]float64{}
	for _, m := range b.slot(10) {
		values[m.Data.Trigger.ID] = m.Data.Value
	}
	assert.Equal(t, map[string]float64{rate: 25, bounces: 67}, values)
}

func TestMilestonesAreToldOnce(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.PageviewMilestoneType, `{"milestones": [2, 4, 5, 100]}`)
	b.insert(b.visit(-86400, 1, "EE", "/", ""), b.visit(-3600, 1, "EE", "/", ""), b.visit(-5, 1, "EE", "/", ""))
	assert.Empty(t, b.slot(0), "what was passed before is not news")
	b.insert(b.visit(5, 2, "EE", "/", ""), b.visit(6, 2, "EE", "/", ""))
	fired := b.slot(10)
	require.Len(t, fired, 2)
	assert.ElementsMatch(t, []float64{4, 5}, []float64{fired[0].Data.Threshold, fired[1].Data.Threshold})
	assert.Equal(t, 5.0, fired[0].Data.Value)
	b.start()
	assert.Empty(t, b.slot(20))
	assert.Empty(t, b.slot(600), "nor after the rows were settled")
}

func TestNewSourcesAreThoseNeverSeenBefore(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.NewSourceType, `{"min_visitors": 2, "window_seconds": 60}`)
	b.insert(b.visit(-90000, 1, "EE", "/", "Google"), b.visit(-5, 2, "EE", "/", "Google"), b.visit(-5, 3, "EE", "/", "Google"))
	b.insert(b.visit(-4, 4, "EE", "/", "Hacker News"))
	assert.Empty(t, b.slot(0))
	b.insert(b.visit(5, 5, "EE", "/", "Hacker News"))
	fired := b.slot(10)
	require.Len(t, fired, 1)
	assert.Equal(t, &trigger.Group{Dimension: trigger.BySource, Value: "Hacker News"}, fired[0].Data.Group)
	assert.Equal(t, 2.0, fired[0].Data.Value)
	b.insert(b.visit(15, 6, "EE", "/", "Hacker News"))
	assert.Empty(t, b.slot(20))
}

func TestPagesNotFoundAreToldByPath(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.NotFoundBurstType, `{"threshold": 2, "window_seconds": 60}`)
	missing := func(second int, path string) fixture.Event {
		e := b.event("404", second, uint64(second+100))
		e.PropKeys, e.PropValues = []string{"path"}, []string{path}
		return e
	}
	b.insert(missing(-5, "/gone"), missing(-4, "/gone"), missing(-3, "/once"))
	fired := b.slot(0)
	require.Len(t, fired, 1)
	assert.Equal(t, "/gone", fired[0].Data.Group.Value)
	b.insert(missing(5, "/once"))
	fired = b.slot(10)
	require.Len(t, fired, 1)
	assert.Equal(t, "/once", fired[0].Data.Group.Value)
}

// One site falls silent while another has visitors; then nobody has any.
func TestTheThreeSilences(t *testing.T) {
	b := newBench(t)
	silence := b.trigger(trigger.TrackingSilenceType, `{"minutes": 20}`)
	other := b.visit(0, 99, "EE", "/", "")
	other.SiteID = uint64(b.demo.OtherSiteID)
	history := []fixture.Event{b.visit(-30, 1, "EE", "/", "")}
	for second := -3 * 86400; second < 0; second += 60 { // both sites live, with gaps of a minute
		e := b.visit(second, uint64(-second), "EE", "/", "")
		if second%120 == 0 {
			e.SiteID = other.SiteID
		}
		history = append(history, e)
	}
	b.insert(history...)
	at := func(second int) []trigger.Message {
		now, newest, err := b.events.Now(t.Context())
		require.NoError(t, err)
		require.False(t, now.IsZero())
		b.ingestion.observe(t.Context(), noon.Add(time.Duration(second)*time.Second), newest)
		return b.slot(second)
	}
	assert.Empty(t, at(0))

	assert.Empty(t, at(1500), "nobody has events: that is ingestion's fault")
	status, why := b.explanation(silence)
	assert.Equal(t, "insufficient_data", status, why)
	var kinds []string
	require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT array_agg(kind ORDER BY at) FROM system_events").Scan(&kinds))
	assert.Equal(t, []string{"ingestion.silent"}, kinds)

	for second := 1505; second < 2710; second += 60 {
		other.Timestamp = noon.Add(time.Duration(second) * time.Second)
		b.insert(other)
	}
	assert.Empty(t, at(2700), "the other has events again, but this site's silence is its own only since then")
	fired := at(2710)
	require.Len(t, fired, 1)
	assert.Equal(t, "tracking_silence.fired", fired[0].Type)
	require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT array_agg(kind ORDER BY at) FROM system_events").Scan(&kinds))
	assert.Equal(t, []string{"ingestion.silent", "ingestion.resumed"}, kinds)
}

// faultyStep and faultyAsk panic where their names say.
type (
	faultyStep struct{ trigger.Config }
	faultyAsk  struct{ trigger.Config }
)

func (faultyStep) Step(trigger.Setting, trigger.State, trigger.Sample, trigger.Slot) (trigger.State, []trigger.Occurrence) {
	panic("a fault of the program")
}

func (faultyAsk) Ask(trigger.Setting, trigger.State, trigger.Slot) []trigger.Question {
	panic("a fault of the program")
}

func TestAFaultInOneTriggerHarmsNoOther(t *testing.T) {
	for name, broken := range map[string]func(trigger.Config) trigger.Config{
		"when it steps": func(c trigger.Config) trigger.Config { return faultyStep{c} },
		"when it asks":  func(c trigger.Config) trigger.Config { return faultyAsk{c} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 1, "window_seconds": 60}`)
			b.trigger(trigger.VisitorSpikeType, `{"threshold": 1, "window_seconds": 60}`)
			b.insert(b.event("pageview", -5, 1))
			all, err := b.catalogue.read(t.Context())
			require.NoError(t, err)
			faulty := all[slices.IndexFunc(all, func(w *watched) bool { return w.ID == id })]
			whole := faulty.Config
			faulty.Config = broken(whole)
			assert.Len(t, b.slot(0), 1, "the other fires")
			status, why := b.explanation(id)
			assert.Equal(t, "error", status)
			assert.Contains(t, why, "fault of this program")
			var events int
			require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT count(*) FROM system_events WHERE kind = 'trigger.failing'").Scan(&events))
			assert.Equal(t, 1, events)
			faulty.Config = whole
			assert.Len(t, b.slot(10), 1, "it recovers")
		})
	}
}
