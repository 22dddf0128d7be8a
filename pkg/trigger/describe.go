package trigger

import (
	"encoding/json"
)

// Description is what users must know of a type to write a trigger and to read its messages.
type Description struct {
	Type        Type            `json:"type"`
	Description string          `json:"description"`
	Schema      *Schema         `json:"schema"`
	Defaults    json.RawMessage `json:"defaults"` // of the config
	Example     Message         `json:"example"`
}

// Describe describes a known type.
func Describe(t Type) Description {
	schema := SchemaOf(t)
	return Description{Type: t, Description: About(t), Schema: schema, Defaults: defaults(t, schema), Example: Example(t)}
}

// defaults are the config of a trigger that leaves everything out; where something is required, the
// defaults of the other fields.
func defaults(t Type, schema *Schema) json.RawMessage {
	if config, problems := Parse(t, nil); len(problems) == 0 {
		return canonical(config)
	}
	fields := map[string]any{}
	for i, name := range schema.Properties.names {
		if value := schema.Properties.schemas[i].Default; value != nil {
			fields[name] = value
		}
	}
	return canonical(fields)
}

// canonical is for configs and what they are made of: nothing that cannot be encoded.
func canonical(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
