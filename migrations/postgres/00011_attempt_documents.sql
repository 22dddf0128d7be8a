-- +goose Up

-- The documents of an attempt are read whole, and nothing is looked up in them. As jsonb, taking them
-- apart when they are written was a quarter of what writing a delivery cost this server.
ALTER TABLE attempts
    ALTER COLUMN request_headers  TYPE json,
    ALTER COLUMN response_headers TYPE json,
    ALTER COLUMN timings          TYPE json,
    ALTER COLUMN timings          SET DEFAULT '{}';

-- +goose Down
ALTER TABLE attempts
    ALTER COLUMN request_headers  TYPE jsonb,
    ALTER COLUMN response_headers TYPE jsonb,
    ALTER COLUMN timings          TYPE jsonb,
    ALTER COLUMN timings          SET DEFAULT '{}';
