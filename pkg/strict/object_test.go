package strict

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// read reads one field of each kind, so that a table can say what each makes of a value.
func read(raw string) []string {
	var problems []Problem
	o := Read("in", json.RawMessage(raw), &problems)
	o.Boolean("b", true)
	o.Integer("i", 5, 1, 9)
	o.Number("n", 0.5, 1e3)
	o.Text("t", 2, 4)
	o.Texts("m", 1, 2, 2)
	o.Choice("c", "one", "two")
	o.List("l", 1)
	o.Only("x", "[]", "must be empty")
	o.ReadOnly(false, "id")
	o.End()
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.Field+": "+p.Message)
	}
	return lines
}

func TestEveryProblemIsTold(t *testing.T) {
	for raw, want := range map[string][]string{
		`{}`: nil,
		`{"b": null, "i": null, "n": null, "t": null, "m": null, "c": null, "l": null, "x": null, "id": null}`:               nil,
		`{"b": false, "i": 9, "n": 0.5, "t": "ööö", "m": {"a": "b"}, "c": "two", "l": [{}], "x": []}`:                        nil,
		`{"b": 0, "i": 1.5, "n": "1", "t": 1, "m": {"a": 1}, "c": "three", "l": {}, "x": [1], "id": "a", "z": 1, "B": true}`: {"in.b: must be true or false", "in.i: must be a whole number", "in.n: must be a number", "in.t: must be text", "in.m: must be an object of text values", "in.c: must be one of one, two", "in.l: must be a list", "in.x: must be empty", "in.id: cannot be set", "in.B: is not a known field", "in.z: is not a known field"},
		`{"i": 0, "n": 0.25, "t": "", "m": {"a": null}, "l": [1, 2]}`:                                                        {"in.i: must be at least 1", "in.n: must be at least 0.5", "in.t: must not be empty", "in.m: must be an object of text values", "in.l: must have at most 1 elements"},
		`{"i": 10, "n": 1000.5, "t": "ä", "m": {"a": "", "b": ""}}`:                                                          {"in.i: must be at most 9", "in.n: must be at most 1000", "in.t: must have at least 2 characters", "in.m: must have at most 1 properties"},
		`{"i": 1e99, "n": 1e999, "t": "12345", "m": {"": ""}}`:                                                               {"in.i: must be a whole number", "in.n: must be a number", "in.t: must have at most 4 characters", "in.m: must have names of 1 to 2 characters and values of at most 2"},
		`{"t": "a\u0000b", "m": {"a": "\u0007"}}`:                                                                            {"in.t: must not contain control characters", "in.m: must not contain control characters"},
		`[]`:   {"in: must be an object"},
		`null`: {"in: must be an object"},
		``:     {"in: must be an object"},
	} {
		assert.Equal(t, want, read(raw), raw)
	}
}

// Whatever comes, reading ends, and a field that is there is either known or reported.
func FuzzRead(f *testing.F) {
	f.Add(`{"b": true, "nested": {"a": [1, null]}}`)
	f.Add(`{"b": 1, "b": true}`)
	f.Fuzz(func(t *testing.T, raw string) {
		var fields map[string]json.RawMessage
		valid := json.Unmarshal([]byte(raw), &fields) == nil && fields != nil
		lines := read(raw)
		assert.Equal(t, valid, len(lines) != 1 || lines[0] != "in: must be an object")
	})
}

func TestNumbersAreReturned(t *testing.T) {
	var problems []Problem
	o := Read("", json.RawMessage(`{"whole": 3, "broken": 2.5, "text": "3", "low": -1}`), &problems)
	three, half, low := 3.0, 2.5, -1.0
	assert.Equal(t, &three, o.Number("whole", 0, 5))
	assert.Equal(t, &half, o.Number("broken", 0, 5))
	assert.Equal(t, &low, o.Number("low", 0, 5), "refused, but usable")
	assert.Nil(t, o.Number("text", 0, 5))
	assert.Nil(t, o.Number("missing", 0, 5))
	assert.Equal(t, []Problem{{"low", "must be at least 0"}, {"text", "must be a number"}}, problems)
}

// What a patch did not name is kept, also within the objects that it changes.
func TestWhatAPatchLeftIsKept(t *testing.T) {
	for patch, want := range map[string][]string{
		`{}`:                               {"a", "in", "in.x", "in.y"},
		`{"a": 1}`:                         {"in", "in.x", "in.y"},
		`{"in": {"x": 1}}`:                 {"a", "in.y"},
		`{"in": {"x": 1, "z": null}}`:      {"a", "in.y"},
		`{"in": null}`:                     {"a"},
		`{"a": 1, "in": {"x": 1, "y": 2}}`: nil,
		`null`:                             nil,
		``:                                 nil,
	} {
		var problems []Problem
		o := ReadPatched("", json.RawMessage(`{"a": 1, "in": {"x": 1, "y": 2}}`), json.RawMessage(patch), &problems)
		raw, _ := o.Take("in")
		inner := o.Inner("in", raw)
		var kept []string
		for _, name := range []string{"a", "in", "missing"} {
			if o.Kept(name) {
				kept = append(kept, name)
			}
		}
		for _, name := range []string{"x", "y", "missing"} {
			if inner.Kept(name) {
				kept = append(kept, "in."+name)
			}
		}
		assert.Equal(t, want, kept, patch)
		inner.Forget()
		for _, name := range []string{"x", "y"} {
			assert.NotEqual(t, inner.Has(name), slices.Contains(kept, "in."+name), patch)
		}
		assert.Empty(t, problems)
	}
}
