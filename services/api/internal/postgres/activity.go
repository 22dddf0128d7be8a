package postgres

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Activity is what came of a webhook's messages lately.
type Activity struct {
	WebhookID string
	Last      *LastDelivery // nil: there is none within lastWithin
	Hours     []Outcomes
	Truncated bool // there were more than MostCounted delivered, dead or unfinished ones
}

// LastDelivery is the newest delivery of a webhook.
type LastDelivery struct {
	ID, Status, Type string
	CreatedAt        time.Time
	FinishedAt       *time.Time
}

// Outcomes counts the messages of an hour. Retrying are those that wait after a failed attempt.
type Outcomes struct {
	From                      time.Time
	Delivered, Dead, Retrying int
}

const (
	// MostCounted bounds what is read of a webhook's delivered, dead and unfinished messages, each: 2 ms of an index, or 5 where
	// it is looked at whether they were attempted.
	MostCounted = 5000
	// lastWithin is how far back the last delivery is looked for: each week is a partition with indexes of its own.
	lastWithin = 7 * 24 * time.Hour
)

// Each part reads an index of its own, from its newest end, to the bound at most and one further, which tells that
// there are more.
const countOutcomes = `
	SELECT w.id, o.outcome, date_trunc('hour', o.slot, 'UTC') AS hour, (count(*) FILTER (WHERE o.place <= $3))::integer, bool_or(o.place > $3)
	FROM webhooks w CROSS JOIN LATERAL (
		(SELECT 'delivered' AS outcome, slot, row_number() OVER (ORDER BY slot DESC, id DESC) AS place
		 FROM deliveries WHERE webhook_id = w.id AND status = 'delivered' AND slot >= $2 LIMIT $3 + 1)
		UNION ALL
		(SELECT 'dead', slot, row_number() OVER (ORDER BY slot DESC, id DESC)
		 FROM deliveries WHERE webhook_id = w.id AND status = 'dead' AND slot >= $2 LIMIT $3 + 1)
		UNION ALL
		(SELECT CASE WHEN attempts > 0 THEN 'retrying' ELSE 'waiting' END, slot, row_number() OVER (ORDER BY slot DESC, id DESC)
		 FROM deliveries WHERE webhook_id = w.id AND finished_at IS NULL AND slot >= $2 LIMIT $3 + 1)
	) AS o
	WHERE w.site_id = $1
	GROUP BY 1, 2, 3`

var newestDelivery = func() string {
	parts := make([]string, len(streams))
	for i, s := range streams {
		parts[i] = "(SELECT " + deliveryColumns + " FROM deliveries WHERE webhook_id = w.id AND " + s.condition + " AND slot >= $2 ORDER BY slot DESC, id DESC LIMIT 1)"
	}
	return `
	SELECT w.id, d.id IS NOT NULL, coalesce(d.id, ''), coalesce(d.status, ''), coalesce(d.type, ''), coalesce(d.created_at, 'epoch'), d.finished_at
	FROM webhooks w LEFT JOIN LATERAL (SELECT * FROM (` + strings.Join(parts, " UNION ALL ") + `) AS newest ORDER BY slot DESC, id DESC LIMIT 1) AS d ON true
	WHERE w.site_id = $1 ORDER BY w.created_at DESC, w.id DESC`
}()

// Activity reads what came of the messages of the last so many hours, this one included, of each webhook of a
// site, in the order of their list.
func (s *Store) Activity(ctx context.Context, siteID int64, hours int, now time.Time) ([]Activity, error) {
	first := now.UTC().Truncate(time.Hour).Add(-time.Duration(hours-1) * time.Hour)
	var all []Activity
	err := s.inOrder(ctx, newestDelivery, []any{siteID, now.Add(-lastWithin)}, func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, readNewest)
		return err
	})
	if err != nil {
		return nil, wrap("read the last deliveries", err)
	}
	byID := make(map[string]*Activity, len(all))
	for i := range all {
		all[i].Hours = make([]Outcomes, hours)
		for h := range all[i].Hours {
			all[i].Hours[h].From = first.Add(time.Duration(h) * time.Hour)
		}
		byID[all[i].WebhookID] = &all[i]
	}
	err = s.inOrder(ctx, countOutcomes, []any{siteID, first, MostCounted}, func(rows pgx.Rows) error {
		var id, outcome string
		var hour time.Time
		var count int
		var more bool
		_, err := pgx.ForEachRow(rows, []any{&id, &outcome, &hour, &count, &more}, func() error {
			a := byID[id]
			if a == nil { // it was made since
				return nil
			}
			a.Truncated = a.Truncated || more
			of := &a.Hours[min(max(int(hour.Sub(first)/time.Hour), 0), hours-1)]
			switch outcome {
			case "delivered":
				of.Delivered += count
			case "dead":
				of.Dead += count
			case "retrying":
				of.Retrying += count
			}
			return nil
		})
		return err
	})
	return all, wrap("count deliveries", err)
}

func readNewest(row pgx.CollectableRow) (a Activity, err error) {
	var last LastDelivery
	var known bool
	err = row.Scan(&a.WebhookID, &known, &last.ID, &last.Status, &last.Type, &last.CreatedAt, &last.FinishedAt)
	if known {
		a.Last = &last
	}
	return a, err
}
