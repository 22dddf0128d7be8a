package trigger

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryTypeIsDescribed(t *testing.T) {
	for _, typ := range Types() {
		d := Describe(typ)
		require.Equal(t, typ, d.Type)
		require.NotEmpty(t, d.Description, typ)

		var schema struct {
			Properties map[string]struct{ Default json.RawMessage } `json:"properties"`
			Required   []string                                     `json:"required"`
		}
		require.NoError(t, json.Unmarshal(canonical(d.Schema), &schema), typ)
		var defaults map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(d.Defaults, &defaults), typ)
		for name := range defaults {
			require.Contains(t, schema.Properties, name, typ)
		}
		if config, problems := Parse(typ, d.Defaults); len(schema.Required) == 0 {
			require.Empty(t, problems, typ)
			require.JSONEq(t, string(d.Defaults), string(canonical(config)), "the defaults of %s are complete", typ)
		} else {
			require.NotEmpty(t, problems, typ)
		}

		m := d.Example
		require.Equal(t, string(typ)+".fired", m.Type)
		require.NotEmpty(t, m.Data.Explanation, typ)
		require.NotEmpty(t, m.Data.Trigger.Name, typ)
		require.True(t, m.Data.Window.From.Before(m.Data.Window.To), typ)
		require.Equal(t, m.Timestamp, m.Data.Window.To, typ)
		if n := len(m.Data.Context.Chart); n > 0 {
			require.Equal(t, Point{At: m.Data.Window.To, Value: m.Data.Value}, m.Data.Context.Chart[n-1], typ)
		}
		require.NotNil(t, m.Data.Context.TopSources, typ)
		require.NotNil(t, m.Data.Context.TopPages, typ)
		config, problems := Parse(typ, m.Data.Trigger.Config)
		require.Empty(t, problems, typ)
		require.Equal(t, m.Data.Trigger.Config, canonical(config), typ)
	}
}

func TestExamplesShowWhatIsTheTypesOwn(t *testing.T) {
	each := Example(GoalAchievedType).Data
	require.Equal(t, float64(len(each.Conversions)), each.Value)
	for _, typ := range []Type{NewSourceType, NotFoundBurstType} {
		require.NotNil(t, Example(typ).Data.Group, typ)
	}
	require.Equal(t, int64(60_000), Example(PageviewMilestoneType).Data.Next.Milestone)
	require.NotNil(t, Example(PageviewMilestoneType).Data.Next.ETA)
	for _, typ := range []Type{VisitorDropType, MetricChangeType, GoalSilenceType} {
		require.NotNil(t, Example(typ).Data.Baseline, typ)
	}
}
