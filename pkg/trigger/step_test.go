package trigger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var origin = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const interval = 10 * time.Second

func slotAt(at time.Time) Slot { return Slot{At: at, Interval: interval} }

// parsed is a config that must be valid.
func parsed(t require.TestingT, kind Type, raw string) Config {
	config, problems := Parse(kind, json.RawMessage(raw))
	require.Empty(t, problems, raw)
	return config
}

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
func step(t require.TestingT, c Config, setting Setting, s State, sample Sample, slot Slot) (State, []Occurrence) {
	before := mustJSON(s) + mustJSON(sample)
	asked := mustJSON(c.Ask(setting, s, slot))
	restored := stored(t, s)
	require.Equal(t, asked, mustJSON(c.Ask(setting, restored, slot)))
	next, occurrences := c.Step(setting, s, sample, slot)
	require.Equal(t, before, mustJSON(s)+mustJSON(sample), "a step changes nothing that it was given")
	again, same := c.Step(setting, restored, sample, slot)
	require.Equal(t, mustJSON(next), mustJSON(again))
	require.Equal(t, mustJSON(occurrences), mustJSON(same))
	require.Equal(t, slot.At, next.LastSlot)
	require.NotEmpty(t, next.Explanation)
	require.Equal(t, s.Revision, next.Revision)
	for _, o := range occurrences {
		require.NotEmpty(t, o.Anchor)
		require.NotEmpty(t, o.Explanation)
		require.False(t, o.Window.To.Before(o.Window.From), "%v", o.Window)
	}
	return next, occurrences
}

// number is the sample of a type that asks for one number.
func number(value float64) Sample {
	return Sample{Answers: []Answer{{Value: value, Volume: int64(value)}}}
}

// seen is one slot of a trigger's history, as the model keeps it.
type seen struct {
	at       time.Time
	value    float64
	standing standing
}

// told is what a receiver learns of an episode.
type told struct {
	Transition Transition
	At         time.Time
	Anchor     string
	Value      float64
	Peak       float64 // of resolved
	Suppressed int
	Renotified int
	Flapping   bool
}

// model decides from the whole history what should have been told, by the definitions.
type model struct {
	hold    Hold
	options Options
}

// tells returns everything that was told, and the status after the newest slot.
func (m model) tells(history []seen) (all []told, status Status) {
	status = StatusOK
	var ended, lastFired time.Time
	flaps, suppressed := 0, 0
	for i := 0; i < len(history); {
		if status = m.quiet(history[:i+1]); status != StatusFiring {
			i++
			continue
		}
		start := history[firstOfRun(history[:i+1])].at
		flapping := false
		if !ended.IsZero() {
			flapping = start.Sub(ended) < max(10*time.Minute, m.options.Cooldown)
			if flapping {
				flaps++
			} else if start.Sub(ended) >= 24*time.Hour {
				flaps = 0
			}
		}
		last := m.end(history, i, flaps)
		var announced time.Time
		renotified, peak := 0, 0.0
		for ; i <= last && i < len(history); i++ {
			h := history[i]
			if h.standing == breach || h.standing == between {
				status, peak = StatusFiring, max(peak, h.value)
			}
			if h.standing == absent {
				status = StatusRecovering
			}
			if h.standing != breach {
				continue
			}
			fired := told{Transition: Fired, At: h.at, Anchor: at(start), Value: h.value, Flapping: flapping}
			switch {
			case announced.IsZero() && (lastFired.IsZero() || h.at.Sub(lastFired) >= m.options.Cooldown):
				announced, lastFired, fired.Suppressed, suppressed = h.at, h.at, suppressed, 0
				all = append(all, fired)
			case !announced.IsZero() && m.hold.RenotifySeconds > 0:
				if due := min(int64(h.at.Sub(announced)/time.Second)/m.hold.RenotifySeconds, m.hold.MaxRenotify); int(due) > renotified {
					renotified, lastFired = int(due), h.at
					fired.Renotified, fired.Anchor = renotified, fired.Anchor+"/"+strconv.Itoa(renotified)
					all = append(all, fired)
				}
			}
		}
		if last >= len(history) {
			return all, status
		}
		ended, status = history[last].at, StatusOK
		if announced.IsZero() {
			suppressed++
		} else if m.options.NotifyResolved {
			all = append(all, told{Transition: Resolved, At: ended, Anchor: at(start), Value: history[last].value, Peak: peak, Flapping: flapping})
		}
	}
	return all, status
}

// quiet is the status that the newest slot has outside an episode; firing: it begins one.
func (m model) quiet(history []seen) Status {
	newest := len(history) - 1
	switch history[newest].standing {
	case unknown:
		return StatusInsufficient
	case absent, between:
		return StatusOK
	}
	run := 0
	for _, h := range history[firstOfRun(history):] {
		if h.standing == breach {
			run++
		}
	}
	breaches, evaluated := int64(0), int64(0)
	for i := newest; i >= 0 && evaluated < m.hold.OfSlots; i-- {
		if history[i].standing == unknown {
			continue
		}
		evaluated++
		if history[i].standing == breach {
			breaches++
		}
	}
	if time.Duration(run-1)*interval < seconds(m.hold.ForSeconds) || breaches < m.hold.MinBreaches {
		return StatusPending
	}
	return StatusFiring
}

// firstOfRun is where the breaches begin that the newest slot belongs to. Slots of which nothing
// was known are no break.
func firstOfRun(history []seen) int {
	first := len(history) - 1
	for i := first; i >= 0; i-- {
		switch history[i].standing {
		case breach:
			first = i
		case absent, between:
			return first
		}
	}
	return first
}

// end is the slot that ends an episode; len(history) if none does.
func (m model) end(history []seen, begin, flaps int) int {
	keep := seconds(m.hold.KeepFiringSeconds)
	if flaps > 0 {
		grown := max(keep, time.Minute).Seconds()
		for range flaps {
			grown *= 1.5
		}
		keep = max(keep, min(seconds(int64(grown)), time.Hour))
	}
	held := history[begin].at
	for i := begin; i < len(history); i++ {
		switch history[i].standing {
		case breach, between:
			held = history[i].at
		case absent:
			if history[i].at.Sub(held) >= keep {
				return i
			}
		}
	}
	return len(history)
}

func anyHold(t *rapid.T) Hold {
	h := Hold{KeepFiringSeconds: 10 * rapid.Int64Range(0, 5).Draw(t, "keep")}
	switch rapid.IntRange(0, 2).Draw(t, "before it fires") {
	case 1:
		h.ForSeconds = 5 * rapid.Int64Range(1, 8).Draw(t, "for")
	case 2:
		h.OfSlots = rapid.Int64Range(1, 6).Draw(t, "of")
		h.MinBreaches = rapid.Int64Range(1, h.OfSlots).Draw(t, "k")
	}
	if rapid.Bool().Draw(t, "renotify?") {
		h.RenotifySeconds, h.MaxRenotify = 60, rapid.Int64Range(1, 3).Draw(t, "max renotify")
	}
	return h
}

func TestEpisodesFollowTheirDefinitions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := model{hold: anyHold(t), options: Options{
			Cooldown:       time.Duration(rapid.SampledFrom([]int{0, 0, 3, 12, 100}).Draw(t, "cooldown")) * interval,
			NotifyResolved: rapid.Bool().Draw(t, "notify"),
		}}
		// A rate, of which nothing is known without visits; enters at 10 and leaves at 6.
		config := parsed(t, MetricThresholdType, fmt.Sprintf(
			`{"metric": "bounce_rate", "threshold": 10, "recovery_threshold": 6, "for_seconds": %d, "min_breaches": %d, "of_slots": %d, "keep_firing_seconds": %d, "renotify_seconds": %d, "max_renotify": %d}`,
			m.hold.ForSeconds, m.hold.MinBreaches, m.hold.OfSlots, m.hold.KeepFiringSeconds, m.hold.RenotifySeconds, m.hold.MaxRenotify))
		setting := Setting{Options: m.options}

		state := NewState(1, origin)
		var history []seen
		var got []told
		now := origin
		for range rapid.IntRange(1, 80).Draw(t, "slots") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, 2, 7, 90, 8700}).Draw(t, "slots passed")) * interval)
			value := rapid.SampledFrom([]float64{-1, 0, 6, 7, 9, 10, 11, 12, 13}).Draw(t, "value")
			h := seen{now, value, absent}
			answer := Answer{Value: max(0, value), Volume: 1}
			switch {
			case value < 0:
				h.standing, answer.Volume = unknown, 0
			case value >= 10:
				h.standing = breach
			case value > 6:
				h.standing = between
			}
			history = append(history, h)
			if rapid.IntRange(0, 9).Draw(t, "failed before?") == 0 {
				state = state.Failed(now.Add(-time.Second), "The query failed.")
			}
			failed := state.Status == StatusError
			var found []Occurrence
			state, found = step(t, config, setting, state, Sample{Answers: []Answer{answer}}, slotAt(now))
			for _, o := range found {
				one := told{o.Transition, now, o.Anchor, o.Value, 0, o.Suppressed, o.Renotified, o.Flapping}
				if o.Episode != nil {
					one.Peak = o.Episode.Peak
				}
				got = append(got, one)
			}
			want, status := m.tells(history)
			require.Equal(t, want, got)
			if failed && h.standing == unknown && status == StatusRecovering {
				status = StatusFiring // how it stood is not known any more, only that it is not over
			}
			if !(h.standing == unknown && state.Machine.Episode != nil) {
				require.Equal(t, status, state.Status)
			}
			require.NotEqual(t, StatusError, state.Status)
		}
		episodesAreTold(t, m, history, got)
	})
}

// episodesAreTold checks what must hold whatever the definitions in detail.
func episodesAreTold(t require.TestingT, m model, history []seen, all []told) {
	standings := map[time.Time]standing{}
	for _, h := range history {
		standings[h.at] = h.standing
	}
	ids := map[string]bool{}
	var open *told
	var lastFired time.Time
	for i, one := range all {
		id := FiringID("tr_1", 1, one.Transition, one.Anchor)
		require.False(t, ids[id], "told twice: %v", one)
		ids[id] = true
		switch {
		case one.Transition == Resolved:
			require.NotNil(t, open, "resolved is told only of what fired")
			require.Equal(t, open.Anchor, one.Anchor)
			require.Equal(t, absent, standings[one.At], "neither unknown nor missing slots resolve")
			open = nil
		case one.Renotified > 0:
			require.Equal(t, breach, standings[one.At])
			require.LessOrEqual(t, int64(one.Renotified), m.hold.MaxRenotify)
			lastFired = one.At
		default:
			require.Equal(t, breach, standings[one.At])
			if m.options.NotifyResolved {
				require.Nil(t, open, "fired and resolved alternate")
			}
			if i > 0 {
				require.GreaterOrEqual(t, one.At.Sub(lastFired), m.options.Cooldown)
			}
			lastFired, open = one.At, &all[i]
		}
	}
}

// A new revision knows nothing of the old one's episode, and its firings have ids of their own.
func TestRevisionsAreApart(t *testing.T) {
	config := parsed(t, VisitorSpikeType, `{"threshold": 2}`)
	old, first := step(t, config, Setting{}, NewState(1, origin), number(5), slotAt(origin))
	require.Len(t, first, 1)
	_, none := step(t, config, Setting{}, old, number(5), slotAt(origin.Add(interval)))
	require.Empty(t, none)
	_, second := step(t, config, Setting{}, NewState(2, origin), number(5), slotAt(origin))
	require.Len(t, second, 1)
	require.NotEqual(t, FiringID("tr_1", 1, Fired, first[0].Anchor), FiringID("tr_1", 2, Fired, second[0].Anchor))
}

func TestExplanationsSayWhy(t *testing.T) {
	config := parsed(t, VisitorSpikeType, `{"threshold": 2, "window_seconds": 90}`)
	setting := Setting{Options: Options{Cooldown: time.Minute}}
	state := NewState(1, origin)
	require.Equal(t, "Not evaluated yet.", state.Explanation)
	for i, c := range []struct {
		value float64
		want  string
	}{
		{1, "1 visitor in 90 seconds, below the threshold of 2."},
		{2, "2 visitors in 90 seconds reached the threshold of 2; it fires again after it has ceased."},
		{0, "0 visitors in 90 seconds, below the threshold of 2."},
		{3, "3 visitors in 90 seconds reached the threshold of 2, but the cooldown lasts until 2026-11-23T10:01:20Z."},
	} {
		state, _ = step(t, config, setting, state, number(c.value), slotAt(origin.Add(time.Duration(i+1)*interval)))
		require.Equal(t, c.want, state.Explanation)
	}
	for span, want := range map[time.Duration]string{
		time.Minute: "1 minute", 5 * time.Minute: "5 minutes", 90 * time.Minute: "90 minutes", time.Hour: "1 hour", 24 * time.Hour: "1 day", time.Second: "1 second",
	} {
		require.Equal(t, want, describe(span))
	}
}

func TestAFailureKeepsWhatIsKnown(t *testing.T) {
	config := parsed(t, VisitorSpikeType, `{"threshold": 2}`)
	state, found := step(t, config, Setting{}, NewState(1, origin), number(5), slotAt(origin))
	require.Len(t, found, 1)
	failed := state.Failed(origin.Add(interval), "The goal no longer exists.")
	require.Equal(t, []any{StatusError, origin.Add(interval), "The goal no longer exists."}, []any{failed.Status, failed.Since, failed.Explanation})
	require.Equal(t, origin.Add(interval), failed.Failed(origin.Add(2*interval), "Still.").Since)
	back, found := step(t, config, Setting{}, failed, number(5), slotAt(origin.Add(3*interval)))
	require.Empty(t, found, "the episode goes on")
	require.Equal(t, StatusFiring, back.Status)
}

func TestFiringIDsAreStableAndDistinct(t *testing.T) {
	// Changing this value would send again what was sent already.
	require.Equal(t, "msg_bo2leqednqbyfvnx73ub2hszpf", FiringID("tr_1", 1, Fired, at(origin)))
	require.Equal(t, at(origin), at(origin.In(time.FixedZone("", 3600)).Add(time.Millisecond)))
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) (string, string) {
			id := "tr_" + rapid.StringMatching(`[a-z2-7]{1,4}`).Draw(t, fmt.Sprint("id", n))
			revision := rapid.IntRange(1, 12).Draw(t, fmt.Sprint("revision", n))
			transition := rapid.SampledFrom([]Transition{Fired, Resolved}).Draw(t, fmt.Sprint("transition", n))
			anchor := rapid.SampledFrom([]string{"1", "11", "milestone/1", "value/a|b", "value/"}).Draw(t, fmt.Sprint("anchor", n))
			return FiringID(id, revision, transition, anchor), fmt.Sprint(id, " ", revision, transition, anchor)
		}
		a, ofA := draw(1)
		b, ofB := draw(2)
		require.Equal(t, ofA == ofB, a == b)
		require.Regexp(t, `^msg_[a-z2-7]{26}$`, a)
	})
}
