package trigger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

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
	Goal          Goal   `json:"goal"`
	Mode          string `json:"mode"`
	Measure       string `json:"measure"`
	Threshold     int64  `json:"threshold,omitempty"`      // mode "threshold" only
	WindowSeconds int64  `json:"window_seconds,omitempty"` // mode "threshold" only
}

// Goal names a goal of the site by its Plausible id, or describes what counts as a conversion.
type Goal struct {
	ID              int64             `json:"goal_id,omitempty"`
	EventName       string            `json:"event_name,omitempty"`
	PagePath        string            `json:"page_path,omitempty"` // may contain * wildcards
	ScrollThreshold *int              `json:"scroll_threshold,omitempty"`
	CustomProps     map[string]string `json:"custom_props,omitempty"`
}

// Scroll tells whether conversions are pages read down to a depth. Such a page sends several
// engagement rows, so a conversion is then a session, not a row.
func (g Goal) Scroll() bool { return g.ScrollThreshold != nil }

// Overlap is how late a conversion's row may become visible and still be counted, exactly
// once: every slot reads the buckets of this long again.
const Overlap = 2 * time.Minute

func parseGoalAchieved(o *strict.Object) Config {
	c := &GoalAchieved{
		Mode:    o.Choice("mode", ModeEach, ModeThreshold),
		Measure: o.Choice("measure", MeasureConversions, MeasureVisitors),
	}
	c.Goal = parseGoal(o)
	if c.Mode == ModeThreshold {
		c.Threshold = o.Integer("threshold", 10, 1, 1e9)
		c.WindowSeconds = o.Integer("window_seconds", 3600, shortestWindow, longestWindow)
		return c
	}
	for _, name := range []string{"threshold", "window_seconds"} {
		if _, given := o.Take(name); given {
			o.Refuse(name, "belongs to mode %q; mode %q fires for every conversion", ModeThreshold, ModeEach)
		}
	}
	if c.Measure == MeasureVisitors {
		o.Refuse("measure", "%q belongs to mode %q; mode %q counts conversions", MeasureVisitors, ModeThreshold, ModeEach)
	}
	return c
}

func parseGoal(parent *strict.Object) Goal {
	raw, given := parent.Take("goal")
	if !given {
		parent.Refuse("goal", `is required: {"goal_id": …}, {"event_name": …}, {"page_path": …} or {"page_path": …, "scroll_threshold": …}`)
		return Goal{}
	}
	o := parent.Inner("goal", raw)
	g := Goal{
		ID:        o.Integer("goal_id", 0, 1, 1<<62),
		EventName: strings.TrimSpace(o.Text("event_name", 1, 120)),
		PagePath:  o.Text("page_path", 1, 2000),
	}
	if _, given := o.Take("scroll_threshold"); given {
		depth := int(o.Integer("scroll_threshold", 0, 0, 100))
		g.ScrollThreshold = &depth
	}
	g.CustomProps = o.Texts("custom_props", 3, 300, 2000) // Plausible's own limits
	o.End()

	chosen := 0
	for _, is := range []bool{g.ID != 0, g.EventName != "", g.PagePath != ""} {
		if is {
			chosen++
		}
	}
	switch {
	case chosen != 1:
		o.Refuse("", "must have exactly one of goal_id, event_name and page_path")
	case g.ID != 0 && (g.ScrollThreshold != nil || g.CustomProps != nil):
		o.Refuse("", "goal_id stands alone: the goal itself says what else it needs")
	case g.ScrollThreshold != nil && g.PagePath == "":
		o.Refuse("", "scroll_threshold needs page_path")
	case g.EventName == "pageview" || g.EventName == "engagement":
		o.Refuse("", "event_name must be a custom event; use page_path for pages")
	case g.PagePath != "" && !strings.HasPrefix(g.PagePath, "/"):
		o.Refuse("", "page_path must start with /")
	}
	return g
}

// Step implements Config.
func (c *GoalAchieved) Step(options Options, state State, sample Sample, slot time.Time) (State, []Occurrence) {
	if c.Mode == ModeThreshold {
		noun := "conversion"
		if c.Measure == MeasureVisitors {
			noun = "converted visitor"
		}
		return stepEpisode(options, state, sample, c.Threshold, slot, noun)
	}
	return stepEach(state, sample, slot)
}

// stepEach finds the conversions that no earlier slot has seen. There is no insertion time and
// no event id in the rows, but rows are only ever added: the growth of the overlap's total is
// the number of new ones, however late each became visible.
func stepEach(state State, sample Sample, slot time.Time) (State, []Occurrence) {
	var now, before int64
	for _, b := range sample.Buckets {
		now += b.Count
	}
	for _, b := range state.Machine.Counted {
		if !b.Start.Before(sample.Window.From) {
			before += b.Count
		}
	}
	fresh := max(0, now-before)
	occurrence := Occurrence{
		Transition: Fired, Anchor: slot, Value: float64(fresh), Threshold: 1,
		Window:       Window{From: firstChange(state.Machine.Counted, sample), To: sample.Window.To},
		Late:         !state.LastSlot.IsZero() && slot.Sub(state.LastSlot) > Overlap,
		Fingerprints: newFingerprints(state.Machine.Counted, sample.Buckets),
	}

	value, threshold := float64(fresh), 1.0
	state.Value, state.Threshold, state.LastSlot = &value, &threshold, slot
	state = state.enter(StatusOK, slot)
	state.Machine.Counted = nil
	for _, b := range sample.Buckets {
		if !b.Start.Before(slot.Add(-Overlap)) {
			state.Machine.Counted = append(state.Machine.Counted, b)
		}
	}
	if fresh == 0 {
		state.Explanation = "No new conversion in the newest slot; every new one fires."
		return state, nil
	}
	state.LastFiredAt = slot
	state.Explanation = fmt.Sprintf("%s in the newest slot: fired.", count(fresh, "new conversion"))
	return state, []Occurrence{occurrence}
}

// firstChange is the start of the earliest bucket that grew: where the new conversions begin.
func firstChange(counted []Bucket, sample Sample) time.Time {
	first := sample.Window.To
	for _, b := range sample.Buckets {
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
