package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// A waiting row has a time of its own, next_attempt_at, or it is held: it waits for its webhook,
// which is paused, disabled, limited, busy, or does not answer. Held rows are in no index of
// times, so however many there are, looking for due rows does not meet them; they are asked for
// webhook by webhook, for as many as may go.

// Claim is a delivery with the lease that it is claimed with.
type Claim struct {
	Delivery
	Until time.Time
}

// Wanted bounds what one dispatcher claims.
type Wanted struct {
	Rows       int            // at most so many in all
	PerWebhook int            // and of one webhook, together with the places
	Taken      map[string]int // that are taken already here
	Lease      time.Duration
}

// Each row of the window gets out of it at once, unless there are fewer rows wanted than could
// go: it is claimed, or it is held because its webhook is gated or has no place left. So a long
// queue is read once and not again and again, and one with a long queue takes its share and no
// more. Locking looks at the newest version of a row, so two dispatchers never claim the same one.
const claimSQL = `
WITH due AS MATERIALIZED (
    SELECT id, slot, webhook_id, next_attempt_at
    FROM deliveries
    WHERE status = 'waiting' AND next_attempt_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
    ORDER BY next_attempt_at
    LIMIT 1000
), gated AS MATERIALIZED (
    SELECT w.id AS webhook_id
    FROM (SELECT DISTINCT webhook_id FROM due) AS d
    JOIN webhooks w ON w.id = d.webhook_id
    LEFT JOIN webhook_health h ON h.webhook_id = w.id
    WHERE NOT w.enabled OR h.disabled_at > w.enabled_at OR h.circuit_open_until IS NOT NULL OR w.rate_limit_per_second IS NOT NULL
), ranked AS (
    SELECT due.*, row_number() OVER (PARTITION BY webhook_id ORDER BY next_attempt_at, id) AS rank,
           webhook_id IN (SELECT webhook_id FROM gated) AS gated
    FROM due
), sorted AS (
    SELECT r.*, r.gated OR r.rank + coalesce(busy.taken, 0) > $2 AS held
    FROM ranked r LEFT JOIN unnest($3::text[], $4::integer[]) AS busy(webhook_id, taken) ON busy.webhook_id = r.webhook_id
), chosen AS (
    (SELECT id, slot, held FROM sorted WHERE NOT held ORDER BY rank, next_attempt_at LIMIT $1)
    UNION ALL
    SELECT id, slot, held FROM sorted WHERE held
), locked AS (
    SELECT d.id, d.slot, chosen.held
    FROM deliveries d JOIN chosen USING (id, slot)
    WHERE d.status = 'waiting' AND d.next_attempt_at <= now() AND (d.claimed_until IS NULL OR d.claimed_until <= now())
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d
SET claimed_until   = CASE WHEN NOT locked.held THEN now() + $5::interval END,
    next_attempt_at = CASE WHEN NOT locked.held THEN d.next_attempt_at END
FROM locked
WHERE d.id = locked.id AND d.slot = locked.slot
RETURNING d.id, d.slot, d.site_id, d.webhook_id, coalesce(d.trigger_id, ''), d.type,
          CASE WHEN NOT locked.held THEN d.payload END, d.trace_context, d.attempts, d.last_error, d.schedule_start,
          coalesce(d.claimed_until, '0001-01-01 00:00:00Z')`

// Claim leases due rows to the caller. Those that cannot go now it makes held ones; it returns
// their webhooks, each as often as it has rows among them.
func (s *Store) Claim(ctx context.Context, w Wanted) (claims []Claim, held []string, err error) {
	busy, taken := make([]string, 0, len(w.Taken)), make([]int32, 0, len(w.Taken))
	for id, n := range w.Taken {
		busy, taken = append(busy, id), append(taken, int32(n))
	}
	rows, err := s.pool.Query(ctx, claimSQL, w.Rows, w.PerWebhook, busy, taken, w.Lease)
	if err != nil {
		return nil, nil, wrap("claim due deliveries", err)
	}
	var c Claim
	_, err = pgx.ForEachRow(rows, c.columns(), func() error {
		if c.Until.IsZero() {
			held = append(held, c.WebhookID)
		} else {
			claims = append(claims, c.taken())
		}
		return nil
	})
	return claims, held, wrap("claim due deliveries", err)
}

// columns are where the columns of a claim go, in the order in which statements return them.
func (c *Claim) columns() []any {
	return []any{&c.ID, &c.Slot, &c.SiteID, &c.WebhookID, &c.TriggerID, &c.Type, &c.Payload, &c.TraceContext, &c.Attempts, &c.LastError, &c.ScheduleStart, &c.Until}
}

// taken is what was scanned, apart from what the next row is scanned into.
func (c *Claim) taken() Claim {
	one := *c
	one.Slot = one.Slot.UTC()
	c.Payload = nil
	return one
}

// HeldWanted bounds what one dispatcher claims of the held rows.
type HeldWanted struct {
	Rooms map[string]int // for so many deliveries of these webhooks
	Lease time.Duration
	// DrainRate is how many per second go of what gathered before its webhook was enabled again,
	// unless the webhook has a limit of its own.
	DrainRate float64
}

// Turn is what a webhook's held deliveries may do.
type Turn struct {
	WebhookID string
	Claims    []Claim       // may go now
	Probe     bool          // the only one goes to see whether the webhook answers again
	Wait      time.Duration // until the next may
}

const (
	// paceBurst is how much of its rate a webhook that was quiet may use at once: between any two
	// instants at most 1 + rate × (their distance + paceBurst) deliveries go, of all dispatchers.
	paceBurst = 200 * time.Millisecond
	// probeMargin is how much longer than the webhook's timeout nobody else probes: as long as the
	// probe's recording takes. After a crash, so long passes until another probes.
	probeMargin = 10 * time.Second
)

// The webhooks' rows of health are locked, those that another dispatcher is looking at are left
// to it. So a probe is one, and a rate is used once, whoever uses it; its clock is the database's.
//
// The head tells whether anything is held, and whether it was before the webhook was enabled.
// A change by the owner is worth a probe: its URL may be another one.
const claimHeldSQL = `
WITH asked AS MATERIALIZED (
    SELECT w.id AS webhook_id, a.room, w.timeout_seconds, w.updated_at AS changed_at, h.webhook_id IS NOT NULL AS known,
           coalesce(w.rate_limit_per_second, CASE WHEN head.created_at < w.enabled_at THEN $3::float8 END) AS pace
    FROM unnest($1::text[], $2::integer[]) AS a(webhook_id, room)
    JOIN webhooks w ON w.id = a.webhook_id
    LEFT JOIN webhook_health h ON h.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT d.created_at FROM deliveries d
        WHERE d.webhook_id = w.id AND d.status = 'waiting' AND d.next_attempt_at IS NULL AND (d.claimed_until IS NULL OR d.claimed_until <= now())
        ORDER BY d.slot, d.id LIMIT 1
    ) AS head
    WHERE w.enabled AND coalesce(h.disabled_at <= w.enabled_at, true)
), locked AS MATERIALIZED (
    SELECT h.webhook_id, h.circuit_open_until, h.paced_until, h.updated_at
    FROM webhook_health h WHERE h.webhook_id IN (SELECT webhook_id FROM asked)
    FOR UPDATE OF h SKIP LOCKED
), gate AS MATERIALIZED (
    SELECT a.webhook_id, a.room, a.timeout_seconds, a.pace,
           l.webhook_id IS NULL AND (a.known OR a.pace IS NOT NULL) AS elsewhere,
           NOT a.known AND a.pace IS NOT NULL AS unknown,
           l.circuit_open_until IS NOT NULL AS probe,
           CASE WHEN l.circuit_open_until > now() AND l.updated_at >= a.changed_at THEN l.circuit_open_until END AS open_until,
           greatest(l.paced_until, now() - $5::interval) AS start
    FROM asked a LEFT JOIN locked l USING (webhook_id)
), granted AS MATERIALIZED (
    SELECT g.*, CASE WHEN elsewhere OR open_until IS NOT NULL THEN 0 ELSE greatest(0, least(room, CASE WHEN probe THEN 1 END,
               CASE WHEN pace IS NOT NULL THEN floor(extract(epoch FROM now() - start)::float8 * pace) + 1 END))::bigint END AS n
    FROM gate g
), chosen AS (
    SELECT d.id, d.slot
    FROM granted g CROSS JOIN LATERAL (
        SELECT d.id, d.slot FROM deliveries d
        WHERE d.webhook_id = g.webhook_id AND d.status = 'waiting' AND d.next_attempt_at IS NULL AND (d.claimed_until IS NULL OR d.claimed_until <= now())
        ORDER BY d.slot, d.id LIMIT g.n
        FOR UPDATE SKIP LOCKED
    ) AS d
), claimed AS (
    UPDATE deliveries d SET claimed_until = now() + $4::interval
    FROM chosen WHERE d.id = chosen.id AND d.slot = chosen.slot
    RETURNING d.*
), counts AS (
    SELECT webhook_id, count(*) AS n FROM claimed GROUP BY webhook_id
), noted AS (
    UPDATE webhook_health h
    SET paced_until        = CASE WHEN g.pace IS NULL THEN h.paced_until ELSE g.start + make_interval(secs => c.n / g.pace) END,
        circuit_open_until = CASE WHEN g.probe THEN now() + make_interval(secs => g.timeout_seconds) + $6::interval END,
        updated_at         = CASE WHEN g.probe THEN now() ELSE h.updated_at END
    FROM granted g JOIN counts c USING (webhook_id)
    WHERE h.webhook_id = g.webhook_id AND (g.probe OR g.pace IS NOT NULL)
)
SELECT g.webhook_id, g.probe, g.unknown,
       extract(epoch FROM CASE
           WHEN g.elsewhere OR g.unknown   THEN interval '0'
           WHEN g.open_until IS NOT NULL   THEN g.open_until - now()
           WHEN g.probe                    THEN make_interval(secs => g.timeout_seconds) + $6::interval
           WHEN g.pace IS NOT NULL         THEN g.start + make_interval(secs => coalesce(c.n, 0) / g.pace) - now()
           ELSE interval '0' END)::float8,
       coalesce(d.id, ''), coalesce(d.slot, now()), coalesce(d.site_id, 0), coalesce(d.webhook_id, ''), coalesce(d.trigger_id, ''), coalesce(d.type, ''), d.payload,
       coalesce(d.trace_context, ''), coalesce(d.attempts, 0), coalesce(d.last_error, ''), coalesce(d.schedule_start, 0), coalesce(d.claimed_until, now())
FROM granted g LEFT JOIN counts c USING (webhook_id) LEFT JOIN claimed d USING (webhook_id)
ORDER BY g.webhook_id, d.slot, d.id`

// Pacing needs a row to lock. It is made apart from the claim, which holds locks.
const knowSQL = `
INSERT INTO webhook_health (webhook_id) SELECT * FROM unnest($1::text[]) AS c(id) ORDER BY id ON CONFLICT DO NOTHING`

// ClaimHeld leases held rows to the caller, the oldest of each webhook first, as many as there is
// room for, its circuit lets through and its rate has left. Of webhooks that have nothing to be
// claimed, or that may get nothing, there is no turn.
func (s *Store) ClaimHeld(ctx context.Context, w HeldWanted) ([]Turn, error) {
	ids, rooms := make([]string, 0, len(w.Rooms)), make([]int32, 0, len(w.Rooms))
	for id, n := range w.Rooms {
		ids, rooms = append(ids, id), append(rooms, int32(n))
	}
	rows, err := s.pool.Query(ctx, claimHeldSQL, ids, rooms, w.DrainRate, w.Lease, paceBurst, probeMargin)
	if err != nil {
		return nil, wrap("claim held deliveries", err)
	}
	var (
		turns          []Turn
		newcomers      []string
		id             string
		probe, unknown bool
		wait           float64
		c              Claim
	)
	_, err = pgx.ForEachRow(rows, append([]any{&id, &probe, &unknown, &wait}, c.columns()...), func() error {
		if len(turns) == 0 || turns[len(turns)-1].WebhookID != id {
			turns = append(turns, Turn{WebhookID: id, Probe: probe, Wait: time.Duration(max(0, wait) * float64(time.Second))})
			if unknown {
				newcomers = append(newcomers, id)
			}
		}
		if c.ID != "" {
			turn := &turns[len(turns)-1]
			turn.Claims = append(turn.Claims, c.taken())
		}
		return nil
	})
	if err == nil && len(newcomers) > 0 {
		_, err = s.pool.Exec(ctx, knowSQL, newcomers)
	}
	return turns, wrap("claim held deliveries", err)
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
