package story

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// delivery is one of the api's answers.
type delivery struct {
	ID          string
	Status      string
	Type        string
	Attempts    int
	FiringIDs   []string `json:"firing_ids"`
	FinishedAt  *time.Time
	AttemptList []struct {
		Number     int
		StatusCode *int `json:"status_code"`
		Error      string
	} `json:"attempt_list"`
	Payload struct {
		Type string
		Data struct{ ID string }
	}
}

// deliveries waits until the history has as many entries as expected with the status.
func (s *stage) deliveries(webhook, status string, count int) []delivery {
	s.t.Helper()
	var page struct{ Deliveries []delivery }
	s.await("the history", func() bool {
		s.call(http.MethodGet, "/"+webhook+"/deliveries?status="+status, "", http.StatusOK, &page)
		return len(page.Deliveries) >= count
	})
	require.Len(s.t, page.Deliveries, count)
	return page.Deliveries
}

func TestFromAnEventToAVerifiedWebhookAndItsHistory(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	s.convert(1)
	s.await("a request", func() bool { return len(s.receiver.messages()) > 0 })

	got := s.receiver.messages()[0]
	assert.Equal(t, "goal_achieved.fired", got.body.Type)
	assert.Equal(t, got.id, got.body.Data.ID)
	assert.Equal(t, 1.0, got.body.Data.Value)
	require.Len(t, got.body.Data.Conversions, 1)
	assert.Equal(t, "/signup", got.body.Data.Conversions[0].Page)

	listed := s.deliveries(webhook, "delivered", 1)[0]
	assert.Equal(t, got.id, listed.ID)
	var one delivery
	s.call(http.MethodGet, "/"+webhook+"/deliveries/"+listed.ID, "", http.StatusOK, &one)
	assert.Equal(t, []string{got.id}, one.FiringIDs)
	assert.Equal(t, "goal_achieved.fired", one.Payload.Type)
	assert.Equal(t, got.id, one.Payload.Data.ID)
	require.Len(t, one.AttemptList, 1)
	assert.Equal(t, http.StatusOK, *one.AttemptList[0].StatusCode)
	assert.Empty(t, s.receiver.refused, "every request was verified")

	// One trace, from the slot through the broker to the attempt.
	attempts := s.stop("dispatcher", "delivery")
	require.Len(t, attempts, 1)
	var slots []any
	for _, slot := range s.stop("evaluator", "slot") {
		if slot["firings"] == 1.0 {
			slots = append(slots, slot["trace_id"])
		}
	}
	assert.Equal(t, []any{attempts[0]["trace_id"]}, slots)
}

// The request that the api signs is the one that the dispatcher sent, but for the time and the signatures of it: with
// headers, a template, batches, and all secrets and keys that sign. Sent by hand, the receiver takes it.
func TestARequestIsShownAsItWasSent(t *testing.T) {
	s := newStage(t)
	register := func(r *receiver, settings string) (webhook string) {
		var created struct{ ID, Secret string }
		s.call(http.MethodPost, "", fmt.Sprintf(`{"url": %q, %s, "triggers": [{"type": "goal_achieved", "config": {"goal": {"goal_id": %d}}}]}`,
			r.URL+"/hook?of=theirs", settings, s.demo.Goals.Signup), http.StatusCreated, &created)
		r.trust(t, created.Secret)
		for _, kind := range []string{"v1", "v1a"} { // the first secret signs beside the second
			s.call(http.MethodPost, "/"+created.ID+"/secret/rotate", fmt.Sprintf(`{"kind": %q}`, kind), http.StatusOK, nil)
		}
		return created.ID
	}
	batches := newReceiver(t)
	webhooks := map[*receiver]string{
		s.receiver: register(s.receiver, `"headers": {"authorization": "Bearer theirs", "X-Of-Theirs": "yes"}, "format": "custom", "template": "{type, text: \"<\\(.data.value)> é\"}"`),
		batches:    register(batches, `"batch": {"max_size": 2, "max_wait_seconds": 1}`),
	}
	s.convert(1)
	for r, webhook := range webhooks {
		done := s.deliveries(webhook, "delivered", 1)[0]
		var shown struct {
			Method, URL, Body string
			Headers           map[string]string
		}
		s.call(http.MethodPost, "/"+webhook+"/deliveries/"+done.ID+"/request", "", http.StatusOK, &shown)
		request, err := http.NewRequestWithContext(t.Context(), shown.Method, shown.URL, strings.NewReader(shown.Body))
		require.NoError(t, err)
		for name, value := range shown.Headers {
			request.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode, "%v", r.refused)

		got := r.messages()
		require.Len(t, got, 2)
		sent, byHand := got[0], got[1]
		assert.Equal(t, string(sent.raw), string(byHand.raw))
		byHand.header.Del("Accept-Encoding") // of the one who sends by hand
		for _, m := range got {
			assert.Len(t, strings.Fields(m.header.Get("Webhook-Signature")), 3)
			m.header.Del("Webhook-Signature")
			m.header.Del("Webhook-Timestamp")
		}
		assert.Equal(t, sent.header, byHand.header)
		assert.Equal(t, done.ID, sent.id)
	}
	assert.Equal(t, "Bearer theirs", s.receiver.messages()[0].header.Get("Authorization"))
	assert.JSONEq(t, `{"type": "goal_achieved.fired", "text": "<1> é"}`, string(s.receiver.messages()[0].raw))
	assert.Equal(t, "batch", batches.messages()[0].body.Type)
}

// A receiver that fails gets the same message again.
func TestAFailedAttemptIsRepeatedWithTheSameID(t *testing.T) {
	s := newStage(t)
	var failed atomic.Bool
	s.receiver.answer = func(message) int {
		if failed.CompareAndSwap(false, true) {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	}
	webhook := s.webhook()
	s.convert(1)
	done := s.deliveries(webhook, "delivered", 1)[0]
	assert.Equal(t, 2, done.Attempts)
	got := s.receiver.messages()
	require.Len(t, got, 2)
	assert.Equal(t, got[0].id, got[1].id)
	var one delivery
	s.call(http.MethodGet, "/"+webhook+"/deliveries/"+done.ID, "", http.StatusOK, &one)
	require.Len(t, one.AttemptList, 2)
}

// The receiver has answered, the outcome is about to be committed, the dispatcher dies. This is
// the only case in which a receiver may see a message twice, with the same id.
func TestDispatcherKilledBetweenResponseAndCommit(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	ctx := context.Background()
	blocker, err := pgx.Connect(ctx, s.database)
	require.NoError(t, err)
	defer blocker.Close(ctx)
	lock, err := blocker.Begin(ctx)
	require.NoError(t, err)
	_, err = lock.Exec(ctx, "LOCK TABLE deliveries IN EXCLUSIVE MODE") // reads go on, the outcome cannot be written
	require.NoError(t, err)

	s.convert(1)
	waiting := "SELECT count(*) FROM pg_stat_activity WHERE datname = 'webhooks' AND wait_event_type = 'Lock' AND query LIKE '%deliveries%'"
	s.await("the commit to wait", func() bool { return len(s.receiver.messages()) > 0 && s.number(waiting) > 0 })
	s.kill("dispatcher")
	s.query(s.database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'webhooks' AND wait_event_type = 'Lock'")
	s.await("the statement to end with its dispatcher", func() bool { return s.number(waiting) == 0 })
	require.NoError(t, lock.Rollback(ctx))
	require.Zero(t, s.number("SELECT count(*) FROM deliveries"), "nothing was committed")

	s.start("dispatcher")
	done := s.deliveries(webhook, "delivered", 1)[0]
	got := s.receiver.messages()
	require.Len(t, got, 2, "sent again")
	assert.Equal(t, got[0].id, got[1].id)
	assert.Equal(t, got[0].id, done.ID)
}

// The firing is committed with the trigger's state, the broker is away, the evaluator dies.
func TestEvaluatorKilledBetweenCommitAndPublish(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	s.convert(1)
	first := s.deliveries(webhook, "delivered", 1)[0]

	require.NoError(t, s.engines.KillNATS())
	s.convert(2)
	s.await("the commit", func() bool { return s.number("SELECT count(*) FROM firings WHERE published_at IS NULL") == 1 })
	s.kill("evaluator")
	var id string
	s.query(s.database, "SELECT id FROM firings WHERE published_at IS NULL", &id)
	require.NoError(t, s.engines.RestartNATS(t.Context()))
	s.start("evaluator")

	done := s.deliveries(webhook, "delivered", 2)
	assert.Equal(t, []string{id, first.ID}, []string{done[0].ID, done[1].ID})
	assert.Len(t, s.receiver.messages(), 2, "each once")
}

// A trigger that was deleted fires no more, from the moment at which the api has answered: what the
// evaluator keeps of it is dropped by the announcement, not by the next reload.
func TestADeletedTriggerFiresNoMore(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	s.convert(1)
	s.deliveries(webhook, "delivered", 1)
	var shown struct{ Triggers []struct{ ID string } }
	s.call(http.MethodGet, "/"+webhook, "", http.StatusOK, &shown)
	s.call(http.MethodDelete, "/"+webhook+"/triggers/"+shown.Triggers[0].ID, "", http.StatusNoContent, nil)
	// The other one shows that the slots go on, and that they saw the conversion.
	s.call(http.MethodPost, "/"+webhook+"/triggers", fmt.Sprintf(`{"type": "goal_achieved", "name": "Another", "config": {"goal": {"goal_id": %d}}}`, s.demo.Goals.Signup), http.StatusCreated, nil)
	s.await("the other trigger's first slot", func() bool {
		return s.number("SELECT count(*) FROM trigger_states WHERE trigger_id <> '"+shown.Triggers[0].ID+"'") > 0
	})
	s.convert(2)
	s.deliveries(webhook, "delivered", 2)
	assert.Equal(t, 1, s.number("SELECT count(*) FROM firings WHERE trigger_id = '"+shown.Triggers[0].ID+"'"), "it fired once, before")
	assert.Len(t, s.receiver.messages(), 2)
}

// The api asks a running evaluator what an unsaved trigger would have done, and what a saved one did.
func TestATriggerIsPreviewedAndExplained(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	s.convert(1)
	s.deliveries(webhook, "delivered", 1)
	var preview struct {
		Count   int
		Firings []struct{ Explanation string }
		Points  []any
	}
	body := fmt.Sprintf(`{"type": "goal_achieved", "config": {"goal": {"goal_id": %d}, "mode": "threshold", "threshold": 1}, "from": %q}`,
		s.demo.Goals.Signup, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	s.await("the conversion's slot to be closed", func() bool {
		s.call(http.MethodPost, "/api/sites/"+s.demo.Domain+"/triggers/preview", body, http.StatusOK, &preview)
		return preview.Count > 0
	})
	assert.Equal(t, 1, preview.Count)
	assert.NotEmpty(t, preview.Points)
	assert.Contains(t, preview.Firings[0].Explanation, "conversion")

	var shown struct{ Triggers []struct{ ID string } }
	s.call(http.MethodGet, "/"+webhook, "", http.StatusOK, &shown)
	var explained struct {
		State struct{ Explanation string }
		Runs  []struct{ Status string }
	}
	s.await("the results of its slots", func() bool {
		s.call(http.MethodGet, "/"+webhook+"/triggers/"+shown.Triggers[0].ID+"/explanation", "", http.StatusOK, &explained)
		return len(explained.Runs) > 0
	})
	assert.NotEmpty(t, explained.State.Explanation)
	s.call(http.MethodPost, "/api/sites/"+s.demo.Domain+"/triggers/preview", `{"type": "visitor_spike", "config": {"threshold": 0}}`, http.StatusUnprocessableEntity, nil)
}

func TestNATSRestarts(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	s.convert(1)
	s.deliveries(webhook, "delivered", 1)
	require.NoError(t, s.engines.RestartNATS(t.Context()))
	s.convert(2)
	s.deliveries(webhook, "delivered", 2)
	assert.Len(t, s.receiver.messages(), 2, "each once")
}

// Postgres dies while a message is on its way to the receiver, and comes back.
func TestPostgresRestarts(t *testing.T) {
	s := newStage(t)
	webhook := s.webhook()
	var killed atomic.Bool
	s.receiver.answer = func(message) int {
		if killed.CompareAndSwap(false, true) {
			if err := s.engines.KillPostgres(); err != nil {
				t.Errorf("kill Postgres: %v", err)
			}
		}
		return http.StatusOK
	}
	s.convert(1)
	s.await("the crash", killed.Load)
	s.convert(2)
	require.NoError(t, s.engines.RestartPostgres(t.Context()))
	s.deliveries(webhook, "delivered", 2)
	assert.Len(t, s.receiver.messages(), 2, "no attempt was repeated: the outcome was kept until it could be written")
}
