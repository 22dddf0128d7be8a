package trigger

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var origin = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const interval = 10 * time.Second

// stored is what comes back of a state that was written to its row.
func stored(t require.TestingT, s State) State {
	raw, err := json.Marshal(s.Machine)
	require.NoError(t, err)
	s.Machine = Machine{}
	require.NoError(t, json.Unmarshal(raw, &s.Machine))
	return s
}

// step is Step with the promises that hold for every type: what was passed in is not changed,
// and a state that was stored goes on as one that was not.
func step(t require.TestingT, c Config, o Options, s State, sample Sample, slot time.Time) (State, []Occurrence) {
	before := mustJSON(s) + mustJSON(sample)
	next, occurrences := c.Step(o, s, sample, slot)
	require.Equal(t, before, mustJSON(s)+mustJSON(sample), "a step changes nothing that it was given")
	again, same := c.Step(o, stored(t, s), sample, slot)
	require.JSONEq(t, mustJSON(next), mustJSON(again))
	require.JSONEq(t, mustJSON(occurrences), mustJSON(same))
	require.Equal(t, slot, next.LastSlot)
	require.NotEmpty(t, next.Explanation)
	return next, occurrences
}

// The model keeps every slot's value and decides each time from all of them.
func TestEpisodesAreToldOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		threshold := rapid.Int64Range(1, 3).Draw(t, "threshold")
		cooldown := time.Duration(rapid.IntRange(0, 6).Draw(t, "cooldown")) * interval
		notify := rapid.Bool().Draw(t, "notify")
		values := rapid.SliceOfN(rapid.Int64Range(0, 4), 1, 60).Draw(t, "values")
		config := &VisitorSpike{Threshold: threshold, WindowSeconds: 300}

		state := NewState(1, origin)
		slot := origin
		var lastFired, episodeStart time.Time
		breaching, announced := false, false
		suppressed := 0
		peak := int64(0)
		for i, value := range values {
			slot = slot.Add(time.Duration(rapid.IntRange(1, 3).Draw(t, "slots passed")) * interval)
			sample := Sample{Value: value, Window: Window{From: slot.Add(-5 * time.Minute), To: slot}}
			var found []Occurrence
			state, found = step(t, config, Options{Cooldown: cooldown, NotifyResolved: notify}, state, sample, slot)

			var fired, resolved *Occurrence
			for i := range found {
				switch found[i].Transition {
				case Fired:
					fired = &found[i]
				case Resolved:
					resolved = &found[i]
				}
			}
			require.LessOrEqual(t, len(found), 1)
			if value < threshold {
				require.Nil(t, fired, "slot %d: below the threshold nothing fires", i)
				require.Equal(t, breaching && announced && notify, resolved != nil)
				if resolved != nil {
					require.Equal(t, episodeStart, resolved.Anchor)
					require.Equal(t, float64(peak), resolved.Episode.Peak)
				}
				if breaching && !announced {
					suppressed++
				}
				breaching, announced, peak = false, false, 0
				require.Equal(t, StatusOK, state.Status)
				continue
			}
			if !breaching {
				breaching, episodeStart = true, slot
			}
			peak = max(peak, value)
			require.Nil(t, resolved)
			require.Equal(t, StatusFiring, state.Status)
			quiet := !lastFired.IsZero() && slot.Before(lastFired.Add(cooldown))
			require.Equal(t, !announced && !quiet, fired != nil, "slot %d: once for each episode, and not in the cooldown", i)
			if fired != nil {
				require.Equal(t, episodeStart, fired.Anchor, "the first breaching slot, whenever it is told")
				require.Equal(t, []any{float64(value), float64(threshold), suppressed}, []any{fired.Value, fired.Threshold, fired.Suppressed})
				lastFired, announced, suppressed = slot, true, 0
				require.Equal(t, slot, state.LastFiredAt)
			}
		}
	})
}

// row is a conversion: when it happened, and when it became visible.
type row struct {
	at, visible time.Time
	fingerprint uint64
}

func TestEveryConversionIsCountedOnceHoweverLate(t *testing.T) {
	config, problems := Parse(GoalAchievedType, []byte(`{"goal": {"event_name": "A"}}`))
	require.Empty(t, problems)
	rapid.Check(t, func(t *rapid.T) {
		revised := origin.Add(time.Duration(rapid.IntRange(0, 29).Draw(t, "revised")) * time.Second)
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
			at := origin.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "at")) * time.Second)
			late := time.Duration(rapid.IntRange(0, int(Overlap/time.Second)).Draw(t, "late")) * time.Second
			return row{at, at.Add(late), rapid.Uint64Range(1, 20).Draw(t, "fingerprint")}
		}), 0, 60).Draw(t, "rows")
		var want []uint64
		for _, r := range rows {
			if !r.at.Before(revised) {
				want = append(want, r.fingerprint)
			}
		}

		state := NewState(1, revised)
		var got []uint64
		total := int64(0)
		end := origin.Add(400*time.Second + Overlap + 2*interval)
		for slot := origin.Add(3 * interval); ; slot = slot.Add(time.Duration(rapid.SampledFrom([]int{1, 1, 1, 2, 5, 30}).Draw(t, "slots passed")) * interval) {
			window := Window{From: revised, To: slot}
			if from := state.LastSlot.Add(-Overlap); !state.LastSlot.IsZero() && from.After(revised) {
				window.From = from
			}
			var found []Occurrence
			before := state.LastSlot
			state, found = step(t, config, Options{}, state, Sample{Window: window, Buckets: bucketsOf(rows, window)}, slot)
			for _, o := range found {
				require.Positive(t, o.Value)
				require.Equal(t, []any{Fired, slot}, []any{o.Transition, o.Anchor})
				require.Equal(t, !before.IsZero() && slot.Sub(before) > Overlap, o.Late)
				require.False(t, o.Window.From.Before(window.From) || o.Window.To.After(window.To))
				total += int64(o.Value)
				got = append(got, o.Fingerprints...)
			}
			if slot.After(end) {
				break
			}
		}
		require.Equal(t, int64(len(want)), total)
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got, "and it is these that are listed")
	})
}

// bucketsOf is what the database answers at the end of the window.
func bucketsOf(rows []row, w Window) []Bucket {
	byStart := map[time.Time]*Bucket{}
	for _, r := range rows {
		if r.at.Before(w.From) || !r.at.Before(w.To) || r.visible.After(w.To) {
			continue
		}
		start := r.at.Truncate(interval)
		if start.Before(w.From) {
			start = w.From
		}
		if byStart[start] == nil {
			byStart[start] = &Bucket{Start: start}
		}
		byStart[start].Count++
		byStart[start].Fingerprints = append(byStart[start].Fingerprints, r.fingerprint)
	}
	var buckets []Bucket
	for _, b := range byStart {
		buckets = append(buckets, *b)
	}
	slices.SortFunc(buckets, func(a, b Bucket) int { return a.Start.Compare(b.Start) })
	return buckets
}

func TestExplanationsSayWhy(t *testing.T) {
	config := &VisitorSpike{Threshold: 2, WindowSeconds: 90}
	options := Options{Cooldown: time.Minute}
	state := NewState(1, origin)
	require.Equal(t, "Not evaluated yet.", state.Explanation)
	for i, c := range []struct {
		value int64
		want  string
	}{
		{1, "1 visitor in 90 seconds, below the threshold of 2."},
		{2, "2 visitors in 90 seconds reached the threshold of 2; it fires again after a slot below it."},
		{0, "0 visitors in 90 seconds, below the threshold of 2."},
		{3, "3 visitors in 90 seconds reached the threshold of 2, but the cooldown lasts until 2026-11-23T10:01:20Z."},
	} {
		slot := origin.Add(time.Duration(i+1) * interval)
		state, _ = config.Step(options, state, Sample{Value: c.value, Window: Window{From: slot.Add(-90 * time.Second), To: slot}}, slot)
		require.Equal(t, c.want, state.Explanation)
	}
	for span, want := range map[time.Duration]string{
		time.Minute: "1 minute", 5 * time.Minute: "5 minutes", 90 * time.Minute: "90 minutes", time.Hour: "1 hour", 24 * time.Hour: "1 day", time.Second: "1 second",
	} {
		require.Equal(t, want, describe(span))
	}
}

func TestAFailureKeepsWhatIsKnown(t *testing.T) {
	config := &VisitorSpike{Threshold: 2, WindowSeconds: 300}
	sample := Sample{Value: 5, Window: Window{From: origin.Add(-5 * time.Minute), To: origin}}
	state, found := config.Step(Options{}, NewState(1, origin), sample, origin)
	require.Len(t, found, 1)
	failed := state.Failed(origin.Add(interval), "The goal no longer exists.")
	require.Equal(t, []any{StatusError, origin.Add(interval), "The goal no longer exists."}, []any{failed.Status, failed.Since, failed.Explanation})
	require.Equal(t, origin.Add(interval), failed.Failed(origin.Add(2*interval), "Still.").Since)
	back, found := config.Step(Options{}, failed, sample, origin.Add(3*interval))
	require.Empty(t, found, "the episode goes on")
	require.Equal(t, StatusFiring, back.Status)
}

func TestFiringIDsAreStableAndDistinct(t *testing.T) {
	// Changing this value would send again what was sent already.
	require.Equal(t, "msg_bo2leqednqbyfvnx73ub2hszpf", FiringID("tr_1", 1, Fired, origin))
	require.Equal(t, FiringID("tr_1", 1, Fired, origin), FiringID("tr_1", 1, Fired, origin.In(time.FixedZone("", 3600)).Add(time.Millisecond)))
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) (string, string) {
			id := "tr_" + rapid.StringMatching(`[a-z2-7]{1,4}`).Draw(t, fmt.Sprint("id", n))
			revision := rapid.IntRange(1, 12).Draw(t, fmt.Sprint("revision", n))
			transition := rapid.SampledFrom([]Transition{Fired, Resolved}).Draw(t, fmt.Sprint("transition", n))
			anchor := origin.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, fmt.Sprint("anchor", n))) * interval)
			return FiringID(id, revision, transition, anchor), fmt.Sprint(id, " ", revision, transition, anchor)
		}
		a, ofA := draw(1)
		b, ofB := draw(2)
		require.Equal(t, ofA == ofB, a == b)
		require.Regexp(t, `^msg_[a-z2-7]{26}$`, a)
		require.Len(t, strings.Split(a, "."), 1)
	})
}
