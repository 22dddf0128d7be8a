-- +goose Up

-- What requests with an Idempotency-Key were answered, for a day.
CREATE TABLE answers (
    id         bytea PRIMARY KEY,              -- SHA-256 of the API key and the Idempotency-Key
    request    bytea       NOT NULL,           -- SHA-256 of what was asked for
    sealed     bytea,                          -- AEAD ciphertext, bound to the id; null within the transaction that makes it
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX answers_by_age ON answers (created_at);

-- Who changed what, and when: names of fields, never values.
CREATE TABLE audit (
    id         text PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    site_id    bigint      NOT NULL,
    operation  text        NOT NULL,
    webhook_id text,                           -- no foreign key: what was removed stays to be read about
    object_id  text,                           -- the trigger, delivery or recovery, where it was one of the webhook's
    fields     text[]      NOT NULL,
    user_id    bigint,                         -- Plausible's users.id; null: the operator
    key_prefix text,
    request_id text        NOT NULL
);
CREATE INDEX audit_by_site ON audit (site_id, at DESC, id DESC);
CREATE INDEX audit_by_age ON audit (at);

-- +goose Down
DROP TABLE audit;
DROP TABLE answers;
