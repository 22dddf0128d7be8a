-- +goose Up

-- A firing is committed before its context is known, so that no slot waits for it. What the context is asked with stands
-- here until the payload has it; NULL: the payload is complete.
ALTER TABLE firings ADD COLUMN pending json;

-- +goose Down
ALTER TABLE firings DROP COLUMN pending;
