// Package trigger is what api and evaluator must agree on about triggers: the types,
// their configuration with its JSON Schema and validation, what each asks of a slot, and the
// pure step functions that decide when one fires. It also holds the firing and the message that
// come of it.
//
// The road through a type: declare reads its config, Ask says what it must know of a slot, the
// evaluator answers all triggers' questions together, and Step makes of the answers the next
// state and what must be told. A step reads no clock and does no I/O, so that replicas agree,
// tests replay and previews equal production. No driver and no server is imported here.
package trigger

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// Type names a kind of condition, as in the contract.
type Type string

// registry has one line for each type. Each has a file of its own with its configuration, its
// questions and its step.
var registry = map[Type]kind{
	GoalAchievedType:      {func() Config { return &GoalAchieved{} }, "A goal is reached: every conversion, or so many in a while."},
	VisitorSpikeType:      {func() Config { return &VisitorSpike{} }, "Unusually many visitors are on the site."},
	VisitorDropType:       {func() Config { return &VisitorDrop{} }, "Visitors stay away."},
	PageviewMilestoneType: {func() Config { return &PageviewMilestone{} }, "The number of page views passes a round number."},
	MetricThresholdType:   {func() Config { return &MetricThreshold{} }, "A metric crosses a limit."},
	MetricChangeType:      {func() Config { return &MetricChange{} }, "A metric differs from what it was before, or from what it usually is."},
	TrackingSilenceType:   {func() Config { return &TrackingSilence{} }, "No events arrive although some are expected: the tracking may be broken."},
	GoalSilenceType:       {func() Config { return &GoalSilence{} }, "Visitors come as always, but nobody reaches the goal."},
	NewSourceType:         {func() Config { return &NewSource{} }, "A source, country, campaign or page that was never seen before brings visitors."},
	NotFoundBurstType:     {func() Config { return &NotFoundBurst{} }, "Many visitors run into pages that do not exist."},
}

type kind struct {
	make  func() Config
	about string
}

// Config is the condition of one trigger: parsed, complete with its defaults, and valid.
// Marshalled, it is the canonical form that is stored.
type Config interface {
	// declare reads the fields, and refuses what they must not be together.
	declare(f *fields)
	// Title says in a few words what the trigger waits for; goal is the name of its goal.
	Title(goal string) string
	// Every is how often the condition is worth looking at; 0 is every slot.
	Every() time.Duration
	// Ask is what the step must know of the slot.
	Ask(setting Setting, state State, slot Slot) []Question
	// Step decides what the slot means for the trigger, with the answers to what it asked. It must
	// be called with increasing slots; a slot may be left out.
	Step(setting Setting, state State, sample Sample, slot Slot) (State, []Occurrence)
}

// Options are the settings that every trigger has besides its condition.
type Options struct {
	Cooldown       time.Duration // no new episode is announced for so long after the last firing
	NotifyResolved bool          // an announced episode's end is a firing too
	Filters        Filters       // only events that pass them count
}

// Trigger is a condition on a site's analytics, belonging to one webhook.
type Trigger struct {
	ID        string
	WebhookID string
	SiteID    int64
	Type      Type
	Name      string
	Config    Config
	Options   Options
	Revision  int       // raised when the condition changes; a new revision starts a new state
	RevisedAt time.Time // events before it are none of this revision's
}

// Types lists the known trigger types in alphabetical order.
func Types() []Type {
	types := make([]Type, 0, len(registry))
	for t := range registry {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

// About says in one sentence when a type fires.
func About(t Type) string { return registry[t].about }

// SchemaOf is the JSON Schema of a known type's config. What only several fields together can
// violate is not in it: Parse tells that. Nor is null, which Parse takes for a field not given.
func SchemaOf(t Type) *Schema {
	f := &fields{schema: objectSchema()}
	f.schema.Description = registry[t].about
	registry[t].make().declare(f)
	return f.schema
}

// Parse reads a type's configuration, fills in the defaults, and reports every problem at
// once with fields that start at "config". The Config is usable only without problems.
func Parse(t Type, raw json.RawMessage) (Config, []strict.Problem) {
	return ParsePatched(t, raw, nil)
}

// ParsePatched is Parse for a stored configuration that a patch was merged into. Stored is the
// canonical form, with defaults that nobody wrote, so what the patch says goes first: a stored field
// that means nothing beside it is left out, where a written one is refused.
func ParsePatched(t Type, raw, patch json.RawMessage) (Config, []strict.Problem) {
	k, known := registry[t]
	if !known {
		names := make([]string, 0, len(registry))
		for _, name := range Types() {
			names = append(names, string(name))
		}
		return nil, []strict.Problem{{Field: "type", Message: "must be one of " + strings.Join(names, ", ")}}
	}
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	var problems []strict.Problem
	f := &fields{object: strict.ReadPatched("config", raw, patch, &problems)}
	config := k.make()
	config.declare(f)
	f.object.End()
	return config, problems
}

// The shortest and the longest window, in seconds.
const (
	shortestWindow = 60
	longestWindow  = 24 * 60 * 60
)

func (f *fields) window(fallback int64) int64 {
	return f.integer("window_seconds", "Length of the window that is looked at, which ends now.", fallback, shortestWindow, longestWindow)
}

// every is how often a window of so many seconds is worth looking at: long ones change slowly.
func every(windowSeconds int64) time.Duration {
	switch {
	case windowSeconds > 2*3600:
		return 5 * time.Minute
	case windowSeconds > 15*60:
		return time.Minute
	}
	return 0
}
