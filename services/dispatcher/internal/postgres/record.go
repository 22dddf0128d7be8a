package postgres

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Status is a delivery's.
type Status string

// The statuses of a delivery. Waiting and Gathering are not final.
const (
	Waiting   Status = "waiting"
	Delivered Status = "delivered"
	Dead      Status = "dead"
	Cancelled Status = "cancelled"
	Gathering Status = "gathering" // a firing that is to go with others
	Batched   Status = "batched"   // one that another delivery brings
)

// Outcome is what became of a delivery: after an attempt, or without one.
type Outcome struct {
	Delivery
	Stored        bool // it has a row, as it was claimed
	Status        Status
	NextAttemptAt time.Time // of a waiting one; zero: it is held
	Attempt       *Attempt  // nil: no request was made
}

// Attempt is one HTTP request. Texts are valid UTF-8 without NUL, documents are JSON objects.
type Attempt struct {
	StartedAt       time.Time
	Duration        time.Duration
	RequestHeaders  string
	StatusCode      int    // 0: no response was received
	ResponseHeaders string // empty: no response was received
	ResponseBody    string
	Timings         string
	Error           string
}

// milliseconds is the duration, which is negative if the clock was set back meanwhile.
func (a *Attempt) milliseconds() float64 {
	return max(0, float64(a.Duration)/float64(time.Millisecond))
}

// Health is a change of a webhook's health.
type Health struct {
	WebhookID string
	FailedAt  time.Time     // an attempt; zero: the last one was a success
	Error     string        // why it failed
	Disable   string        // the reason to disable the webhook now; empty: as it was
	Opens     bool          // its circuit, for as long as it has been failing, within 5 s and 5 min
	AtLeast   time.Duration // but so long, if that is within 5 min
	Closes    bool          // its circuit, which was open
}

// One statement for a batch, so that it commits whole in one round trip. A row that exists is
// changed only from the state that its attempt began in, and an attempt is written only if no
// other has its number: what a dispatcher brings late, or brings twice because it did not hear
// of its commit, changes nothing.
//
// A circuit stays open for as long as its webhook has been failing: without a count of openings,
// and whichever dispatcher writes, each opening is twice as long as the one before. The jitter
// only prolongs it: what the receiver asked for is honoured.
//
// Nothing joins two sets of the batch's size here: plans are reused, and know no sizes. Instead of null,
// empty text, 0 and the zero time travel.
const recordSQL = `
WITH o AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::text[], $2::timestamptz[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[],
        $9::text[], $10::integer[], $11::integer[], $12::timestamptz[], $13::text[], $14::boolean[],
        $15::timestamptz[], $16::float8[], $17::text[], $18::integer[], $19::text[], $20::text[], $21::text[], $22::text[])
    AS o(id, slot, site_id, webhook_id, trigger_id, type, payload, trace_context,
         status, attempts, number, next_attempt_at, last_error, stored,
         started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings, error)
), inserted AS (
    INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, payload, trace_context,
                            status, attempts, next_attempt_at, last_error, finished_at)
    SELECT id, slot, site_id, webhook_id, nullif(trigger_id, ''), ARRAY[id], type, payload, trace_context,
           status, attempts + (number > 0)::integer, nullif(next_attempt_at, '0001-01-01 00:00:00Z'), last_error,
           CASE WHEN status NOT IN ('waiting', 'gathering') THEN now() END
    FROM o WHERE NOT stored
    ON CONFLICT (id, slot) DO NOTHING
    RETURNING id, slot
), updated AS (
    UPDATE deliveries d
    SET status = o.status, attempts = o.attempts + (o.number > 0)::integer,
        next_attempt_at = nullif(o.next_attempt_at, '0001-01-01 00:00:00Z'), claimed_until = NULL, last_error = o.last_error,
        finished_at = CASE WHEN o.status NOT IN ('waiting', 'gathering') THEN now() END
    FROM o
    WHERE o.stored AND d.id = o.id AND d.slot = o.slot AND d.status = 'waiting' AND d.attempts = o.attempts
    RETURNING d.id, d.slot
), settled AS (
    SELECT id, slot FROM inserted UNION ALL SELECT id, slot FROM updated
), attempted AS (
    INSERT INTO attempts (delivery_id, slot, number, started_at, duration_ms, request_headers, status_code,
                          response_headers, response_body, timings, error)
    SELECT o.id, o.slot, o.number, o.started_at, o.duration_ms, o.request_headers::json, nullif(o.status_code, 0),
           nullif(o.response_headers, '')::json, o.response_body, o.timings::json, o.error
    FROM o WHERE o.number > 0
    ON CONFLICT DO NOTHING
), health AS (
    INSERT INTO webhook_health AS h (webhook_id, failing_since, failed_at, last_error, disabled_at, disabled_reason, circuit_open_until)
    SELECT c.webhook_id, nullif(c.failed_at, '0001-01-01 00:00:00Z'), nullif(c.failed_at, '0001-01-01 00:00:00Z'), c.error, CASE WHEN c.disable <> '' THEN now() END, c.disable,
           CASE WHEN c.open THEN now() + (1 + random() / 5) * least('5 minutes', greatest('5 seconds', make_interval(secs => c.at_least),
               now() - coalesce((SELECT b.failing_since FROM webhook_health b JOIN webhooks w ON w.id = b.webhook_id
                                WHERE b.webhook_id = c.webhook_id AND b.failing_since > w.enabled_at), c.failed_at)))
                WHEN c.close THEN '-infinity' END
    FROM unnest($23::text[], $24::timestamptz[], $25::text[], $26::text[], $27::boolean[], $28::float8[], $29::boolean[]) AS c(webhook_id, failed_at, error, disable, open, at_least, close)
    ON CONFLICT (webhook_id) DO UPDATE
    SET failing_since   = CASE WHEN excluded.failing_since IS NULL THEN NULL
                               WHEN h.failing_since > coalesce((SELECT w.enabled_at FROM webhooks w WHERE w.id = h.webhook_id), '-infinity') THEN h.failing_since
                               ELSE excluded.failing_since END, -- what was before it was enabled again does not count
        failed_at       = excluded.failed_at,
        last_error      = excluded.last_error,
        disabled_at     = coalesce(excluded.disabled_at, h.disabled_at),
        disabled_reason = CASE WHEN excluded.disabled_at IS NULL THEN h.disabled_reason ELSE excluded.disabled_reason END,
        circuit_open_until = CASE WHEN excluded.failing_since IS NOT NULL THEN nullif(coalesce(excluded.circuit_open_until, h.circuit_open_until), '-infinity') END,
        updated_at      = now()
)
SELECT count(*) FROM settled`

// Record writes a batch of outcomes, none for the same delivery, and the changes of health,
// one at most for each webhook and sorted by it: two dispatchers that lock the same rows do so
// in the same order. It returns how many outcomes took effect.
func (s *Store) Record(ctx context.Context, outcomes []Outcome, health []Health) (int, error) {
	if len(health) == 0 && !slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Stored }) {
		if err := s.copyNew(ctx, outcomes); !isDuplicate(err) {
			return len(outcomes), wrap("record outcomes", err)
		}
	}
	var settled int
	err := s.pool.QueryRow(ctx, recordSQL, arguments(outcomes, health)...).Scan(&settled)
	return settled, wrap("record outcomes", err)
}

func isDuplicate(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "23505" // unique_violation
}

// Minimal is the outcome without what its receiver sent, for a row that Postgres refuses.
func (o Outcome) Minimal() Outcome {
	if o.Attempt != nil {
		bare := *o.Attempt
		bare.ResponseHeaders, bare.ResponseBody, bare.RequestHeaders, bare.Timings = "", "", "{}", "{}"
		o.Attempt = &bare
	}
	return o
}

func arguments(outcomes []Outcome, health []Health) []any {
	n := len(outcomes)
	var (
		ids, webhooks, triggers, types, traces = text(n), text(n), text(n), text(n), text(n)
		statuses, errors                       = text(n), text(n)
		slots, next                            = make([]time.Time, n), make([]time.Time, n)
		sites                                  = make([]int64, n)
		payloads                               = make([][]byte, n)
		stored                                 = make([]bool, n)
		attempts                               = make([]int32, n)

		numbers, codes                           = make([]int32, n), make([]int32, n)
		started                                  = make([]time.Time, n)
		durations                                = make([]float64, n)
		requests, responses, bodies, times, whys = text(n), text(n), text(n), text(n), text(n)
	)
	for i, o := range outcomes {
		ids[i], slots[i], sites[i], webhooks[i], triggers[i] = o.ID, o.Slot, o.SiteID, o.WebhookID, o.TriggerID
		types[i], traces[i] = o.Type, o.TraceContext
		if !o.Stored {
			payloads[i] = o.Payload
		}
		stored[i], statuses[i], attempts[i], next[i], errors[i] = o.Stored, string(o.Status), int32(o.Attempts), o.NextAttemptAt, o.LastError
		if a := o.Attempt; a != nil {
			numbers[i], started[i] = int32(o.Attempts)+1, a.StartedAt
			durations[i] = a.milliseconds()
			requests[i], codes[i], responses[i], bodies[i] = a.RequestHeaders, int32(a.StatusCode), a.ResponseHeaders, a.ResponseBody
			times[i], whys[i] = a.Timings, a.Error
		}
	}
	changed, failed, reasons, disable := text(len(health)), make([]time.Time, len(health)), text(len(health)), text(len(health))
	open, atLeast, closed := make([]bool, len(health)), make([]float64, len(health)), make([]bool, len(health))
	for i, h := range health {
		changed[i], failed[i], reasons[i], disable[i] = h.WebhookID, h.FailedAt, h.Error, h.Disable
		open[i], atLeast[i], closed[i] = h.Opens, h.AtLeast.Seconds(), h.Closes
	}
	return []any{
		ids, slots, sites, webhooks, triggers, types, payloads, traces,
		statuses, attempts, numbers, next, errors, stored,
		started, durations, requests, codes, responses, bodies, times, whys,
		changed, failed, reasons, disable, open, atLeast, closed,
	}
}

func text(n int) []string { return make([]string, n) }
