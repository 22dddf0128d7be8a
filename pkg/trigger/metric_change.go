package trigger

import (
	"fmt"
	"math"
	"time"
)

// MetricChangeType is the type of MetricChange.
const MetricChangeType Type = "metric_change"

// MetricChange fires when a metric differs by so many per cent from the window before, or from
// what it usually is at this hour of the week.
type MetricChange struct {
	Metric        Metric  `json:"metric"`
	Direction     string  `json:"direction"`
	Percent       float64 `json:"percent"`
	Baseline      string  `json:"baseline"`
	MinVolume     int64   `json:"min_volume"`
	WindowSeconds int64   `json:"window_seconds"`
	Goal          *Goal   `json:"goal,omitempty"`
	Hold
}

const (
	previousPeriod = "previous_period"
	sameHourOfWeek = "same_hour_of_week"
)

func (c *MetricChange) declare(f *fields) {
	c.Metric = f.metric()
	c.Direction = f.choice("direction", "Which changes fire.", "any", "up", "down")
	c.Percent = 50
	f.describe("percent", Schema{Type: "number", Description: "By how many per cent the metric must differ from its baseline.", Default: 50, Minimum: pointer(1.0), Maximum: pointer(100000.0)})
	if f.object != nil {
		if percent := f.object.Number("percent", 1, 100000); percent != nil {
			c.Percent = *percent
		}
	}
	c.Baseline = f.choice("baseline", "What the metric is compared with: the window before, or its mean at this hour of the week.", previousPeriod, sameHourOfWeek)
	c.MinVolume = f.integer("min_volume", "With a smaller baseline than this, or fewer visitors or visits behind a rate, nothing is concluded.", 20, 1, 1e9)
	c.WindowSeconds = f.window(3600)
	c.Goal = f.goal(false)
	c.Hold.declare(f)
	c.Goal = f.fitting(c.Goal, c.Metric)
	if c.Baseline == sameHourOfWeek {
		f.comparable(c.WindowSeconds)
		if !c.Metric.additive() {
			f.refuse("baseline", "%q belongs to visitors, visits, pageviews and events", sameHourOfWeek)
		}
	}
	if c.Direction == "down" && c.Percent > 100 {
		f.refuse("percent", "must be at most 100 for direction %q", "down")
	}
}

func (c *MetricChange) goal() *Goal { return c.Goal }

// Title implements Config.
func (c *MetricChange) Title(goal string) string {
	sign := map[string]string{"any": "±", "up": "+", "down": "-"}[c.Direction]
	return fmt.Sprintf("%s %s%s%% in %s", of(c.Metric, goal), sign, decimal(c.Percent), span(c.WindowSeconds))
}

// Every implements Config.
func (c *MetricChange) Every() time.Duration { return every(c.WindowSeconds) }

// Ask implements Config.
func (c *MetricChange) Ask(s Setting, _ State, slot Slot) []Question {
	window := s.back(slot, c.WindowSeconds)
	questions := []Question{s.number(c.Metric, window)}
	if c.Baseline == sameHourOfWeek {
		return append(questions, s.norm(c.Metric, slot, c.WindowSeconds))
	}
	before := Slot{At: window.To.Add(-seconds(c.WindowSeconds)), Interval: slot.Interval}
	return append(questions, s.number(c.Metric, s.back(before, c.WindowSeconds)))
}

// Step implements Config.
func (c *MetricChange) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	return c.step(s, state, c.read(s, state, sample, slot), slot)
}

// read implements windowed.
func (c *MetricChange) read(s Setting, _ State, sample Sample, slot Slot) reading {
	now := sample.Answers[0]
	r := reading{value: now.Value, window: s.back(slot, c.WindowSeconds)}
	base, volume, known := c.base(s, sample, slot)
	switch {
	case !known:
		r.standing, r.says = unknown, "The history is too short to know what is usual"
		return r
	case s.StatsFrom.After(slot.At.Add(-2*seconds(c.WindowSeconds))) && c.Baseline == previousPeriod:
		r.standing, r.says = unknown, "The stats begin within the windows that are compared"
		return r
	case volume < float64(c.MinVolume) || base == 0 || !c.Metric.additive() && now.Volume < c.MinVolume:
		r.standing = unknown
		r.says = fmt.Sprintf("%s is %s, and its baseline rests on %s: at least %d are needed for a comparison", c.Metric, decimal(now.Value), decimal(volume), c.MinVolume)
		return r
	}
	change := 100 * (now.Value - base) / base
	r.baseline, r.low = &base, c.Direction == "down" || c.Direction == "any" && change < 0
	r.threshold = base * (1 + c.Percent/100)
	if r.low {
		r.threshold = max(0, base*(1-c.Percent/100))
	}
	r.says = fmt.Sprintf("%s is %s in %s, %+.0f%% from %s", c.Metric, decimal(now.Value), describe(seconds(c.WindowSeconds)), change, decimal(base))
	if r.low && change <= -c.Percent || !r.low && change >= c.Percent {
		r.standing = breach
	}
	if sample.Blind && r.standing == breach { // one of the two windows lacks events
		r.standing, r.says = unknown, "Ingestion was silent for all sites within the windows that are compared"
	}
	r.threshold = math.Round(r.threshold*100) / 100
	return r
}

// base is what the metric is compared with, and how much it rests on.
func (c *MetricChange) base(s Setting, sample Sample, slot Slot) (base, volume float64, known bool) {
	if c.Baseline == sameHourOfWeek {
		usual, known := sample.Answers[1].Norm.usual(slot.At, s.zone())
		return float64(usual.Mean), float64(usual.Mean), known
	}
	before := sample.Answers[1]
	if c.Metric.additive() {
		return before.Value, before.Value, true
	}
	return before.Value, float64(before.Volume), true
}
