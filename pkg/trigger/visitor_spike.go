package trigger

import (
	"fmt"
	"math"
	"time"
)

// VisitorSpikeType is the type of VisitorSpike.
const VisitorSpikeType Type = "visitor_spike"

// VisitorSpike fires when the unique visitors of the window reach the threshold. With a
// sensitivity, their number must also be unusual for the hour of the week.
type VisitorSpike struct {
	Threshold     int64       `json:"threshold"`
	WindowSeconds int64       `json:"window_seconds"`
	Sensitivity   sensitivity `json:"sensitivity,omitempty"`
	Hold
}

func (c *VisitorSpike) declare(f *fields) {
	c.Threshold = f.integer("threshold", "How many unique visitors the window must have.", 10, 1, 1e9)
	c.WindowSeconds = f.window(300)
	c.Sensitivity = f.sensitivity("How readily to fire when the number is unusual for this hour of the week; off compares with the threshold alone, and is the default with a threshold of your own.", true)
	c.Hold.declare(f)
	if c.Sensitivity != sensitivityOff {
		f.comparable(c.WindowSeconds)
	}
}

// Title implements Config.
func (c *VisitorSpike) Title(string) string {
	return fmt.Sprintf("Visitor spike: %d in %s", c.Threshold, span(c.WindowSeconds))
}

// Every implements Config.
func (c *VisitorSpike) Every() time.Duration { return every(c.WindowSeconds) }

// A spike is to be told within minutes, but a window of 5 minutes is half full of the time before
// it then. So windows that are looked at in every slot have a short companion: either may fire.
const (
	earlyWindow      = 2 * 60
	needsEarlyFromOn = 5 * 60 // a shorter window is quick enough itself
)

func (c *VisitorSpike) early() bool {
	return c.Sensitivity != sensitivityOff && c.WindowSeconds >= needsEarlyFromOn && c.Every() == 0
}

// Ask implements Config.
func (c *VisitorSpike) Ask(s Setting, _ State, slot Slot) []Question {
	questions := []Question{s.number(Visitors, s.back(slot, c.WindowSeconds))}
	if c.Sensitivity != sensitivityOff {
		questions = append(questions, s.norm(Visitors, slot, c.WindowSeconds))
	}
	if c.early() {
		questions = append(questions, s.number(Visitors, s.back(slot, earlyWindow)), s.norm(Visitors, slot, earlyWindow))
	}
	return questions
}

// Step implements Config.
func (c *VisitorSpike) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	return c.step(s, state, c.read(s, state, sample, slot), slot)
}

// read implements windowed.
func (c *VisitorSpike) read(s Setting, _ State, sample Sample, slot Slot) reading {
	r := c.readWindow(s, sample.Answers, slot, c.WindowSeconds)
	if c.early() && r.value >= float64(c.Threshold) && r.standing != breach {
		if early := c.readWindow(s, sample.Answers[2:], slot, earlyWindow); early.baseline != nil && early.standing != absent {
			if early.standing == breach || r.standing == absent {
				return early
			}
		}
	}
	return r
}

// readWindow is what the visitors of a window mean, by its number and, with a sensitivity, its norm.
func (c *VisitorSpike) readWindow(s Setting, answers []Answer, slot Slot, windowSeconds int64) reading {
	r := reading{value: answers[0].Value, threshold: float64(c.Threshold), window: s.back(slot, windowSeconds)}
	against := fmt.Sprintf("the threshold of %d", c.Threshold)
	halfway := r.threshold
	if c.Sensitivity != sensitivityOff {
		if usual, known := answers[1].Norm.usual(slot.At, s.zone()); known {
			mean := float64(usual.Mean)
			r.baseline = &mean
			if unusual := math.Ceil(max(usual.quantile(c.Sensitivity.deviations()), mean*c.Sensitivity.excess())); unusual > r.threshold {
				r.threshold = unusual
				against = fmt.Sprintf("the %s that would be unusual for this hour of the week", decimal(unusual))
			}
			halfway = mean + (r.threshold-mean)/2
		}
	}
	r.says = count(r.value, "visitor") + " in " + describe(seconds(windowSeconds))
	switch {
	case r.value >= r.threshold:
		r.standing = breach
		r.says += " reached " + against
	case r.value >= halfway: // otherwise a number around the limit would begin episode after episode
		r.standing = between
		r.says += ", below " + against + " but not back at the usual yet"
	default:
		r.says += ", below " + against
	}
	return r
}

// span is a length in short: "5m", "1h30m".
func span(seconds int64) string {
	text := ""
	for _, unit := range []struct {
		size   int64
		letter string
	}{{3600, "h"}, {60, "m"}, {1, "s"}} {
		if n := seconds / unit.size; n > 0 {
			text += fmt.Sprintf("%d%s", n, unit.letter)
			seconds -= n * unit.size
		}
	}
	return text
}
