package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// Delivery is a row of deliveries, written by the dispatcher.
type Delivery struct {
	ID            string     `db:"id"`
	Slot          time.Time  `db:"slot"`
	Status        string     `db:"status"`
	Type          string     `db:"type"`
	TriggerID     *string    `db:"trigger_id"`
	FiringIDs     []string   `db:"firing_ids"`
	Attempts      int        `db:"attempts"`
	NextAttemptAt *time.Time `db:"next_attempt_at"`
	LastError     string     `db:"last_error"`
	CreatedAt     time.Time  `db:"created_at"`
	FinishedAt    *time.Time `db:"finished_at"`
}

// Attempt is a row of attempts.
type Attempt struct {
	Number          int             `db:"number"`
	StartedAt       time.Time       `db:"started_at"`
	DurationMS      float64         `db:"duration_ms"`
	RequestHeaders  json.RawMessage `db:"request_headers"`
	StatusCode      *int            `db:"status_code"`
	ResponseHeaders json.RawMessage `db:"response_headers"`
	ResponseBody    string          `db:"response_body"`
	Timings         json.RawMessage `db:"timings"`
	Error           string          `db:"error"`
}

// DeliveryFilter narrows a history; nil fields let everything through. Status is one of the four that
// lists show: waiting, delivered, dead, cancelled. From and To are held against the slot, the time
// that the message itself carries: From belongs to the span, To does not.
type DeliveryFilter struct {
	Status, TriggerID, Type *string
	From, To                *time.Time
}

// What a list shows of a delivery. A firing that waits for others is waiting.
const deliveryColumns = "id, slot, CASE status WHEN 'gathering' THEN 'waiting' ELSE status END AS status, type, trigger_id, firing_ids, attempts, next_attempt_at, last_error, created_at, finished_at"

// streams are the histories of each status, which indexes of their own keep in order. A firing that
// went with others is in none of them: the batch's delivery brings it.
var streams = []struct{ status, condition string }{
	{"delivered", "status = 'delivered'"},
	{"waiting", "finished_at IS NULL"},
	{"dead", "status = 'dead'"},
	{"cancelled", "status = 'cancelled'"},
}

// readInOrder makes the transaction's other statements read indexes in the order of the list, and
// stop when the page is full. Left to its statistics, which age, the planner may find a history short
// enough to sort, and reads all of it. Plans are made once for a connection: to plan for the partitions
// of 90 days takes some ten times as long as to read the page.
const readInOrder = `
	SELECT set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
	       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true)`

// inOrder asks under readInOrder, in one round trip. Within a transaction of InTx, which is a change and
// short, the settings stay to its end.
func (s *Store) inOrder(ctx context.Context, query string, arguments []any, read func(pgx.Rows) error) error {
	batch := &pgx.Batch{}
	batch.Queue(readInOrder)
	batch.Queue(query, arguments...).Query(read)
	return s.db(ctx).SendBatch(ctx, batch).Close()
}

// maxWalk bounds what is read for a page where filters come together that no index serves together:
// 2 ms. Such a page may be short, or empty, while the list goes on.
const maxWalk = 2000

// listed is a row on the way to a page.
type listed struct {
	Delivery
	Matches bool `db:"matches"` // the filters that no index serves
	Ended   bool `db:"ended"`   // the walk, for its bound
}

// list is the query of a page, newest first unless the page goes back. It reads no row that is not
// shown, but one of each partition, unless filters need a walk.
func (f DeliveryFilter) list(webhookID string, page Page) (query string, arguments []any) {
	low, high := Position{}, Position{At: endOfTime}
	if f.From != nil {
		low = Position{At: *f.From}
	}
	if f.To != nil {
		high = Position{At: *f.To}
	}
	if page.After != nil && page.After.At.Before(high.At) {
		high = *page.After
	}
	if page.Before != nil && !page.Before.At.Before(low.At) {
		low = *page.Before
	}
	arguments = []any{webhookID, low.At, low.ID, high.At, high.ID, page.Limit + 1} // one more tells whether the list goes on
	argument := func(value any) string {
		arguments = append(arguments, value)
		return "$" + strconv.Itoa(len(arguments))
	}

	var byTrigger, byType string // empty: not asked for
	if f.TriggerID != nil {
		byTrigger = "trigger_id = " + argument(*f.TriggerID)
	}
	if f.Type != nil {
		byType = "type = " + argument(*f.Type)
	}
	var conditions, walked []string // of indexes, and what none of them serves beside
	delivered := f.Status != nil && *f.Status == "delivered"
	switch { // what was not delivered is mostly little
	case byTrigger != "" && (f.Status == nil || delivered):
		conditions, walked = []string{"status <> 'batched' AND " + byTrigger}, []string{byType}
	case byType != "" && (f.Status == nil || delivered):
		conditions = []string{"status <> 'batched' AND " + byType}
	default:
		for _, s := range streams {
			if f.Status == nil || *f.Status == s.status {
				conditions = append(conditions, s.condition)
			}
		}
		walked, delivered = []string{byTrigger, byType}, false
	}
	if delivered {
		walked = append(walked, "status = 'delivered'")
	}
	walked = slices.DeleteFunc(walked, func(condition string) bool { return condition == "" })

	order := " ORDER BY slot DESC, id DESC LIMIT $6"
	if page.Before != nil {
		order = " ORDER BY slot, id LIMIT $6"
	}
	for i, condition := range conditions {
		// The bounds of the slot alone let partitions be left out.
		conditions[i] = "(SELECT " + deliveryColumns + " FROM deliveries WHERE webhook_id = $1 AND " + condition +
			" AND slot >= $2 AND slot <= $4 AND (slot, id) > ($2, $3) AND (slot, id) < ($4, $5)" + order + ")"
	}
	merged := "(" + strings.Join(conditions, " UNION ALL ") + ") AS merged" + order
	if len(walked) == 0 {
		return "SELECT *, true AS matches, false AS ended FROM " + merged, arguments
	}
	arguments[5] = maxWalk
	return "SELECT * FROM (SELECT *, (" + strings.Join(walked, " AND ") + ") IS TRUE AS matches, row_number() OVER () = $6 AS ended FROM (SELECT * FROM " + merged +
		") AS ordered) AS walked WHERE matches OR ended LIMIT " + argument(page.Limit+1), arguments
}

// Deliveries reads a page of a webhook's history, ordered by slot. With several of status, trigger and
// type a page may be short, or empty, while the list goes on: Around tells.
func (s *Store) Deliveries(ctx context.Context, siteID int64, webhookID string, f DeliveryFilter, page Page) ([]Delivery, Around, error) {
	if err := s.requireWebhook(ctx, siteID, webhookID); err != nil {
		return nil, Around{}, err
	}
	var rows []listed
	query, arguments := f.list(webhookID, page)
	err := s.inOrder(ctx, query, arguments, func(r pgx.Rows) (err error) {
		rows, err = pgx.CollectRows(r, pgx.RowToStructByName[listed])
		return err
	})
	if err != nil {
		return nil, Around{}, wrap("list deliveries", err)
	}
	deliveries := make([]Delivery, 0, len(rows))
	var end *Position // of a walk that came to its bound before the page was full
	for _, r := range rows {
		if r.Matches {
			deliveries = append(deliveries, r.Delivery)
		}
		if r.Ended && len(deliveries) <= page.Limit {
			end = &Position{r.Slot, r.ID}
		}
	}
	deliveries, around := database.Cut(page, deliveries, func(d Delivery) Position { return Position{d.Slot, d.ID} })
	if end != nil {
		around = goOn(page, end, around)
	}
	return deliveries, around, nil
}

// goOn makes the next page begin where a walk ended. Of an empty page that is also where the page
// that it was reached from begins.
func goOn(page Page, end *Position, around Around) Around {
	if page.Before != nil {
		return Around{After: cmp.Or(around.After, end), Before: end}
	}
	if page.After != nil {
		around.Before = cmp.Or(around.Before, end)
	}
	return Around{After: end, Before: around.Before}
}

const (
	selectDelivery = `
	SELECT ` + deliveryColumns + `, payload FROM deliveries
	WHERE webhook_id = $1
	  AND id = (SELECT coalesce(b.batch_id, b.id) FROM deliveries b WHERE b.webhook_id = $1 AND b.id = $2 ORDER BY b.slot DESC LIMIT 1)
	ORDER BY slot DESC LIMIT 1`
	selectAttempts = `
	SELECT number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings, error
	FROM attempts WHERE delivery_id = $1 AND slot = $2 ORDER BY number`
)

// sent is a delivery with what its requests bring.
type sent struct {
	Delivery
	Payload []byte `db:"payload"`
}

// Delivery reads one delivery of a webhook with its payload and its attempts, oldest first. The id of
// a firing that went with others finds the batch's delivery.
func (s *Store) Delivery(ctx context.Context, siteID int64, webhookID, id string) (Delivery, []byte, []Attempt, error) {
	fail := func(err error) (Delivery, []byte, []Attempt, error) {
		return Delivery{}, nil, nil, wrap("read delivery", err)
	}
	if err := s.requireWebhook(ctx, siteID, webhookID); err != nil {
		return Delivery{}, nil, nil, err
	}
	var d sent
	err := s.inOrder(ctx, selectDelivery, []any{webhookID, id}, func(r pgx.Rows) (err error) {
		d, err = pgx.CollectExactlyOneRow(r, pgx.RowToStructByName[sent])
		return err
	})
	if err != nil {
		return fail(err)
	}
	var attempts []Attempt
	err = s.inOrder(ctx, selectAttempts, []any{d.ID, d.Slot}, func(r pgx.Rows) (err error) {
		attempts, err = pgx.CollectRows(r, pgx.RowToStructByName[Attempt])
		return err
	})
	if err != nil {
		return fail(err)
	}
	return d.Delivery, d.Payload, attempts, nil
}
