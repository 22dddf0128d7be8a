package trigger

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// Status is where a trigger stands, as the API shows it.
type Status string

// The statuses.
const (
	StatusOK           Status = "ok"
	StatusPending      Status = "pending"           // the condition holds, but not for long enough
	StatusFiring       Status = "firing"            //
	StatusRecovering   Status = "recovering"        // it has ceased to hold, but not for long enough
	StatusInsufficient Status = "insufficient_data" // nothing can be said
	StatusError        Status = "error"             // the trigger cannot be evaluated
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
	// Of conditions that last: see Hold.
	Pending    *time.Time    `json:"pending,omitempty"`    // the first breaching slot of a run that is not an episode yet
	Held       time.Duration `json:"held,omitempty"`       // how long that run lasts, without what was not evaluated
	Breaches   uint64        `json:"breaches,omitempty"`   // the last 64 evaluated slots, the newest in bit 0: breaching or not
	Episode    *Episode      `json:"episode,omitempty"`    // the running one
	Ended      time.Time     `json:"ended,omitzero"`       // the last one's end
	Flaps      int           `json:"flaps,omitempty"`      // how often in a row an episode began soon after the last one
	Suppressed int           `json:"suppressed,omitempty"` // episodes that the cooldown kept quiet since the last firing
	Armed      bool          `json:"armed,omitempty"`      // the site was seen alive: only then can it fall silent

	// Of facts.
	Counted  []Bucket         `json:"counted,omitempty"`  // conversions already in a firing, within the overlap
	Counters []Counter        `json:"counters,omitempty"` // page views of the present period, and of the last one while rows of it may be late
	Told     map[string]Spell `json:"told,omitempty"`     // values that fired
	Last     time.Time        `json:"last,omitzero"`      // the newest event known
}

// Equal tells whether a step would do the same with the other machine. All states are compared after each
// slot; by reflection that took half as long as the steps.
func (m *Machine) Equal(other *Machine) bool {
	return equalAt(m.Pending, other.Pending, time.Time.Equal) && m.Held == other.Held && m.Breaches == other.Breaches &&
		equalAt(m.Episode, other.Episode, Episode.equal) && m.Ended.Equal(other.Ended) && m.Flaps == other.Flaps &&
		m.Suppressed == other.Suppressed && m.Armed == other.Armed &&
		slices.EqualFunc(m.Counted, other.Counted, Bucket.equal) && slices.EqualFunc(m.Counters, other.Counters, Counter.equal) &&
		maps.Equal(m.Told, other.Told) && m.Last.Equal(other.Last)
}

func equalAt[T any](a, b *T, equal func(a, b T) bool) bool {
	return a == b || a != nil && b != nil && equal(*a, *b)
}

func (b Bucket) equal(other Bucket) bool {
	return b.Start.Equal(other.Start) && b.Count == other.Count && slices.Equal(b.Fingerprints, other.Fingerprints)
}

func (c Counter) equal(other Counter) bool {
	return c.Period.Equal(other.Period) && c.Total == other.Total && c.Upto.Equal(other.Upto) && c.Passed == other.Passed
}

func (e Episode) equal(other Episode) bool {
	return e.Start.Equal(other.Start) && e.Announced.Equal(other.Announced) && e.Renotified == other.Renotified &&
		e.LastHeld.Equal(other.LastHeld) && e.Peak == other.Peak && e.PeakAt.Equal(other.PeakAt) && e.Flapping == other.Flapping
}

// Spell is since when and until when a value was told, in Unix seconds.
type Spell struct {
	Start int64 `json:"start"`
	Last  int64 `json:"last"`
}

// Episode is an unbroken run of slots in which the condition holds.
type Episode struct {
	Start      time.Time `json:"start"`                // the first breaching slot: the anchor of the firing's id
	Announced  time.Time `json:"announced,omitzero"`   // when a firing was made of it; zero: the cooldown kept it quiet
	Renotified int       `json:"renotified,omitempty"` // how often it was told again
	LastHeld   time.Time `json:"last_held"`            // the newest slot that was not clear
	Peak       float64   `json:"peak"`                 // the value furthest beyond the threshold
	PeakAt     time.Time `json:"peak_at"`
	Flapping   bool      `json:"flapping,omitempty"`
}

// NewState is the state of a revision that was never stepped.
func NewState(revision int, revisedAt time.Time) State {
	return State{Revision: revision, Status: StatusOK, Since: revisedAt, Explanation: "Not evaluated yet."}
}

// Failed is the state with its health turned to error: what was known is kept, and the next
// step goes on from it.
func (s State) Failed(slot time.Time, explanation string) State {
	return s.enter(StatusError, slot, explanation)
}

// Frozen is the state kept as it is through a slot of which nothing can be said.
func (s State) Frozen(slot Slot, explanation string) State {
	s.LastSlot, s.Explanation = slot.At, explanation
	return s
}

func (s State) enter(status Status, slot time.Time, explanation string) State {
	if s.Status != status {
		s.Status, s.Since = status, slot
	}
	s.Explanation = explanation
	return s
}

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
	Transition Transition
	// Anchor is the fact that the firing's id is derived from: the first slot of an episode, a
	// milestone, a value. Never a measured number, which late rows change.
	Anchor       string
	Value        float64
	Threshold    float64
	Window       Window
	Explanation  string
	Baseline     *float64 // what was expected, where the type compares
	Late         bool     // the facts are older than usual: the evaluator was away
	Missed       bool     // the whole Episode is: it began and ended while the evaluator was away
	Suppressed   int      // episodes that the cooldown kept quiet before this one
	Flapping     bool     // the condition comes and goes
	Renotified   int      // the how-manieth reminder of an episode that lasts; 0: the first message
	Group        *Group   // of types that look at values one by one
	Next         *Next    // of milestones
	Fingerprints []uint64 // mode "each": which conversions are new
	Episode      *Episode // of resolved and missed: the one that is over
}

// Group is the value of a dimension that a firing is about.
type Group struct {
	Dimension Dimension `json:"dimension"`
	Value     string    `json:"value"`
	More      int       `json:"more,omitempty"` // further values beyond the most that are looked at
}

// Next is the milestone after the one that was passed.
type Next struct {
	Milestone int64      `json:"milestone"`
	ETA       *time.Time `json:"eta,omitempty"` // by the rate of the usual week; only with three days of history
}

// at is the anchor of what is identified by an instant.
func at(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
