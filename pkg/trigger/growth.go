package trigger

import "time"

// Overlap is how late an event's row may become visible and still be counted, exactly once: every
// slot reads the buckets of this long again.
const Overlap = 2 * time.Minute

// LongestCatchUp bounds how far back facts are looked for after the evaluator was away.
const LongestCatchUp = 24 * time.Hour

// unsettled is the span whose events are not certain to be counted: since the last slot or the
// revision's birth, and the overlap before it, in which rows may have become visible late.
func (s Setting) unsettled(state State, slot Slot) Window {
	from := s.RevisedAt.Truncate(time.Second)
	if settled := state.LastSlot.Add(-Overlap); !state.LastSlot.IsZero() && settled.After(from) {
		from = settled
	}
	if oldest := slot.At.Add(-LongestCatchUp); oldest.After(from) {
		from = oldest
	}
	return s.since(slot, from)
}

// late tells whether the slot finds facts that are older than they would be in steady operation.
func late(state State, slot Slot) bool {
	return !state.LastSlot.IsZero() && slot.At.Sub(state.LastSlot) > Overlap
}
