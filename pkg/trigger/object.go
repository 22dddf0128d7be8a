package trigger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// object reads the fields of one JSON object and collects every problem with its path, where
// encoding/json would stop at the first. Each reader marks its field as known; end reports
// those that nobody read.
type object struct {
	path     string
	fields   map[string]json.RawMessage
	read     []string
	problems *[]Problem
}

func newObject(path string, raw json.RawMessage, problems *[]Problem) *object {
	o := &object{path: path, problems: problems}
	if err := json.Unmarshal(raw, &o.fields); err != nil || o.fields == nil {
		*problems = append(*problems, Problem{Field: path, Message: "must be an object"})
	}
	return o
}

func (o *object) refuse(name, format string, arguments ...any) {
	*o.problems = append(*o.problems, Problem{Field: o.path + "." + name, Message: fmt.Sprintf(format, arguments...)})
}

// take returns a field's value and whether it was given; null counts as not given.
func (o *object) take(name string) (json.RawMessage, bool) {
	o.read = append(o.read, name)
	raw, given := o.fields[name]
	return raw, given && !bytes.Equal(raw, []byte("null"))
}

func (o *object) integer(name string, fallback, lowest, highest int64) int64 {
	raw, given := o.take(name)
	if !given {
		return fallback
	}
	var n int64
	if err := json.Unmarshal(raw, &n); err != nil {
		o.refuse(name, "must be a whole number")
		return fallback
	}
	switch {
	case n < lowest:
		o.refuse(name, "must be at least %d", lowest)
	case n > highest:
		o.refuse(name, "must be at most %d", highest)
	}
	return n
}

func (o *object) text(name string, longest int) string {
	raw, given := o.take(name)
	if !given {
		return ""
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		o.refuse(name, "must be text")
		return ""
	}
	switch {
	case s == "" || utf8.RuneCountInString(s) > longest:
		o.refuse(name, "must have 1 to %d characters", longest)
	case strings.ContainsFunc(s, unicode.IsControl): // no name or path has any, and Postgres cannot store NUL
		o.refuse(name, "must not contain control characters")
	}
	return s
}

// texts reads an object of few texts; an empty one counts as not given.
func (o *object) texts(name string, most, longestKey, longest int) map[string]string {
	raw, given := o.take(name)
	if !given {
		return nil
	}
	var fields map[string]*string
	if err := json.Unmarshal(raw, &fields); err != nil {
		o.refuse(name, "must be an object of text values")
		return nil
	}
	if len(fields) > most {
		o.refuse(name, "must have at most %d properties", most)
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
			o.refuse(name, "must be an object of text values")
			return nil
		case key == "" || utf8.RuneCountInString(key) > longestKey || utf8.RuneCountInString(*value) > longest:
			o.refuse(name, "must have names of 1 to %d characters and values of at most %d", longestKey, longest)
			return nil
		case strings.ContainsRune(key+*value, 0): // which Postgres cannot store
			o.refuse(name, "must not contain the character NUL")
			return nil
		}
		texts[key] = *value
	}
	return texts
}

func (o *object) choice(name string, allowed ...string) string {
	raw, given := o.take(name)
	if !given {
		return allowed[0]
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || !slices.Contains(allowed, s) {
		o.refuse(name, "must be one of %s", strings.Join(allowed, ", "))
		return allowed[0]
	}
	return s
}

// end reports the fields that no reader asked for, in alphabetical order.
func (o *object) end() {
	var unknown []string
	for name := range o.fields {
		if !slices.Contains(o.read, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		o.refuse(name, "is not a known field")
	}
}
