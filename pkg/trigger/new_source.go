package trigger

import (
	"fmt"
	"maps"
	"time"
)

// NewSourceType is the type of NewSource.
const NewSourceType Type = "new_source"

// NewSource fires for each value of a dimension that was never seen on the site before the window
// and brings so many visitors in it.
type NewSource struct {
	Dimension     Dimension `json:"dimension"`
	MinVisitors   int64     `json:"min_visitors"`
	WindowSeconds int64     `json:"window_seconds"`
}

func (c *NewSource) declare(f *fields) {
	c.Dimension = Dimension(f.choice("dimension", "What must be new.", string(BySource), string(ByReferrer), string(ByCampaign), string(ByCountry), string(ByEntryPage)))
	c.MinVisitors = f.integer("min_visitors", "How many unique visitors it must bring within the window.", 5, 1, 1e9)
	c.WindowSeconds = f.window(1800)
}

// Title implements Config.
func (c *NewSource) Title(string) string {
	return fmt.Sprintf("New %s with %s", c.Dimension, count(float64(c.MinVisitors), "visitor"))
}

// Every implements Config.
func (c *NewSource) Every() time.Duration { return every(c.WindowSeconds) }

// window is widened by what was not evaluated: what appeared then is new still.
func (c *NewSource) window(s Setting, state State, slot Slot) Window {
	from := slot.At.Add(-seconds(c.WindowSeconds))
	if !state.LastSlot.IsZero() && late(state, slot) {
		from = state.LastSlot.Add(-seconds(c.WindowSeconds))
	}
	if oldest := slot.At.Add(-LongestCatchUp); from.Before(oldest) {
		from = oldest
	}
	if s.RevisedAt.After(from) {
		from = s.RevisedAt.Truncate(time.Second)
	}
	return s.since(slot, from)
}

// Ask implements Config.
func (c *NewSource) Ask(s Setting, state State, slot Slot) []Question {
	return []Question{{Ask: AskNewcomers, Metric: Visitors, By: c.Dimension, Filters: s.Filters, Least: c.MinVisitors, Window: c.window(s, state, slot)}}
}

// Step implements Config.
func (c *NewSource) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	answer, window := sample.Answers[0], c.window(s, state, slot)
	isLate := late(state, slot)
	told := maps.Clone(state.Machine.Told)
	maps.DeleteFunc(told, func(_ string, spell Spell) bool { return spell.Start < window.From.Unix() }) // not new any more
	var occurrences []Occurrence
	threshold := float64(c.MinVisitors)
	for _, newcomer := range answer.Ranking {
		if _, already := told[newcomer.Name]; already {
			continue
		}
		if told == nil {
			told = map[string]Spell{}
		}
		told[newcomer.Name] = Spell{Start: slot.At.Unix(), Last: slot.At.Unix()}
		occurrences = append(occurrences, Occurrence{
			Transition: Fired, Anchor: "value/" + newcomer.Name, Value: float64(newcomer.Visitors), Threshold: threshold, Window: window, Late: isLate,
			Group:       &Group{Dimension: c.Dimension, Value: newcomer.Name, More: answer.More},
			Explanation: fmt.Sprintf("%s was never seen before and brought %s in %s.", newcomer.Name, count(float64(newcomer.Visitors), "visitor"), describe(window.To.Sub(window.From))),
		})
	}
	if len(told) == 0 {
		told = nil
	}
	highest := 0.0
	if len(answer.Ranking) > 0 {
		highest = float64(answer.Ranking[0].Visitors)
	}
	state.Machine.Told, state.LastSlot, state.Value, state.Threshold = told, slot.At, &highest, &threshold
	if len(occurrences) == 0 {
		return state.enter(StatusOK, slot.At, fmt.Sprintf("No further new %s brought %s.", c.Dimension, count(threshold, "visitor"))), nil
	}
	state.LastFiredAt = slot.At
	return state.enter(StatusOK, slot.At, occurrences[0].Explanation), occurrences
}
