package evaluator

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// What did not change is not read again, and what did is: another name, another config, a trigger more or less.
func TestOnlyChangedTriggersAreReadAgain(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	first := b.trigger(trigger.VisitorSpikeType, `{"threshold": 1, "window_seconds": 60}`)
	second := b.trigger(trigger.VisitorSpikeType, `{"threshold": 1, "window_seconds": 60}`)
	third := b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)
	read := func() map[string]*watched {
		b.catalogue.drop()
		all, err := b.catalogue.read(ctx)
		require.NoError(t, err)
		byID := map[string]*watched{}
		for _, w := range all {
			byID[w.ID] = w
		}
		assert.Len(t, byID, len(all))
		return byID
	}
	before := read()
	require.Len(t, before, 3)
	assert.Same(t, before[first].Config, before[second].Config, "equal configs are held once")

	_, err := b.pool.Exec(ctx, "UPDATE triggers SET name = 'Renamed' WHERE id = $1", first)
	require.NoError(t, err)
	_, err = b.pool.Exec(ctx, "DELETE FROM triggers WHERE id = $1", second)
	require.NoError(t, err)
	fourth := b.trigger(trigger.VisitorDropType, `{}`)
	after := read()
	require.Len(t, after, 3)
	assert.Equal(t, "Renamed", after[first].Name)
	assert.NotSame(t, before[first], after[first])
	assert.Same(t, before[third], after[third])
	assert.Contains(t, after, fourth)

	_, err = b.pool.Exec(ctx, "UPDATE triggers SET enabled = false WHERE id = $1", third)
	require.NoError(t, err)
	assert.NotContains(t, read(), third)
	_, err = b.pool.Exec(ctx, "UPDATE triggers SET enabled = true WHERE id = $1", third)
	require.NoError(t, err)
	assert.Contains(t, read(), third)
}
