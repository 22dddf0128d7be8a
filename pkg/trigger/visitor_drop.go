package trigger

import (
	"fmt"
	"time"
)

// VisitorDropType is the type of VisitorDrop.
const VisitorDropType Type = "visitor_drop"

// VisitorDrop fires when the unique visitors of the window are fewer than the threshold, on a site
// that has had visitors. With a sensitivity, so few must also be unusual for the hour of the week.
type VisitorDrop struct {
	Threshold     int64       `json:"threshold"`
	WindowSeconds int64       `json:"window_seconds"`
	Sensitivity   sensitivity `json:"sensitivity,omitempty"`
	Hold
}

func (c *VisitorDrop) declare(f *fields) {
	c.Threshold = f.integer("threshold", "Fewer unique visitors than this fire.", 1, 1, 1e9)
	c.WindowSeconds = f.window(12 * 60 * 60)
	c.Sensitivity = f.sensitivity("How readily to fire when so few are unusual for this hour of the week; off compares with the threshold alone, and is the default with a threshold of your own.", true)
	c.Hold.declare(f)
	if c.Sensitivity != sensitivityOff {
		f.comparable(c.WindowSeconds)
	}
}

// Title implements Config.
func (c *VisitorDrop) Title(string) string {
	return fmt.Sprintf("Visitor drop: below %d in %s", c.Threshold, span(c.WindowSeconds))
}

// Every implements Config.
func (c *VisitorDrop) Every() time.Duration { return every(c.WindowSeconds) }

// Ask implements Config.
func (c *VisitorDrop) Ask(s Setting, state State, slot Slot) []Question {
	questions := []Question{s.number(Visitors, s.back(slot, c.WindowSeconds))}
	if c.Sensitivity != sensitivityOff {
		questions = append(questions, s.norm(Visitors, slot, c.WindowSeconds))
	}
	if !state.Machine.Armed { // was anybody here at all, before they stayed away?
		questions = append(questions, s.number(Visitors, s.back(slot, longestWindow)))
	}
	return questions
}

// Step implements Config.
func (c *VisitorDrop) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	r := c.read(s, state, sample, slot)
	state.Machine.Armed = c.armed(state, sample)
	return c.step(s, state, r, slot)
}

// armed tells whether the site was ever seen with visitors.
func (c *VisitorDrop) armed(state State, sample Sample) bool {
	return state.Machine.Armed || sample.Answers[len(sample.Answers)-1].Value > 0
}

// read implements windowed.
func (c *VisitorDrop) read(s Setting, state State, sample Sample, slot Slot) reading {
	r := reading{value: sample.Answers[0].Value, threshold: float64(c.Threshold), low: true, window: s.back(slot, c.WindowSeconds)}
	r.says = count(r.value, "visitor") + " in " + describe(seconds(c.WindowSeconds))
	switch {
	case r.value >= r.threshold:
		r.says += fmt.Sprintf(", not below the threshold of %d", c.Threshold)
	case !c.armed(state, sample):
		r.says += ": the site had no visitors that could stay away"
	default:
		r.standing = breach
		r.says += fmt.Sprintf(", below the threshold of %d", c.Threshold)
		c.compare(&r, s, sample, slot)
	}
	return r.evident(s, sample)
}

// compare takes a breach back where so few visitors are nothing unusual.
func (c *VisitorDrop) compare(r *reading, s Setting, sample Sample, slot Slot) {
	if c.Sensitivity == sensitivityOff {
		return
	}
	usual, known := sample.Answers[1].Norm.usual(slot.At, s.zone())
	if !known {
		r.standing = unknown
		r.says += ", but the site's history is too short to tell whether that is unusual"
		return
	}
	mean := float64(usual.Mean)
	r.baseline = &mean
	if usual.logAtMost(r.value) > c.Sensitivity.logProbability() {
		r.standing = absent
		r.says += fmt.Sprintf(", which is nothing unusual for this hour of the week: the mean is %s", decimal(mean))
	}
}
