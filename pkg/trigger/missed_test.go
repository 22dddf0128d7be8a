package trigger

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// afterGap steps a trigger after a gap in which its windows, side by side and the oldest first, showed
// the samples; the last one is the slot's own.
func afterGap(t require.TestingT, c Config, s Setting, before State, samples ...Sample) (State, []Occurrence) {
	last := len(samples) - 1
	own := c.Ask(s, before, slotAt(before.LastSlot))[0].Window
	slot := slotAt(before.LastSlot.Add(time.Duration(last+1) * own.To.Sub(own.From)))
	var past []Past
	for i, missed := range Missed(c.Ask(s, before, slot), s, before, slot, MostRecalled) {
		past = append(past, Past{missed, samples[i]})
	}
	after, now := step(t, c, s, before, samples[last], slot)
	unchanged := mustJSON(after)
	told, missed := Recall(c, s, before, after, past)
	require.Equal(t, unchanged, mustJSON(after))
	return told, append(missed, now...)
}

func numbers(values ...float64) (samples []Sample) {
	for _, value := range values {
		samples = append(samples, number(value))
	}
	return samples
}

func minute(n int) time.Time { return origin.Add(time.Duration(n) * time.Minute) }

func TestAnEpisodeWithinAGapIsToldOnce(t *testing.T) {
	c := parsed(t, VisitorSpikeType, `{"threshold": 100, "window_seconds": 300}`)
	before, _ := step(t, c, Setting{}, NewState(1, minute(-60)), number(3), slotAt(origin))
	state, told := afterGap(t, c, Setting{}, before, numbers(5, 120, 143, 101, 7, 2)...)
	require.Equal(t, []Occurrence{{
		Transition: Fired, Missed: true, Anchor: "missed/" + at(origin), Value: 143, Threshold: 100, Window: Window{minute(10), minute(15)},
		Explanation: "At 2026-11-23T10:15:00Z: 143 visitors in 5 minutes reached the threshold of 100. It was over before it could be told, because the trigger was not evaluated from 2026-11-23T10:00:00Z to 2026-11-23T10:30:00Z.",
		Episode:     &Episode{Start: minute(10), LastHeld: minute(20), Peak: 143, PeakAt: minute(15)},
	}}, told)
	require.Equal(t, minute(30), state.LastFiredAt)
	require.Equal(t, StatusOK, state.Status)

	_, again := afterGap(t, c, Setting{}, before, numbers(5, 120, 150, 101, 7, 2, 1)...)
	require.Equal(t, told[0].Anchor, again[0].Anchor, "neither late rows nor a later slot make another id")
	_, next := afterGap(t, c, Setting{}, state, numbers(500, 1)...)
	require.NotEqual(t, told[0].Anchor, next[0].Anchor)
}

func TestWhatCountsAsMissed(t *testing.T) {
	blind := func(s Sample) Sample { s.Blind = true; return s }
	path := func(name string, times int64) Sample {
		return Sample{Answers: []Answer{{Ranking: []Ranked{{name, times}, {"/other", 10}}}}}
	}
	none := Sample{Answers: []Answer{{}}}
	for _, c := range []struct {
		name    string
		t       Type
		config  string
		first   Sample
		samples []Sample
		peaks   []float64 // of what is told
	}{
		{"nothing breached", VisitorSpikeType, `{"threshold": 100}`, number(1), numbers(99, 99, 5), nil},
		{"it lasted before", VisitorSpikeType, `{"threshold": 100}`, number(100), numbers(100, 5, 5), nil},
		{"it lasts now", VisitorSpikeType, `{"threshold": 100}`, number(1), numbers(120, 5, 100), []float64{100}},
		{"it may last now", VisitorSpikeType, `{"threshold": 100, "for_seconds": 60}`, number(1), numbers(120, 120, 120, 5, 100), nil},
		{"long enough", VisitorSpikeType, `{"threshold": 100, "for_seconds": 300}`, number(1), numbers(150, 5, 120, 110, 5), []float64{120}},
		{"too short", VisitorSpikeType, `{"threshold": 100, "for_seconds": 600}`, number(1), numbers(150, 5, 120, 110, 5), nil},
		{"often enough", VisitorSpikeType, `{"threshold": 100, "min_breaches": 31, "of_slots": 40}`, number(1), numbers(150, 5, 120, 110, 5), []float64{120}},
		{"not often enough", VisitorSpikeType, `{"threshold": 100, "min_breaches": 32, "of_slots": 40}`, number(1), numbers(150, 5, 120, 110, 5), nil},
		{"conversions", GoalAchievedType, `{"goal": {"goal_id": 1}, "mode": "threshold", "threshold": 5}`, number(1), numbers(5, 1), []float64{5}},
		{"a drop", VisitorDropType, `{"threshold": 10, "window_seconds": 600}`, number(50), numbers(50, 4, 2, 50), []float64{2}},
		{"ingestion was silent", VisitorDropType, `{"threshold": 10, "window_seconds": 600}`, number(50), []Sample{blind(number(0)), number(50)}, nil},
		{"ingestion was silent in a part", VisitorDropType, `{"threshold": 10, "window_seconds": 600}`, number(50), []Sample{blind(number(0)), number(3), number(50)}, []float64{3}},
		{"below a limit", MetricThresholdType, `{"metric": "bounce_rate", "operator": "<", "threshold": 10}`, number(50), numbers(4, 0, 50), []float64{4}}, // of no visit there is no rate
		{"between two limits", MetricThresholdType, `{"threshold": 10, "recovery_threshold": 5}`, number(1), numbers(9, 1), nil},
		{"a path", NotFoundBurstType, `{}`, none, []Sample{none, path("/a", 12), path("/b", 30), none, none}, []float64{30}},
		{"a path that was told", NotFoundBurstType, `{}`, path("/a", 12), []Sample{path("/a", 50), none}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := parsed(t, c.t, c.config)
			before, _ := step(t, config, Setting{}, NewState(1, minute(-60)), c.first, slotAt(origin))
			_, told := afterGap(t, config, Setting{}, before, c.samples...)
			var peaks []float64
			for _, o := range told {
				peaks = append(peaks, o.Value)
				require.Equal(t, c.name != "it lasts now", o.Missed)
			}
			require.Equal(t, c.peaks, peaks)
		})
	}
}

func TestTheCooldownHoldsForWhatWasMissed(t *testing.T) {
	c := parsed(t, VisitorSpikeType, `{"threshold": 100}`)
	setting := Setting{Options: Options{Cooldown: 12 * time.Minute}}
	state, told := step(t, c, setting, NewState(1, minute(-60)), number(100), slotAt(minute(-5)))
	require.Len(t, told, 1)
	state, told = step(t, c, setting, state, number(0), slotAt(origin))
	require.Empty(t, told)

	quiet, told := afterGap(t, c, setting, state, numbers(100, 1, 1, 1)...) // over at 10:05, and the cooldown lasts until 10:07
	require.Empty(t, told)
	require.Equal(t, 1, quiet.Machine.Suppressed)
	state, told = afterGap(t, c, setting, quiet, numbers(1, 100, 1)...)
	require.Equal(t, 1, told[0].Suppressed)
	require.Zero(t, state.Machine.Suppressed)
	_, told = step(t, c, setting, state, number(100), slotAt(state.LastSlot.Add(interval)))
	require.Empty(t, told, "the cooldown begins with what is told")
}

// Whatever the gap: a few windows within it, side by side or evenly apart, none of which costs
// anything without a gap.
func TestGapsAreLookedBackAtWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := 60 * rapid.Int64Range(1, 120).Draw(t, "minutes")
		c := &MetricThreshold{Metric: Visitors, Operator: ">=", Threshold: 1, WindowSeconds: length}
		setting := Setting{StatsFrom: minute(rapid.IntRange(-200, 200).Draw(t, "stats from"))}
		before := State{LastSlot: origin}
		slot := slotAt(origin.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "slots")) * interval))
		most := rapid.IntRange(0, 100).Draw(t, "most")
		slots := Missed(c.Ask(setting, before, slot), setting, before, slot, most)
		require.LessOrEqual(t, len(slots), min(most, MostRecalled))
		gap := slot.At.Sub(origin)
		if gap < 3*interval || gap > 6*time.Hour || gap <= seconds(length) {
			require.Empty(t, slots)
		}
		if gap <= 6*time.Hour && gap > 2*seconds(length) && most > 0 && setting.StatsFrom.Before(origin) {
			require.NotEmpty(t, slots)
		}
		following := slot.At
		for i := len(slots) - 1; i >= 0; i-- {
			require.True(t, slots[i].At.After(origin) && slots[i].At.After(setting.StatsFrom))
			apart := following.Sub(slots[i].At)
			require.Zero(t, apart%seconds(length))
			if int64(gap/seconds(length)) <= int64(min(most, MostRecalled)) {
				require.Equal(t, seconds(length), apart)
			}
			following = slots[i].At
		}
	})
	for kind, config := range map[Type]string{
		TrackingSilenceType: `{"minutes": 5}`, GoalSilenceType: `{"goal": {"goal_id": 1}}`, NewSourceType: `{}`, PageviewMilestoneType: `{}`, GoalAchievedType: `{"goal": {"goal_id": 1}}`,
	} {
		c, before, slot := parsed(t, kind, config), State{LastSlot: origin}, slotAt(minute(300))
		require.Empty(t, Missed(c.Ask(Setting{}, before, slot), Setting{}, before, slot, MostRecalled), kind)
	}
}
