-- +goose Up

-- What came of each trigger's slots, for "why did it not fire?": one row for an hour of the clock, with
-- runs of slots of the same result, packed by the evaluator. A quiet trigger's hour has some 20 bytes.
-- No foreign key: what is left of a deleted trigger goes with the rest, after 7 days.
CREATE TABLE slot_results (
    trigger_id text        NOT NULL,
    hour       timestamptz NOT NULL, -- its start
    upto       timestamptz NOT NULL, -- the newest slot in it: an older replica's row never replaces a newer one
    results    bytea       NOT NULL,
    PRIMARY KEY (trigger_id, hour)
);
CREATE INDEX slot_results_by_hour ON slot_results (hour);

-- +goose Down
DROP TABLE slot_results;
