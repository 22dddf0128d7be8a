package evaluator

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// crowd is so many visitors with a page view each, in the second after noon.
func (b *bench) crowd(visitors uint64, second int) (events []fixture.Event) {
	for visitor := range visitors {
		events = append(events, b.event("pageview", second, visitor))
	}
	return events
}

func TestAnEpisodeThatNobodySawIsTold(t *testing.T) {
	b := newBench(t)
	spike := b.trigger(trigger.VisitorSpikeType, `{"threshold": 5, "window_seconds": 300}`)
	converting := b.trigger(trigger.MetricThresholdType, `{"metric": "conversion_rate", "goal": {"event_name": "Signup"}, "threshold": 50, "window_seconds": 600}`)
	missing := b.trigger(trigger.NotFoundBurstType, `{"threshold": 3, "window_seconds": 300}`)
	b.insert(b.event("pageview", -5, 1))
	require.Empty(t, b.slot(0))
	asked := b.queries.Load()
	require.Empty(t, b.slot(10))
	steady := b.queries.Load() - asked

	b.insert(b.crowd(7, 1000)...)
	b.insert(b.event("Signup", 1001, 1), b.event("Signup", 1002, 2), b.event("Signup", 1002, 3), b.event("Signup", 1003, 4))
	for second := range 4 {
		gone := b.event("404", 1210+second, 9)
		gone.Pathname = "/gone"
		b.insert(gone)
	}
	b.insert(b.event("pageview", 3590, 1))
	b.start() // the replica died
	messages := map[string]trigger.Message{}
	for _, m := range b.slot(3610) {
		messages[m.Data.Trigger.ID] = m
	}
	require.Len(t, messages, 3)
	m := messages[spike]
	assert.Equal(t, "visitor_spike.fired", m.Type)
	assert.True(t, m.Data.Missed)
	assert.Equal(t, 7.0, m.Data.Value)
	at := noon.Add(1210 * time.Second)
	assert.Equal(t, &trigger.EndedEpisode{From: at, To: at, Peak: 7, PeakAt: at}, m.Data.Episode)
	assert.Equal(t, trigger.Window{From: at.Add(-5 * time.Minute), To: at}, m.Data.Window)
	chart := m.Data.Context.Chart
	assert.Equal(t, trigger.Point{At: at, Value: 7}, chart[len(chart)-1], "it ends with the window that is told of")
	assert.InDelta(t, 57.14, messages[converting].Data.Value, 0.001)
	assert.Equal(t, "/gone", messages[missing].Data.Group.Value)
	assert.Equal(t, 4.0, messages[missing].Data.Value)

	asked = b.queries.Load()
	require.Empty(t, b.slot(3620), "once")
	assert.Equal(t, steady, b.queries.Load()-asked, "without a gap it costs nothing")
}

// What stopped the evaluator may have stopped ingestion: then nobody could have come.
func TestADropIsMissedOnlyIfIngestionWorked(t *testing.T) {
	outage := postgres.Outage{Began: noon.Add(-time.Minute), Ended: noon.Add(3590 * time.Second)}
	for name, c := range map[string]struct {
		sites   int
		outages []postgres.Outage
		told    int
	}{
		"other sites had events": {sites: 2, told: 1},
		"no site had events":     {sites: 2, outages: []postgres.Outage{outage}},
		"there is one site":      {sites: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.trigger(trigger.VisitorDropType, `{"threshold": 2, "window_seconds": 600}`)
			b.insert(b.crowd(5, -60)...)
			require.Empty(t, b.slot(0))
			b.insert(b.crowd(5, 3590)...)
			b.start()
			b.ingestion.mu.Lock()
			b.ingestion.learned, b.ingestion.patience, b.ingestion.sites, b.ingestion.outages = true, time.Minute, c.sites, c.outages
			b.ingestion.mu.Unlock()
			require.Len(t, b.slot(3610), c.told)
		})
	}
}

// What was missed is worth less than the slot, which commits without it.
func TestTheSlotDoesNotDependOnWhatWasMissed(t *testing.T) {
	b := newBench(t)
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 5, "window_seconds": 300}`)
	require.Empty(t, b.slot(0))
	b.insert(b.crowd(7, 1000)...)
	conn, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	defer conn.Close()
	var once sync.Once
	b.evaluator, b.publisher = b.replica("bench", func(family string) {
		if family == "windows" { // the slot's only question
			once.Do(func() { assert.NoError(t, conn.Exec(t.Context(), "RENAME TABLE events_v2 TO away")) })
		}
	})
	_, err = b.shards.balance(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.shards.restore(t.Context()))
	require.Empty(t, b.slot(3600))
	assert.Equal(t, noon.Add(time.Hour), b.lastSlot())
	status, _ := b.explanation(id)
	assert.Equal(t, "ok", status)
}
