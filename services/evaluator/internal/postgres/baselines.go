package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Baseline is how far a series was measured.
type Baseline struct {
	Series    string // hash of what the series is
	SiteID    int64
	StatsFrom time.Time // of the site when it was measured; zero: all rows count
	Began     time.Time // the first hour that was not 0; zero: none yet
	KnownTo   time.Time
}

// BaselineDay is the windows of each hour of a day in UTC. A day that is missing was all 0.
type BaselineDay struct {
	Series        string
	Day           time.Time // its start
	Sums, Squares [24]float32
}

// Baselines reads how far series were measured, by series. Those never measured are missing.
func (s *Store) Baselines(ctx context.Context, series []string) (map[string]Baseline, error) {
	rows, err := s.pool.Query(ctx, "SELECT series, site_id, stats_from, began_at, known_to FROM baselines WHERE series = ANY ($1)", series)
	if err != nil {
		return nil, fmt.Errorf("read baselines: %w", err)
	}
	baselines := make(map[string]Baseline, len(series))
	var b Baseline
	var statsFrom, began *time.Time
	_, err = pgx.ForEachRow(rows, []any{&b.Series, &b.SiteID, &statsFrom, &began, &b.KnownTo}, func() error {
		b.StatsFrom, b.Began, b.KnownTo = known(statsFrom), known(began), b.KnownTo.UTC()
		baselines[b.Series] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read baselines: %w", err)
	}
	return baselines, nil
}

// known is a time that may be null, which is the zero time here.
func known(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.UTC()
}

func nullable(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// BaselineDays reads the days of series from a day on.
func (s *Store) BaselineDays(ctx context.Context, series []string, from time.Time) ([]BaselineDay, error) {
	const statement = "SELECT series, day, sums, squares FROM baseline_days WHERE series = ANY ($1) AND day >= $2::date"
	rows, err := s.pool.Query(ctx, statement, series, from)
	if err != nil {
		return nil, fmt.Errorf("read days of baselines: %w", err)
	}
	var days []BaselineDay
	var d BaselineDay
	var sums, squares []float32
	_, err = pgx.ForEachRow(rows, []any{&d.Series, &d.Day, &sums, &squares}, func() error {
		copy(d.Sums[:], sums)
		copy(d.Squares[:], squares)
		days = append(days, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read days of baselines: %w", err)
	}
	return days, nil
}

// SaveBaselines writes what was measured of series: how far, and the days that it changed. Days of
// series that are void, because the site's statistics were reset, are removed first. Everything is
// written in the order of the series, so that two replicas that meet wait for each other.
func (s *Store) SaveBaselines(ctx context.Context, baselines []Baseline, days []BaselineDay, void []string) error {
	const (
		removeVoid = "DELETE FROM baseline_days WHERE series = ANY ($1)"

		upsertBaselines = `
			INSERT INTO baselines (series, site_id, stats_from, began_at, known_to)
			SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[]) AS b (series) ORDER BY b.series
			ON CONFLICT (series) DO UPDATE SET stats_from = excluded.stats_from, began_at = excluded.began_at, known_to = excluded.known_to`

		// The hours of all days are one array, of which each day gets its slice.
		upsertDays = `
			INSERT INTO baseline_days (series, day, sums, squares)
			SELECT d.series, d.day, ($3::real[])[d.no * 24 - 23 : d.no * 24], ($4::real[])[d.no * 24 - 23 : d.no * 24]
			FROM unnest($1::text[], $2::date[]) WITH ORDINALITY AS d (series, day, no) ORDER BY d.series, d.day
			ON CONFLICT (series, day) DO UPDATE SET sums = excluded.sums, squares = excluded.squares`
	)
	series, sites := make([]string, len(baselines)), make([]int64, len(baselines))
	statsFrom, began, knownTo := make([]*time.Time, len(baselines)), make([]*time.Time, len(baselines)), make([]time.Time, len(baselines))
	for i, b := range baselines {
		series[i], sites[i], statsFrom[i], began[i], knownTo[i] = b.Series, b.SiteID, nullable(b.StatsFrom), nullable(b.Began), b.KnownTo
	}
	ofSeries, dates := make([]string, len(days)), make([]time.Time, len(days))
	sums, squares := make([]float32, 0, 24*len(days)), make([]float32, 0, 24*len(days))
	for i, d := range days {
		ofSeries[i], dates[i] = d.Series, d.Day
		sums, squares = append(sums, d.Sums[:]...), append(squares, d.Squares[:]...)
	}
	batch := &pgx.Batch{}
	batch.Queue(upsertBaselines, series, sites, statsFrom, began, knownTo)
	if len(void) > 0 {
		batch.Queue(removeVoid, void)
	}
	if len(days) > 0 {
		batch.Queue(upsertDays, ofSeries, dates, sums, squares)
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
	if err != nil {
		return fmt.Errorf("write baselines: %w", err)
	}
	return nil
}

// RemoveOldBaselines deletes days that are older than any norm looks at, and series that were not
// measured for as long.
func (s *Store) RemoveOldBaselines(ctx context.Context) error {
	for _, statement := range []string{
		"DELETE FROM baseline_days WHERE day < now() - interval '63 days'",
		"DELETE FROM baselines WHERE known_to < now() - interval '63 days'",
	} {
		if _, err := s.pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("remove old baselines: %w", err)
		}
	}
	return nil
}
