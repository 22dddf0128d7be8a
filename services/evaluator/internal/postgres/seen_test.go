package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

var (
	sources   = SiteDimension{SiteID: 1, Dimension: trigger.BySource}
	countries = SiteDimension{SiteID: 1, Dimension: trigger.ByCountry}
)

func TestSeenValuesKeepTheirFirstTime(t *testing.T) {
	ctx := t.Context()
	s, _ := openStore(t)
	const large = 1 << 63 // as a signed number it is negative
	value := func(of SiteDimension, hash uint64, first time.Time) SeenValue {
		return SeenValue{SiteDimension: of, Hash: hash, First: first}
	}
	require.NoError(t, s.SaveSeen(ctx, []Seen{{SiteDimension: sources, KnownTo: noon}, {SiteDimension: countries, StatsFrom: noon.AddDate(-1, 0, 0), KnownTo: noon}}, []SeenValue{
		value(sources, 1, noon), value(sources, 1, noon.Add(-time.Hour)), value(sources, large, noon), value(countries, 1, noon.Add(time.Hour)),
	}, nil))
	require.NoError(t, s.SaveSeen(ctx, []Seen{{SiteDimension: sources, KnownTo: noon.Add(time.Hour)}}, []SeenValue{
		value(sources, 1, noon.Add(time.Hour)), value(sources, large, noon.Add(-time.Minute)),
	}, nil))
	asked := []SeenValue{value(countries, 2, time.Time{}), value(sources, large, time.Time{}), value(countries, 1, time.Time{}), value(sources, 1, time.Time{})}
	require.NoError(t, s.FirstSeen(ctx, asked))
	assert.Equal(t, []SeenValue{
		value(countries, 2, time.Time{}), value(sources, large, noon.Add(-time.Minute)), value(countries, 1, noon.Add(time.Hour)), value(sources, 1, noon.Add(-time.Hour)),
	}, asked)

	seen, err := s.Seen(ctx, []SiteDimension{sources, countries, {SiteID: 2, Dimension: trigger.BySource}})
	require.NoError(t, err)
	assert.Equal(t, map[SiteDimension]Seen{
		sources: {SiteDimension: sources, KnownTo: noon.Add(time.Hour)}, countries: {SiteDimension: countries, StatsFrom: noon.AddDate(-1, 0, 0), KnownTo: noon},
	}, seen)

	require.NoError(t, s.SaveSeen(ctx, []Seen{{SiteDimension: sources, StatsFrom: noon, KnownTo: noon}}, []SeenValue{value(sources, 3, noon)}, []SiteDimension{sources}))
	asked = []SeenValue{value(sources, 1, time.Time{}), value(sources, 3, time.Time{}), value(countries, 1, time.Time{})}
	require.NoError(t, s.FirstSeen(ctx, asked))
	assert.Equal(t, []SeenValue{value(sources, 1, time.Time{}), value(sources, 3, noon), value(countries, 1, noon.Add(time.Hour))}, asked, "statistics were reset")
}

func TestUnaskedSeenValuesAreRemoved(t *testing.T) {
	ctx := t.Context()
	s, pool := openStore(t)
	now := time.Now()
	require.NoError(t, s.SaveSeen(ctx, []Seen{{SiteDimension: sources, KnownTo: now.AddDate(0, 0, -64)}, {SiteDimension: countries, KnownTo: now}},
		[]SeenValue{{SiteDimension: sources, Hash: 1, First: now}, {SiteDimension: countries, Hash: 1, First: now.AddDate(-5, 0, 0)}}, nil))
	require.NoError(t, s.RemoveUnaskedSeen(ctx))
	var left []string
	require.NoError(t, pool.QueryRow(ctx, "SELECT array_agg(v.dimension || s.dimension) FROM seen_values v FULL JOIN seen_dimensions s USING (site_id, dimension)").Scan(&left))
	assert.Equal(t, []string{"countrycountry"}, left)
}
