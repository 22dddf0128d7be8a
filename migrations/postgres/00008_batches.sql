-- +goose Up

-- A webhook that wants batches gets up to so many firings in one message, none later than so long
-- after it came.
ALTER TABLE webhooks
    ADD COLUMN batch_max_size         integer CHECK (batch_max_size BETWEEN 2 AND 100), -- null: each firing is a message of its own
    ADD COLUMN batch_max_wait_seconds integer CHECK (batch_max_wait_seconds BETWEEN 1 AND 3600),
    ADD CHECK ((batch_max_size IS NULL) = (batch_max_wait_seconds IS NULL));

-- A firing for such a webhook is gathering until it is batched: a delivery of its own then brings it,
-- whose firing_ids name it. Its row stays, because it tells that the firing has been taken in.
ALTER TABLE deliveries
    ADD COLUMN batch_id text, -- the delivery that brings it
    DROP CONSTRAINT deliveries_status_check,
    ADD CONSTRAINT deliveries_status_check CHECK (status IN ('waiting', 'delivered', 'dead', 'cancelled', 'gathering', 'batched')),
    DROP CONSTRAINT deliveries_check,
    ADD CONSTRAINT deliveries_check CHECK ((status IN ('waiting', 'gathering')) = (finished_at IS NULL)),
    ADD CONSTRAINT deliveries_batched CHECK ((status = 'batched') = (batch_id IS NOT NULL));
CREATE INDEX deliveries_gathering ON deliveries (webhook_id, created_at, id) WHERE status = 'gathering';

-- +goose Down
DROP INDEX deliveries_gathering;
DELETE FROM deliveries WHERE status = 'batched'; -- what brings them stays
UPDATE deliveries SET status = 'waiting' WHERE status = 'gathering';
ALTER TABLE deliveries
    DROP CONSTRAINT deliveries_batched,
    DROP CONSTRAINT deliveries_check,
    ADD CONSTRAINT deliveries_check CHECK ((status = 'waiting') = (finished_at IS NULL)),
    DROP CONSTRAINT deliveries_status_check,
    ADD CONSTRAINT deliveries_status_check CHECK (status IN ('waiting', 'delivered', 'dead', 'cancelled')),
    DROP COLUMN batch_id;
ALTER TABLE webhooks DROP COLUMN batch_max_wait_seconds, DROP COLUMN batch_max_size;
