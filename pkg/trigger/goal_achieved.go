package trigger

import (
	"fmt"
	"slices"
	"time"
)

// GoalAchievedType is the type of GoalAchieved.
const GoalAchievedType Type = "goal_achieved"

// The modes and measures of GoalAchieved.
const (
	ModeEach      = "each"
	ModeThreshold = "threshold"

	MeasureConversions = "conversions"
	MeasureVisitors    = "visitors"
)

// GoalAchieved fires for conversions of a goal: in mode "each" once for every slot that has
// new ones, in mode "threshold" when the window's number reaches the threshold.
type GoalAchieved struct {
	Goal          *Goal  `json:"goal"`
	Mode          string `json:"mode"`
	Measure       string `json:"measure"`
	Threshold     int64  `json:"threshold,omitempty"`      // mode "threshold" only
	WindowSeconds int64  `json:"window_seconds,omitempty"` // mode "threshold" only
	Hold
}

func (c *GoalAchieved) declare(f *fields) {
	c.Goal = f.goal(true)
	c.Mode = f.choice("mode", "Whether to fire for every conversion, or for so many in the window.", ModeEach, ModeThreshold)
	c.Measure = f.choice("measure", "What the threshold counts.", MeasureConversions, MeasureVisitors)
	c.Threshold = f.integer("threshold", "How many there must be in the window; of mode \"threshold\".", 10, 1, 1e9)
	c.WindowSeconds = f.window(3600)
	c.Hold.declare(f)
	if c.Mode == ModeThreshold {
		return
	}
	for _, name := range []string{"threshold", "window_seconds", "for_seconds", "min_breaches", "of_slots", "keep_firing_seconds", "renotify_seconds", "max_renotify"} {
		f.exclude(name, "belongs to mode %q; mode %q fires for every conversion", ModeThreshold, ModeEach)
	}
	if c.Measure == MeasureVisitors {
		f.exclude("measure", "%q belongs to mode %q; mode %q counts conversions", MeasureVisitors, ModeThreshold, ModeEach)
	}
	c.Measure, c.Threshold, c.WindowSeconds, c.Hold = MeasureConversions, 0, 0, Hold{}
}

func (c *GoalAchieved) goal() *Goal { return c.Goal }

// Title implements Config.
func (c *GoalAchieved) Title(goal string) string {
	if c.Mode == ModeEach {
		return goal + ": every conversion"
	}
	return fmt.Sprintf("%s: %d %s in %s", goal, c.Threshold, c.Measure, span(c.WindowSeconds))
}

// Every implements Config.
func (c *GoalAchieved) Every() time.Duration { return every(c.WindowSeconds) }

// Ask implements Config.
func (c *GoalAchieved) Ask(s Setting, state State, slot Slot) []Question {
	if c.Mode == ModeEach {
		return []Question{{Ask: AskEach, Metric: Events, Goal: s.Goal, Filters: s.Filters, Window: s.unsettled(state, slot)}}
	}
	metric := Events
	if c.Measure == MeasureVisitors {
		metric = Visitors
	}
	return []Question{s.number(metric, s.back(slot, c.WindowSeconds))}
}

// Step implements Config.
func (c *GoalAchieved) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	if c.Mode == ModeEach {
		return stepEach(s, state, sample.Answers[0].Buckets, slot)
	}
	return c.step(s, state, c.read(s, state, sample, slot), slot)
}

// read implements windowed, of mode "threshold".
func (c *GoalAchieved) read(s Setting, _ State, sample Sample, slot Slot) reading {
	noun := "conversion"
	if c.Measure == MeasureVisitors {
		noun = "converted visitor"
	}
	r := reading{value: sample.Answers[0].Value, threshold: float64(c.Threshold), window: s.back(slot, c.WindowSeconds)}
	r.says = count(r.value, noun) + " in " + describe(seconds(c.WindowSeconds))
	if r.value >= r.threshold {
		r.standing = breach
		r.says += fmt.Sprintf(" reached the threshold of %d", c.Threshold)
	} else {
		r.says += fmt.Sprintf(", below the threshold of %d", c.Threshold)
	}
	return r
}

// stepEach finds the conversions that no earlier slot has seen. There is no insertion time and
// no event id in the rows, but rows are only ever added: the growth of the overlap's total is
// the number of new ones, however late each became visible.
func stepEach(s Setting, state State, buckets []Bucket, slot Slot) (State, []Occurrence) {
	window := s.unsettled(state, slot)
	var now, before int64
	for _, b := range buckets {
		now += b.Count
	}
	for _, b := range state.Machine.Counted {
		if !b.Start.Before(window.From) {
			before += b.Count
		}
	}
	fresh := max(0, now-before)
	value, threshold := float64(fresh), 1.0
	occurrence := Occurrence{
		Transition: Fired, Anchor: at(slot.At), Value: value, Threshold: threshold,
		Window:       Window{From: firstChange(state.Machine.Counted, buckets, slot.At), To: slot.At},
		Late:         late(state, slot),
		Explanation:  count(value, "new conversion") + ".",
		Fingerprints: newFingerprints(state.Machine.Counted, buckets),
	}

	state.Value, state.Threshold, state.LastSlot = &value, &threshold, slot.At
	state.Machine.Counted = nil
	for _, b := range buckets {
		if !b.Start.Before(slot.At.Add(-Overlap)) {
			state.Machine.Counted = append(state.Machine.Counted, b)
		}
	}
	if fresh == 0 {
		return state.enter(StatusOK, slot.At, "No new conversion in the newest slot; every new one fires."), nil
	}
	state.LastFiredAt = slot.At
	return state.enter(StatusOK, slot.At, count(value, "new conversion")+" in the newest slot: fired."), []Occurrence{occurrence}
}

// firstChange is the start of the earliest bucket that grew: where the new conversions begin.
func firstChange(counted, buckets []Bucket, slot time.Time) time.Time {
	first := slot
	for _, b := range buckets {
		i := slices.IndexFunc(counted, func(c Bucket) bool { return c.Start.Equal(b.Start) })
		if (i < 0 || counted[i].Count < b.Count) && b.Start.Before(first) {
			first = b.Start
		}
	}
	return first
}

// newFingerprints is the multiset difference of the buckets' fingerprints. A fingerprint can
// stand for several equal rows of one second.
func newFingerprints(counted, now []Bucket) []uint64 {
	known := map[uint64]int{}
	for _, b := range counted {
		for _, f := range b.Fingerprints {
			known[f]++
		}
	}
	var fresh []uint64
	for _, b := range now {
		for _, f := range b.Fingerprints {
			if known[f] > 0 {
				known[f]--
				continue
			}
			fresh = append(fresh, f)
		}
	}
	return fresh
}
