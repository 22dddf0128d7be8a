-- +goose Up

-- What the evaluator tells operators: an outbox, kept as a log for 90 days. The ids are derived
-- from facts, so that several replicas that notice the same thing make one row.
CREATE TABLE system_events (
    id           text PRIMARY KEY,
    kind         text        NOT NULL, -- as ingestion.silent
    at           timestamptz NOT NULL, -- when it happened
    payload      jsonb       NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX system_events_unpublished ON system_events (at, id) WHERE published_at IS NULL;
CREATE INDEX system_events_by_kind ON system_events (kind, at DESC);

-- Spans in which no site had an event for improbably long: from the last event before to the first
-- one after. They are facts that all replicas derive alike, so each writes them.
CREATE TABLE ingestion_outages (
    began timestamptz PRIMARY KEY,
    ended timestamptz CHECK (ended > began) -- null: it lasts
);

-- +goose Down
DROP TABLE ingestion_outages, system_events;
