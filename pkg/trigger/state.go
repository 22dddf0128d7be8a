package trigger

import (
	"time"
)

// Status is where a trigger stands, as the API shows it.
type Status string

// The statuses that the present types reach; the contract names those of the others.
const (
	StatusOK     Status = "ok"
	StatusFiring Status = "firing"
	StatusError  Status = "error"
)

// State is what a trigger carries from slot to slot.
type State struct {
	Revision    int
	Status      Status
	Value       *float64 // the newest sample's number; nil before the first
	Threshold   *float64 // what it is held against; nil where the type has none
	Since       time.Time
	LastSlot    time.Time // the newest slot stepped; zero before the first
	LastFiredAt time.Time // zero: never
	Explanation string    // one sentence: why it has, or has not, fired
	Machine     Machine
}

// Machine is the part of a state that only the step functions read.
type Machine struct {
	Episode    *Episode `json:"episode,omitempty"`
	Suppressed int      `json:"suppressed,omitempty"` // episodes that the cooldown kept quiet since the last firing
	Counted    []Bucket `json:"counted,omitempty"`    // conversions already in a firing, within the overlap
}

// Episode is an unbroken run of slots in which the condition holds.
type Episode struct {
	Start     time.Time `json:"start"`     // the first breaching slot: the anchor of the firing's id
	Announced bool      `json:"announced"` // a firing was made of it
	Peak      float64   `json:"peak"`
	PeakAt    time.Time `json:"peak_at"`
}

// NewState is the state of a revision that was never stepped.
func NewState(revision int, revisedAt time.Time) State {
	return State{Revision: revision, Status: StatusOK, Since: revisedAt, Explanation: "Not evaluated yet."}
}

// Failed is the state with its health turned to error: what was known is kept, and the next
// step goes on from it.
func (s State) Failed(slot time.Time, explanation string) State {
	if s.Status != StatusError {
		s.Since = slot
	}
	s.Status, s.Explanation = StatusError, explanation
	return s
}

func (s State) enter(status Status, slot time.Time) State {
	if s.Status != status {
		s.Status, s.Since = status, slot
	}
	return s
}

// Window is a span of time, half-open: From belongs to it, To does not.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Sample is what was measured for one trigger and one slot.
type Sample struct {
	Window  Window
	Value   int64    // the window's number: visitors or conversions
	Buckets []Bucket // mode "each": conversions by the bucket of their time, only those with any
}

// Bucket is the conversions of one slot interval.
type Bucket struct {
	Start        time.Time `json:"start"`
	Count        int64     `json:"count"`
	Fingerprints []uint64  `json:"fingerprints,omitempty"` // of up to FingerprintCap of its conversions
}

// FingerprintCap is how many conversions of a bucket are told apart. A firing lists up to 10;
// beyond the cap the number stays exact and only the listed examples may repeat.
const FingerprintCap = 64

// Transition says whether a condition became true or stopped being so.
type Transition string

// The two transitions; they are the last part of a message's type.
const (
	Fired    Transition = "fired"
	Resolved Transition = "resolved"
)

// Occurrence is a step's finding that something must be told. With the trigger and the
// context of its window it becomes a firing.
type Occurrence struct {
	Transition   Transition
	Anchor       time.Time // the fact that the firing's id is derived from
	Value        float64
	Threshold    float64
	Window       Window
	Late         bool     // the facts are older than usual: the evaluator was away
	Suppressed   int      // episodes that the cooldown kept quiet before this one
	Fingerprints []uint64 // mode "each": which conversions are new
	Episode      *Episode // resolved: the episode that ended
}
