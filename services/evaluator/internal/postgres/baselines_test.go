package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBaselinesAreReadAsWritten(t *testing.T) {
	ctx := t.Context()
	s, _ := openStore(t)
	today := noon.Truncate(24 * time.Hour)
	measured := Baseline{Series: "a", SiteID: 1, StatsFrom: noon.AddDate(-1, 0, 0), Began: noon.AddDate(0, -1, 0), KnownTo: noon}
	empty := Baseline{Series: "b", SiteID: 2, KnownTo: noon}
	first, second := BaselineDay{Series: "a", Day: today.AddDate(0, 0, -1)}, BaselineDay{Series: "a", Day: today}
	for hour := range 24 {
		first.Sums[hour], first.Squares[hour] = float32(hour), float32(hour*hour)
		second.Sums[hour], second.Squares[hour] = float32(100+hour), 16_777_216
	}
	require.NoError(t, s.SaveBaselines(ctx, []Baseline{measured, empty}, []BaselineDay{first, second}, nil))
	known, err := s.Baselines(ctx, []string{"a", "b", "c"})
	require.NoError(t, err)
	assert.Equal(t, map[string]Baseline{"a": measured, "b": empty}, known)
	days, err := s.BaselineDays(ctx, []string{"a", "b"}, today.AddDate(0, 0, -1))
	require.NoError(t, err)
	assert.ElementsMatch(t, []BaselineDay{first, second}, days)
	days, err = s.BaselineDays(ctx, []string{"a"}, noon)
	require.NoError(t, err)
	assert.Equal(t, []BaselineDay{second}, days)

	measured.StatsFrom, measured.KnownTo = noon, noon.Add(time.Hour)
	second.Sums[12] = 7
	require.NoError(t, s.SaveBaselines(ctx, []Baseline{measured}, []BaselineDay{second}, []string{"a"}))
	known, err = s.Baselines(ctx, []string{"a"})
	require.NoError(t, err)
	assert.Equal(t, measured, known["a"])
	days, err = s.BaselineDays(ctx, []string{"a"}, time.Time{})
	require.NoError(t, err)
	assert.Equal(t, []BaselineDay{second}, days, "the days before the reset are gone")
}

func TestOldBaselinesAreRemoved(t *testing.T) {
	ctx := t.Context()
	s, pool := openStore(t)
	now := time.Now().UTC()
	require.NoError(t, s.SaveBaselines(ctx,
		[]Baseline{{Series: "unwanted", SiteID: 1, KnownTo: now.AddDate(0, 0, -64)}, {Series: "wanted", SiteID: 1, KnownTo: now}},
		[]BaselineDay{{Series: "unwanted", Day: now.AddDate(0, 0, -64)}, {Series: "wanted", Day: now.AddDate(0, 0, -65)}, {Series: "wanted", Day: now.AddDate(0, 0, -57)}}, nil))
	require.NoError(t, s.RemoveOldBaselines(ctx))
	var series, days []string
	require.NoError(t, pool.QueryRow(ctx, "SELECT (SELECT array_agg(series) FROM baselines), (SELECT array_agg(series) FROM baseline_days)").Scan(&series, &days))
	assert.Equal(t, []string{"wanted"}, series)
	assert.Equal(t, []string{"wanted"}, days)
}
