package stream

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func TestWhoFallsBehindIsTold(t *testing.T) {
	nc, err := Connect(t.Context(), devstacktest.NATS(t), "test", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	firings, stop, err := Watch(nc, 7, 2)
	require.NoError(t, err)
	publish := func(site int64, id string) {
		require.NoError(t, nc.PublishMsg(Encode(trigger.Firing{
			ID: id, Slot: time.Now(), SiteID: site, WebhookID: "wh_1", TriggerID: "tr_1", TriggerType: "visitor_spike", Type: "visitor_spike.fired", Payload: []byte("{}"),
		})))
	}
	publish(70, "another_site")
	publish(7, "msg_1")
	require.Equal(t, "msg_1", (<-firings).ID)
	again, stopAgain, err := Watch(nc, 7, 2)
	require.NoError(t, err)
	stopAgain()
	_, more := <-again
	require.False(t, more)

	for _, id := range []string{"msg_2", "msg_3", "msg_4", "msg_5"} {
		publish(7, id)
	}
	require.NoError(t, nc.Drain()) // until all of them were taken up
	require.Eventually(t, nc.IsClosed, 20*time.Second, time.Millisecond)
	var got []string
	for firing := range firings { // until it is closed
		got = append(got, firing.ID)
	}
	require.Equal(t, []string{"msg_2", "msg_3"}, got, "none is left out before the end")
	stop()
	stop()
}
