package trigger

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	// LongestRecall is the longest absence of the evaluator that is looked back at for what conditions
	// of a window missed. What is older is no news, and was hardly the only thing that was missed.
	LongestRecall = 6 * time.Hour

	// MostRecalled is how many windows of such a gap are looked at for one trigger: all of 5 minutes in
	// the longest gap.
	MostRecalled = 72
)

// Missed are the slots of a gap that are worth looking back at, the oldest first: the ends of windows of
// the trigger's own length, side by side, back from that of the slot; of more than most, evenly some.
// There are none where fewer than two of its slots were missed, where an episode lasted before, where
// the slot's own window reaches back to before the gap, and for conditions that are not of a window:
// facts are found whenever they are looked for. asked is what the config asks of the slot.
func Missed(asked []Question, s Setting, before State, slot Slot, most int) []Slot {
	gap := slot.At.Sub(before.LastSlot)
	if gap < 3*slot.Interval || gap > LongestRecall || before.Machine.Episode != nil {
		return nil
	}
	own := asked[0]
	length, since := own.Window.To.Sub(own.Window.From), latest(before.LastSlot, s.StatsFrom)
	if own.Ask != AskNumber && own.Ask != AskRanking || length <= 0 || most < 1 {
		return nil
	}
	windows := int((slot.At.Sub(since) - 1) / length) // that end after it, besides the slot's own
	if windows < 1 {
		return nil
	}
	most = min(most, MostRecalled)
	apart := length * time.Duration((windows+most-1)/most)
	var slots []Slot
	for end := slot.At.Add(-apart); end.After(since); end = end.Add(-apart) {
		slots = append(slots, Slot{At: end, Interval: slot.Interval})
	}
	slices.Reverse(slots)
	return slots
}

// Past is a slot that was missed, and what was measured of it afterwards.
type Past struct {
	Slot   Slot
	Sample Sample
}

// windowed is a config whose condition is of a window: whether it held in a past one can still be read.
type windowed interface {
	read(s Setting, state State, sample Sample, slot Slot) reading
	hold() Hold
}

func (h Hold) hold() Hold { return h }

// Recall tells once of an episode that lies completely between the states before and after a step, from
// samples of the slots that Missed has named. Each is judged as it would have been then, so nothing low
// is concluded from a window in which ingestion was silent. The id is derived from where the gap begins:
// the same gap tells the same.
func Recall(c Config, s Setting, before, after State, past []Past) (State, []Occurrence) {
	var found *Occurrence
	switch c := c.(type) {
	case windowed:
		found = recallEpisode(c, s, before, after, past)
	case *NotFoundBurst:
		found = c.recall(s, before, after, past)
	}
	if found == nil {
		return after, nil
	}
	if quietUntil := before.LastFiredAt.Add(s.Cooldown); !before.LastFiredAt.IsZero() && found.Episode.LastHeld.Before(quietUntil) {
		after.Machine.Suppressed++
		return after, nil
	}
	found.Transition, found.Missed = Fired, true
	found.Anchor = "missed/" + at(before.LastSlot)
	found.Explanation = fmt.Sprintf("At %s: %s. It was over before it could be told, because the trigger was not evaluated from %s to %s.",
		utcText(found.Episode.PeakAt), found.Explanation, utcText(before.LastSlot), utcText(after.LastSlot))
	found.Suppressed, after.Machine.Suppressed = after.Machine.Suppressed, 0
	after.LastFiredAt = after.LastSlot
	return after, []Occurrence{*found}
}

func utcText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// moment is a window of the past in which the condition held.
type moment struct {
	at time.Time // its end
	reading
}

// recallEpisode finds the runs of breaching windows that last as long as the owner wants.
func recallEpisode(c windowed, s Setting, before, after State, past []Past) *Occurrence {
	if after.Status != StatusOK { // it goes on, or nobody knows whether it does
		return nil
	}
	hold := c.hold()
	var episode, run []moment // what is told, and what becomes a part of it if the run lasts
	var began time.Time       // of the run; zero: the condition does not hold
	for _, p := range past {
		r := c.read(s, before, p.Sample, p.Slot)
		switch r.standing {
		case unknown:
			continue
		case absent, between:
			began, run = time.Time{}, nil
			continue
		case breach:
		}
		if began.IsZero() {
			began = p.Slot.At
		}
		run = append(run, moment{p.Slot.At, r})
		if wanted := max(seconds(hold.ForSeconds), time.Duration(hold.MinBreaches-1)*p.Slot.Interval); p.Slot.At.Sub(began) >= wanted {
			episode, run = append(episode, run...), nil
		}
	}
	return over(episode)
}

// over is the occurrence of an episode of these moments; nil if there are none. Several episodes are told
// as one: whether the condition ceased between two windows is not known.
func over(moments []moment) *Occurrence {
	if len(moments) == 0 {
		return nil
	}
	peak := moments[0]
	for _, m := range moments[1:] {
		if m.beyond(peak.value) {
			peak = m
		}
	}
	return &Occurrence{
		Value: peak.value, Threshold: peak.threshold, Baseline: peak.baseline, Window: peak.window, Explanation: peak.says,
		Episode: &Episode{Start: moments[0].at, LastHeld: moments[len(moments)-1].at, Peak: peak.value, PeakAt: peak.at},
	}
}

// recall finds the path with the most events of all whose bursts were missed.
func (c *NotFoundBurst) recall(s Setting, before, after State, past []Past) *Occurrence {
	missed := map[string][]moment{}
	for _, p := range past {
		for _, path := range p.Sample.Answers[0].Ranking {
			_, lasted := before.Machine.Told[path.Name]
			if _, lasts := after.Machine.Told[path.Name]; !lasted && !lasts {
				missed[path.Name] = append(missed[path.Name], moment{p.Slot.At, c.read(s, path, p.Slot)})
			}
		}
	}
	var worst *Occurrence
	for _, path := range slices.Sorted(maps.Keys(missed)) {
		if o := over(missed[path]); worst == nil || o.Value > worst.Value {
			worst = o
			worst.Group = &Group{Dimension: ByPage, Value: path, More: len(missed) - 1}
		}
	}
	return worst
}
