package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Claim is a due delivery with the lease that it is claimed with.
type Claim struct {
	Delivery
	Until time.Time
}

// Wanted bounds what one dispatcher claims.
type Wanted struct {
	Rows       int            // at most so many in all
	PerWebhook int            // and of one webhook, together with those that are
	InFlight   map[string]int // already in flight here
	Lease      time.Duration
}

// The oldest due rows of webhooks that have a place left are ranked by webhook, so that one
// with a long queue takes its share and no more; then those chosen are locked, skipping what
// another dispatcher holds. Locking looks at the newest version of a row, so two dispatchers
// never claim the same one. The window bounds the ranking: a caller that asks again gets what
// lies behind it, because the webhooks in front of it are full by then.
const claimSQL = `
WITH due AS MATERIALIZED (
    SELECT id, slot, webhook_id, next_attempt_at
    FROM deliveries
    WHERE status = 'waiting' AND next_attempt_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
      AND webhook_id <> ALL($5::text[])
    ORDER BY next_attempt_at
    LIMIT 1000
), ranked AS (
    SELECT due.*, row_number() OVER (PARTITION BY webhook_id ORDER BY next_attempt_at, id) AS rank
    FROM due
), chosen AS (
    SELECT r.id, r.slot
    FROM ranked r LEFT JOIN unnest($3::text[], $4::integer[]) AS busy(webhook_id, taken) ON busy.webhook_id = r.webhook_id
    WHERE r.rank + coalesce(busy.taken, 0) <= $2
    ORDER BY r.rank, r.next_attempt_at
    LIMIT $1
), locked AS (
    SELECT d.id, d.slot
    FROM deliveries d JOIN chosen USING (id, slot)
    WHERE d.status = 'waiting' AND d.next_attempt_at <= now() AND (d.claimed_until IS NULL OR d.claimed_until <= now())
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d
SET claimed_until = now() + $6::interval
FROM locked
WHERE d.id = locked.id AND d.slot = locked.slot
RETURNING d.id, d.slot, d.site_id, d.webhook_id, coalesce(d.trigger_id, ''), d.type, d.payload, d.trace_context,
          d.attempts, d.last_error, d.claimed_until`

// Claim leases due rows to the caller.
func (s *Store) Claim(ctx context.Context, w Wanted) ([]Claim, error) {
	busy, taken, full := make([]string, 0, len(w.InFlight)), make([]int32, 0, len(w.InFlight)), []string{}
	for id, n := range w.InFlight {
		if n >= w.PerWebhook {
			full = append(full, id)
			continue
		}
		busy, taken = append(busy, id), append(taken, int32(n))
	}
	rows, err := s.pool.Query(ctx, claimSQL, w.Rows, w.PerWebhook, busy, taken, full, w.Lease)
	if err != nil {
		return nil, wrap("claim due deliveries", err)
	}
	claims, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Claim, err error) {
		err = row.Scan(&c.ID, &c.Slot, &c.SiteID, &c.WebhookID, &c.TriggerID, &c.Type, &c.Payload, &c.TraceContext,
			&c.Attempts, &c.LastError, &c.Until)
		c.Slot = c.Slot.UTC()
		return c, err
	})
	return claims, wrap("claim due deliveries", err)
}

// A lease that somebody else holds by now stays theirs.
const releaseSQL = `
UPDATE deliveries d
SET claimed_until = NULL
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS c(id, slot, until)
WHERE d.id = c.id AND d.slot = c.slot AND d.claimed_until = c.until`

// Release gives leases back, for deliveries that were not attempted.
func (s *Store) Release(ctx context.Context, claims []Claim) error {
	if len(claims) == 0 {
		return nil
	}
	keys, until := make([]Key, len(claims)), make([]time.Time, len(claims))
	for i, c := range claims {
		keys[i], until[i] = Key{c.ID, c.Slot}, c.Until
	}
	ids, slots := columns(keys)
	_, err := s.pool.Exec(ctx, releaseSQL, ids, slots, until)
	return wrap("release claims", err)
}

func columns(keys []Key) ([]string, []time.Time) {
	ids, slots := make([]string, len(keys)), make([]time.Time, len(keys))
	for i, k := range keys {
		ids[i], slots[i] = k.ID, k.Slot
	}
	return ids, slots
}
