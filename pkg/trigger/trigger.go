// Package trigger is what api and evaluator must agree on about triggers: the types,
// their configuration and its validation, and the pure step functions that decide when
// one fires. It also holds the firing and the message that come of it.
//
// A step is a pure function of (options, config, state, sample, slot): it reads no clock
// and does no I/O, so that replicas agree, tests replay and previews equal production.
// No driver and no server is imported here.
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

// The trigger types. Each has a file of its own with its configuration and its step.
const (
	GoalAchievedType Type = "goal_achieved"
	VisitorSpikeType Type = "visitor_spike"
)

// registry has one line for each type.
var registry = map[Type]func(*strict.Object) Config{
	GoalAchievedType: parseGoalAchieved,
	VisitorSpikeType: parseVisitorSpike,
}

// Config is the condition of one trigger: parsed, complete with its defaults, and valid.
// Marshalled, it is the canonical form that is stored.
type Config interface {
	// Step decides what the slot means for the trigger. It must be called with the samples
	// of increasing slots; a slot may be left out.
	Step(options Options, state State, sample Sample, slot time.Time) (State, []Occurrence)
}

// Options are the settings that every trigger has besides its condition.
type Options struct {
	Cooldown       time.Duration // no new episode is announced for so long after the last firing
	NotifyResolved bool          // an announced episode's end is a firing too
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

// Parse reads a type's configuration, fills in the defaults, and reports every problem at
// once with fields that start at "config". The Config is usable only without problems.
func Parse(t Type, raw json.RawMessage) (Config, []strict.Problem) {
	parse, known := registry[t]
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
	o := strict.Read("config", raw, &problems)
	config := parse(o)
	o.End()
	return config, problems
}
