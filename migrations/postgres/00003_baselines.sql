-- +goose Up

-- What is usual for a site, measured by the evaluator hour by hour so that ClickHouse is asked for
-- each hour once. A series is a metric of a site with a goal, filters and a window length.
CREATE TABLE baselines (
    series     text PRIMARY KEY,      -- hash of what the series is
    site_id    bigint      NOT NULL,
    stats_from timestamptz,           -- of the site when it was measured; another one makes it void
    began_at   timestamptz,           -- the first hour that was not 0; null: none yet
    known_to   timestamptz NOT NULL   -- the eight weeks before are measured: hours without a cell are 0
);

-- The windows of each hour of a day in UTC: their sum and the sum of their squares. A day that is
-- missing was all 0. real: exact up to 16 million, and half the size.
CREATE TABLE baseline_days (
    series  text   NOT NULL REFERENCES baselines ON DELETE CASCADE,
    day     date   NOT NULL,
    sums    real[] NOT NULL CHECK (cardinality(sums) = 24),
    squares real[] NOT NULL CHECK (cardinality(squares) = 24),
    PRIMARY KEY (series, day)
);
CREATE INDEX baseline_days_by_day ON baseline_days (day);

-- Up to when the values that a site has seen of a dimension are in seen_values.
CREATE TABLE seen_dimensions (
    site_id    bigint      NOT NULL,
    dimension  text        NOT NULL,
    stats_from timestamptz,           -- of the site when they were read; another one makes them void
    known_to   timestamptz NOT NULL,
    PRIMARY KEY (site_id, dimension)
);

-- Of the values only hashes are kept: they are asked for, never shown.
CREATE TABLE seen_values (
    site_id    bigint      NOT NULL,
    dimension  text        NOT NULL,
    value_hash bigint      NOT NULL,
    first_seen timestamptz NOT NULL,
    PRIMARY KEY (site_id, dimension, value_hash)
);

-- +goose Down
DROP TABLE seen_values, seen_dimensions, baseline_days, baselines;
