package trigger

import (
	"fmt"
	"math"
	"time"
)

// GoalSilenceType is the type of GoalSilence.
const GoalSilenceType Type = "goal_silence"

// GoalSilence fires when so many visitors have come since the last conversion that, by the usual
// rate of conversions, none among them is improbable.
type GoalSilence struct {
	Goal        *Goal       `json:"goal"`
	Sensitivity sensitivity `json:"sensitivity"`
	Hold
}

func (c *GoalSilence) declare(f *fields) {
	c.Goal = f.goal(true)
	c.Sensitivity = f.sensitivity("How readily to fire.", false)
	c.Hold.declare(f)
}

func (c *GoalSilence) goal() *Goal { return c.Goal }

// Title implements Config.
func (c *GoalSilence) Title(goal string) string { return goal + ": no conversions" }

// Every implements Config. Visitors are counted since the last conversion, up to a day back; it takes
// many of them, so minutes do not matter.
func (c *GoalSilence) Every() time.Duration { return 5 * time.Minute }

// Ask implements Config.
func (c *GoalSilence) Ask(s Setting, state State, slot Slot) []Question {
	since := s.sinceLast(state, slot)
	all := s
	all.Goal = nil
	return []Question{
		{Ask: AskLast, Metric: Events, Goal: s.Goal, Filters: s.Filters, Window: s.lately(state, slot)},
		all.number(Visitors, since),
		s.norm(Visitors, slot, 3600),
		all.norm(Visitors, slot, 3600),
	}
}

// fewestConversions is what the usual rate must rest on.
const fewestConversions = 20

// Step implements Config.
func (c *GoalSilence) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	window := s.sinceLast(state, slot)
	visitors := sample.Answers[1].Value
	if last := sample.Answers[0].Last; last.After(state.Machine.Last) {
		state.Machine.Last, window.From = last, last
		visitors = 0 // those who came after it are counted by the next slot
	}
	converting, coming := sample.Answers[2].Norm, sample.Answers[3].Norm
	if converting == nil || coming == nil || coming.Days < 7 {
		return c.step(s, state, reading{standing: unknown, says: "The history is too short to know the usual rate of conversions"}, slot)
	}
	usually, all := converting.overall(), coming.overall()
	if conversions := float64(usually.Mean) * float64(usually.Samples); conversions < fewestConversions || all.Mean <= usually.Mean {
		return c.step(s, state, reading{standing: unknown, says: fmt.Sprintf("The usual rate rests on too few conversions: %d are needed", fewestConversions)}, slot)
	}
	rate := float64(usually.Mean) / float64(all.Mean)
	r := reading{value: visitors, threshold: math.Ceil(c.Sensitivity.logProbability() / math.Log1p(-rate)), baseline: pointer(100 * rate), window: window}
	r.says = fmt.Sprintf("%s without a conversion, of %s that are too many at the usual rate of %s%%", count(visitors, "visitor"), decimal(r.threshold), decimal(100*rate))
	if visitors >= r.threshold {
		r.standing = breach
	}
	return c.step(s, state, r, slot)
}
