package evaluator

import (
	"math"
	"slices"
	"time"
	"unique"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// standing is a trigger's state in a quarter of the memory: those of all triggers are held at all times. A
// state that was packed is unpacked as it was, to the microsecond, as Postgres has it too.
type standing struct {
	value, threshold       float64          // NaN: none
	since, last, lastFired int64            // in microseconds since 1970
	explanation            string           //
	machine                *trigger.Machine // of which nothing is changed; nil: an empty one
	revision               int32
	status                 uint8 // its place in resultStatuses
	deferred               bool  // its newest number waits for its turn to be written
}

// never is the time of what has not happened.
var never = time.Time{}.UnixMicro()

var emptyMachine = new(trigger.Machine)

// packed shares with the state before what did not change.
func packed(state trigger.State, before *standing) standing {
	s := standing{
		value: orNaN(state.Value), threshold: orNaN(state.Threshold),
		since: state.Since.UnixMicro(), last: state.LastSlot.UnixMicro(), lastFired: state.LastFiredAt.UnixMicro(),
		revision: int32(state.Revision), status: uint8(max(0, slices.Index(resultStatuses, state.Status))),
	}
	if before != nil && before.explanation == state.Explanation {
		s.explanation = before.explanation
	} else {
		s.explanation = unique.Make(state.Explanation).Value() // quiet sites have the same to say
	}
	switch {
	case before != nil && before.machine != nil && before.machine.Equal(&state.Machine):
		s.machine = before.machine
	case !state.Machine.Equal(emptyMachine):
		machine := state.Machine
		s.machine = &machine
	}
	return s
}

func orNaN(number *float64) float64 {
	if number == nil {
		return math.NaN()
	}
	return *number
}

func (s *standing) unpacked() trigger.State {
	state := trigger.State{
		Revision: int(s.revision), Status: resultStatuses[s.status], Since: time.UnixMicro(s.since).UTC(), LastSlot: time.UnixMicro(s.last).UTC(),
		LastFiredAt: time.UnixMicro(s.lastFired).UTC(), Explanation: s.explanation,
	}
	if !math.IsNaN(s.value) {
		state.Value = &s.value
	}
	if !math.IsNaN(s.threshold) {
		state.Threshold = &s.threshold
	}
	if s.machine != nil {
		state.Machine = *s.machine
	}
	return state
}

// passed tells that the trigger was stepped up to a slot, although nothing of it changed then. Only what was
// evaluated was stepped.
func (s *standing) passed(slot time.Time) {
	if resultStatuses[s.status] != trigger.StatusError {
		s.last = max(s.last, slot.UnixMicro())
	}
}

// moved tells whether more than the number and its explanation changed.
func (s *standing) moved(next standing) bool {
	return s.revision != next.revision || s.status != next.status || s.since != next.since || s.lastFired != next.lastFired || s.machine != next.machine
}

// shows tells whether the number and its explanation are the same.
func (s *standing) shows(next standing) bool {
	return sameNumber(s.value, next.value) && sameNumber(s.threshold, next.threshold) && s.explanation == next.explanation
}

// onlyPassed tells whether nothing but the slot itself is new.
func (s *standing) onlyPassed(next standing, slot time.Time) bool {
	return !s.deferred && next.last == slot.UnixMicro() && !s.moved(next) && s.shows(next)
}

func sameNumber(x, y float64) bool { return x == y || math.IsNaN(x) && math.IsNaN(y) }

// standings are states that are kept until the next slot begins: in blocks, so that they stay where they are.
type standings struct {
	blocks []*[standingsBlock]standing
	used   int // of all blocks
}

const standingsBlock = 512

func (s *standings) keep(state standing) *standing {
	if s.used == len(s.blocks)*standingsBlock {
		s.blocks = append(s.blocks, new([standingsBlock]standing))
	}
	kept := &s.blocks[s.used/standingsBlock][s.used%standingsBlock]
	s.used++
	*kept = state
	return kept
}

// begin forgets all states, and keeps as many blocks as they needed: the first slot needs the most.
func (s *standings) begin() {
	s.blocks = slices.Delete(s.blocks, (s.used+standingsBlock-1)/standingsBlock, len(s.blocks))
	for _, block := range s.blocks {
		clear(block[:])
	}
	s.used = 0
}
