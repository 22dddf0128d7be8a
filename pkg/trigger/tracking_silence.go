package trigger

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// TrackingSilenceType is the type of TrackingSilence.
const TrackingSilenceType Type = "tracking_silence"

// TrackingSilence fires when a site that had events has none for so many minutes, or, with
// "auto", for so long that it is improbable at these hours of its week.
type TrackingSilence struct {
	Minutes     Minutes     `json:"minutes"`
	Sensitivity sensitivity `json:"sensitivity,omitempty"` // of "auto"
	Hold
}

// Minutes is a number of minutes, or 0 for "auto".
type Minutes int64

// MarshalJSON implements json.Marshaler.
func (m Minutes) MarshalJSON() ([]byte, error) {
	if m == 0 {
		return []byte(`"auto"`), nil
	}
	return json.Marshal(int64(m))
}

func (c *TrackingSilence) declare(f *fields) {
	const longest = 24 * 60
	f.describe("minutes", Schema{Description: "After how many minutes without events to fire, or \"auto\" for what is improbable for the site.", Default: "auto", AnyOf: []Schema{
		{Type: "string", Enum: []string{"auto"}}, {Type: "integer", Minimum: pointer(1.0), Maximum: pointer(float64(longest))}}})
	if f.object != nil {
		if raw, given := f.object.Take("minutes"); given && string(raw) != `"auto"` {
			var n int64
			if json.Unmarshal(raw, &n) != nil || n < 1 || n > longest {
				f.refuse("minutes", `must be "auto" or a whole number from 1 to %d`, longest)
			}
			c.Minutes = Minutes(n)
		}
	}
	c.Sensitivity = f.sensitivity("How readily to fire with \"auto\".", false)
	if c.Minutes != 0 {
		f.exclude("sensitivity", `belongs to "minutes": "auto"`)
		c.Sensitivity = sensitivityOff
	}
	c.Hold.declare(f)
}

// Title implements Config.
func (c *TrackingSilence) Title(string) string {
	if c.Minutes == 0 {
		return "Tracking silent for unusually long"
	}
	return fmt.Sprintf("Tracking silent for %s", span(int64(c.Minutes)*60))
}

// Every implements Config.
func (c *TrackingSilence) Every() time.Duration { return 0 }

// usualVisitors is the window of the norm that a silence is judged by.
const usualVisitors = 5 * 60

// Ask implements Config.
func (c *TrackingSilence) Ask(s Setting, state State, slot Slot) []Question {
	questions := []Question{{Ask: AskLast, Metric: Events, Filters: s.Filters, Window: s.lately(state, slot)}}
	if c.Minutes == 0 {
		questions = append(questions, s.norm(Visitors, slot, usualVisitors))
	}
	return questions
}

// lookedAgain is how late a row may become visible and still end a silence.
const lookedAgain = time.Hour

// lately is the span in which an event may be that is newer than the newest one known: at first as far
// back as is looked at all.
func (s Setting) lately(state State, slot Slot) Window {
	window := s.sinceLast(state, slot)
	if seen := state.LastSlot.Add(-lookedAgain); seen.After(window.From) {
		window.From = seen
	}
	return window
}

// sinceLast is the span since the newest event known, or as far back as is looked.
func (s Setting) sinceLast(state State, slot Slot) Window {
	from := slot.At.Add(-longestWindow * time.Second)
	if state.Machine.Last.After(from) {
		from = state.Machine.Last
	}
	return s.since(slot, from)
}

// Step implements Config.
func (c *TrackingSilence) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	// The machine's own knowledge is coarse, so that it is not written with every event.
	last := state.Machine.Last
	if seen := sample.Answers[0].Last; seen.After(last) {
		if seen.Sub(last) >= time.Minute || slot.At.Sub(seen) >= time.Minute {
			state.Machine.Last = seen
		}
		last = seen
	}
	if last.Before(s.StatsFrom) || last.IsZero() {
		return c.step(s, state, reading{standing: unknown, says: "The site had no events in the last 24 hours that could cease"}, slot)
	}
	began := latest(last, sample.Sighted)
	silent := slot.At.Sub(began)
	r := reading{low: true, window: Window{From: last, To: slot.At}, value: silent.Minutes()}
	limit := seconds(int64(c.Minutes) * 60)
	if c.Minutes == 0 {
		var known bool
		if limit, known = c.improbable(sample.Answers[1].Norm, s, began); !known {
			return c.step(s, state, reading{standing: unknown, says: "The history is too short to know how long the site is silent usually"}, slot)
		}
	}
	r.threshold = math.Round(limit.Minutes()*10) / 10
	r.says = fmt.Sprintf("No event for %s, of %s that are too long", describe(silent.Truncate(time.Minute)), describe(limit.Truncate(time.Minute)))
	if silent >= limit {
		r.standing = breach
	}
	return c.step(s, state, r.evident(s, sample).longer(), slot)
}

// longer is a reading whose value grows while the condition holds.
func (r reading) longer() reading {
	r.low = false
	return r
}

// longestSilence bounds how far ahead an improbable silence is looked for.
const longestSilence = 7 * 24 * time.Hour

// shortestSilence is the least that "auto" waits for, whatever the site's traffic.
const shortestSilence = 5 * time.Minute

// improbable is for how long a silence that began at last must go on until it is too improbable:
// the probabilities of no visitor in each 5 minutes multiply, hour by hour.
func (c *TrackingSilence) improbable(norm *Norm, s Setting, last time.Time) (time.Duration, bool) {
	remaining := c.Sensitivity.logProbability()
	at := last
	for at.Sub(last) < longestSilence {
		usual, known := norm.usual(at, s.zone())
		if !known {
			return 0, false
		}
		next := at.Truncate(time.Hour).Add(time.Hour)
		perSecond := usual.logNone() / usualVisitors
		if hour := perSecond * next.Sub(at).Seconds(); hour > remaining {
			remaining -= hour
			at = next
			continue
		}
		at = at.Add(time.Duration(remaining / perSecond * float64(time.Second)))
		break
	}
	return max(at.Sub(last), shortestSilence), true
}
