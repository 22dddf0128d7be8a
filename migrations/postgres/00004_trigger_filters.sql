-- +goose Up
-- In the grammar of Plausible's Stats API v2; a change of them starts a new revision, as one of the config does.
ALTER TABLE triggers ADD COLUMN filters jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(filters) = 'array');

-- +goose Down
ALTER TABLE triggers DROP COLUMN filters;
