package evaluator

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// However much the context has to read: the slot is committed before, and what fired is published after.
func TestNoSlotWaitsForTheContextOfAFiring(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	fired, err := b.evaluate(ctx, noon)
	require.NoError(t, err)
	require.Equal(t, 1, fired)
	asked := b.spent.take(1)
	assert.Contains(t, asked, "windows")
	assert.NotContains(t, asked, "rankings")
	assert.NotContains(t, asked, "list")
	early, err := b.publisher.store.Unpublished(ctx, b.owner, 10)
	require.NoError(t, err)
	assert.Empty(t, early, "it is not complete")

	waiting, err := b.publisher.store.Incomplete(ctx, b.owner, 10)
	require.NoError(t, err)
	require.Len(t, waiting, 1)
	require.NoError(t, b.complete(ctx))
	complete := b.messages("true")
	require.Len(t, complete, 1)
	assert.Equal(t, []trigger.Ranked{{Name: "Hacker News", Visitors: 1}}, complete[0].Data.Context.TopSources)
	assert.Len(t, complete[0].Data.Conversions, 1)

	require.NoError(t, b.publisher.store.Complete(ctx, waiting), "another replica, which comes second")
	assert.Equal(t, complete, b.messages("true"), "the bytes that may have been published stay")
}

// A firing is worth more than its context.
func TestAFiringGoesOutWithoutAContextThatCannotBeRead(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	_, err := b.evaluate(ctx, noon)
	require.NoError(t, err)
	require.NoError(t, b.publisher.contexts.events.Close())
	_, err = b.publish(ctx)
	require.NoError(t, err)
	s, err := b.js.Stream(ctx, stream.Firings)
	require.NoError(t, err)
	assert.Equal(t, uint64(1), s.CachedInfo().State.Msgs)
	told := b.messages("published_at IS NOT NULL")
	require.Len(t, told, 1)
	assert.Equal(t, 1.0, told[0].Data.Value)
	assert.Nil(t, told[0].Data.Context)
}

// A ClickHouse that takes the queries and does not answer holds up no message for longer than contextWait.
func TestMessagesDoNotWaitForAClickHouseThatHangs(t *testing.T) {
	b := newBench(t)
	address, err := url.Parse(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address.Host})
	var hangs atomic.Bool
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			_, _ = io.Copy(io.Discard, r.Body) // it is told that the client has left only after that
			<-r.Context().Done()
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(hanging.Close)
	through := *address
	through.Host = hanging.Listener.Addr().String()
	events, err := clickhouse.Open(t.Context(), through.String(), time.Hour, func(string, time.Duration, error) {})
	require.NoError(t, err)
	t.Cleanup(func() { _ = events.Close() })
	b.publisher.contexts.events = events

	b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	b.insert(b.event("Signup", -5, 1))
	_, err = b.evaluate(t.Context(), noon)
	require.NoError(t, err)
	hangs.Store(true)
	patient, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	_, err = b.publish(patient)
	require.NoError(t, err)
	told := b.messages("published_at IS NOT NULL")
	require.Len(t, told, 1)
	assert.Nil(t, told[0].Data.Context)
}
