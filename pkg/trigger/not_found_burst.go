package trigger

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// NotFoundBurstType is the type of NotFoundBurst.
const NotFoundBurstType Type = "not_found_burst"

// NotFoundBurst fires for each path that so many events of pages not found are about. The site
// must send such events, as Plausible documents for the name 404.
type NotFoundBurst struct {
	EventName     string `json:"event_name"`
	Threshold     int64  `json:"threshold"`
	WindowSeconds int64  `json:"window_seconds"`
}

func (c *NotFoundBurst) declare(f *fields) {
	c.EventName = f.text("event_name", "Name of the event that the site sends for a page that does not exist.", "404", 120)
	c.Threshold = f.integer("threshold", "How many events one path must have in the window.", 10, 1, 1e9)
	c.WindowSeconds = f.window(300)
}

// Title implements Config.
func (c *NotFoundBurst) Title(string) string {
	return fmt.Sprintf("Pages not found: %d in %s", c.Threshold, span(c.WindowSeconds))
}

// Every implements Config.
func (c *NotFoundBurst) Every() time.Duration { return every(c.WindowSeconds) }

// Ask implements Config.
func (c *NotFoundBurst) Ask(s Setting, _ State, slot Slot) []Question {
	return []Question{{
		Ask: AskRanking, Metric: Events, Goal: &Goal{EventName: c.EventName}, By: ByPage, Filters: s.Filters, Least: c.Threshold, Window: s.back(slot, c.WindowSeconds),
	}}
}

// mostTold bounds the paths whose episodes last at the same time, and so the state, against a scan of
// a whole site. Further paths are told when some of these have ceased.
const mostTold = 10 * RankingCap

// Step implements Config. A path's episode ends when it was below the threshold for a whole window.
func (c *NotFoundBurst) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	answer, window, threshold := sample.Answers[0], s.back(slot, c.WindowSeconds), float64(c.Threshold)
	state.LastSlot = slot.At
	told := maps.Clone(state.Machine.Told)
	if told == nil {
		told = map[string]Spell{}
	}
	for _, path := range answer.Ranking { // before looking what ended: slots that were missed end nothing
		if spell, lasts := told[path.Name]; lasts {
			told[path.Name] = Spell{Start: spell.Start, Last: slot.At.Unix()}
		}
	}
	occurrences := c.ended(s, told, window, slot)
	for _, path := range answer.Ranking {
		if _, lasts := told[path.Name]; lasts || len(told) >= mostTold {
			continue
		}
		r := c.read(s, path, slot)
		told[path.Name] = Spell{Start: slot.At.Unix(), Last: slot.At.Unix()}
		occurrences = append(occurrences, Occurrence{
			Transition: Fired, Anchor: at(slot.At) + "/" + path.Name, Value: r.value, Threshold: r.threshold, Window: r.window,
			Group:       &Group{Dimension: ByPage, Value: path.Name, More: answer.More},
			Explanation: r.says + ".",
		})
		state.LastFiredAt = slot.At
	}
	highest := 0.0
	if len(answer.Ranking) > 0 {
		highest = float64(answer.Ranking[0].Visitors)
	}
	state.Value, state.Threshold, state.Machine.Told = &highest, &threshold, told
	if len(told) == 0 {
		state.Machine.Told = nil
		return state.enter(StatusOK, slot.At, fmt.Sprintf("No path was not found %s in %s.", count(threshold, "time"), describe(seconds(c.WindowSeconds)))), occurrences
	}
	return state.enter(StatusFiring, slot.At, fmt.Sprintf("%s not found too often; each fires again after it has ceased.", count(float64(len(told)), "path"))), occurrences
}

// read is what a path in the ranking means.
func (c *NotFoundBurst) read(s Setting, path Ranked, slot Slot) reading {
	return reading{
		standing: breach, value: float64(path.Visitors), threshold: float64(c.Threshold), window: s.back(slot, c.WindowSeconds),
		says: fmt.Sprintf("%s was not found %s in %s, the threshold is %d", path.Name, count(float64(path.Visitors), "time"), describe(seconds(c.WindowSeconds)), c.Threshold),
	}
}

// ended removes the paths whose episode is over, and tells it where that is wanted.
func (c *NotFoundBurst) ended(s Setting, told map[string]Spell, window Window, slot Slot) []Occurrence {
	var occurrences []Occurrence
	quiet := max(seconds(c.WindowSeconds), s.Cooldown)
	for _, path := range slices.Sorted(maps.Keys(told)) {
		spell := told[path]
		if slot.At.Unix()-spell.Last < int64(quiet/time.Second) {
			continue
		}
		delete(told, path)
		if s.NotifyResolved {
			occurrences = append(occurrences, Occurrence{
				Transition: Resolved, Anchor: at(time.Unix(spell.Start, 0)) + "/" + path, Threshold: float64(c.Threshold), Window: window,
				Group: &Group{Dimension: ByPage, Value: path}, Explanation: path + " is not asked for in vain any more.",
				Episode: &Episode{Start: time.Unix(spell.Start, 0).UTC(), LastHeld: time.Unix(spell.Last, 0).UTC()},
			})
		}
	}
	return occurrences
}
