package trigger

import (
	"fmt"
	"time"
)

// stepEpisode is the state machine of "the window's number reaches the threshold": one firing
// for each unbroken run of breaching slots, and one at its end if that is wanted. An episode
// that begins within the cooldown is announced when the cooldown ends, if it still lasts, and
// counted as suppressed if not.
func stepEpisode(options Options, state State, sample Sample, threshold int64, slot time.Time, noun string) (State, []Occurrence) {
	value, limit := float64(sample.Value), float64(threshold)
	state.Value, state.Threshold, state.LastSlot = &value, &limit, slot
	span := describe(sample.Window.To.Sub(sample.Window.From))

	if sample.Value < threshold {
		ended := state.Machine.Episode
		state.Machine.Episode = nil
		state = state.enter(StatusOK, slot)
		state.Explanation = fmt.Sprintf("%s in %s, below the threshold of %d.", count(sample.Value, noun), span, threshold)
		switch {
		case ended == nil:
			return state, nil
		case !ended.Announced:
			state.Machine.Suppressed++
			return state, nil
		case !options.NotifyResolved:
			return state, nil
		}
		return state, []Occurrence{{
			Transition: Resolved, Anchor: ended.Start, Value: value, Threshold: limit, Window: sample.Window, Episode: ended,
		}}
	}

	state = state.enter(StatusFiring, slot)
	episode := Episode{Start: slot}
	if running := state.Machine.Episode; running != nil {
		episode = *running
	}
	state.Machine.Episode = &episode
	if value > episode.Peak {
		episode.Peak, episode.PeakAt = value, slot
	}
	state.Explanation = fmt.Sprintf("%s in %s reached the threshold of %d; it fires again after a slot below it.", count(sample.Value, noun), span, threshold)
	if episode.Announced {
		return state, nil
	}
	if quietUntil := state.LastFiredAt.Add(options.Cooldown); !state.LastFiredAt.IsZero() && slot.Before(quietUntil) {
		state.Explanation = fmt.Sprintf("%s in %s reached the threshold of %d, but the cooldown lasts until %s.",
			count(sample.Value, noun), span, threshold, quietUntil.UTC().Format(time.RFC3339))
		return state, nil
	}
	episode.Announced = true
	suppressed := state.Machine.Suppressed
	state.Machine.Suppressed, state.LastFiredAt = 0, slot
	return state, []Occurrence{{
		Transition: Fired, Anchor: episode.Start, Value: value, Threshold: limit, Window: sample.Window, Suppressed: suppressed,
	}}
}

func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// describe says a span in the largest unit that keeps it whole: "5 minutes", "90 seconds".
func describe(span time.Duration) string {
	for _, unit := range []struct {
		size time.Duration
		noun string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if span >= unit.size && span%unit.size == 0 {
			return count(int64(span/unit.size), unit.noun)
		}
	}
	return count(int64(span/time.Second), "second")
}
