-- +goose Up

ALTER TABLE webhooks
    ADD COLUMN format                text NOT NULL DEFAULT 'standard' CHECK (format IN ('standard', 'slack', 'discord', 'teams', 'custom')),
    ADD COLUMN template              text NOT NULL DEFAULT '',  -- jq; of the format custom alone
    ADD COLUMN rate_limit_per_second double precision CHECK (rate_limit_per_second > 0), -- null: none
    ADD CHECK ((format = 'custom') = (template <> ''));

-- v1 is HMAC-SHA256 with a shared key, v1a is ed25519, whose public key anybody may know.
ALTER TABLE webhook_secrets
    ADD COLUMN kind       text NOT NULL DEFAULT 'v1' CHECK (kind IN ('v1', 'v1a')),
    ADD COLUMN public_key text, -- whpk_…, of v1a
    ADD CHECK ((kind = 'v1a') = (public_key IS NOT NULL));

ALTER TABLE webhook_health
    ADD COLUMN circuit_open_until timestamptz, -- null: closed. No request before it, and one then
    ADD COLUMN paced_until        timestamptz, -- up to here its rate is used up: the next delivery may go then
    ADD COLUMN failed_at          timestamptz, -- the last failed attempt since failing_since, to within 10 minutes
    ADD COLUMN last_error         text NOT NULL DEFAULT ''; -- of that attempt

-- What the dispatchers tell operators and the site's other webhooks of a webhook's health: an outbox.
-- Each fact is told by whoever inserts its row.
CREATE TABLE webhook_events (
    webhook_id   text        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('webhook.failing', 'webhook.disabled')),
    at           timestamptz NOT NULL, -- webhook_health's failing_since or disabled_at
    id           text        NOT NULL,
    payload      bytea       NOT NULL, -- the standard message: these bytes are sent
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,          -- to operators, on the stream SYSTEM
    PRIMARY KEY (webhook_id, kind, at)
);
CREATE INDEX webhook_events_unpublished ON webhook_events (created_at) WHERE published_at IS NULL;

-- Who asks for a delivery again has reason to believe that its receiver works: its schedule of
-- retries begins anew, while its attempts go on counting.
ALTER TABLE deliveries ADD COLUMN schedule_start integer NOT NULL DEFAULT 0; -- attempts made before it began
-- What is recovered is few among many that were delivered.
CREATE INDEX deliveries_undelivered ON deliveries (webhook_id, slot, id) WHERE status IN ('dead', 'cancelled');

-- Deliveries that wait for their webhook and not for a time, in the order in which they go.
CREATE INDEX deliveries_held ON deliveries (webhook_id, slot, id) WHERE status = 'waiting' AND next_attempt_at IS NULL;

-- What the api asks of the dispatchers. The row is the truth; a message only wakes them.
CREATE TABLE commands (
    id              text PRIMARY KEY,
    site_id         bigint      NOT NULL,
    site_domain     text        NOT NULL, -- for the message of a test
    webhook_id      text        NOT NULL, -- no foreign key: what was asked outlives the webhook
    kind            text        NOT NULL CHECK (kind IN ('test', 'retry', 'recover')),
    delivery_id     text,                 -- of a retry, and of a test the one to be made
    since           timestamptz,          -- of a recovery: deliveries whose slot is in [since, until)
    until           timestamptz,
    status          text CHECK (status IN ('dead', 'cancelled', 'delivered')), -- of them those that ended so
    rate_per_second double precision CHECK (rate_per_second BETWEEN 0.01 AND 10000), -- null: the dispatchers' own
    cancelled_at    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (kind = 'recover' OR delivery_id IS NOT NULL),
    CHECK (kind <> 'recover' OR (since IS NOT NULL AND until IS NOT NULL AND status IS NOT NULL))
);
CREATE INDEX commands_by_webhook ON commands (webhook_id, created_at DESC, id DESC);

-- How far the dispatchers have come with a command.
CREATE TABLE command_progress (
    command_id    text PRIMARY KEY,
    status        text        NOT NULL CHECK (status IN ('running', 'done', 'cancelled', 'failed')),
    total         bigint,               -- deliveries that the command is about; null: not counted yet
    done          bigint      NOT NULL DEFAULT 0, -- of them made due again
    cursor_slot   timestamptz,          -- the last one of them; null: they are not counted yet
    cursor_id     text        NOT NULL DEFAULT '',
    error         text        NOT NULL DEFAULT '',
    next_batch_at timestamptz NOT NULL DEFAULT now(), -- of a running one, for whichever dispatcher is first
    started_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    CHECK ((status = 'running') = (finished_at IS NULL))
);
CREATE INDEX command_progress_running ON command_progress (next_batch_at) WHERE status = 'running';

-- +goose Down
DROP TABLE command_progress, commands;
DROP INDEX deliveries_held, deliveries_undelivered;
ALTER TABLE deliveries DROP COLUMN schedule_start;
DROP TABLE webhook_events;
ALTER TABLE webhook_health DROP COLUMN last_error, DROP COLUMN failed_at, DROP COLUMN paced_until, DROP COLUMN circuit_open_until;
ALTER TABLE webhook_secrets DROP COLUMN public_key, DROP COLUMN kind;
ALTER TABLE webhooks DROP COLUMN rate_limit_per_second, DROP COLUMN template, DROP COLUMN format;
