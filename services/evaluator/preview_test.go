package evaluator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/simulation"
)

// rehearse previews a trigger over a past of the bench, whose clock is not ClickHouse's.
func (b *bench) rehearse(request stream.PreviewRequest) (*rehearsal, watched) {
	b.t.Helper()
	w, err := b.unsaved(b.t.Context(), request)
	require.NoError(b.t, err)
	r, err := b.newRehearsal(b.t.Context(), w, request, request.To)
	require.NoError(b.t, err)
	return r, w
}

// A preview at production's own slots makes the very firings, by their ids, and says of every slot what the
// evaluator said of it.
func TestPreviewIsProduction(t *testing.T) {
	b := newBench(t)
	const seconds = 1500
	traffic := simulation.Generate(simulation.Scenario{
		Seed: 5, From: noon.Add(-9 * 24 * time.Hour), To: noon.Add(seconds * time.Second), Sites: 1, Visitors: 6, Late: -1,
		Changes: []simulation.Change{
			{SiteID: 1, From: noon.Add(3 * time.Minute), To: noon.Add(9 * time.Minute), Factor: 6, Source: "Slashdot"},
			{SiteID: 1, From: noon.Add(13 * time.Minute), To: noon.Add(21 * time.Minute), Factor: 0},
		},
	})
	events, sessions := traffic.Fixtures()
	for i := range events {
		events[i].SiteID = uint64(b.demo.SiteID)
	}
	for i := range sessions {
		sessions[i].SiteID = uint64(b.demo.SiteID)
	}
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, fixture.InsertEvents(t.Context(), conn, events))
	require.NoError(t, fixture.InsertSessions(t.Context(), conn, sessions))
	names := map[string]int{}
	for _, e := range events {
		names[e.Name]++
	}
	var goal string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if name != "pageview" && name != "engagement" && name != "404" && names[name] > names[goal] {
			goal = name
		}
	}
	t.Log(names)

	filters, faults := trigger.ParseFilters([]byte(`[["is", "visit:country", ["DE", "US"]]]`))
	require.Empty(t, faults)
	ids := map[string]stream.PreviewRequest{}
	for _, c := range []struct {
		of      trigger.Type
		config  string
		options trigger.Options
	}{
		{trigger.VisitorSpikeType, `{"threshold": 12, "window_seconds": 120}`, trigger.Options{NotifyResolved: true, Cooldown: 5 * time.Minute}},
		{trigger.VisitorSpikeType, `{"threshold": 3, "window_seconds": 65}`, trigger.Options{NotifyResolved: true, Filters: filters}},
		{trigger.VisitorSpikeType, `{"window_seconds": 300, "sensitivity": "high"}`, trigger.Options{NotifyResolved: true}},
		{trigger.VisitorDropType, `{"threshold": 2, "window_seconds": 120, "for_seconds": 60}`, trigger.Options{NotifyResolved: true}},
		{trigger.GoalAchievedType, `{"goal": {"event_name": "#"}}`, trigger.Options{}},
		{trigger.GoalAchievedType, `{"goal": {"page_path": "/"}, "mode": "threshold", "threshold": 10, "window_seconds": 300}`, trigger.Options{NotifyResolved: true}},
		{trigger.GoalAchievedType, `{"goal": {"page_path": "/"}, "mode": "threshold", "measure": "visitors", "threshold": 4, "window_seconds": 300}`, trigger.Options{NotifyResolved: true}},
		{trigger.PageviewMilestoneType, `{"every": 25}`, trigger.Options{}},
		{trigger.PageviewMilestoneType, `{"every": 20, "period": "day"}`, trigger.Options{}},
		{trigger.MetricThresholdType, `{"metric": "pageviews", "operator": ">=", "threshold": 30, "recovery_threshold": 20, "window_seconds": 300}`, trigger.Options{NotifyResolved: true}},
		{trigger.MetricThresholdType, `{"metric": "conversion_rate", "goal": {"event_name": "#"}, "operator": ">=", "threshold": 1, "window_seconds": 1800}`, trigger.Options{NotifyResolved: true}},
		{trigger.MetricThresholdType, `{"metric": "bounce_rate", "operator": ">=", "threshold": 40, "window_seconds": 300}`, trigger.Options{NotifyResolved: true}},
		{trigger.MetricThresholdType, `{"metric": "visits", "operator": "<", "threshold": 3, "window_seconds": 90}`, trigger.Options{NotifyResolved: true}},
		{trigger.MetricChangeType, `{"metric": "visitors", "percent": 40, "min_volume": 3, "window_seconds": 180}`, trigger.Options{NotifyResolved: true}},
		{trigger.MetricChangeType, `{"metric": "pageviews", "percent": 40, "min_volume": 1, "baseline": "same_hour_of_week"}`, trigger.Options{NotifyResolved: true}},
		{trigger.TrackingSilenceType, `{"minutes": 4}`, trigger.Options{NotifyResolved: true}},
		{trigger.TrackingSilenceType, `{"minutes": "auto", "sensitivity": "high"}`, trigger.Options{NotifyResolved: true}},
		{trigger.GoalSilenceType, `{"goal": {"event_name": "#"}, "sensitivity": "high"}`, trigger.Options{NotifyResolved: true}},
		{trigger.GoalAchievedType, `{"goal": {"page_path": "/**", "scroll_threshold": 20}}`, trigger.Options{}},
		{trigger.NewSourceType, `{"min_visitors": 2, "window_seconds": 600}`, trigger.Options{}},
		{trigger.NewSourceType, `{"dimension": "entry_page", "min_visitors": 1, "window_seconds": 600}`, trigger.Options{}},
		{trigger.NotFoundBurstType, `{"event_name": "404", "threshold": 1, "window_seconds": 300}`, trigger.Options{NotifyResolved: true}},
	} {
		config := replaceGoal(c.config, goal)
		id := b.trigger(c.of, config, c.options)
		stored, err := c.options.Filters.MarshalJSON()
		require.NoError(t, err)
		_, err = b.pool.Exec(t.Context(), "UPDATE triggers SET filters = $2 WHERE id = $1", id, stored)
		require.NoError(t, err)
		ids[id] = stream.PreviewRequest{
			SiteID: b.demo.SiteID, Type: c.of, Config: []byte(config), Filters: stored, CooldownSeconds: int64(c.options.Cooldown.Seconds()),
			NotifyResolved: c.options.NotifyResolved, From: noon.Add(-2 * time.Minute), To: noon.Add(seconds * time.Second),
		}
	}
	b.catalogue.drop()
	b.slot(-110) // asks for the norms
	require.NoError(t, b.norms.refresh(t.Context()))
	for second := -100; second <= seconds; second += 10 {
		b.slot(second)
	}

	fired := map[string][]string{}
	for _, m := range b.messages("true") {
		fired[m.Data.Trigger.ID] = append(fired[m.Data.Trigger.ID], fmt.Sprint(m.Timestamp.Format(time.TimeOnly), " ", m.Data.ID, " ", m.Data.Value, " ", m.Data.Explanation))
	}
	transitions := map[trigger.Type]int{}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		request := ids[id]
		r, w := b.rehearse(request)
		done, err := r.run(t.Context(), w.Config)
		require.NoError(t, err)
		var previewed []string
		for _, o := range done.occurrences {
			previewed = append(previewed, fmt.Sprint(o.at.Format(time.TimeOnly), " ", trigger.FiringID(id, 1, o.Transition, o.Anchor), " ", o.Value, " ", o.Explanation))
		}
		slices.Sort(previewed)
		slices.Sort(fired[id])
		assert.Equal(t, fired[id], previewed, "%s %s", request.Type, request.Config)
		transitions[request.Type] += len(previewed)

		byHour, _, err := b.results.between(t.Context(), id, noon.Add(-time.Hour), request.To)
		require.NoError(t, err)
		said := map[string]string{}
		for hour, runs := range byHour {
			for _, run := range runs {
				for second := run.from; second <= run.to; second += run.step {
					at := time.Unix(hour*3600+int64(second), 0).UTC().Format(time.TimeOnly)
					said[at] = fmt.Sprint(resultStatuses[run.status], " ", run.value)
				}
			}
		}
		for i, p := range done.points {
			if i == 0 {
				continue // the norms were not known yet
			}
			value := none
			if p.Value != nil {
				value = float32(*p.Value)
			}
			assert.Equal(t, said[p.At.Format(time.TimeOnly)], fmt.Sprint(p.Status, " ", value), "%s %s %s", request.Type, request.Config, p.At)
		}
	}
	t.Logf("%d events, transitions: %v", len(events), transitions)
	assert.GreaterOrEqual(t, len(transitions), 8)
}

func replaceGoal(config, goal string) string {
	out := ""
	for _, r := range config {
		if r == '#' {
			out += goal
			continue
		}
		out += string(r)
	}
	return out
}

// fillMonth writes so many events of the demo site, evenly in the 30 days before a time, by day more than by night.
func (b *bench) fillMonth(to time.Time, events int) {
	b.t.Helper()
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(b.t, err)
	defer conn.Close()
	require.NoError(b.t, conn.Exec(b.t.Context(), fmt.Sprintf(`
		INSERT INTO events_v2 (timestamp, name, site_id, user_id, session_id, hostname, pathname, referrer_source, country_code)
		SELECT toDateTime(%d + intDiv(visit * 2592000, %d) + (cityHash64(visit, 1) %% 36000) + (number %% 5) * 40), if(cityHash64(number) %% 20 = 0, 'Signup', 'pageview'),
		       %d, cityHash64(visit %% 9000, 7), cityHash64(visit), 'example.com', concat('/page/', toString(number %% 50)), '', 'EE'
		FROM (SELECT number, intDiv(number, 5) AS visit FROM numbers(%d))`, to.Add(-month).Unix(), events/5, b.demo.SiteID, events)))
}

// Thirty days of a site with 100,000 events, by type: the time each takes, that thresholds are suggested with which it
// fires about as often as is wanted, and that it fits into a message.
func TestPreviewOfAMonth(t *testing.T) {
	b := newBench(t)
	b.fillMonth(noon, 100_000)
	for _, c := range []struct {
		of       trigger.Type
		config   string
		suggests string
	}{
		{trigger.VisitorSpikeType, `{"threshold": 5}`, "threshold"},
		{trigger.VisitorSpikeType, `{"threshold": 5, "window_seconds": 3600}`, "threshold"},
		{trigger.VisitorSpikeType, `{"sensitivity": "medium"}`, ""},
		{trigger.VisitorDropType, `{"threshold": 100, "window_seconds": 3600}`, "threshold"},
		{trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`, ""},
		{trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}, "mode": "threshold", "threshold": 10, "window_seconds": 3600}`, "threshold"},
		{trigger.PageviewMilestoneType, `{"every": 10000}`, ""},
		{trigger.PageviewMilestoneType, `{"every": 1000, "period": "day"}`, ""},
		{trigger.MetricThresholdType, `{"metric": "visitors", "operator": "<", "threshold": 100, "window_seconds": 3600}`, "threshold"},
		{trigger.MetricThresholdType, `{"metric": "conversion_rate", "goal": {"event_name": "Signup"}, "operator": ">=", "threshold": 10, "window_seconds": 86400}`, "threshold"},
		{trigger.MetricThresholdType, `{"metric": "bounce_rate", "operator": ">=", "threshold": 10, "window_seconds": 3600}`, ""},
		{trigger.MetricChangeType, `{"metric": "visitors"}`, "percent"},
		{trigger.TrackingSilenceType, `{}`, ""},
		{trigger.GoalSilenceType, `{"goal": {"event_name": "Signup"}}`, ""},
		{trigger.GoalAchievedType, `{"goal": {"page_path": "/**", "scroll_threshold": 50}}`, ""},
		{trigger.NewSourceType, `{"dimension": "country", "window_seconds": 3600}`, ""},
		{trigger.NotFoundBurstType, `{"event_name": "Signup", "threshold": 3, "window_seconds": 3600}`, ""},
	} {
		for _, perMonth := range []float64{0, 10} {
			if perMonth > 0 && c.suggests == "" {
				continue
			}
			request := stream.PreviewRequest{SiteID: b.demo.SiteID, Type: c.of, Config: []byte(c.config), From: noon.Add(-month), To: noon, PerMonth: perMonth}
			queries, started := b.queries.Load(), time.Now()
			preview, err := b.preview(t.Context(), request)
			require.NoError(t, err, "%s %s", c.of, c.config)
			took := time.Since(started)
			encoded, err := json.Marshal(preview)
			require.NoError(t, err)
			suggested := ""
			if s := preview.Suggestion; s != nil {
				suggested = fmt.Sprintf(", suggested %s %v: %v a month", s.Field, s.Value, s.FiringsPerMonth)
			}
			t.Logf("%s %s: %d ms, %d queries, step %d s, %d points, %d fired, %d kB%s", c.of, c.config, took.Milliseconds(), b.queries.Load()-queries,
				preview.StepSeconds, len(preview.Points), preview.Count, len(encoded)/1000, suggested)
			assert.LessOrEqual(t, len(preview.Points), stream.MostPoints)
			assert.NotEmpty(t, preview.Points)
			assert.Less(t, len(encoded), 900_000)
			if perMonth == 0 {
				assert.Nil(t, preview.Suggestion)
				continue
			}
			require.NotNil(t, preview.Suggestion, "%s %s", c.of, c.config)
			assert.Equal(t, c.suggests, preview.Suggestion.Field)
			if c.of != trigger.MetricChangeType { // which is tried with round percentages only
				assert.InDelta(t, perMonth, preview.Suggestion.FiringsPerMonth, 10)
			}
		}
	}
}

// After an outage of all sites a site's silence counts from the outage's end, in a preview as in production.
func TestPreviewCountsSilenceSinceAnOutage(t *testing.T) {
	b := newBench(t)
	b.insert(b.event("pageview", -3600, 1))
	require.NoError(t, b.evaluator.store.RecordOutages(t.Context(), []postgres.Outage{{Began: noon.Add(-3600 * time.Second), Ended: noon.Add(-1800 * time.Second)}}))
	preview, err := b.preview(t.Context(), stream.PreviewRequest{
		SiteID: b.demo.SiteID, Type: trigger.TrackingSilenceType, Config: []byte(`{"minutes": 20}`), From: noon.Add(-2 * time.Hour), To: noon,
	})
	require.NoError(t, err)
	require.Len(t, preview.Firings, 1)
	require.Equal(t, noon.Add(-600*time.Second), preview.Firings[0].At)
}
