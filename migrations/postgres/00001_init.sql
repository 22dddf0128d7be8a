-- +goose Up

-- ---------------------------------------------------------------- api: configuration

CREATE TABLE webhooks (
    id                    text PRIMARY KEY,
    site_id               bigint      NOT NULL,  -- Plausible's sites.id: stable when the domain changes
    url                   text        NOT NULL,
    description           text        NOT NULL DEFAULT '',
    enabled               boolean     NOT NULL DEFAULT true,
    enabled_at            timestamptz NOT NULL DEFAULT now(), -- a disabling older than this no longer counts
    headers               jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),
    timeout_seconds       integer     NOT NULL DEFAULT 15 CHECK (timeout_seconds BETWEEN 1 AND 30),
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_by_site ON webhooks (site_id, created_at DESC, id DESC);

-- Several rows of one webhook sign side by side while a secret rotates.
CREATE TABLE webhook_secrets (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id text        NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    sealed     bytea       NOT NULL,  -- AEAD ciphertext, bound to webhook_id
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz            -- null: signs until it is replaced
);
CREATE INDEX webhook_secrets_by_webhook ON webhook_secrets (webhook_id);

CREATE TABLE triggers (
    id               text PRIMARY KEY,
    webhook_id       text        NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    site_id          bigint      NOT NULL,
    type             text        NOT NULL,
    name             text        NOT NULL,
    enabled          boolean     NOT NULL DEFAULT true,
    config           jsonb       NOT NULL CHECK (jsonb_typeof(config) = 'object'),
    cooldown_seconds integer     NOT NULL DEFAULT 0 CHECK (cooldown_seconds BETWEEN 0 AND 2592000),
    notify_resolved  boolean     NOT NULL DEFAULT false,
    -- Raised when the condition changes: the evaluator then starts a new state, counting from revised_at.
    revision         integer     NOT NULL DEFAULT 1,
    revised_at       timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX triggers_by_webhook ON triggers (webhook_id, created_at DESC, id DESC);

-- ---------------------------------------------------------------- evaluator: where things stand

-- One row per shard. Every write of the owner is fenced by its epoch, so an owner that
-- was paused beyond its lease cannot write.
CREATE TABLE evaluator_leases (
    shard      integer PRIMARY KEY,
    owner      text        NOT NULL,
    epoch      bigint      NOT NULL,
    expires_at timestamptz NOT NULL,
    last_slot  timestamptz           -- the newest slot evaluated for every trigger of the shard
);

CREATE TABLE trigger_states (
    trigger_id        text PRIMARY KEY, -- no foreign key: the row's writer is not the trigger's
    revision          integer          NOT NULL,
    status            text             NOT NULL CHECK (status IN ('ok', 'pending', 'firing', 'recovering', 'insufficient_data', 'error')),
    value             double precision,
    threshold         double precision,
    since             timestamptz      NOT NULL,
    last_evaluated_at timestamptz      NOT NULL,
    last_fired_at     timestamptz,
    explanation       text             NOT NULL DEFAULT '',
    machine           jsonb            NOT NULL -- what the type's step function carries from slot to slot
);

-- The outbox, kept as the log of what fired and why. Committed together with the state
-- that made it, published afterwards.
CREATE TABLE firings (
    id            text        NOT NULL,
    slot          timestamptz NOT NULL,
    site_id       bigint      NOT NULL,
    webhook_id    text        NOT NULL,
    trigger_id    text        NOT NULL,
    trigger_type  text        NOT NULL,
    type          text        NOT NULL,   -- <trigger type>.fired or .resolved
    payload       bytea       NOT NULL,   -- the standard message: these bytes are sent
    trace_context text        NOT NULL DEFAULT '', -- W3C traceparent of the slot
    created_at    timestamptz NOT NULL DEFAULT now(),
    published_at  timestamptz,
    stream_seq    bigint,                 -- where JetStream stored it
    confirmed_at  timestamptz,            -- a delivery row was seen: nothing is left to do
    PRIMARY KEY (id, slot),
    CHECK ((published_at IS NULL) = (stream_seq IS NULL)),
    CHECK (confirmed_at IS NULL OR published_at IS NOT NULL)
) PARTITION BY RANGE (slot);
CREATE TABLE firings_default PARTITION OF firings DEFAULT;
CREATE INDEX firings_unpublished ON firings (slot, id) WHERE published_at IS NULL;
CREATE INDEX firings_unconfirmed ON firings (published_at) WHERE published_at IS NOT NULL AND confirmed_at IS NULL;
CREATE INDEX firings_by_trigger ON firings (trigger_id, slot DESC);

-- ---------------------------------------------------------------- dispatcher: what was owed and what became of it

CREATE TABLE deliveries (
    id              text        NOT NULL,  -- the webhook-id header; for a single firing, the firing's id
    slot            timestamptz NOT NULL,  -- the firing's slot: a fact all replicas share, so the key can hold it
    site_id         bigint      NOT NULL,
    webhook_id      text        NOT NULL,
    trigger_id      text,
    firing_ids      text[]      NOT NULL,
    type            text        NOT NULL,
    status          text        NOT NULL CHECK (status IN ('waiting', 'delivered', 'dead', 'cancelled')),
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,           -- null while waiting: held until its webhook is enabled again
    claimed_until   timestamptz,           -- a dispatcher's lease on a due row
    last_error      text        NOT NULL DEFAULT '',
    payload         bytea       NOT NULL,
    trace_context   text        NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    PRIMARY KEY (id, slot),
    CHECK ((status = 'waiting') = (finished_at IS NULL)),
    CHECK (status = 'waiting' OR (next_attempt_at IS NULL AND claimed_until IS NULL))
) PARTITION BY RANGE (slot);
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'waiting' AND next_attempt_at IS NOT NULL;
CREATE INDEX deliveries_waiting_by_webhook ON deliveries (webhook_id, next_attempt_at) WHERE status = 'waiting';
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, slot DESC, id DESC);

CREATE TABLE attempts (
    delivery_id      text        NOT NULL,
    slot             timestamptz NOT NULL, -- the delivery's
    number           integer     NOT NULL CHECK (number >= 1),
    started_at       timestamptz NOT NULL,
    duration_ms      double precision NOT NULL CHECK (duration_ms >= 0),
    request_headers  jsonb       NOT NULL, -- without secrets
    status_code      integer,              -- null: no response was received
    response_headers jsonb,
    response_body    text        NOT NULL DEFAULT '', -- an excerpt, valid UTF-8, no NUL
    timings          jsonb       NOT NULL DEFAULT '{}', -- milliseconds: dns, connect, tls, first_byte, body
    error            text        NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, number, slot)
) PARTITION BY RANGE (slot);
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

CREATE TABLE webhook_health (
    webhook_id      text PRIMARY KEY, -- no foreign key: the row's writer is not the webhook's
    failing_since   timestamptz,      -- first failed attempt after the last delivered one
    disabled_at     timestamptz,      -- holds only while later than webhooks.enabled_at
    disabled_reason text NOT NULL DEFAULT '',
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------- partitions by week

-- create_partitions makes the weekly partitions of a table from the week of "since" to the
-- week of "until". Rows of a week without a partition go to the default one, so nothing is
-- ever refused; a week that already has rows there keeps them there.
-- +goose StatementBegin
CREATE FUNCTION create_partitions(parent regclass, since timestamptz, until timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    week_start timestamptz := date_trunc('week', since AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    week_end   timestamptz;
    partition  text;
    occupied   boolean;
    made       integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_partitions'));
    WHILE week_start <= until LOOP
        week_end  := week_start + interval '7 days';
        partition := format('%s_%s', parent, to_char(week_start AT TIME ZONE 'UTC', 'IYYY"w"IW'));
        IF to_regclass(partition) IS NULL THEN
            EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s_default WHERE slot >= %L AND slot < %L)', parent, week_start, week_end) INTO occupied;
            IF NOT occupied THEN
                EXECUTE format('CREATE TABLE %s PARTITION OF %s FOR VALUES FROM (%L) TO (%L)', partition, parent, week_start, week_end);
                made := made + 1;
            END IF;
        END IF;
        week_start := week_end;
    END LOOP;
    RETURN made;
END $$;
-- +goose StatementEnd

-- drop_partitions drops the weekly partitions of a table that end before "horizon", and deletes
-- such rows from the default one.
-- +goose StatementBegin
CREATE FUNCTION drop_partitions(parent regclass, horizon timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    child   regclass;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_partitions'));
    FOR child IN
        SELECT i.inhrelid::regclass FROM pg_inherits i
        WHERE i.inhparent = parent AND i.inhrelid::regclass::text ~ '_\d{4}w\d{2}$'
          AND to_date(right(i.inhrelid::regclass::text, 7), 'IYYY"w"IW') + 7 <= (horizon AT TIME ZONE 'UTC')::date
    LOOP
        EXECUTE format('DROP TABLE %s', child);
        dropped := dropped + 1;
    END LOOP;
    EXECUTE format('DELETE FROM %s_default WHERE slot < %L', parent, horizon);
    RETURN dropped;
END $$;
-- +goose StatementEnd

SELECT create_partitions(t::regclass, now() - interval '7 days', now() + interval '14 days')
FROM unnest(ARRAY ['firings', 'deliveries', 'attempts']) AS t;

-- +goose Down
DROP FUNCTION drop_partitions(regclass, timestamptz);
DROP FUNCTION create_partitions(regclass, timestamptz, timestamptz);
DROP TABLE webhook_health, attempts, deliveries, firings, trigger_states, evaluator_leases, triggers, webhook_secrets, webhooks;
