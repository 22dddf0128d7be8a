package trigger

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// compiled is a type's schema as others read it.
func compiled(t require.TestingT, kind Type) *jsonschema.Schema {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(mustJSON(SchemaOf(kind))))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	require.NoError(t, compiler.AddResource("config.json", document))
	schema, err := compiler.Compile("config.json") // validates against the meta-schema
	require.NoError(t, err)
	return schema
}

// anyValue is a value that a schema describes or, less often, one that it should refuse.
func anyValue(s *Schema) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		if rapid.IntRange(0, 9).Draw(t, "of another kind") == 0 {
			return rapid.SampledFrom([]any{"", "10", -1, 0, 1.5, 1e18, true, []any{}, []any{1, "a"}, map[string]any{}, map[string]any{"goal_id": "x"}}).Draw(t, "other")
		}
		switch {
		case len(s.AnyOf) > 0:
			return anyValue(&s.AnyOf[rapid.IntRange(0, len(s.AnyOf)-1).Draw(t, "form")]).Draw(t, "value")
		case len(s.Enum) > 0:
			return rapid.SampledFrom(s.Enum).Draw(t, "choice")
		case s.Type == "integer" || s.Type == "number":
			low, high := int64(*s.Minimum), int64(*s.Maximum)
			n := rapid.SampledFrom([]int64{low, low, low + 1, min(60, high), min(300, high), min(3600, high), high, low - 1, high + 1}).Draw(t, "number")
			if s.Type == "number" && rapid.Bool().Draw(t, "broken") {
				return float64(n) + 0.5
			}
			return n
		case s.Type == "string":
			n := rapid.SampledFrom([]int{1, 1, 3, 3, s.MaxLength - 1, s.MaxLength, 0}).Draw(t, "length")
			if n == 0 {
				return ""
			}
			return rapid.SampledFrom([]string{"/", "A", " "}).Draw(t, "first") + strings.Repeat("ü", n)
		case s.Type == "array":
			return rapid.SliceOfN(anyValue(s.Items), 0, 4).Draw(t, "list")
		}
		return anyObject(s).Draw(t, "object")
	})
}

func anyObject(s *Schema) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		object := map[string]any{}
		if s.Properties == nil {
			inner, described := s.AdditionalProperties.(*Schema)
			require.True(t, described)
			for _, key := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ü", "d", ""}), 0, 4).Draw(t, "keys") {
				object[key] = anyValue(inner).Draw(t, "value")
			}
			return object
		}
		// Few fields at a time: most combinations of many are refused.
		given := rapid.SliceOfNDistinct(rapid.SampledFrom(s.Properties.names), 0, 3, rapid.ID).Draw(t, "fields")
		if rapid.IntRange(0, 9).Draw(t, "complete?") > 0 {
			given = append(given, s.Required...)
		}
		for i, name := range s.Properties.names {
			if slices.Contains(given, name) {
				object[name] = anyValue(s.Properties.schemas[i]).Draw(t, name)
			}
		}
		if rapid.IntRange(0, 19).Draw(t, "unknown?") == 0 {
			object["unknown"] = 1
		}
		return object
	})
}

// A form made from the schema lets everything through that is accepted. The one exception is null,
// which Parse takes for a field that was not given.
func TestWhatIsAcceptedFitsTheSchema(t *testing.T) {
	for _, kind := range Types() {
		t.Run(string(kind), func(t *testing.T) {
			schema, accepted := compiled(t, kind), 0
			rapid.Check(t, func(t *rapid.T) {
				object := anyObject(SchemaOf(kind)).Draw(t, "config").(map[string]any)
				if _, has := object["goal"]; has && rapid.Bool().Draw(t, "simple goal?") { // few goals at random are whole
					object["goal"] = map[string]any{"event_name": "Signup"}
				}
				raw := mustJSON(object)
				document, err := jsonschema.UnmarshalJSON(strings.NewReader(raw))
				require.NoError(t, err)
				violation := schema.Validate(document)
				config, problems := Parse(kind, json.RawMessage(raw))
				if len(problems) > 0 {
					return
				}
				accepted++
				require.NoError(t, violation, raw)
				canon := mustJSON(config)
				again, problems := Parse(kind, json.RawMessage(canon))
				require.Empty(t, problems, canon)
				require.Equal(t, config, again, "what is stored is read back as it was")
				document, err = jsonschema.UnmarshalJSON(strings.NewReader(canon))
				require.NoError(t, err)
				require.NoError(t, schema.Validate(document), canon)
			})
			require.Positive(t, accepted, "the test must reach what is accepted")
		})
	}
}

func TestTheSchemaNamesTheDefaults(t *testing.T) {
	least := map[Type]string{ // what cannot be left out, and a mode in which all fields have a meaning
		GoalAchievedType:    `{"goal": {"goal_id": 1}, "mode": "threshold"}`,
		GoalSilenceType:     `{"goal": {"goal_id": 1}}`,
		MetricThresholdType: `{"threshold": 1}`,
	}
	for _, kind := range Types() {
		raw, needsSome := least[kind]
		require.Equal(t, needsSome, len(SchemaOf(kind).Required) > 0, kind)
		var filled map[string]any
		require.NoError(t, json.Unmarshal([]byte(mustJSON(parsed(t, kind, raw))), &filled))
		properties := SchemaOf(kind).Properties
		require.Equal(t, About(kind), SchemaOf(kind).Description)
		for i, name := range properties.names {
			require.NotEmpty(t, properties.schemas[i].Description, "%s.%s", kind, name)
			var want any
			require.NoError(t, json.Unmarshal([]byte(mustJSON(properties.schemas[i].Default)), &want))
			if slices.Contains([]string{"goal", "mode"}, name) || slices.Contains(SchemaOf(kind).Required, name) {
				continue
			}
			if want == 0.0 {
				want = nil // a zero is left out
			}
			require.Equal(t, want, filled[name], "%s.%s", kind, name)
			delete(filled, name)
		}
		for name := range filled {
			require.Contains(t, properties.names, name, "%s fills in what its schema does not know", kind)
		}
	}
}
