// Package strict reads JSON objects whose every fault is to be told at once, where encoding/json
// would stop at the first and let unknown fields pass. The bodies of the API and the configs of
// triggers are read with it.
package strict

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one reason why a body is refused.
type Problem struct {
	Field   string `json:"field"` // dotted path, as in the body: triggers[0].config.goal.goal_id
	Message string `json:"message"`
}

// Object reads the fields of one JSON object. Each reader marks its field as known, and returns a
// usable value also for a faulty one; End reports the fields that nobody read. Names match
// exactly, and null stands for a field that was not given.
type Object struct {
	path     string
	fields   map[string]json.RawMessage
	patch    map[string]json.RawMessage // the fields that a patch wrote; nil: all of them were written
	read     []string
	problems *[]Problem
}

// Read opens an object. Its path is empty, or where it stands within another; its problems are
// added to the caller's.
func Read(path string, raw json.RawMessage, problems *[]Problem) *Object {
	o := &Object{path: path, problems: problems}
	if err := json.Unmarshal(raw, &o.fields); err != nil || o.fields == nil {
		*problems = append(*problems, Problem{Field: path, Message: "must be an object"})
	}
	return o
}

// ReadPatched opens an object that a patch was merged into. What the patch does not name is Kept.
func ReadPatched(path string, merged, patch json.RawMessage, problems *[]Problem) *Object {
	o := Read(path, merged, problems)
	if json.Unmarshal(patch, &o.patch) != nil {
		o.patch = nil // no object: it replaced what was there
	}
	return o
}

// Join is the path of a field within an object.
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Valid tells whether there is an object at all.
func (o *Object) Valid() bool { return o.fields != nil }

// Path is where the object stands.
func (o *Object) Path() string { return o.path }

// Refuse adds a problem of a field; without a name, of the object.
func (o *Object) Refuse(name, format string, arguments ...any) {
	field := o.path
	if name != "" {
		field = Join(o.path, name)
	}
	*o.problems = append(*o.problems, Problem{Field: field, Message: fmt.Sprintf(format, arguments...)})
}

// Refused tells whether a field was refused already.
func (o *Object) Refused(name string) bool {
	field := Join(o.path, name)
	return slices.ContainsFunc(*o.problems, func(p Problem) bool { return p.Field == field })
}

// Inner opens an object that a field of this one holds.
func (o *Object) Inner(name string, raw json.RawMessage) *Object {
	return ReadPatched(Join(o.path, name), raw, o.Patch(name), o.problems)
}

// Patch is what a patch wrote of a field: an empty object if it left it as it was stored, nil if the
// object is no patched one.
func (o *Object) Patch(name string) json.RawMessage {
	if written, has := o.patch[name]; has || o.patch == nil {
		return written
	}
	return json.RawMessage("{}")
}

// Kept tells whether a patch left the field as it was stored.
func (o *Object) Kept(name string) bool {
	_, written := o.patch[name]
	return o.patch != nil && !written && o.Has(name)
}

// Forget leaves out every field that is Kept.
func (o *Object) Forget() {
	maps.DeleteFunc(o.fields, func(name string, _ json.RawMessage) bool { return o.Kept(name) })
}

// Has tells whether the field is there, be it null.
func (o *Object) Has(name string) bool {
	_, has := o.fields[name]
	return has
}

// Take returns a field's raw value, and whether it was given.
func (o *Object) Take(name string) (json.RawMessage, bool) {
	o.read = append(o.read, name)
	raw, given := o.fields[name]
	return raw, given && string(raw) != "null"
}

// Boolean reads true or false.
func (o *Object) Boolean(name string, fallback bool) bool {
	raw, given := o.Take(name)
	if !given {
		return fallback
	}
	var value bool
	if err := json.Unmarshal(raw, &value); err != nil {
		o.Refuse(name, "must be true or false")
		return fallback
	}
	return value
}

// Integer reads a whole number from lowest to highest.
func (o *Object) Integer(name string, fallback, lowest, highest int64) int64 {
	raw, given := o.Take(name)
	if !given {
		return fallback
	}
	var n int64
	switch err := json.Unmarshal(raw, &n); {
	case err != nil:
		o.Refuse(name, "must be a whole number")
		return fallback
	case n < lowest:
		o.Refuse(name, "must be at least %d", lowest)
	case n > highest:
		o.Refuse(name, "must be at most %d", highest)
	}
	return n
}

// Number reads a number from lowest to highest; nil if none was given.
func (o *Object) Number(name string, lowest, highest float64) *float64 {
	raw, given := o.Take(name)
	if !given {
		return nil
	}
	var n float64
	switch err := json.Unmarshal(raw, &n); {
	case err != nil:
		o.Refuse(name, "must be a number")
		return nil
	case n < lowest:
		o.Refuse(name, "must be at least %v", lowest)
	case n > highest:
		o.Refuse(name, "must be at most %v", highest)
	}
	return &n
}

// Text reads a text of so many characters; empty if it was not given. It refuses control
// characters but tabs and line breaks: nothing that shows these texts expects them, and Postgres
// cannot store NUL.
func (o *Object) Text(name string, shortest, longest int) string {
	raw, given := o.Take(name)
	if !given {
		return ""
	}
	var s string
	switch err := json.Unmarshal(raw, &s); {
	case err != nil:
		o.Refuse(name, "must be text")
		return ""
	case utf8.RuneCountInString(s) > longest:
		o.Refuse(name, "must have at most %d characters", longest)
	case s == "" && shortest > 0:
		o.Refuse(name, "must not be empty")
	case utf8.RuneCountInString(s) < shortest:
		o.Refuse(name, "must have at least %d characters", shortest)
	case strings.ContainsFunc(s, isControl):
		o.Refuse(name, "must not contain control characters")
	}
	return s
}

func isControl(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }

// Texts reads an object of at most so many texts; an empty one counts as not given.
func (o *Object) Texts(name string, most, longestKey, longest int) map[string]string {
	raw, given := o.Take(name)
	if !given {
		return nil
	}
	var fields map[string]*string
	if err := json.Unmarshal(raw, &fields); err != nil {
		o.Refuse(name, "must be an object of text values")
		return nil
	}
	if len(fields) > most {
		o.Refuse(name, "must have at most %d properties", most)
		return nil
	}
	if len(fields) == 0 {
		return nil
	}
	texts := make(map[string]string, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value := fields[key]
		switch {
		case value == nil:
			o.Refuse(name, "must be an object of text values")
			return nil
		case key == "" || utf8.RuneCountInString(key) > longestKey || utf8.RuneCountInString(*value) > longest:
			o.Refuse(name, "must have names of 1 to %d characters and values of at most %d", longestKey, longest)
			return nil
		case strings.ContainsFunc(key+*value, isControl):
			o.Refuse(name, "must not contain control characters")
			return nil
		}
		texts[key] = *value
	}
	return texts
}

// Choice reads one of the allowed texts, of which the first is the default.
func (o *Object) Choice(name string, allowed ...string) string {
	raw, given := o.Take(name)
	if !given {
		return allowed[0]
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || !slices.Contains(allowed, s) {
		o.Refuse(name, "must be one of %s", strings.Join(allowed, ", "))
		return allowed[0]
	}
	return s
}

// List reads an array of at most longest elements.
func (o *Object) List(name string, longest int) []json.RawMessage {
	raw, given := o.Take(name)
	if !given {
		return nil
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		o.Refuse(name, "must be a list")
		return nil
	}
	if len(elements) > longest {
		o.Refuse(name, "must have at most %d elements", longest)
		return nil
	}
	return elements
}

// Only accepts a field with one value, and refuses every other with the message.
func (o *Object) Only(name, value, message string) {
	if raw, given := o.Take(name); given && string(raw) != value {
		o.Refuse(name, "%s", message)
	}
}

// ReadOnly is for the fields that an answer has besides those of a request: ignored where an
// answer may be sent back with changes, else refused.
func (o *Object) ReadOnly(ignore bool, names ...string) {
	for _, name := range names {
		if _, given := o.Take(name); given && !ignore {
			o.Refuse(name, "cannot be set")
		}
	}
}

// End reports the fields that no reader asked for, in alphabetical order.
func (o *Object) End() {
	for _, name := range slices.Sorted(maps.Keys(o.fields)) {
		if !slices.Contains(o.read, name) {
			o.Refuse(name, "is not a known field")
		}
	}
}
