package evaluator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/simulation"
)

// fault is where a replica's slot ends.
type fault int

const (
	unharmed          fault = iota
	diesBeforeCommit        // with the answers, before anything is written
	diesAfterCommit         // before anything is published
	diesInContext           // while it reads what the messages of the slot lack
	diesBeforePublish       // the messages are complete
	diesBeforeMark          // the broker has the firings, the outbox does not know
	pauses                  // its leases run out, others go on, then it wakes and goes on as if nothing were
	faults
)

// The matrix: replicas of any number die or pause at every boundary of a slot, and others take over.
// What subscribers get is what one replica that nothing happens to makes of the same rows: each
// firing with the same id and the same message, once for who drops repeated ids, and nothing else. Only
// its context may hold rows that came since.
func TestFiringsAreThoseOfAnUndisturbedReplica(t *testing.T) {
	const slots = 28
	traffic := simulation.Generate(simulation.Scenario{
		Seed: 7, From: noon.Add(-time.Hour), To: noon.Add(slots * 10 * time.Second), Sites: 6, Visitors: 30, Skew: 0.3,
		Changes: []simulation.Change{{SiteID: 2, From: noon.Add(2 * time.Minute), To: noon.Add(4 * time.Minute), Factor: 6}},
	})
	undisturbed := published(t, run(t, traffic, 1, slots, nil))
	require.Greater(t, len(undisturbed), 60, "there is something to lose")
	for replicas := 1; replicas <= 4; replicas++ {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(replicas), 1))
			seen := map[fault]int{}
			disturbed := published(t, run(t, traffic, replicas, slots, func() fault {
				f := fault(rng.IntN(int(faults)))
				if f == pauses && replicas == 1 {
					f = unharmed
				}
				seen[f]++
				return f
			}))
			t.Logf("faults injected: %v; firings: %d", seen, len(disturbed))
			assert.Equal(t, slices.Sorted(maps.Keys(undisturbed)), slices.Sorted(maps.Keys(disturbed)))
			for id, payload := range undisturbed {
				want, wantContext := apart(t, payload)
				got, gotContext := apart(t, disturbed[id])
				assert.Equal(t, want, got)
				assert.Equal(t, slices.Sorted(maps.Keys(wantContext)), slices.Sorted(maps.Keys(gotContext)))
			}
		})
	}
}

// apart is a message without its context, and that.
func apart(t *testing.T, payload string) (message, itsContext map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(payload), &message))
	data, isMessage := message["data"].(map[string]any)
	require.True(t, isMessage)
	itsContext, complete := data["context"].(map[string]any)
	require.True(t, complete, "every message has its context")
	delete(data, "context")
	return message, itsContext
}

// run takes replicas through the slots. Each slot is tried until every shard has seen it.
func run(t *testing.T, traffic simulation.Traffic, replicas, slots int, next func() fault) *bench {
	b := newBench(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, b.config.PlausibleDatabaseURL)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, `INSERT INTO sites (id, domain, timezone, native_stats_start_at, inserted_at, updated_at)
		SELECT i, 'site-' || i || '.example.com', 'Etc/UTC', $1, now(), now() FROM generate_series(3, 6) AS i ON CONFLICT DO NOTHING`, noon.Add(-24*time.Hour))
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
	for site := int64(1); site <= 6; site++ {
		b.demo.SiteID = site
		b.trigger("goal_achieved", `{"goal": {"event_name": "Signup"}}`)
		b.trigger("goal_achieved", `{"goal": {"page_path": "/blog/*"}}`)
		b.trigger("visitor_spike", `{"threshold": 22, "window_seconds": 60, "keep_firing_seconds": 20}`, trigger.Options{NotifyResolved: true})
		b.trigger("metric_threshold", `{"metric": "pageviews", "threshold": 30, "recovery_threshold": 20, "window_seconds": 60, "for_seconds": 20}`, trigger.Options{NotifyResolved: true})
		b.trigger("pageview_milestone", `{"every": 50}`)
	}
	require.NoError(t, b.publisher.store.Resign(ctx, b.owner))
	f := &fleet{bench: b, next: next}
	for range replicas {
		f.join()
	}
	events, err := fixture.Open(b.config.PlausibleClickHouseURL)
	require.NoError(t, err)
	defer events.Close()
	shown := simulation.Traffic{}
	for k := range slots {
		slot := noon.Add(time.Duration(k) * b.config.Interval)
		now := traffic.Visible(slot.Add(b.config.Interval))
		rows, visits := simulation.Traffic{Events: now.Events[len(shown.Events):], Sessions: now.Sessions[len(shown.Sessions):]}.Fixtures()
		shown = now
		require.NoError(t, fixture.InsertEvents(ctx, events, rows))
		require.NoError(t, fixture.InsertSessions(ctx, events, visits))
		f.evaluate(slot)
	}
	for _, r := range f.live { // what the dead have left is published by who lives
		f.own(r)
		f.publish(r)
	}
	return b
}

// fleet is the replicas that live.
type fleet struct {
	*bench
	next   func() fault // nil: nothing happens
	live   []*member
	joined int
}

// member is an evaluator with its publisher. interrupt is called when a query has returned.
type member struct {
	*evaluator
	*publisher
	interrupt func()
}

func (f *fleet) join() {
	f.joined++
	r := &member{}
	r.evaluator, r.publisher = f.replica(fmt.Sprintf("replica %d", f.joined), func(family string) {
		if r.interrupt != nil && family != "clock" {
			r.interrupt()
		}
	})
	require.True(f.t, r.shards.renewed(f.t.Context()))
	f.live = append(f.live, r)
}

// expire lets a replica's leases run out.
func (f *fleet) expire(r *member) {
	_, err := f.pool.Exec(f.t.Context(), "UPDATE evaluator_replicas SET expires_at = now() - interval '1 second' WHERE owner = $1", r.shards.owner)
	require.NoError(f.t, err)
}

// die removes a replica, in whose place a new one comes.
func (f *fleet) die(r *member) {
	f.expire(r)
	f.live = slices.DeleteFunc(f.live, func(other *member) bool { return other == r })
	f.join()
}

// own brings a replica to its fair part of the shards.
func (f *fleet) own(r *member) {
	require.True(f.t, r.shards.renewed(f.t.Context()))
	_, err := r.shards.balance(f.t.Context())
	require.NoError(f.t, err)
	require.NoError(f.t, r.shards.restore(f.t.Context()))
}

func (f *fleet) publish(r *member) {
	for more := true; more; {
		var err error
		more, err = r.publish(f.t.Context())
		require.NoError(f.t, err)
	}
}

// evaluate tries a slot until every shard has seen it. After some faults there is peace.
func (f *fleet) evaluate(slot time.Time) {
	f.t.Helper()
	for try := 0; ; try++ {
		var seen int
		require.NoError(f.t, f.pool.QueryRow(f.t.Context(), "SELECT count(*) FROM evaluator_leases WHERE last_slot >= $1", slot).Scan(&seen))
		if seen == postgres.Shards {
			return
		}
		require.Less(f.t, try, 100, "the slot is seen at last")
		r := f.live[try%len(f.live)]
		f.own(r)
		what := unharmed
		if f.next != nil && try < 4 {
			what = f.next()
		}
		f.take(r, slot, what)
	}
}

// take lets a replica evaluate a slot, as far as the fault lets it.
func (f *fleet) take(r *member, slot time.Time, what fault) {
	f.t.Helper()
	if due, _ := r.shards.due(slot); len(due) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	switch what {
	case diesBeforeCommit:
		r.interrupt = cancel
		_, err := r.evaluator.evaluate(ctx, slot)
		if err == nil { // no shard of its was due, or nothing was asked
			r.interrupt = nil
			return
		}
		f.die(r)
		return
	case pauses:
		f.expire(r)
		for _, other := range f.live {
			if other != r {
				f.own(other)
				f.take(other, slot, unharmed)
			}
		}
	}
	_, err := r.evaluator.evaluate(ctx, slot)
	if what == pauses && errors.Is(err, postgres.ErrFenced) {
		err = nil
	}
	require.NoError(f.t, err)
	switch what {
	case diesAfterCommit:
		f.die(r)
		return
	case diesInContext:
		r.interrupt = cancel
		if err := r.complete(ctx); err == nil { // nothing fired
			r.interrupt = nil
			break
		}
		f.die(r)
		return
	case diesBeforePublish:
		require.NoError(f.t, r.complete(ctx))
		f.die(r)
		return
	}
	f.publish(r)
	if what == diesBeforeMark {
		_, err := f.pool.Exec(ctx, "UPDATE firings SET published_at = NULL, stream_seq = NULL WHERE slot = $1", slot)
		require.NoError(f.t, err)
		f.die(r)
	}
}

// published is what a subscriber that drops repeated ids has, by id.
func published(t *testing.T, b *bench) map[string]string {
	t.Helper()
	ctx := t.Context()
	s, err := b.js.Stream(ctx, stream.Firings)
	require.NoError(t, err)
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	firings := map[string]string{}
	total := s.CachedInfo().State.Msgs
	for range total {
		m, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
		require.NoError(t, err)
		f, err := stream.Decode(m.Headers(), m.Data())
		require.NoError(t, err)
		if payload, known := firings[f.ID]; known {
			assert.Equal(t, payload, string(f.Payload), "the same id, the same bytes")
		}
		firings[f.ID] = string(f.Payload)
	}
	var waiting int
	require.NoError(t, b.pool.QueryRow(ctx, "SELECT count(*) FROM firings WHERE published_at IS NULL").Scan(&waiting))
	assert.Zero(t, waiting)
	return firings
}
