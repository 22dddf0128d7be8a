package evaluator

import (
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// What is packed is what is unpacked, slot for slot.
func TestPackedResultsAreTheResults(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		type slot struct{ at, result string }
		say := func(second uint16, r resultRun) slot {
			return slot{fmt.Sprint(second), fmt.Sprint(r.step, r.status, math.Float32bits(r.value), math.Float32bits(r.threshold))}
		}
		numbers := []float32{none, 0, 1, 2, 3, 12.5, -4, 1 << 25, 99.99}
		var hour hourResults
		var noted []slot
		for second := random.IntN(100) * 10; second < 3600; {
			step := []int{10, 10, 10, 60}[random.IntN(4)]
			r := resultRun{from: uint16(second), to: uint16(second), step: uint16(step), status: uint8(random.IntN(6)),
				value: numbers[random.IntN(9)], threshold: numbers[random.IntN(9)]}
			for range 1 + random.IntN(40) {
				if second >= 3600 {
					break
				}
				r.from, r.to = uint16(second), uint16(second)
				if len(noted) == 0 {
					hour = since(1, r)
				} else {
					hour.add(r)
				}
				noted = append(noted, say(uint16(second), r))
				second += step
			}
			if random.IntN(10) == 0 {
				second += 170
			}
		}
		compressor, err := flate.NewWriter(io.Discard, flate.BestCompression)
		require.NoError(t, err)
		runs, err := unpackHour(hour.packed(compressor))
		require.NoError(t, err)
		var unpacked []slot
		for _, r := range runs {
			for second := r.from; second <= r.to; second += r.step {
				unpacked = append(unpacked, say(second, r))
			}
		}
		require.Equal(t, noted, unpacked)
		assert.Equal(t, fmt.Sprint(runs), fmt.Sprint(hour.runs()))
	}
}

func FuzzUnpackHour(f *testing.F) {
	f.Add([]byte{0, 0xE0, 10, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, packed []byte) { _, _ = unpackHour(packed) }) // nothing that is stored can stop the service
}

// steady notes an hour of slots of many triggers: every tenth has a number that changes with each slot.
func steady(r *results, triggers int, from time.Time, slots int) {
	of := &round{turns: make([]turn, triggers)}
	leases := make([]postgres.Lease, postgres.Shards)
	for shard := range leases {
		leases[shard].Shard = shard
	}
	for i := range of.turns {
		w := &watched{Trigger: trigger.Trigger{ID: fmt.Sprintf("tr_%012d", i), SiteID: int64(i)}}
		of.turns[i] = turn{watched: w, due: true, interval: 10 * time.Second, next: &standing{threshold: 50}}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for slot := range slots {
		for i := range of.turns {
			value := float64(i % 7)
			if i%10 == 0 {
				value = float64(random.IntN(25))
			}
			of.turns[i].next.value = value
		}
		r.note(from.Add(time.Duration(slot)*10*time.Second), leases, of)
	}
}

func TestMemoryOfResultsIsBounded(t *testing.T) {
	const triggers = 5000
	r := newResults(nil, 10*time.Second, service().Log)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	steady(r, triggers, noon, 360)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / triggers
	compressor, err := flate.NewWriter(io.Discard, flate.BestCompression)
	require.NoError(t, err)
	quiet, busy := r.triggers["tr_000000000001"].present, r.triggers["tr_000000000010"].present
	t.Logf("%d bytes a trigger in memory, stored %d for a quiet hour, %d for one with a new number in each slot",
		each, len(quiet.packed(compressor)), len(busy.packed(compressor)))
	assert.Less(t, each, int64(400))
	assert.Less(t, len(quiet.packed(compressor)), 20)
	runtime.KeepAlive(r)
}

func TestResultsSurviveARestartAndARound(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	everyTurn := func(uint8) bool { return true }
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 3, "window_seconds": 60}`)
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2))
	for second := -20; second <= 30; second += 10 {
		b.slot(second)
	}
	require.NoError(t, b.results.write(ctx, everyTurn))
	b.start()
	for second := 40; second <= 90; second += 10 {
		b.slot(second)
	}
	want := []stream.ResultRun{
		waiting(-20, -10, 0), waiting(0, 0, 2), waiting(10, 30, 2), waiting(40, 50, 2), waiting(60, 90, 0),
	}
	want[0].Value = new(float64)
	ask := func() stream.Explanation {
		explained, err := b.explain(ctx, stream.ExplainRequest{TriggerID: id, From: noon.Add(-time.Hour), To: noon.Add(time.Hour)})
		require.NoError(t, err)
		return explained
	}
	slots := func(runs []stream.ResultRun) (list []string) {
		for _, r := range runs {
			for at := r.From; !at.After(r.To); at = at.Add(time.Duration(r.StepSeconds) * time.Second) {
				list = append(list, fmt.Sprint(at.Format(time.TimeOnly), " ", *r.Value, " ", *r.Threshold, " ", r.Status))
			}
		}
		return list
	}
	explained := ask()
	assert.Equal(t, slots(want), slots(explained.Runs), "from memory and from the database")
	assert.Equal(t, noon.Add(90*time.Second), explained.CompleteUntil)
	assert.Equal(t, trigger.StatusOK, explained.State.Status)
	assert.Equal(t, "0 visitors in 1 minute, below the threshold of 3.", explained.State.Explanation)

	require.NoError(t, b.results.write(ctx, everyTurn))
	assert.Len(t, b.results.triggers, 1)
	b.start()
	assert.Equal(t, slots(want), slots(ask().Runs), "from the database alone, both parts")

	require.NoError(t, b.evaluator.store.WriteSlotResults(ctx, []postgres.SlotResults{{TriggerID: id, Hour: noon, Upto: noon.Add(20 * time.Second), Packed: []byte{0}}}))
	assert.Equal(t, slots(want), slots(ask().Runs), "an older owner undoes nothing")
	part, err := b.explain(ctx, stream.ExplainRequest{TriggerID: id, From: noon.Add(15 * time.Second), To: noon.Add(35 * time.Second)})
	require.NoError(t, err)
	assert.Equal(t, slots(want)[4:6], slots(part.Runs))
	require.NoError(t, b.evaluator.store.RemoveOldSlotResults(ctx, -24*time.Hour*365))
	assert.Empty(t, ask().Runs)
}

// waiting is the result of a trigger that waits for 3 visitors, between two seconds after noon.
func waiting(from, to int, value float64) stream.ResultRun {
	threshold := 3.0
	return stream.ResultRun{From: noon.Add(time.Duration(from) * time.Second), To: noon.Add(time.Duration(to) * time.Second), StepSeconds: 10, Value: &value, Threshold: &threshold, Status: trigger.StatusOK}
}

// Each trigger is written once in 5 minutes, as many in each slot.
func TestResultsAreWrittenInTurns(t *testing.T) {
	b := newBench(t)
	const triggers = 3000
	r := newResults(b.evaluator.store, 10*time.Second, service().Log)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.run(ctx) }()
	count := func() (n int) {
		require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT count(*) FROM slot_results").Scan(&n))
		return n
	}
	steady(r, triggers, noon, 1)
	require.Eventually(t, func() bool { return count() > 0 }, 5*time.Second, 10*time.Millisecond)
	time.Sleep(50 * time.Millisecond)
	assert.InDelta(t, triggers/30, count(), 40)
	steady(r, triggers, noon.Add(10*time.Second), 29)
	require.Eventually(t, func() bool { return count() == triggers }, 5*time.Second, 10*time.Millisecond)
	steady(r, triggers, noon.Add(time.Hour), 1)
	stop()
	require.NoError(t, <-done)
	assert.Equal(t, 2*triggers, count(), "a replica that stops writes the rest")
}

// The service as the api uses it, on a real broker.
func TestAskTheEvaluator(t *testing.T) {
	b := newBench(t)
	nc, err := stream.Connect(t.Context(), b.config.NATSURL, "test", service().Log)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	refusal := new(stream.Refusal)
	_, err = stream.AskPreview(t.Context(), nc, stream.PreviewRequest{})
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, stream.RefusedUnavailable, refusal.Code)

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- serve(ctx, nc, b.evaluator, service().Log) }()
	id := b.trigger(trigger.VisitorSpikeType, `{"threshold": 3, "window_seconds": 60}`)
	b.insert(b.event("pageview", -5, 1), b.event("pageview", -5, 2), b.event("pageview", -6, 3))
	b.slot(0)
	require.Eventually(t, func() bool {
		explained, err := stream.AskExplain(t.Context(), nc, stream.ExplainRequest{TriggerID: id, From: noon.Add(-time.Hour), To: noon})
		return err == nil && len(explained.Runs) == 1 && *explained.Runs[0].Value == 3 && explained.State.Status == trigger.StatusFiring
	}, 5*time.Second, 20*time.Millisecond)

	now := time.Now().Truncate(time.Minute)
	for visitor := range uint64(3) {
		e := b.event("pageview", 0, visitor)
		e.Timestamp = now.Add(-time.Hour)
		b.insert(e)
	}
	request := stream.PreviewRequest{SiteID: b.demo.SiteID, Type: trigger.VisitorSpikeType, Config: []byte(`{"threshold": 3, "window_seconds": 60}`), From: now.Add(-2 * time.Hour), To: now.Add(-time.Minute)}
	preview, err := stream.AskPreview(t.Context(), nc, request)
	require.NoError(t, err)
	assert.Equal(t, 1, preview.Count)
	assert.Equal(t, 10, preview.StepSeconds)
	assert.Equal(t, "3 visitors in 1 minute reached the threshold of 3.", preview.Firings[0].Explanation)

	for _, c := range []struct {
		change func(*stream.PreviewRequest)
		code   string
	}{
		{func(r *stream.PreviewRequest) { r.Config = []byte(`{"threshold": 0}`) }, stream.RefusedInvalid},
		{func(r *stream.PreviewRequest) { r.From = now.AddDate(-1, 0, 0) }, stream.RefusedInvalid},
		{func(r *stream.PreviewRequest) { r.From = r.To }, stream.RefusedInvalid},
		{func(r *stream.PreviewRequest) { r.SiteID = 987654 }, stream.RefusedImpossible},
		{func(r *stream.PreviewRequest) { // so many short windows, one by one
			r.Type, r.Config, r.From = trigger.NewSourceType, []byte(`{"window_seconds": 60}`), now.AddDate(0, 0, -30)
		}, stream.RefusedImpossible},
	} {
		wrong := request
		c.change(&wrong)
		_, err := stream.AskPreview(t.Context(), nc, wrong)
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, c.code, refusal.Code, refusal.Sentence)
		if wrong.Config != nil && c.code == stream.RefusedInvalid && string(wrong.Config) == `{"threshold": 0}` {
			assert.Contains(t, string(refusal.Problems), "config.threshold")
		}
	}
	stop()
	require.NoError(t, <-done)
}

// One more than are answered at once is refused at once, and a fault of one answer harms no other.
func TestTooManyQuestionsAreRefused(t *testing.T) {
	b := newBench(t)
	nc, err := stream.Connect(t.Context(), b.config.NATSURL, "test", service().Log)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	offered, err := micro.AddService(nc, micro.Config{Name: "busy", Version: "1.0.0"})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	a := &answering{ctx: ctx, log: service().Log}
	began := make(chan bool, 2)
	require.NoError(t, offered.AddEndpoint("preview", handler(a, 2, func(ctx context.Context, q stream.PreviewRequest) (stream.Preview, error) {
		if q.SiteID == 0 {
			panic("a fault")
		}
		began <- true
		<-ctx.Done()
		return stream.Preview{}, ctx.Err()
	}), micro.WithEndpointSubject(stream.EvaluatorEndpoints["preview"])))
	code := func(site int64) string {
		refusal := new(stream.Refusal)
		_, err := stream.AskPreview(t.Context(), nc, stream.PreviewRequest{SiteID: site})
		require.ErrorAs(t, err, &refusal)
		return refusal.Code
	}
	assert.Equal(t, stream.RefusedFailed, code(0))
	codes := make(chan string, 2)
	for range 2 {
		go func() { codes <- code(1) }()
		<-began
	}
	assert.Equal(t, stream.RefusedBusy, code(1))
	stop()
	assert.Equal(t, []string{stream.RefusedUnavailable, stream.RefusedUnavailable}, []string{<-codes, <-codes})
	a.running.Wait()
}
