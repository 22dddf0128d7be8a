package trigger

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// Schema is a JSON Schema (2020-12) of an object, as far as configs need it.
type Schema struct {
	Type                 string      `json:"type,omitempty"`
	Description          string      `json:"description,omitempty"`
	Default              any         `json:"default,omitempty"`
	Enum                 []string    `json:"enum,omitempty"`
	Minimum              *float64    `json:"minimum,omitempty"`
	Maximum              *float64    `json:"maximum,omitempty"`
	MinLength            int         `json:"minLength,omitempty"`
	MaxLength            int         `json:"maxLength,omitempty"`
	MaxItems             int         `json:"maxItems,omitempty"`
	MaxProperties        int         `json:"maxProperties,omitempty"`
	Items                *Schema     `json:"items,omitempty"`
	AnyOf                []Schema    `json:"anyOf,omitempty"`
	Properties           *properties `json:"properties,omitempty"`
	Required             []string    `json:"required,omitempty"`
	AdditionalProperties any         `json:"additionalProperties,omitempty"` // false, or a Schema
}

// properties keeps the order in which the fields were declared: that of a form.
type properties struct {
	names   []string
	schemas []*Schema
}

// MarshalJSON implements json.Marshaler.
func (p *properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range p.names {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.schemas[i])
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func objectSchema() *Schema {
	return &Schema{Type: "object", Properties: &properties{}, AdditionalProperties: false}
}

// fields is where a config declares its fields, once for both: reading them with their defaults
// and limits, and describing them as JSON Schema.
type fields struct {
	object *strict.Object // nil while only describing
	schema *Schema        // nil while only reading
}

// describe adds a field to the schema, if one is wanted.
func (f *fields) describe(name string, s Schema) {
	if f.schema != nil {
		f.schema.Properties.names = append(f.schema.Properties.names, name)
		f.schema.Properties.schemas = append(f.schema.Properties.schemas, &s)
	}
}

func (f *fields) require(name string) {
	if f.schema != nil {
		f.schema.Required = append(f.schema.Required, name)
	}
	if f.object != nil && !f.given(name) {
		f.object.Refuse(name, "is required")
	}
}

// given tells whether the body has the field, other than as null.
func (f *fields) given(name string) bool {
	if f.object == nil {
		return false
	}
	_, given := f.object.Take(name)
	return given
}

func (f *fields) refuse(name, format string, arguments ...any) {
	if f.object != nil {
		f.object.Refuse(name, format, arguments...)
	}
}

// kept tells whether the field was not written, but left by a patch as it was stored.
func (f *fields) kept(name string) bool { return f.object != nil && f.object.Kept(name) }

// exclude is for a field that means nothing beside the others: it is refused if it was written. The
// caller leaves it out in any case.
func (f *fields) exclude(name, format string, arguments ...any) {
	if f.given(name) && !f.kept(name) {
		f.refuse(name, format, arguments...)
	}
}

// integer declares a whole number. A fallback of 0 below the lowest means that there is none.
func (f *fields) integer(name, about string, fallback, lowest, highest int64) int64 {
	s := Schema{Type: "integer", Description: about, Minimum: pointer(float64(lowest)), Maximum: pointer(float64(highest))}
	if fallback >= lowest {
		s.Default = fallback
	}
	f.describe(name, s)
	if f.object == nil {
		return fallback
	}
	return f.object.Integer(name, fallback, lowest, highest)
}

// number declares a number; nil is returned if it is not given.
func (f *fields) number(name, about string, lowest, highest float64) *float64 {
	f.describe(name, Schema{Type: "number", Description: about, Minimum: &lowest, Maximum: &highest})
	if f.object == nil {
		return nil
	}
	return f.object.Number(name, lowest, highest)
}

// choice declares one of the allowed texts, of which the first is the default.
func (f *fields) choice(name, about string, allowed ...string) string {
	f.describe(name, Schema{Type: "string", Description: about, Enum: allowed, Default: allowed[0]})
	if f.object == nil {
		return allowed[0]
	}
	return f.object.Choice(name, allowed...)
}

// text declares a text; without a fallback it is empty if not given.
func (f *fields) text(name, about, fallback string, longest int) string {
	s := Schema{Type: "string", Description: about, MinLength: 1, MaxLength: longest}
	if fallback != "" {
		s.Default = fallback
	}
	f.describe(name, s)
	if f.object == nil || !f.given(name) {
		return fallback
	}
	return f.object.Text(name, 1, longest)
}

// integers declares an ascending list of distinct whole numbers.
func (f *fields) integers(name, about string, most int, lowest, highest int64) []int64 {
	items := &Schema{Type: "integer", Minimum: pointer(float64(lowest)), Maximum: pointer(float64(highest))}
	f.describe(name, Schema{Type: "array", Description: about, MaxItems: most, Items: items})
	if f.object == nil {
		return nil
	}
	var list []int64
	for _, raw := range f.object.List(name, most) {
		var n int64
		if json.Unmarshal(raw, &n) != nil || n < lowest || n > highest {
			f.refuse(name, "must have whole numbers from %d to %d", lowest, highest)
			return nil
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func pointer[T any](value T) *T { return &value }
