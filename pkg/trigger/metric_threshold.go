package trigger

import (
	"fmt"
	"time"
)

// MetricThresholdType is the type of MetricThreshold.
const MetricThresholdType Type = "metric_threshold"

// MetricThreshold fires when a metric crosses a limit.
type MetricThreshold struct {
	Metric            Metric   `json:"metric"`
	Operator          string   `json:"operator"`
	Threshold         float64  `json:"threshold"`
	RecoveryThreshold *float64 `json:"recovery_threshold,omitempty"` // on the safe side of Threshold: where an episode ends
	WindowSeconds     int64    `json:"window_seconds"`
	MinVolume         int64    `json:"min_volume,omitempty"`
	Goal              *Goal    `json:"goal,omitempty"`
	Hold
}

const highestNumber = 1e12

func (c *MetricThreshold) declare(f *fields) {
	c.Metric = f.metric()
	c.Operator = f.choice("operator", "How the metric must stand to the threshold.", ">=", ">", "<", "<=")
	f.require("threshold")
	if threshold := f.number("threshold", "What the metric is held against.", 0, highestNumber); threshold != nil {
		c.Threshold = *threshold
	}
	c.RecoveryThreshold = f.number("recovery_threshold", "Where an episode ends, if not already at the threshold: further back, so that a number around the threshold does not fire again and again.", 0, highestNumber)
	c.WindowSeconds = f.window(3600)
	c.MinVolume = f.integer("min_volume", "With fewer visitors or visits than this, nothing is concluded from a rate or a mean.", 0, 0, 1e9)
	c.Goal = f.goal(false)
	c.Hold.declare(f)
	c.Goal = f.fitting(c.Goal, c.Metric)
	if r := c.RecoveryThreshold; r != nil && (c.low() && *r < c.Threshold || !c.low() && *r > c.Threshold) {
		f.refuse("recovery_threshold", "must be on the safe side of the threshold")
	}
	if c.MinVolume > 0 && c.Metric.additive() {
		f.exclude("min_volume", "belongs to rates and means")
		c.MinVolume = 0
	}
}

// metric declares the field of that name.
func (f *fields) metric() Metric {
	return Metric(f.choice("metric", "What is measured, as on Plausible's dashboard.", string(Visitors), string(Visits), string(Pageviews),
		string(Events), string(ConversionRate), string(BounceRate), string(VisitDuration), string(ViewsPerVisit)))
}

// fitting is the goal where a metric can have one. Its absence is refused where the metric needs one.
func (f *fields) fitting(g *Goal, m Metric) *Goal {
	switch {
	case m == ConversionRate && g == nil:
		f.refuse("goal", "is required for conversion_rate")
	case g != nil && m != Visitors && m != Events && m != ConversionRate:
		f.exclude("goal", "belongs to the metrics visitors, events and conversion_rate")
		return nil
	}
	return g
}

func (c *MetricThreshold) goal() *Goal { return c.Goal }

func (c *MetricThreshold) low() bool { return c.Operator == "<" || c.Operator == "<=" }

// Title implements Config.
func (c *MetricThreshold) Title(goal string) string {
	return fmt.Sprintf("%s %s %s in %s", of(c.Metric, goal), c.Operator, decimal(c.Threshold), span(c.WindowSeconds))
}

// of is a metric's name, with its goal.
func of(m Metric, goal string) string {
	if goal != "" {
		return goal + ": " + string(m)
	}
	return string(m)
}

// Every implements Config.
func (c *MetricThreshold) Every() time.Duration { return every(c.WindowSeconds) }

// Ask implements Config.
func (c *MetricThreshold) Ask(s Setting, _ State, slot Slot) []Question {
	return []Question{s.number(c.Metric, s.back(slot, c.WindowSeconds))}
}

// Step implements Config.
func (c *MetricThreshold) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	return c.step(s, state, c.read(s, state, sample, slot), slot)
}

// read implements windowed.
func (c *MetricThreshold) read(s Setting, _ State, sample Sample, slot Slot) reading {
	answer := sample.Answers[0]
	r := reading{value: answer.Value, threshold: c.Threshold, low: c.low(), window: s.back(slot, c.WindowSeconds)}
	r.says = fmt.Sprintf("%s is %s in %s", c.Metric, decimal(r.value), describe(seconds(c.WindowSeconds)))
	switch fewest := max(c.MinVolume, 1); {
	case !c.Metric.additive() && answer.Volume < fewest:
		r.standing = unknown
		r.says = fmt.Sprintf("%s rests on %d in %s, and at least %d are needed", c.Metric, answer.Volume, describe(seconds(c.WindowSeconds)), fewest)
	case compare(r.value, c.Operator, c.Threshold):
		r.standing = breach
		r.says += fmt.Sprintf(", %s the threshold of %s", c.Operator, decimal(c.Threshold))
	case c.RecoveryThreshold != nil && c.within(r.value):
		r.standing = between
		r.says += fmt.Sprintf(", between the thresholds of %s and %s", decimal(c.Threshold), decimal(*c.RecoveryThreshold))
	default:
		r.says += fmt.Sprintf(", not %s the threshold of %s", c.Operator, decimal(c.Threshold))
	}
	return r.evident(s, sample)
}

func compare(value float64, operator string, threshold float64) bool {
	switch operator {
	case ">=":
		return value >= threshold
	case ">":
		return value > threshold
	case "<":
		return value < threshold
	}
	return value <= threshold
}

// within tells whether a value that does not breach is not back at the recovery threshold either.
func (c *MetricThreshold) within(value float64) bool {
	if c.low() {
		return value < *c.RecoveryThreshold
	}
	return value > *c.RecoveryThreshold
}
