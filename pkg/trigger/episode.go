package trigger

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"time"
)

// Hold is what the owner of a condition that lasts decides about its episodes: how long it must
// hold to begin one, how long it must have ceased to end one, and how often one is told.
type Hold struct {
	ForSeconds        int64 `json:"for_seconds,omitempty"`
	MinBreaches       int64 `json:"min_breaches,omitempty"` // of the last OfSlots; 0: one is enough
	OfSlots           int64 `json:"of_slots,omitempty"`
	KeepFiringSeconds int64 `json:"keep_firing_seconds,omitempty"`
	RenotifySeconds   int64 `json:"renotify_seconds,omitempty"`
	MaxRenotify       int64 `json:"max_renotify,omitempty"`
}

func (h *Hold) declare(f *fields) {
	const day = 24 * 60 * 60
	h.ForSeconds = f.integer("for_seconds", "For how long the condition must hold without a break before it fires.", 0, 0, day)
	h.MinBreaches = f.integer("min_breaches", "In how many of the last of_slots evaluations the condition must hold before it fires, instead of for_seconds.", 0, 0, 60)
	h.OfSlots = f.integer("of_slots", "See min_breaches.", 0, 0, 60)
	h.KeepFiringSeconds = f.integer("keep_firing_seconds", "For how long the condition must have ceased to hold before the episode ends.", 0, 0, day)
	h.RenotifySeconds = f.integer("renotify_seconds", "How often to fire again while the condition lasts; 0 is never.", 0, 0, 7*day)
	h.MaxRenotify = f.integer("max_renotify", "How often to fire again at most.", 0, 0, 1000)
	if h.MinBreaches > 0 && h.ForSeconds > 0 {
		if f.kept("min_breaches") {
			h.MinBreaches = 0
		} else {
			f.exclude("for_seconds", "cannot be combined with min_breaches")
			h.ForSeconds = 0
		}
	}
	switch {
	case h.OfSlots < h.MinBreaches:
		f.refuse("of_slots", "must be at least min_breaches")
	case h.MinBreaches == 0 && h.OfSlots > 0:
		f.exclude("of_slots", "needs min_breaches")
		h.OfSlots = 0
	}
	switch {
	case h.RenotifySeconds > 0 && h.RenotifySeconds < 60:
		f.refuse("renotify_seconds", "must be 0 or at least 60")
	case h.RenotifySeconds > 0 && h.MaxRenotify == 0:
		h.MaxRenotify = 10
	case h.RenotifySeconds == 0 && h.MaxRenotify > 0:
		f.exclude("max_renotify", "needs renotify_seconds")
		h.MaxRenotify = 0
	}
}

// reading is what a type makes of its sample: where the value stands.
type reading struct {
	standing  standing
	value     float64
	threshold float64
	low       bool // the condition is that the value is too low, not too high
	baseline  *float64
	window    Window
	says      string // a sentence without its full stop: what was measured, and against what
}

// beyond tells whether the value is further beyond the threshold than another one.
func (r reading) beyond(other float64) bool { return r.value > other != r.low && r.value != other }

type standing uint8

const (
	absent  standing = iota // the condition does not hold
	between                 // between the two thresholds: whatever was, stays
	breach                  // the condition holds
	unknown                 // nothing can be said
)

// Flapping: an episode that begins soon after the last one's end makes episodes end more slowly,
// by half each time, until there was a quiet day.
const (
	flapGap     = 10 * time.Minute // or the cooldown, if that is longer
	flapKeep    = time.Minute      // what the first flap multiplies, where nothing else is configured
	flapFactor  = 1.5
	longestKeep = time.Hour
	quietDay    = 24 * time.Hour
)

// step is the state machine of conditions that last: one firing for each episode, and one at its
// end if that is wanted. An episode that begins within the cooldown is announced when the cooldown
// ends, if the condition still holds, and counted as suppressed if not.
func (h Hold) step(s Setting, state State, r reading, slot Slot) (State, []Occurrence) {
	before := state.LastSlot
	state.LastSlot = slot.At
	if r.standing == unknown {
		if state.Machine.Episode == nil {
			return state.enter(StatusInsufficient, slot.At, r.says+"."), nil
		}
		if state.Status == StatusError { // what could not be evaluated now can be
			state = state.enter(StatusFiring, slot.At, "")
		}
		state.Explanation = r.says + "; the episode goes on."
		return state, nil
	}
	value, threshold := r.value, r.threshold
	state.Value, state.Threshold = &value, &threshold
	state.Machine.note(h, r.standing == breach)
	if state.Machine.Episode == nil {
		if !h.begins(&state, r, slot, before) {
			return state, nil
		}
		state.Machine.begin(s, r, slot.At)
	}
	return h.continues(s, state, r, slot.At)
}

// note remembers whether an evaluated slot breached, where that is asked for.
func (m *Machine) note(h Hold, breaching bool) {
	if h.MinBreaches == 0 {
		return
	}
	m.Breaches <<= 1
	if breaching {
		m.Breaches |= 1
	}
	m.Breaches &= 1<<h.OfSlots - 1
}

// begins tells whether the slot begins an episode, and keeps the run of breaching slots that may
// become one. What was not evaluated does not count towards its length.
func (h Hold) begins(state *State, r reading, slot Slot, before time.Time) bool {
	m := &state.Machine
	if r.standing != breach {
		m.Pending, m.Held = nil, 0
		*state = state.enter(StatusOK, slot.At, r.says+".")
		return false
	}
	if m.Pending == nil {
		first := slot.At
		m.Pending, m.Held = &first, 0
	} else {
		m.Held += min(slot.At.Sub(before), slot.Interval)
	}
	if wanted := seconds(h.ForSeconds); m.Held < wanted {
		*state = state.enter(StatusPending, slot.At, fmt.Sprintf("%s, for %s of %s.", r.says, describe(m.Held), describe(wanted)))
		return false
	}
	if had := int64(bits.OnesCount64(m.Breaches)); had < h.MinBreaches {
		*state = state.enter(StatusPending, slot.At, fmt.Sprintf("%s, in %d of the last %d evaluations; %d are needed.", r.says, had, h.OfSlots, h.MinBreaches))
		return false
	}
	return true
}

func (m *Machine) begin(s Setting, r reading, slot time.Time) {
	e := Episode{Start: *m.Pending, Peak: r.value, PeakAt: slot}
	if !m.Ended.IsZero() {
		switch since := e.Start.Sub(m.Ended); {
		case since < max(flapGap, s.Cooldown):
			m.Flaps, e.Flapping = m.Flaps+1, true
		case since >= quietDay:
			m.Flaps = 0
		}
	}
	m.Pending, m.Held, m.Episode = nil, 0, &e
}

// keep is how long the condition must have ceased before the episode ends.
func (h Hold) keep(flaps int) time.Duration {
	keep := seconds(h.KeepFiringSeconds)
	if flaps == 0 {
		return keep
	}
	grown := time.Duration(float64(max(keep, flapKeep)) * math.Pow(flapFactor, float64(min(flaps, 20))))
	return max(keep, min(grown.Truncate(time.Second), longestKeep))
}

// continues takes the running episode through a slot.
func (h Hold) continues(s Setting, state State, r reading, slot time.Time) (State, []Occurrence) {
	running := *state.Machine.Episode // a copy: the caller's state stays as it is
	e := &running
	state.Machine.Episode = e
	if r.standing == absent {
		if until := e.LastHeld.Add(h.keep(state.Machine.Flaps)); slot.Before(until) {
			return state.enter(StatusRecovering, slot, fmt.Sprintf("%s; the episode ends if that lasts until %s.", r.says, until.UTC().Format(time.RFC3339))), nil
		}
		return h.end(s, state, r, slot)
	}
	e.LastHeld = slot
	if r.beyond(e.Peak) {
		e.Peak, e.PeakAt = r.value, slot
	}
	state = state.enter(StatusFiring, slot, r.says+"; it fires again after it has ceased.")
	if r.standing == between {
		return state, nil
	}
	occurrence := Occurrence{
		Transition: Fired, Anchor: at(e.Start), Value: r.value, Threshold: r.threshold, Baseline: r.baseline, Window: r.window,
		Explanation: r.says + ".", Flapping: e.Flapping,
	}
	if e.Announced.IsZero() {
		if quietUntil := state.LastFiredAt.Add(s.Cooldown); !state.LastFiredAt.IsZero() && slot.Before(quietUntil) {
			state.Explanation = fmt.Sprintf("%s, but the cooldown lasts until %s.", r.says, quietUntil.UTC().Format(time.RFC3339))
			return state, nil
		}
		e.Announced, state.LastFiredAt = slot, slot
		occurrence.Suppressed, state.Machine.Suppressed = state.Machine.Suppressed, 0
		return state, []Occurrence{occurrence}
	}
	if h.RenotifySeconds == 0 {
		return state, nil
	}
	due := min(int(slot.Sub(e.Announced)/seconds(h.RenotifySeconds)), int(h.MaxRenotify))
	if due <= e.Renotified {
		return state, nil
	}
	e.Renotified, state.LastFiredAt = due, slot
	occurrence.Renotified = due
	occurrence.Anchor += "/" + strconv.Itoa(due)
	return state, []Occurrence{occurrence}
}

func (h Hold) end(s Setting, state State, r reading, slot time.Time) (State, []Occurrence) {
	ended := state.Machine.Episode
	state.Machine.Episode, state.Machine.Ended = nil, slot
	state = state.enter(StatusOK, slot, r.says+".")
	if ended.Announced.IsZero() {
		state.Machine.Suppressed++
		return state, nil
	}
	if !s.NotifyResolved {
		return state, nil
	}
	return state, []Occurrence{{
		Transition: Resolved, Anchor: at(ended.Start), Value: r.value, Threshold: r.threshold, Baseline: r.baseline, Window: r.window,
		Explanation: r.says + ".", Flapping: ended.Flapping, Episode: ended,
	}}
}

// evident is the reading without what cannot be concluded: a low number is no evidence where
// ingestion itself was silent, or where the owner's reset cut the window short.
func (r reading) evident(s Setting, sample Sample) reading {
	if !r.low || r.standing == absent {
		return r
	}
	switch {
	case sample.Blind:
		r.standing, r.says = unknown, "Ingestion was silent for all sites within the window, so nothing low can be concluded"
	case !s.StatsFrom.IsZero() && r.window.From.Equal(s.StatsFrom):
		r.standing, r.says = unknown, "The stats begin within the window, so nothing low can be concluded"
	}
	return r
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func count(n float64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return decimal(n) + " " + noun + "s"
}

// decimal is a number as people write it, with at most two decimals.
func decimal(n float64) string {
	return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64)
}

// describe says a span in the largest unit that keeps it whole: "5 minutes", "90 seconds".
func describe(span time.Duration) string {
	for _, unit := range []struct {
		size time.Duration
		noun string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if span >= unit.size && span%unit.size == 0 {
			return count(float64(span/unit.size), unit.noun)
		}
	}
	return count(float64(span/time.Second), "second")
}
