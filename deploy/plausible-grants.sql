-- The role that reads Plausible's Postgres, and all of its rights. Run it in Plausible's database
-- as its superuser, and again after each upgrade of Plausible: a release may bring tables.
--
--   docker compose exec -T plausible_db psql -U postgres -v ON_ERROR_STOP=1 plausible_db < deploy/plausible-grants.sql
--
-- then, once, give the role a password:
--
--   ALTER ROLE plausible_webhooks PASSWORD 'choose-one';

BEGIN;

DO $$ BEGIN
  CREATE ROLE plausible_webhooks LOGIN CONNECTION LIMIT 20;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;

ALTER ROLE plausible_webhooks SET default_transaction_read_only = on;
ALTER ROLE plausible_webhooks SET statement_timeout = '15s';

-- What it was granted before and is not below ends here.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM plausible_webhooks;

DO $$ BEGIN
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO plausible_webhooks', current_database());
END $$;
GRANT USAGE ON SCHEMA public TO plausible_webhooks;

-- Nothing in them is secret. New columns of theirs need no new grant.
GRANT SELECT ON public.sites, public.goals, public.schema_migrations TO plausible_webhooks;

-- Who may do what: teams since v3.0, where site_memberships is left behind, outdated.
DO $$ BEGIN
  IF to_regclass('public.team_memberships') IS NULL THEN
    GRANT SELECT ON public.site_memberships TO plausible_webhooks;
  ELSE
    GRANT SELECT ON public.team_memberships, public.guest_memberships TO plausible_webhooks;
  END IF;
END $$;

-- Of API keys the hash, the beginning that Plausible shows, their user and team. Of e-mail notifications what the import makes
-- triggers of; the addresses are counted. The release may lack columns, or the table.
DO $$
DECLARE
  existing record;
BEGIN
  FOR existing IN
    SELECT wanted.name, string_agg(quote_ident(a.attname), ', ') AS columns
    FROM (VALUES
      ('api_keys', ARRAY['user_id', 'team_id', 'key_hash', 'key_prefix']),
      ('spike_notifications', ARRAY['site_id', 'type', 'threshold', 'recipients'])
    ) AS wanted (name, columns)
    JOIN pg_attribute a ON a.attrelid = to_regclass('public.' || wanted.name) AND a.attname = ANY (wanted.columns)
    GROUP BY wanted.name
  LOOP
    EXECUTE format('GRANT SELECT (%s) ON public.%I TO plausible_webhooks', existing.columns, existing.name);
  END LOOP;
END $$;

COMMIT;
