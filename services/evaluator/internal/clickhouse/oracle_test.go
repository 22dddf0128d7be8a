package clickhouse

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/simulation"
)

// oracleBatch is how many questions are asked together. Each batch has every kind of them.
const oracleBatch = 500

// The queries, which answer many questions at once, must agree with the oracle, which answers one by
// its definition: while rows still arrive, across days of 23 and 25 hours, and at the midnight at
// which visitors get other ids.
func TestAnswersAreTheOracles(t *testing.T) {
	tallinn, err := time.LoadLocation("Europe/Tallinn")
	require.NoError(t, err)
	newYork, err := time.LoadLocation("America/New_York")
	require.NoError(t, err)
	scenario := simulation.Scenario{
		Seed: 1, From: time.Date(2026, 10, 23, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 3, 1, 0, 0, 0, time.UTC),
		Sites: 4, Visitors: 5, Skew: 1, Zones: []*time.Location{tallinn, newYork, time.UTC},
		Changes: []simulation.Change{{SiteID: 1, From: time.Date(2026, 11, 1, 17, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 1, 18, 0, 0, 0, time.UTC), Factor: 5, Source: "Slashdot"}},
	}
	traffic := simulation.Generate(scenario)
	oracle := simulation.NewOracle(traffic)
	b := newBench(t)
	conn, err := plausible.Open(b.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })

	var loaded simulation.Traffic
	random := rand.New(rand.NewPCG(1, 2))
	for _, slot := range []time.Time{
		time.Date(2026, 10, 25, 20, 30, 0, 0, time.UTC), // a day of 25 hours in Tallinn
		time.Date(2026, 11, 1, 17, 50, 0, 0, time.UTC),  // one in New York, and a spike
		time.Date(2026, 11, 3, 0, 7, 0, 0, time.UTC),    // after the change of salts
	} {
		now := slot.Add(15 * time.Second) // late rows are missing still, and some of the next slot are there
		visible := traffic.Visible(now)
		events, sessions := simulation.Traffic{Events: visible.Events[len(loaded.Events):], Sessions: visible.Sessions[len(loaded.Sessions):]}.Fixtures()
		require.NoError(t, plausible.InsertEvents(t.Context(), conn, events))
		require.NoError(t, plausible.InsertSessions(t.Context(), conn, sessions))
		loaded = visible

		asked := simulation.Questions(random, scenario, visible, slot, oracleBatch,
			trigger.AskNumber, trigger.AskNumber, trigger.AskNumber, trigger.AskBuckets, trigger.AskEach, trigger.AskLast, trigger.AskRanking)
		questions := make([]Question, len(asked))
		for i, a := range asked {
			questions[i] = Question{SiteID: a.SiteID, Question: a.Question}
		}
		for _, interval := range []time.Duration{10 * time.Second, time.Minute} {
			answers, err := b.Answer(t.Context(), questions, slot, interval)
			require.NoError(t, err)
			require.Len(t, answers, len(asked))
			for i, a := range asked {
				want := trigger.Answer{}
				if b.Lacks(a.Question) == "" {
					want = oracle.Answer(a.SiteID, a.Question, interval, now)
				}
				assert.Equal(t, bare(want), bare(answers[i]), "%s, interval %s", a, interval)
			}
		}
	}
	t.Logf("%d events, %d session rows", len(loaded.Events), len(loaded.Sessions))
}

// bare is an answer without what the oracle does not tell, and without differences that mean
// nothing: empty buckets and time zones. Of equally frequent values at a ranking's cap any may be left out.
func bare(a trigger.Answer) trigger.Answer {
	var buckets []trigger.Bucket
	for _, b := range a.Buckets {
		if b.Count > 0 {
			buckets = append(buckets, trigger.Bucket{Start: b.Start.UTC(), Count: b.Count})
		}
	}
	ranking := append([]trigger.Ranked(nil), a.Ranking...)
	if a.More > 0 {
		least := ranking[len(ranking)-1].Visitors
		for i := range ranking {
			if ranking[i].Visitors == least {
				ranking[i].Name = ""
			}
		}
	}
	a.Buckets, a.Ranking, a.Last = buckets, ranking, a.Last.UTC()
	return a
}
