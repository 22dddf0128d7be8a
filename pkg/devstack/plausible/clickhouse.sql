CREATE TABLE IF NOT EXISTS location_data (
  type LowCardinality(String),
  id String,
  name String
) ENGINE = MergeTree
ORDER BY (type, id)
SETTINGS index_granularity = 128;

CREATE DICTIONARY IF NOT EXISTS location_data_dict (
  type String,
  id String,
  name String
) PRIMARY KEY type, id
SOURCE(CLICKHOUSE(TABLE location_data DB '${database}'))
LIFETIME(0)
LAYOUT(complex_key_cache(size_in_cells 500000));

CREATE TABLE IF NOT EXISTS events_v2 (
  timestamp DateTime CODEC(Delta(4), LZ4),
  name LowCardinality(String),
  site_id UInt64,
  user_id UInt64,
  session_id UInt64,
  hostname String CODEC(ZSTD(3)),
  pathname String CODEC(ZSTD(3)),
  referrer String CODEC(ZSTD(3)),
  referrer_source String CODEC(ZSTD(3)),
  country_code FixedString(2),
  screen_size LowCardinality(String),
  operating_system LowCardinality(String),
  browser LowCardinality(String),
  utm_medium String CODEC(ZSTD(3)),
  utm_source String CODEC(ZSTD(3)),
  utm_campaign String CODEC(ZSTD(3)),
  `meta.key` Array(String) CODEC(ZSTD(3)),
  `meta.value` Array(String) CODEC(ZSTD(3)),
  browser_version LowCardinality(String),
  operating_system_version LowCardinality(String),
  subdivision1_code LowCardinality(String),
  subdivision2_code LowCardinality(String),
  city_geoname_id UInt32,
  utm_content String CODEC(ZSTD(3)),
  utm_term String CODEC(ZSTD(3)),
  revenue_reporting_amount Nullable(Decimal(18, 3)),
  revenue_reporting_currency FixedString(3),
  revenue_source_amount Nullable(Decimal(18, 3)),
  revenue_source_currency FixedString(3),
  source String ALIAS referrer_source,
  device LowCardinality(String) ALIAS screen_size,
  screen LowCardinality(String) ALIAS screen_size,
  os LowCardinality(String) ALIAS operating_system,
  os_version LowCardinality(String) ALIAS operating_system_version,
  country LowCardinality(FixedString(2)) ALIAS country_code,
  region LowCardinality(String) ALIAS subdivision1_code,
  city UInt32 ALIAS city_geoname_id,
  country_name String ALIAS dictGet('${database}.location_data_dict', 'name', tuple('country', country_code)),
  region_name String ALIAS dictGet('${database}.location_data_dict', 'name', tuple('subdivision', subdivision1_code)),
  city_name String ALIAS dictGet('${database}.location_data_dict', 'name', tuple('city', city_geoname_id)),
  channel LowCardinality(String),
  click_id_param LowCardinality(String),
  scroll_depth UInt8,
  -- Plausible computes it with functions of its own, from a long list of sources
  acquisition_channel LowCardinality(String) MATERIALIZED if(empty(referrer_source), 'Direct', 'Referral'),
  engagement_time UInt32
) ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
PRIMARY KEY (site_id, toDate(timestamp), name, user_id)
ORDER BY (site_id, toDate(timestamp), name, user_id, timestamp)
SAMPLE BY user_id
SETTINGS index_granularity = 8192;

CREATE TABLE IF NOT EXISTS sessions_v2 (
  session_id UInt64,
  sign Int8,
  site_id UInt64,
  user_id UInt64,
  hostname String CODEC(ZSTD(3)),
  timestamp DateTime CODEC(Delta(4), LZ4),
  start DateTime CODEC(Delta(4), LZ4),
  is_bounce UInt8,
  entry_page String CODEC(ZSTD(3)),
  exit_page String CODEC(ZSTD(3)),
  pageviews Int32,
  events Int32,
  duration UInt32,
  referrer String CODEC(ZSTD(3)),
  referrer_source String CODEC(ZSTD(3)),
  country_code LowCardinality(FixedString(2)),
  screen_size LowCardinality(String),
  operating_system LowCardinality(String),
  browser LowCardinality(String),
  utm_medium String CODEC(ZSTD(3)),
  utm_source String CODEC(ZSTD(3)),
  utm_campaign String CODEC(ZSTD(3)),
  browser_version LowCardinality(String),
  operating_system_version LowCardinality(String),
  subdivision1_code LowCardinality(String),
  subdivision2_code LowCardinality(String),
  city_geoname_id UInt32,
  utm_content String CODEC(ZSTD(3)),
  utm_term String CODEC(ZSTD(3)),
  transferred_from String,
  `entry_meta.key` Array(String) CODEC(ZSTD(3)),
  `entry_meta.value` Array(String) CODEC(ZSTD(3)),
  exit_page_hostname String CODEC(ZSTD(3)),
  source String ALIAS referrer_source,
  device LowCardinality(String) ALIAS screen_size,
  screen LowCardinality(String) ALIAS screen_size,
  os LowCardinality(String) ALIAS operating_system,
  os_version LowCardinality(String) ALIAS operating_system_version,
  country LowCardinality(FixedString(2)) ALIAS country_code,
  region LowCardinality(String) ALIAS subdivision1_code,
  city UInt32 ALIAS city_geoname_id,
  entry_page_hostname String ALIAS hostname,
  country_name String ALIAS dictGet('${database}.location_data_dict', 'name', tuple('country', country_code)),
  region_name String ALIAS dictGet('${database}.location_data_dict', 'name', tuple('subdivision', subdivision1_code)),
  city_name String ALIAS dictGet('${database}.location_data_dict', 'name', tuple('city', city_geoname_id)),
  channel LowCardinality(String),
  click_id_param LowCardinality(String),
  -- see events_v2
  acquisition_channel LowCardinality(String) MATERIALIZED if(empty(referrer_source), 'Direct', 'Referral'),
  INDEX minmax_timestamp timestamp TYPE minmax GRANULARITY 1
) ENGINE = VersionedCollapsingMergeTree(sign, events)
PARTITION BY toYYYYMM(start)
PRIMARY KEY (site_id, toDate(start), user_id, session_id)
ORDER BY (site_id, toDate(start), user_id, session_id)
SAMPLE BY user_id
SETTINGS index_granularity = 8192;

CREATE TABLE IF NOT EXISTS schema_migrations (
  version Int64,
  inserted_at DateTime
) ENGINE = TinyLog;

INSERT INTO schema_migrations
SELECT 20251106111224, now()
WHERE 20251106111224 NOT IN (SELECT version FROM schema_migrations);
