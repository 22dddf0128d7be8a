package trigger

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Goal names a goal of the site by its Plausible id, or describes what counts as a conversion.
type Goal struct {
	ID              int64             `json:"goal_id,omitempty"`
	EventName       string            `json:"event_name,omitempty"`
	PagePath        string            `json:"page_path,omitempty"` // may contain * wildcards
	ScrollThreshold *int              `json:"scroll_threshold,omitempty"`
	CustomProps     map[string]string `json:"custom_props,omitempty"`
}

// Scroll tells whether conversions are pages read down to a depth. Such a page sends several
// engagement rows, so a conversion is then a session, not a row.
func (g Goal) Scroll() bool { return g.ScrollThreshold != nil }

// hasGoal is a config that needs one.
type hasGoal interface{ goal() *Goal }

// GoalOf is the goal that a config names; nil if it has none.
func GoalOf(c Config) *Goal {
	if with, ok := c.(hasGoal); ok {
		return with.goal()
	}
	return nil
}

// goal declares the field of that name.
func (f *fields) goal(required bool) *Goal {
	about := `What counts as a conversion: {"goal_id": …} names a goal of the site, {"event_name": …}, {"page_path": …} and {"page_path": …, "scroll_threshold": …} describe one.`
	inner := &fields{}
	if f.schema != nil {
		inner.schema = objectSchema()
		inner.schema.Description = about
		f.describe("goal", Schema{})
		f.schema.Properties.schemas[len(f.schema.Properties.schemas)-1] = inner.schema
		if required {
			f.schema.Required = append(f.schema.Required, "goal")
		}
	}
	if f.object != nil {
		raw, given := f.object.Take("goal")
		if !given && !required {
			return nil
		}
		if !given {
			f.refuse("goal", `is required: {"goal_id": …}, {"event_name": …}, {"page_path": …} or {"page_path": …, "scroll_threshold": …}`)
			return &Goal{}
		}
		inner.object = f.object.Inner("goal", raw)
	}
	g := declareGoal(inner)
	return &g
}

// goalForms are the fields of which a goal has exactly one.
var goalForms = []string{"goal_id", "event_name", "page_path"}

func declareGoal(f *fields) Goal {
	written := func(name string) bool { return f.given(name) && !f.kept(name) }
	if slices.ContainsFunc(goalForms, written) && slices.ContainsFunc(goalForms, f.kept) {
		f.object.Forget() // a patch to another goal: nothing of the stored one belongs to it
	}
	g := Goal{
		ID:        f.integer("goal_id", "Id of a goal in Plausible.", 0, 1, 1<<62),
		EventName: strings.TrimSpace(f.text("event_name", "Name of a custom event.", "", 120)),
		PagePath:  f.text("page_path", "Path of a page; * stands for any characters.", "", 2000),
	}
	depth := f.integer("scroll_threshold", "Per cent of the page that must have been read.", -1, 0, 100)
	if f.given("scroll_threshold") {
		g.ScrollThreshold = pointer(int(depth))
	}
	f.describe("custom_props", Schema{Type: "object", Description: "Properties that the event must have.", MaxProperties: 3, AdditionalProperties: &Schema{Type: "string", MaxLength: 2000}})
	if f.object == nil {
		return g
	}
	g.CustomProps = f.object.Texts("custom_props", 3, 300, 2000) // Plausible's own limits
	f.object.End()

	chosen := 0
	for _, is := range []bool{g.ID != 0, g.EventName != "", g.PagePath != ""} {
		if is {
			chosen++
		}
	}
	switch {
	case chosen != 1:
		f.refuse("", "must have exactly one of goal_id, event_name and page_path")
	case g.ID != 0 && (g.ScrollThreshold != nil || g.CustomProps != nil):
		f.refuse("", "goal_id stands alone: the goal itself says what else it needs")
	case g.ScrollThreshold != nil && g.PagePath == "":
		f.refuse("", "scroll_threshold needs page_path")
	case g.EventName == "pageview" || g.EventName == "engagement":
		f.refuse("", "event_name must be a custom event; use page_path for pages")
	case g.PagePath != "" && !strings.HasPrefix(g.PagePath, "/"):
		f.refuse("", "page_path must start with /")
	}
	return g
}

// pageGoal is the goal of visiting a path; nil for an empty one.
func pageGoal(path string) *Goal {
	if path == "" {
		return nil
	}
	return &Goal{PagePath: path}
}

// GoalKey is which events a resolved goal counts, as a comparable value; the zero one is of no goal.
type GoalKey struct {
	event, page string
	scroll      int // 1 more than the threshold; 0: none
	properties  string
}

// Key is the same for goals that count the same events. It is made in every slot for every trigger
// that has a goal, so it encodes nothing but properties.
func (g *Goal) Key() GoalKey {
	if g == nil {
		return GoalKey{}
	}
	key := GoalKey{event: g.EventName, page: g.PagePath}
	if g.ScrollThreshold != nil {
		key.scroll = 1 + *g.ScrollThreshold
	}
	if len(g.CustomProps) > 0 {
		var pairs strings.Builder
		for _, name := range slices.Sorted(maps.Keys(g.CustomProps)) { // at most 3
			pairs.WriteString(strconv.Quote(name))
			pairs.WriteString(strconv.Quote(g.CustomProps[name]))
		}
		key.properties = pairs.String()
	}
	return key
}
