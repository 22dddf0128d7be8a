CREATE EXTENSION IF NOT EXISTS citext;

DO $$ BEGIN
  CREATE TYPE site_membership_role AS ENUM ('owner', 'admin', 'viewer');
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;

DO $$ BEGIN
  CREATE TYPE segment_type AS ENUM ('personal', 'site');
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;

CREATE TABLE IF NOT EXISTS schema_migrations (
  version bigint PRIMARY KEY,
  inserted_at timestamp(0)
);

CREATE TABLE IF NOT EXISTS users (
  id bigserial PRIMARY KEY,
  email citext NOT NULL,
  name varchar(255),
  password_hash varchar(255),
  last_seen timestamp(0) DEFAULT now(),
  theme varchar(255) DEFAULT 'system',
  email_verified boolean NOT NULL DEFAULT false,
  previous_email citext,
  totp_secret bytea,
  totp_enabled boolean NOT NULL DEFAULT false,
  totp_last_used_at timestamp(0),
  totp_token varchar(255),
  last_team_identifier uuid,
  notes text,
  trial_expiry_date date,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS users_email_index ON users (email);

CREATE TABLE IF NOT EXISTS teams (
  id bigserial PRIMARY KEY,
  identifier uuid NOT NULL DEFAULT gen_random_uuid(),
  name varchar(255) NOT NULL,
  setup_complete boolean NOT NULL DEFAULT false,
  setup_at timestamp(0),
  locked boolean NOT NULL DEFAULT false,
  locked_by_admin boolean NOT NULL DEFAULT false,
  accept_traffic_until date,
  trial_expiry_date date,
  hourly_api_request_limit integer NOT NULL DEFAULT 600,
  policy jsonb NOT NULL DEFAULT '{}',
  notes text,
  grace_period jsonb,
  allow_next_upgrade_override boolean NOT NULL DEFAULT false,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS teams_identifier_index ON teams (identifier);

CREATE TABLE IF NOT EXISTS sites (
  id bigserial PRIMARY KEY,
  domain varchar(255) NOT NULL,
  timezone varchar(255) NOT NULL DEFAULT 'Etc/UTC',
  public boolean NOT NULL DEFAULT false,
  team_id bigint REFERENCES teams (id) ON DELETE CASCADE,
  native_stats_start_at timestamp(0) NOT NULL DEFAULT now(),
  stats_start_date date,
  domain_changed_from varchar(255),
  domain_changed_at timestamp(0),
  allowed_event_props varchar(300)[],
  conversions_enabled boolean NOT NULL DEFAULT true,
  props_enabled boolean NOT NULL DEFAULT true,
  funnels_enabled boolean NOT NULL DEFAULT true,
  ingest_rate_limit_threshold integer,
  ingest_rate_limit_scale_seconds integer NOT NULL DEFAULT 60,
  legacy_time_on_page_cutoff date,
  consolidated boolean NOT NULL DEFAULT false,
  imported_data jsonb,
  locked boolean NOT NULL DEFAULT false,
  has_stats boolean NOT NULL DEFAULT false,
  accept_traffic_until date,
  installation_meta jsonb,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS sites_domain_index ON sites (domain);
CREATE UNIQUE INDEX IF NOT EXISTS sites_domain_changed_from_index ON sites (domain_changed_from);

CREATE TABLE IF NOT EXISTS team_memberships (
  id bigserial PRIMARY KEY,
  team_id bigint NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role varchar(255) NOT NULL,
  is_autocreated boolean NOT NULL DEFAULT false,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS team_memberships_team_id_user_id_index ON team_memberships (team_id, user_id);

CREATE TABLE IF NOT EXISTS guest_memberships (
  id bigserial PRIMARY KEY,
  team_membership_id bigint NOT NULL REFERENCES team_memberships (id) ON DELETE CASCADE,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  role varchar(255) NOT NULL,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS guest_memberships_team_membership_id_site_id_index
  ON guest_memberships (team_membership_id, site_id);

-- Of v2; v3 leaves it behind as it was.
CREATE TABLE IF NOT EXISTS site_memberships (
  id bigserial PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role site_membership_role NOT NULL DEFAULT 'owner',
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS site_memberships_site_id_user_id_index ON site_memberships (site_id, user_id);

CREATE TABLE IF NOT EXISTS goals (
  id bigserial PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  event_name text,
  page_path text,
  currency varchar(3),
  display_name text NOT NULL,
  scroll_threshold smallint NOT NULL DEFAULT -1,
  custom_props jsonb NOT NULL DEFAULT '{}',
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
DO $$ BEGIN
  ALTER TABLE goals ADD CONSTRAINT check_event_name_or_page_path
    CHECK ((event_name IS NULL) <> (page_path IS NULL)) NOT VALID;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
CREATE UNIQUE INDEX IF NOT EXISTS goals_event_config_unique
  ON goals (site_id, event_name, custom_props) WHERE event_name IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS goals_pageview_config_unique
  ON goals (site_id, page_path, scroll_threshold, custom_props) WHERE page_path IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS goals_display_name_unique ON goals (site_id, display_name);

CREATE TABLE IF NOT EXISTS api_keys (
  id bigserial PRIMARY KEY,
  user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  team_id bigint REFERENCES teams (id) ON DELETE CASCADE,
  name varchar(255) NOT NULL,
  key_hash varchar(255) NOT NULL,
  key_prefix varchar(255) NOT NULL,
  scopes text[] NOT NULL DEFAULT '{stats:read:*}',
  hourly_request_limit integer NOT NULL DEFAULT 600,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS api_keys_key_hash_index ON api_keys (key_hash);

CREATE TABLE IF NOT EXISTS segments (
  id bigserial PRIMARY KEY,
  name varchar(255) NOT NULL,
  type segment_type NOT NULL DEFAULT 'personal',
  segment_data jsonb NOT NULL,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  owner_id bigint REFERENCES users (id) ON DELETE SET NULL,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);

CREATE TABLE IF NOT EXISTS shared_links (
  id bigserial PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  slug varchar(255) NOT NULL,
  name varchar(255) NOT NULL,
  password_hash varchar(255),
  segment_id bigint REFERENCES segments (id) ON DELETE RESTRICT,
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS shared_links_slug_index ON shared_links (slug);
CREATE UNIQUE INDEX IF NOT EXISTS shared_links_site_id_name_index ON shared_links (site_id, name);

CREATE TABLE IF NOT EXISTS spike_notifications (
  id bigserial PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  threshold integer NOT NULL,
  last_sent timestamp(0),
  recipients citext[] NOT NULL DEFAULT '{}',
  type varchar(255) NOT NULL DEFAULT 'spike',
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS spike_notifications_site_id_type_index ON spike_notifications (site_id, type);

CREATE TABLE IF NOT EXISTS weekly_reports (
  id bigserial PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  recipients citext[] NOT NULL DEFAULT '{}',
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS weekly_reports_site_id_index ON weekly_reports (site_id);

CREATE TABLE IF NOT EXISTS monthly_reports (
  id bigserial PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  recipients citext[] NOT NULL DEFAULT '{}',
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS monthly_reports_site_id_index ON monthly_reports (site_id);

CREATE TABLE IF NOT EXISTS plugins_api_tokens (
  id uuid PRIMARY KEY,
  site_id bigint NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
  token_hash bytea NOT NULL,
  hint varchar(255) NOT NULL,
  description varchar(255) NOT NULL,
  last_used_at timestamp(0),
  inserted_at timestamp(0) NOT NULL,
  updated_at timestamp(0) NOT NULL
);

-- Its rows are what visitors' ids are made with: never to be read by others.
CREATE TABLE IF NOT EXISTS salts (
  id bigserial PRIMARY KEY,
  salt bytea NOT NULL,
  inserted_at timestamp(0) NOT NULL
);

INSERT INTO schema_migrations (version, inserted_at) VALUES (20260105075211, now()) ON CONFLICT DO NOTHING;
