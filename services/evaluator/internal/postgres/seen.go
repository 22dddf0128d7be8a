package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// SiteDimension is a dimension of a site.
type SiteDimension struct {
	SiteID    int64
	Dimension trigger.Dimension
}

// Seen is how far the values of a dimension are in the database.
type Seen struct {
	SiteDimension
	StatsFrom time.Time // of the site when they were read; zero: all rows count
	KnownTo   time.Time
}

// SeenValue is a value of a dimension, by its hash.
type SeenValue struct {
	SiteDimension
	Hash  uint64
	First time.Time
}

func siteDimensionColumns(of []SiteDimension) (sites []int64, dimensions []string) {
	sites, dimensions = make([]int64, len(of)), make([]string, len(of))
	for i, d := range of {
		sites[i], dimensions[i] = d.SiteID, string(d.Dimension)
	}
	return sites, dimensions
}

// Seen reads how far the values of dimensions are known. Those never read are missing.
func (s *Store) Seen(ctx context.Context, of []SiteDimension) (map[SiteDimension]Seen, error) {
	const statement = `
		SELECT site_id, dimension, stats_from, known_to FROM seen_dimensions
		JOIN unnest($1::bigint[], $2::text[]) AS asked (site_id, dimension) USING (site_id, dimension)`
	sites, dimensions := siteDimensionColumns(of)
	rows, err := s.pool.Query(ctx, statement, sites, dimensions)
	if err != nil {
		return nil, fmt.Errorf("read what was seen: %w", err)
	}
	seen := make(map[SiteDimension]Seen, len(of))
	var one Seen
	var statsFrom *time.Time
	_, err = pgx.ForEachRow(rows, []any{&one.SiteID, &one.Dimension, &statsFrom, &one.KnownTo}, func() error {
		one.StatsFrom, one.KnownTo = known(statsFrom), one.KnownTo.UTC()
		seen[one.SiteDimension] = one
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what was seen: %w", err)
	}
	return seen, nil
}

// FirstSeen fills in when the values were first seen; those that never were stay as they are.
func (s *Store) FirstSeen(ctx context.Context, values []SeenValue) error {
	const statement = `
		SELECT asked.no, v.first_seen
		FROM unnest($1::bigint[], $2::text[], $3::bigint[]) WITH ORDINALITY AS asked (site_id, dimension, value_hash, no)
		JOIN seen_values v USING (site_id, dimension, value_hash)`
	sites, dimensions, hashes := make([]int64, len(values)), make([]string, len(values)), make([]int64, len(values))
	for i, v := range values {
		sites[i], dimensions[i], hashes[i] = v.SiteID, string(v.Dimension), int64(v.Hash)
	}
	rows, err := s.pool.Query(ctx, statement, sites, dimensions, hashes)
	if err != nil {
		return fmt.Errorf("read seen values: %w", err)
	}
	var no int64
	var first time.Time
	_, err = pgx.ForEachRow(rows, []any{&no, &first}, func() error {
		values[no-1].First = first.UTC()
		return nil
	})
	if err != nil {
		return fmt.Errorf("read seen values: %w", err)
	}
	return nil
}

// seenBatch is how many values one statement writes: all history of a large site may be a million.
const seenBatch = 20_000

// SaveSeen writes values that were seen, and how far those of their dimensions are known. What was
// known of void dimensions, because their site's statistics were reset, is removed first.
func (s *Store) SaveSeen(ctx context.Context, seen []Seen, values []SeenValue, void []SiteDimension) error {
	const (
		removeVoid = `
			DELETE FROM seen_values v USING unnest($1::bigint[], $2::text[]) AS void (site_id, dimension)
			WHERE v.site_id = void.site_id AND v.dimension = void.dimension`

		upsertValues = `
			INSERT INTO seen_values (site_id, dimension, value_hash, first_seen)
			SELECT site_id, dimension, value_hash, min(first_seen)
			FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::timestamptz[]) AS v (site_id, dimension, value_hash, first_seen)
			GROUP BY site_id, dimension, value_hash ORDER BY site_id, dimension, value_hash
			ON CONFLICT (site_id, dimension, value_hash) DO UPDATE SET first_seen = excluded.first_seen
			WHERE excluded.first_seen < seen_values.first_seen`

		upsertSeen = `
			INSERT INTO seen_dimensions (site_id, dimension, stats_from, known_to)
			SELECT * FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS s (site_id, dimension)
			ORDER BY s.site_id, s.dimension
			ON CONFLICT (site_id, dimension) DO UPDATE SET stats_from = excluded.stats_from, known_to = excluded.known_to`
	)
	of := make([]SiteDimension, len(seen))
	statsFrom, knownTo := make([]*time.Time, len(seen)), make([]time.Time, len(seen))
	for i, one := range seen {
		of[i], statsFrom[i], knownTo[i] = one.SiteDimension, nullable(one.StatsFrom), one.KnownTo
	}
	batch := &pgx.Batch{}
	sites, dimensions := siteDimensionColumns(of)
	batch.Queue(upsertSeen, sites, dimensions, statsFrom, knownTo) // first: its rows are what two replicas wait for
	if len(void) > 0 {
		sites, dimensions := siteDimensionColumns(void)
		batch.Queue(removeVoid, sites, dimensions)
	}
	for len(values) > 0 {
		some := values[:min(len(values), seenBatch)]
		values = values[len(some):]
		sites, dimensions := make([]int64, len(some)), make([]string, len(some))
		hashes, firsts := make([]int64, len(some)), make([]time.Time, len(some))
		for i, v := range some {
			sites[i], dimensions[i], hashes[i], firsts[i] = v.SiteID, string(v.Dimension), int64(v.Hash), v.First
		}
		batch.Queue(upsertValues, sites, dimensions, hashes, firsts)
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
	if err != nil {
		return fmt.Errorf("write what was seen: %w", err)
	}
	return nil
}

// RemoveUnaskedSeen deletes the values of dimensions that no trigger has asked for in nine weeks.
func (s *Store) RemoveUnaskedSeen(ctx context.Context) error {
	const statement = `
		WITH unasked AS (DELETE FROM seen_dimensions WHERE known_to < now() - interval '63 days' RETURNING site_id, dimension)
		DELETE FROM seen_values v USING unasked u WHERE v.site_id = u.site_id AND v.dimension = u.dimension`
	if _, err := s.pool.Exec(ctx, statement); err != nil {
		return fmt.Errorf("remove seen values: %w", err)
	}
	return nil
}
