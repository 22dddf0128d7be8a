package clickhouse

import (
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/simulation"
)

// changesLater finds filters whose answer about a visit changes while it lasts: of them, a history knows the last.
var changesLater = regexp.MustCompile("has_done|has_not_done|visit:exit_page")

// What is fetched for all slots at once must be what each slot would have been answered: for all numbers of events,
// goals, filters, lengths that do not fit the slots, and windows that end before them.
func TestSlidingIsTheAnswerOfEverySlot(t *testing.T) {
	scenario := simulation.Scenario{
		Seed: 3, From: time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 10, 26, 0, 0, 0, 0, time.UTC), Sites: 2, Visitors: 8, Late: -1,
	}
	traffic := simulation.Generate(scenario)
	b := newBench(t)
	conn, err := plausible.Open(b.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	events, sessions := traffic.Fixtures()
	require.NoError(t, plausible.InsertEvents(t.Context(), conn, events))
	require.NoError(t, plausible.InsertSessions(t.Context(), conn, sessions))

	random := rand.New(rand.NewPCG(1, 2))
	grid := Grid{First: time.Date(2026, 10, 25, 11, 59, 50, 0, time.UTC), Step: 130 * time.Second, Slots: 40}
	statsFrom := grid.First.Add(-5*time.Hour - 7*time.Second)
	compared, numbers := 0, map[trigger.Metric]int{}
	for _, asked := range simulation.Questions(random, scenario, traffic, grid.First, 400, trigger.AskNumber) {
		if asked.Metric.OfSessions() || changesLater.MatchString(asked.Filters.String()) {
			continue
		}
		length := []time.Duration{time.Minute, 61 * time.Second, 5 * time.Minute, time.Hour, 24 * time.Hour}[random.IntN(5)]
		lag := []time.Duration{0, 0, length}[random.IntN(3)]
		q := Question{SiteID: asked.SiteID, Question: asked.Question}
		if q.Metric == trigger.Pageviews || q.Metric == trigger.Events && (q.Goal == nil || !q.Goal.Scroll()) {
			continue // they are tallied
		}
		sliding, err := b.Sliding(t.Context(), q, length, lag, grid, statsFrom)
		require.NoError(t, err)
		for _, k := range []int{0, 1, 17, 39} {
			slot := grid.First.Add(time.Duration(k) * grid.Step)
			q.Window = trigger.Window{From: slot.Add(-lag - length), To: slot.Add(-lag)}
			if q.Window.From.Before(statsFrom) {
				q.Window.From = statsFrom
			}
			answers, err := b.Answer(t.Context(), []Question{q}, slot, 10*time.Second)
			require.NoError(t, err)
			require.Equal(t, answers[0], sliding[k], "%s, slot %d, length %s, lag %s", asked, k, length, lag)
			compared++
			if answers[0].Value > 0 {
				numbers[q.Metric]++
			}
		}
	}
	t.Logf("%d windows compared over %d events; not 0: %v", compared, len(events), numbers)
	for _, metric := range []trigger.Metric{trigger.Visitors, trigger.Visits, trigger.ConversionRate} {
		assert.Positive(t, numbers[metric], metric)
	}
}
