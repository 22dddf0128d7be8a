package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

// noon is a slot; the tests decide themselves which slot is evaluated.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// bench is an evaluator on real engines: the own database, Plausible's two, and a broker.
type bench struct {
	*evaluator
	*publisher
	t       testing.TB
	config  Config
	demo    fixture.Demo
	pool    *pgxpool.Pool
	queries *atomic.Int64
	spent   *spent
	plural  int
}

func newBench(t testing.TB) *bench {
	ctx := t.Context()
	b := &bench{t: t, queries: &atomic.Int64{}, spent: &spent{}}
	b.config = Config{
		DatabaseURL: devstacktest.Postgres(t), PlausibleDatabaseURL: devstacktest.Postgres(t), PlausibleClickHouseURL: devstacktest.ClickHouse(t),
		PlausibleBaseURL: "https://plausible.example.com", NATSURL: devstacktest.NATS(t),
		Interval: 10 * time.Second, Delay: 0, QueryTimeout: 10 * time.Second, Retention: 48 * time.Hour,
	}
	require.NoError(t, fixture.CreateClickHouse(ctx, b.config.PlausibleClickHouseURL))
	require.NoError(t, fixture.CreatePostgres(ctx, b.config.PlausibleDatabaseURL))
	var err error
	b.demo, err = fixture.Seed(ctx, b.config.PlausibleDatabaseURL, strings.Repeat("s", 64))
	require.NoError(t, err)
	b.pool, err = database.Open(ctx, "DATABASE_URL", b.config.DatabaseURL, 4)
	require.NoError(t, err)
	t.Cleanup(b.pool.Close)
	require.NoError(t, database.Migrate(ctx, b.pool))
	b.start()
	return b
}

// start makes a new evaluator and publisher on the bench, as after a crash: nothing is carried
// over but what the engines hold.
func (b *bench) start() {
	b.t.Helper()
	ctx := b.t.Context()
	b.evaluator, b.publisher = b.replica("bench", func(string) {})
	own := b.shards
	require.True(b.t, own.renewed(ctx))
	_, err := own.balance(ctx)
	require.NoError(b.t, err)
	require.Len(b.t, own.held, postgres.Shards)
	require.NoError(b.t, own.restore(ctx))
}

// replica makes an evaluator and a publisher that share nothing with others but the engines.
// queried is called after each ClickHouse query.
func (b *bench) replica(owner string, queried func(family string)) (*evaluator, *publisher) {
	b.t.Helper()
	ctx := b.t.Context()
	s := service()
	m := newMetrics(s.Metrics)
	events, err := clickhouse.Open(ctx, b.config.PlausibleClickHouseURL, b.config.QueryTimeout, func(family string, took time.Duration, err error) {
		b.queries.Add(1)
		b.spent.add(family, took)
		m.query(family, took, err)
		queried(family)
	})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = events.Close() })
	plausiblePool, err := database.Open(ctx, "PLAUSIBLE_DATABASE_URL", b.config.PlausibleDatabaseURL, 2)
	require.NoError(b.t, err)
	b.t.Cleanup(plausiblePool.Close)
	directory, err := plausible.Open(ctx, plausiblePool, "")
	require.NoError(b.t, err)
	nc, err := stream.Connect(ctx, b.config.NATSURL, "test", s.Log)
	require.NoError(b.t, err)
	b.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(b.t, err)
	_, _, err = stream.Ensure(ctx, js, stream.Options{})
	require.NoError(b.t, err)

	store := postgres.New(b.pool)
	own := newShards(store, owner, leaseTerms, s.Log, m)
	p := newPublisher(store, owner, events, js, s.Log, m)
	return newEvaluator(b.config, s, events, store, newCatalogue(store, directory, events.Unavailable, s.Log), m, own, p.wake), p
}

// lastSlot is the newest that was evaluated for the demo site.
func (b *bench) lastSlot() time.Time {
	return b.shards.held[postgres.ShardOf(b.demo.SiteID)].lastSlot
}

func service() *daemon.Service {
	return daemon.NewService("evaluator", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), sdktrace.NewTracerProvider())
}

// trigger stores a trigger of the demo site, born two minutes before noon.
func (b *bench) trigger(t trigger.Type, config string, options ...trigger.Options) string {
	b.t.Helper()
	var o trigger.Options
	if len(options) > 0 {
		o = options[0]
	}
	b.plural++
	id := fmt.Sprintf("tr_%d", b.plural)
	ctx := b.t.Context()
	_, err := b.pool.Exec(ctx, "INSERT INTO webhooks (id, site_id, url) VALUES ('wh_1', $1, 'https://example.com') ON CONFLICT DO NOTHING", b.demo.SiteID)
	require.NoError(b.t, err)
	_, err = b.pool.Exec(ctx, `INSERT INTO triggers (id, webhook_id, site_id, type, name, config, cooldown_seconds, notify_resolved, revised_at)
		VALUES ($1, 'wh_1', $2, $3, 'Test', $4, $5, $6, $7)`,
		id, b.demo.SiteID, t, config, int(o.Cooldown.Seconds()), o.NotifyResolved, noon.Add(-2*time.Minute))
	require.NoError(b.t, err)
	b.catalogue.drop()
	return id
}

func (b *bench) insert(events ...fixture.Event) {
	b.t.Helper()
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(b.t, err)
	defer conn.Close()
	require.NoError(b.t, fixture.InsertEvents(b.t.Context(), conn, events))
}

// event is one of the demo site, so many seconds after noon.
func (b *bench) event(name string, second int, visitor uint64) fixture.Event {
	return fixture.Event{
		Timestamp: noon.Add(time.Duration(second) * time.Second), Name: name, SiteID: uint64(b.demo.SiteID),
		UserID: visitor, SessionID: visitor, Pathname: "/signup", ReferrerSource: "Hacker News",
	}
}

// slot evaluates the slot so many seconds after noon and returns the messages it made.
func (b *bench) slot(second int) []trigger.Message {
	b.t.Helper()
	slot := noon.Add(time.Duration(second) * time.Second)
	_, err := b.evaluate(b.t.Context(), slot)
	require.NoError(b.t, err)
	require.NoError(b.t, b.complete(b.t.Context()))
	return b.messages("slot = $1", slot)
}

func (b *bench) messages(where string, arguments ...any) []trigger.Message {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), "SELECT payload FROM firings WHERE "+where+" ORDER BY slot, id", arguments...)
	require.NoError(b.t, err)
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m trigger.Message, err error) {
		var payload []byte
		if err := row.Scan(&payload); err != nil {
			return m, err
		}
		return m, json.Unmarshal(payload, &m)
	})
	require.NoError(b.t, err)
	return messages
}

func (b *bench) explanation(id string) (status, explanation string) {
	b.t.Helper()
	require.NoError(b.t, b.pool.QueryRow(b.t.Context(), "SELECT status, explanation FROM trigger_states WHERE trigger_id = $1", id).Scan(&status, &explanation))
	return status, explanation
}

func TestSpikeFiresOnceAndResolves(t *testing.T) {
	b := newBench(t)
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 3, "window_seconds": 60}`, trigger.Options{NotifyResolved: true})
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2))
	assert.Empty(t, b.slot(0))
	status, why := b.explanation(id)
	assert.Equal(t, "ok", status)
	assert.Equal(t, "2 visitors in 1 minute, below the threshold of 3.", why)

	b.insert(b.event("pageview", 5, 3))
	fired := b.slot(10)
	require.Len(t, fired, 1)
	m := fired[0]
	assert.Equal(t, "visitor_spike.fired", m.Type)
	assert.Equal(t, noon.Add(10*time.Second), m.Timestamp)
	assert.Equal(t, 3.0, m.Data.Value)
	assert.Equal(t, 3.0, m.Data.Threshold)
	assert.Equal(t, trigger.Window{From: noon.Add(-50 * time.Second), To: noon.Add(10 * time.Second)}, m.Data.Window)
	assert.Equal(t, trigger.MessageSite{ID: b.demo.SiteID, Domain: "demo.example.com"}, m.Data.Site)
	assert.Equal(t, "https://plausible.example.com/demo.example.com", m.Data.DashboardURL)
	assert.Equal(t, []trigger.Ranked{{Name: "Hacker News", Visitors: 3}}, m.Data.Context.TopSources)
	assert.Equal(t, []trigger.Ranked{{Name: "/signup", Visitors: 3}}, m.Data.Context.TopPages)
	require.Len(t, m.Data.Context.Chart, chartPoints)
	assert.Equal(t, trigger.Point{At: noon.Add(10 * time.Second), Value: 3}, m.Data.Context.Chart[chartPoints-1], "the window that fired comes last")
	assert.Equal(t, "3 visitors in 1 minute reached the threshold of 3.", m.Data.Explanation)
	assert.JSONEq(t, `{"threshold": 3, "window_seconds": 60}`, string(m.Data.Trigger.Config))

	assert.Empty(t, b.slot(20), "it lasts: nothing new")
	resolved := b.slot(70)
	require.Len(t, resolved, 1)
	assert.Equal(t, "visitor_spike.resolved", resolved[0].Type)
	assert.Equal(t, 3.0, resolved[0].Data.Episode.Peak)
	assert.NotEqual(t, m.Data.ID, resolved[0].Data.ID)
}

func TestGoalOfPlausibleFiresForEachConversion(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.GoalAchievedType, fmt.Sprintf(`{"goal": {"goal_id": %d}}`, b.demo.Goals.Signup))
	b.insert(b.event("Signup", -5, 1), b.event("Signup", -300, 2)) // the second is older than the trigger
	fired := b.slot(0)
	require.Len(t, fired, 1)
	assert.Equal(t, "goal_achieved.fired", fired[0].Type)
	assert.Equal(t, 1.0, fired[0].Data.Value)
	assert.Equal(t, []trigger.Conversion{{Time: noon.Add(-5 * time.Second), Page: "/signup", Source: "Hacker News"}}, fired[0].Data.Conversions)
	assert.False(t, fired[0].Data.Late)
	assert.Empty(t, b.slot(10))
}

// A conversion becomes visible later than the slot it belongs to; it is counted once, and it is
// that one which is listed.
func TestLateConversionsAreCountedExactlyOnce(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", 3, 1))
	assert.Len(t, b.slot(10), 1)
	late := 0.0
	for second := 20; second <= 300; second += 10 {
		if second == 120 { // visible 2 minutes after it happened
			b.insert(b.event("Signup", 4, 2), b.event("Signup", 3, 1))
		}
		for _, m := range b.slot(second) {
			late += m.Data.Value
			require.Len(t, m.Data.Conversions, 2)
			assert.ElementsMatch(t, []time.Time{noon.Add(4 * time.Second), noon.Add(3 * time.Second)}, []time.Time{m.Data.Conversions[0].Time, m.Data.Conversions[1].Time})
			assert.Equal(t, noon, m.Data.Window.From, "the bucket that grew")
		}
	}
	assert.Equal(t, 2.0, late)
}

func TestThresholdModeCountsVisitorsOrConversions(t *testing.T) {
	b := newBench(t)
	conversions := b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}, "mode": "threshold", "threshold": 3, "window_seconds": 60}`)
	visitors := b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}, "mode": "threshold", "measure": "visitors", "threshold": 3, "window_seconds": 60}`)
	b.insert(b.event("Signup", -5, 1), b.event("Signup", -6, 1), b.event("Signup", -7, 2))
	fired := b.slot(0)
	require.Len(t, fired, 1)
	assert.Equal(t, conversions, fired[0].Data.Trigger.ID)
	b.insert(b.event("Signup", 1, 3))
	fired = b.slot(10)
	require.Len(t, fired, 1)
	assert.Equal(t, visitors, fired[0].Data.Trigger.ID)
	assert.Equal(t, 3.0, fired[0].Data.Value)
}

func TestDeletedGoalIsExplainedAndRecovers(t *testing.T) {
	b := newBench(t)
	id := b.trigger(trigger.GoalAchievedType, fmt.Sprintf(`{"goal": {"goal_id": %d}}`, b.demo.Goals.Signup))
	assert.Empty(t, b.slot(0))
	conn, err := pgx.Connect(t.Context(), b.config.PlausibleDatabaseURL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "UPDATE goals SET site_id = $1 WHERE id = $2", b.demo.OtherSiteID, b.demo.Goals.Signup)
	require.NoError(t, err)
	b.catalogue.drop()
	b.insert(b.event("Signup", 5, 1))
	assert.Empty(t, b.slot(10))
	status, why := b.explanation(id)
	assert.Equal(t, "error", status)
	assert.Contains(t, why, "no longer exists in Plausible")

	_, err = conn.Exec(t.Context(), "UPDATE goals SET site_id = $1 WHERE id = $2", b.demo.SiteID, b.demo.Goals.Signup)
	require.NoError(t, err)
	b.catalogue.drop()
	assert.Len(t, b.slot(20), 1, "what happened meanwhile is found")
	status, _ = b.explanation(id)
	assert.Equal(t, "ok", status)
}

// TestFiltersOnGoalsFollowTheGoals: what a goal counts is looked up while it is there, and told where it is not.
func TestFiltersOnGoalsFollowTheGoals(t *testing.T) {
	b := newBench(t)
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	conn, err := pgx.Connect(t.Context(), b.config.PlausibleDatabaseURL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	change := func(sql string, arguments ...any) {
		_, err := conn.Exec(t.Context(), sql, arguments...)
		require.NoError(t, err)
		b.catalogue.drop()
	}
	_, err = b.pool.Exec(t.Context(), `UPDATE triggers SET filters = '[["is", "event:goal", ["Signup"]]]'`)
	require.NoError(t, err)
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2), b.event("pageview", -5, 3), b.event("Signup", -4, 1), b.event("Download", -4, 2), b.event("Download", -4, 3))
	assert.Empty(t, b.slot(0), "one signed up")

	change("UPDATE goals SET display_name = 'Sign-ups' WHERE id = $1", b.demo.Goals.Signup)
	assert.Empty(t, b.slot(10))
	status, why := b.explanation(id)
	assert.Equal(t, []string{"error", `A filter names the goal "Signup", which the site does not have.`}, []string{status, why})

	change("UPDATE goals SET display_name = 'Signup', event_name = 'Download' WHERE id = $1", b.demo.Goals.Signup)
	fired := b.slot(20)
	require.Len(t, fired, 1, "two have done what it counts now")
	assert.Equal(t, 2.0, fired[0].Data.Value)
}

func TestResetStatsAreNotCounted(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	conn, err := pgx.Connect(t.Context(), b.config.PlausibleDatabaseURL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "UPDATE sites SET native_stats_start_at = $1 WHERE id = $2", noon.Add(-10*time.Second), b.demo.SiteID)
	require.NoError(t, err)
	b.insert(b.event("pageview", -20, 1), b.event("pageview", -20, 2), b.event("pageview", -5, 3))
	assert.Empty(t, b.slot(0))
}

// The evaluator ends between commit and publication: its successor publishes the same ids.
func TestOutboxSurvivesACrash(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	fired := b.slot(0)
	require.Len(t, fired, 1)

	b.start()
	for range 2 { // and once more, as if it had ended before it could mark them
		_, err := b.publisher.publish(t.Context())
		require.NoError(t, err)
		_, err = b.pool.Exec(t.Context(), "UPDATE firings SET published_at = NULL, stream_seq = NULL")
		require.NoError(t, err)
	}
	s, err := b.js.Stream(t.Context(), stream.Firings)
	require.NoError(t, err)
	assert.Equal(t, uint64(1), s.CachedInfo().State.Msgs)
	stored, err := s.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	f, err := stream.Decode(stored.Header, stored.Data)
	require.NoError(t, err)
	assert.Equal(t, fired[0].Data.ID, f.ID)
	assert.Equal(t, b.demo.SiteID, f.SiteID)
	assert.NotEmpty(t, f.TraceContext)
	assert.Equal(t, fmt.Sprintf("firing.%d.goal_achieved", b.demo.SiteID), stored.Subject)

	assert.Empty(t, b.slot(10), "the conversion is not counted again")
}

// While the evaluator is away, conversions happen; a spike comes and goes.
func TestFactsOfAGapAreFoundLate(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	assert.Empty(t, b.slot(0))
	b.insert(b.event("Signup", 60, 1), b.event("Signup", 1000, 2), b.event("Signup", 1001, 3))
	b.start()
	fired := b.slot(3600)
	require.Len(t, fired, 2)
	slices.SortFunc(fired, func(x, y trigger.Message) int { return strings.Compare(x.Type, y.Type) })
	goal, spike := fired[0], fired[1]
	assert.Equal(t, "goal_achieved.fired", goal.Type)
	assert.Equal(t, 3.0, goal.Data.Value)
	assert.True(t, goal.Data.Late)
	assert.Len(t, goal.Data.Conversions, 3)
	assert.Equal(t, "visitor_spike.fired", spike.Type, "a state is judged for the newest slot, and what is over is told once")
	assert.True(t, spike.Data.Missed)
	assert.Equal(t, 2.0, spike.Data.Value)
}

func TestStatesSurviveARestart(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2), b.event("pageview", 25, 1), b.event("pageview", 25, 2))
	assert.Len(t, b.slot(0), 1)
	b.start()
	assert.Empty(t, b.slot(10), "the episode goes on")
	assert.Equal(t, noon.Add(10*time.Second), b.lastSlot())
}

func TestNewRevisionStartsAnew(t *testing.T) {
	b := newBench(t)
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2))
	first := b.slot(0)
	require.Len(t, first, 1)
	_, err := b.pool.Exec(t.Context(), `UPDATE triggers SET revision = 2, config = '{"threshold": 1, "window_seconds": 60}' WHERE id = $1`, id)
	require.NoError(t, err)
	b.catalogue.drop()
	second := b.slot(10)
	require.Len(t, second, 1)
	assert.NotEqual(t, first[0].Data.ID, second[0].Data.ID)
}

// An owner that was paused for longer than its lease changes nothing when it wakes up.
func TestStaleOwnerIsFenced(t *testing.T) {
	b := newBench(t)
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	b.replaceOwner(postgres.Shards)

	_, err := b.evaluate(t.Context(), noon)
	require.ErrorIs(t, err, postgres.ErrFenced)
	assert.Empty(t, b.messages("true"))
	assert.Empty(t, b.shards.held)
	grown, err := b.shards.balance(t.Context())
	require.NoError(t, err)
	assert.False(t, grown, "the other lives")
}

func TestFailedQueryChangesNothing(t *testing.T) {
	b := newBench(t)
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 2, "window_seconds": 60}`)
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2))
	require.Len(t, b.slot(0), 1)
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Exec(t.Context(), "RENAME TABLE events_v2 TO away"))
	_, err = b.evaluate(t.Context(), noon.Add(70*time.Second))
	require.Error(t, err)
	status, _ := b.explanation(id)
	assert.Equal(t, "firing", status, "not resolved by a failure")
	assert.Equal(t, noon, b.lastSlot())
	require.NoError(t, conn.Exec(t.Context(), "RENAME TABLE away TO events_v2"))
	b.slot(80)
	status, _ = b.explanation(id)
	assert.Equal(t, "ok", status)
}

// The promise of constant cost: as many queries for thousands of triggers as for one of each type.
func TestQueriesPerSlotAreConstant(t *testing.T) {
	b := newBench(t)
	perSlot := func(second int) int64 {
		before := b.queries.Load()
		b.slot(second)
		return b.queries.Load() - before
	}
	// Those that fire at once, and one of each type.
	kinds := []struct {
		of     trigger.Type
		config string
	}{
		{trigger.VisitorSpikeType, `{"threshold": 1, "window_seconds": #}`},
		{trigger.GoalAchievedType, `{"goal": {"page_path": "/#*"}}`},
		{trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}, "mode": "threshold", "threshold": 1, "window_seconds": #}`},
		{trigger.VisitorDropType, `{"threshold": #}`},
		{trigger.PageviewMilestoneType, `{"every": #}`},
		{trigger.MetricThresholdType, `{"metric": "bounce_rate", "operator": ">=", "threshold": 1, "window_seconds": #}`},
		{trigger.MetricThresholdType, `{"metric": "conversion_rate", "goal": {"event_name": "Signup"}, "threshold": 1, "window_seconds": #}`},
		{trigger.MetricChangeType, `{"metric": "pageviews", "window_seconds": #}`},
		{trigger.TrackingSilenceType, `{"minutes": #}`},
		{trigger.GoalSilenceType, `{"goal": {"event_name": "Signup"}}`},
		{trigger.NewSourceType, `{"min_visitors": 1, "window_seconds": #}`},
		{trigger.NotFoundBurstType, `{"event_name": "Signup", "threshold": 1, "window_seconds": #}`},
	}
	fill := func(each int) {
		for i, kind := range kinds {
			for n := range each {
				config := strings.ReplaceAll(kind.config, "#", strconv.Itoa(60+10*n))
				filters := []string{"[]", `[["has_done", ["is", "event:name", ["Signup"]]]]`, `[["is_not", "visit:exit_page", ["/"]]]`}[n%3]
				_, err := b.pool.Exec(t.Context(), `
					INSERT INTO triggers (id, webhook_id, site_id, type, name, config, filters, revised_at) VALUES ($1, 'wh_1', $2, $3, 'Many', $4, $5, $6)
					ON CONFLICT DO NOTHING`, fmt.Sprintf("many_%d_%d", i, n), b.demo.SiteID, kind.of, config, filters, noon.Add(-2*time.Minute))
				require.NoError(t, err)
			}
		}
		b.catalogue.drop()
	}
	b.trigger(trigger.VisitorSpikeType, `{"threshold": 1, "window_seconds": 86400}`)
	fill(2)
	b.insert(b.event("Signup", -5, 1), b.event("pageview", -5, 1))
	few := perSlot(0)
	fill(100)
	b.insert(b.event("Signup", 5, 2), b.event("pageview", 5, 2))
	many := perSlot(10)
	t.Logf("ClickHouse queries per slot: %d with %d triggers, %d with %d, all types, with the context of what fired", few, 2*len(kinds)+1, many, 100*len(kinds)+1)
	assert.LessOrEqual(t, many, few+2, "a kind of question may have begun to reach further back")
	assert.NotEmpty(t, b.messages("slot = $1", noon.Add(10*time.Second)))
}

// A broker that lost its disk has fewer messages than were published: they are published again.
func TestFiringsLostByTheBrokerArePublishedAgain(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	b.slot(0)
	b.insert(b.event("Signup", 5, 1))
	b.slot(10)
	_, err := b.publisher.publish(ctx)
	require.NoError(t, err)
	_, err = b.pool.Exec(ctx, "UPDATE firings SET published_at = now() - interval '11 minutes'")
	require.NoError(t, err)
	require.NoError(t, b.confirm(ctx))
	assert.Zero(t, testutil.ToFloat64(b.publisher.metrics.republished), "they wait in the stream")

	_, err = b.pool.Exec(ctx, `INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, payload, finished_at)
		SELECT id, slot, site_id, webhook_id, ARRAY[id], type, 'delivered', payload, now() FROM firings WHERE slot = $1`, noon)
	require.NoError(t, err)
	require.NoError(t, b.js.DeleteStream(ctx, stream.Firings))
	s, _, err := stream.Ensure(ctx, b.js, stream.Options{})
	require.NoError(t, err)
	require.NoError(t, b.confirm(ctx))
	assert.Equal(t, 1.0, testutil.ToFloat64(b.publisher.metrics.republished), "the one without a delivery")
	_, err = b.publisher.publish(ctx)
	require.NoError(t, err)
	info, err := s.Info(ctx)
	require.NoError(t, err)
	assert.Equal(t, uint64(1), info.State.Msgs)
}

// Run as a whole, on the real clock: a replica is joined by another; it stops, the other goes on.
func TestReplicasTakeOver(t *testing.T) {
	b := newBench(t)
	require.NoError(t, b.evaluator.store.Resign(t.Context(), b.owner))
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.config.Interval = time.Second

	run := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, b.config, service()) }()
		return func() {
			cancel()
			require.NoError(t, <-done)
		}
	}
	converted := func(visitor uint64) {
		e := b.event("Signup", 0, visitor)
		e.Timestamp = time.Now()
		b.insert(e)
		require.Eventually(t, func() bool {
			s, err := b.js.Stream(t.Context(), stream.Firings)
			return err == nil && s.CachedInfo().State.Msgs == visitor
		}, 20*time.Second, 50*time.Millisecond)
	}
	stopFirst := run()
	converted(1)
	stopSecond := run()
	defer stopSecond()
	stopFirst()
	converted(2)
}

func TestClosedSlot(t *testing.T) {
	for _, c := range []struct{ now, slot string }{
		{"12:00:14.999", "11:59:50"}, {"12:00:15.000", "12:00:00"}, {"12:00:24.999", "12:00:00"}, {"12:00:25.000", "12:00:10"},
	} {
		now, err := time.Parse("2006-01-02 15:04:05.000", "2026-11-23 "+c.now)
		require.NoError(t, err)
		assert.Equal(t, c.slot, closedSlot(now, 10*time.Second, 15*time.Second).Format(time.TimeOnly))
	}
}

func TestConfigNamesEveryVariable(t *testing.T) {
	_, err := daemon.Load[Config]([]string{"EVALUATION_INTERVAL=7s", "EVALUATION_DELAY=x", "PLAUSIBLE_BASE_URL=plausible.example.com"})
	require.Error(t, err)
	for _, variable := range []string{"DATABASE_URL is not set", "PLAUSIBLE_DATABASE_URL", "PLAUSIBLE_CLICKHOUSE_URL", "PLAUSIBLE_BASE_URL must be", "NATS_URL", "EVALUATION_INTERVAL must", "EVALUATION_DELAY must be a duration"} {
		assert.ErrorContains(t, err, variable)
	}
}
