package evaluator

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

func openSystem(pool *pgxpool.Pool) *system {
	return newSystem(postgres.New(pool), slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry()), 10*time.Second, func() {})
}

func kinds(t *testing.T, pool *pgxpool.Pool) (kinds []string) {
	t.Helper()
	for _, e := range systemEvents(t, pool) {
		kinds = append(kinds, e.Type)
	}
	return kinds
}

var errAway = errors.New("query windows: connection refused")

func after(slots int) time.Time { return noon.Add(time.Duration(slots) * 10 * time.Second) }

func TestSixFailedSlotsAreToldOnce(t *testing.T) {
	ctx, pool := t.Context(), leasesPool(t)
	s := openSystem(pool)
	s.slotEvaluated(ctx, after(-1))
	for slot := range 5 {
		s.slotFailed(ctx, after(slot), errAway)
		s.slotFailed(ctx, after(slot), errAway) // the same slot, tried again
	}
	s.slotEvaluated(ctx, after(5))
	assert.Empty(t, systemEvents(t, pool), "five may be a restart")

	for slot := range 20 {
		s.slotFailed(ctx, after(slot), errAway)
	}
	events := systemEvents(t, pool)
	require.Len(t, events, 1)
	assert.Equal(t, "evaluation.failing", events[0].Type)
	assert.Equal(t, noon, events[0].Timestamp)
	assert.Equal(t, noon, events[0].Data.Since)
	assert.Equal(t, errAway.Error(), events[0].Data.Problem)
	assert.Contains(t, events[0].Data.Explanation, "No slot could be evaluated for 60 seconds")

	s.slotEvaluated(ctx, after(20))
	s.slotEvaluated(ctx, after(21))
	events = systemEvents(t, pool)
	require.Len(t, events, 2)
	assert.Equal(t, "evaluation.recovered", events[1].Type)
	assert.Equal(t, after(20), events[1].Timestamp)
	assert.Equal(t, "Slots are evaluated again, after 3 minutes.", events[1].Data.Explanation)
	assert.Equal(t, 1.0, testutil.ToFloat64(s.metrics.systemEvents.WithLabelValues("evaluation.failing")))
}

func TestReplicasThatFailTogetherMakeOneEvent(t *testing.T) {
	ctx, pool := t.Context(), leasesPool(t)
	replicas := []*system{openSystem(pool), openSystem(pool)}
	for slot := range 8 {
		for _, s := range replicas {
			s.slotFailed(ctx, after(slot), errAway)
		}
	}
	for _, s := range replicas {
		s.slotEvaluated(ctx, after(8))
	}
	assert.Equal(t, []string{"evaluation.failing", "evaluation.recovered"}, kinds(t, pool))
}

// The database is the one that fails, or the replica was restarted meanwhile.
func TestARunOfFailuresIsToldLate(t *testing.T) {
	ctx, pool := t.Context(), leasesPool(t)
	s := openSystem(pool)
	_, err := pool.Exec(ctx, "ALTER TABLE system_events RENAME TO away")
	require.NoError(t, err)
	for slot := range 8 {
		s.slotFailed(ctx, after(slot), errAway)
	}
	_, err = pool.Exec(ctx, "ALTER TABLE away RENAME TO system_events")
	require.NoError(t, err)
	s.slotEvaluated(ctx, after(8))
	assert.Equal(t, []string{"evaluation.failing", "evaluation.recovered"}, kinds(t, pool))

	for slot := 100; slot < 110; slot++ {
		s.slotFailed(ctx, after(slot), errAway)
	}
	restarted := openSystem(pool)
	restarted.slotEvaluated(ctx, after(120))
	assert.Equal(t, []string{"evaluation.failing", "evaluation.recovered", "evaluation.failing", "evaluation.recovered"}, kinds(t, pool))
}

func TestATriggerThatFailsIsToldOnceInARun(t *testing.T) {
	ctx, pool := t.Context(), leasesPool(t)
	s := openSystem(pool)
	one := failure{triggerID: "tr_1", siteID: 7, since: noon, problem: "The evaluation failed by a fault of this program; its log tells more."}
	other := one
	other.triggerID = "tr_2"
	s.triggersFail(ctx, nil)
	s.triggersFail(ctx, []failure{one})
	s.triggersFail(ctx, []failure{one, other})
	openSystem(pool).triggersFail(ctx, []failure{one, other}) // after a restart, or at another replica
	events := systemEvents(t, pool)
	require.Len(t, events, 2)
	assert.Equal(t, "trigger.failing", events[0].Type)
	assert.Equal(t, int64(7), events[0].Data.SiteID)
	assert.Equal(t, "A trigger's evaluation fails: "+one.problem, events[0].Data.Explanation)

	s.triggersFail(ctx, []failure{other})
	one.since = after(60)
	s.triggersFail(ctx, []failure{one, other})
	assert.Len(t, systemEvents(t, pool), 3, "another run")
}

func TestSystemEventsArePublishedOnce(t *testing.T) {
	ctx, pool := t.Context(), leasesPool(t)
	log := slog.New(slog.DiscardHandler)
	nc, err := stream.Connect(ctx, devstacktest.NATS(t), "test", log)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, _, err = stream.Ensure(ctx, js, stream.Options{})
	require.NoError(t, err)
	p := newPublisher(postgres.New(pool), "a", nil, js, log, newMetrics(prometheus.NewRegistry()))
	s := openSystem(pool)
	s.wake = p.wake

	event, err := systemEvent(ingestionSilent, "fact", noon, "Why.", nil)
	require.NoError(t, err)
	require.Equal(t, "sys_36octtwpxf42ayq7oovdyc3i2d", event.ID, "another would tell again what was told")
	added, err := s.raise(ctx, event)
	require.NoError(t, err)
	assert.Equal(t, 1, added)
	assert.Len(t, p.woken, 1)
	added, err = s.raise(ctx, event)
	require.NoError(t, err)
	assert.Zero(t, added)

	require.NoError(t, p.publishSystem(ctx))
	require.NoError(t, p.publishSystem(ctx), "nothing is left")
	_, err = pool.Exec(ctx, "UPDATE system_events SET published_at = NULL") // as after a crash before it was marked
	require.NoError(t, err)
	require.NoError(t, p.publishSystem(ctx))

	system, err := js.Stream(ctx, stream.System)
	require.NoError(t, err)
	assert.Equal(t, uint64(1), system.CachedInfo().State.Msgs)
	m, err := system.GetLastMsgForSubject(ctx, "system.ingestion.silent")
	require.NoError(t, err)
	assert.JSONEq(t, `{"type": "ingestion.silent", "timestamp": "2026-11-23T12:00:00Z", "data": {"explanation": "Why."}}`, string(m.Data))
	assert.Equal(t, event.ID, m.Header.Get(jetstream.MsgIDHeader))

	_, err = pool.Exec(ctx, "UPDATE system_events SET at = now() - interval '91 days'")
	require.NoError(t, err)
	require.NoError(t, p.store.RemoveOldSystemEvents(ctx, systemRetention))
	assert.Empty(t, systemEvents(t, pool))
}
