-- +goose Up

-- site_shard divides the sites among the evaluator's leases. Plausible's ids are sequential, so
-- the remainder spreads them evenly: no hash could do better. The evaluator's ShardOf is the same.
CREATE FUNCTION site_shard(site_id bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (site_id % 16)::integer;

-- Every replica that lives renews its row; it holds its shards for as long as it does.
CREATE TABLE evaluator_replicas (
    owner      text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- A lease ends with its owner's row, or when that expires. An evaluator that held the only
-- lease until now is fenced by losing it, and cannot take it again without the column.
ALTER TABLE evaluator_leases ALTER COLUMN owner DROP NOT NULL, DROP COLUMN expires_at;
UPDATE evaluator_leases SET owner = NULL;
ALTER TABLE evaluator_leases ADD FOREIGN KEY (owner) REFERENCES evaluator_replicas ON DELETE SET NULL;

-- All shards go on where the only one stood: the facts since then are found.
INSERT INTO evaluator_leases (shard, epoch, last_slot)
SELECT shard, 0, (SELECT last_slot FROM evaluator_leases WHERE shard = 0)
FROM generate_series(0, 15) AS shard
ON CONFLICT (shard) DO NOTHING;

-- +goose Down
-- The oldest slot of all: facts may be looked at again, their ids stay the same.
UPDATE evaluator_leases SET last_slot = (SELECT min(last_slot) FROM evaluator_leases) WHERE shard = 0;
DELETE FROM evaluator_leases WHERE shard > 0;
ALTER TABLE evaluator_leases DROP CONSTRAINT evaluator_leases_owner_fkey, ADD COLUMN expires_at timestamptz NOT NULL DEFAULT '-infinity';
UPDATE evaluator_leases SET owner = '' WHERE owner IS NULL;
ALTER TABLE evaluator_leases ALTER COLUMN owner SET NOT NULL, ALTER COLUMN expires_at DROP DEFAULT;
DROP TABLE evaluator_replicas;
DROP FUNCTION site_shard(bigint);
