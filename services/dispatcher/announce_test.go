package dispatcher

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hearing gives the announcements about a webhook's deliveries from now on, each as it names them.
func (w *world) hearing(webhookID string) (next func() string) {
	w.Helper()
	s, err := w.nc.SubscribeSync("delivery." + webhookID)
	require.NoError(w, err)
	require.NoError(w, w.nc.Flush())
	return func() string {
		w.Helper()
		ctx, cancel := context.WithTimeout(w.Context(), patienceOfTests)
		defer cancel()
		m, err := s.NextMsgWithContext(ctx)
		require.NoError(w, err, "an announcement about %s; logs:\n%s", webhookID, w.logs)
		return string(m.Data)
	}
}

// TestWhatAListShowsIsAnnouncedWhenItChanges, whoever changes it, and after the commit.
func TestWhatAListShowsIsAnnouncedWhenItChanges(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(200))
	up, paused := w.webhook(r.URL, options{}), w.webhook(r.URL, options{paused: true})
	batched := w.batching(r.URL, 2, time.Hour, options{paused: true})
	ofUp, ofPaused, ofBatched := w.hearing(up), w.hearing(paused), w.hearing(batched)
	w.start()

	fired := w.publish(firing(up))[0].ID
	require.Equal(t, fired, ofUp())
	assert.Equal(t, "delivered", w.row(fired).Status)

	w.tell("test", w.command("test", up, "msg_ping"))
	require.Equal(t, []string{"msg_ping", "msg_ping"}, []string{ofUp(), ofUp()}, "it is made, and delivered")

	dead := w.finished(paused, "dead", 11)
	w.tell("retry", w.command("retry", paused, dead))
	require.ElementsMatch(t, []string{dead, ""}, []string{ofPaused(), ofPaused()}, "it is due, and then it is held")
	assert.Nil(t, w.row(dead).Next)

	cancelled := w.finished(paused, "cancelled", 0)
	w.tell("recover", w.recovery(paused, "cancelled", 50))
	require.Equal(t, []string{"", ""}, []string{ofPaused(), ofPaused()}, "it is due, and then it is held")
	assert.Nil(t, w.row(cancelled).Next)

	firings := w.publishN(2, batched)
	var gathered []string
	for unnamed := 0; unnamed < 2; { // the batch is made, and then it is held
		if ids := ofBatched(); ids == "" {
			unnamed++
		} else {
			gathered = append(gathered, strings.Split(ids, ",")...)
		}
	}
	require.ElementsMatch(t, []string{firings[0].ID, firings[1].ID}, gathered)
	require.Equal(t, 1, w.count("webhook_id = $1 AND type = 'batch' AND status = 'waiting' AND next_attempt_at IS NULL", batched))
}

func TestANoticeToOtherWebhooksIsAnnounced(t *testing.T) {
	w := newWorld(t)
	failing := w.webhook("https://192.0.2.1/", options{})
	others := []string{w.webhook("https://192.0.2.2/", options{}), w.webhook("https://192.0.2.3/", options{})}
	heard := []func() string{w.hearing(others[0]), w.hearing(others[1])}
	w.failing(failing, 4*day+time.Hour)
	w.look(w.idle())
	for i, of := range others {
		require.Equal(t, 1, w.count("webhook_id = $1 AND id = $2 AND type = 'webhook.failing'", of, heard[i]()))
	}
}
