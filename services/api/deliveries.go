package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// deliveryView is a delivery as the contract shows it in lists.
type deliveryView struct {
	ID            string     `json:"id"`
	Status        string     `json:"status"`
	Type          string     `json:"type"`
	TriggerID     *string    `json:"trigger_id"`
	FiringIDs     []string   `json:"firing_ids"`
	Attempts      int        `json:"attempts"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
	LastError     *string    `json:"last_error"`
	CreatedAt     time.Time  `json:"created_at"`
	FinishedAt    *time.Time `json:"finished_at"`
}

// deliveryDetails is one delivery, with what was sent and what came back.
type deliveryDetails struct {
	deliveryView
	Payload     json.RawMessage `json:"payload"`
	AttemptList []attemptView   `json:"attempt_list"`
}

type attemptView struct {
	Number          int             `json:"number"`
	StartedAt       time.Time       `json:"started_at"`
	DurationMS      float64         `json:"duration_ms"`
	RequestHeaders  json.RawMessage `json:"request_headers"`
	StatusCode      *int            `json:"status_code"`
	ResponseHeaders json.RawMessage `json:"response_headers"`
	ResponseBody    string          `json:"response_body"`
	Timings         json.RawMessage `json:"timings"`
	Error           *string         `json:"error"`
}

func viewDelivery(d postgres.Delivery) deliveryView {
	return deliveryView{
		ID: d.ID, Status: d.Status, Type: d.Type, TriggerID: d.TriggerID, FiringIDs: d.FiringIDs, Attempts: d.Attempts,
		NextAttemptAt: utc(d.NextAttemptAt), LastError: orNull(d.LastError), CreatedAt: d.CreatedAt.UTC(), FinishedAt: utc(d.FinishedAt),
	}
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func (a *api) listDeliveries(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	var problems []strict.Problem
	page := readPage(c.QueryParams(), &problems)
	filter := readFilter(c.QueryParams(), &problems)
	if err := invalid(problems); err != nil {
		return err
	}
	deliveries, around, err := a.store.Deliveries(c.Request().Context(), by.site.ID, id, filter, page)
	if err != nil {
		return err
	}
	views := make([]deliveryView, len(deliveries))
	for i, d := range deliveries {
		views[i] = viewDelivery(d)
	}
	return c.JSON(http.StatusOK, struct {
		Deliveries []deliveryView `json:"deliveries"`
		Meta       meta           `json:"meta"`
	}{views, metaOf(page, around)})
}

// messageType is what a message's type looks like: visitor_spike.fired, batch.
var messageType = regexp.MustCompile(`^[a-z0-9_.]{1,100}$`)

// readFilter reads the filters of a history. A trigger's id is not looked up: the history of a
// removed one stays, and that of another site's is not in this webhook's.
func readFilter(query url.Values, problems *[]strict.Problem) postgres.DeliveryFilter {
	text := func(name, message string, valid func(string) bool) *string {
		value := query.Get(name)
		if value == "" {
			return nil
		}
		if !valid(value) {
			*problems = append(*problems, strict.Problem{Field: name, Message: message})
		}
		return &value
	}
	instant := func(name string) (at *time.Time) {
		text(name, "must be a time such as 2026-11-23T15:04:05Z", func(value string) bool {
			parsed, err := time.Parse(time.RFC3339, value)
			at = &parsed
			return err == nil
		})
		return at
	}
	return postgres.DeliveryFilter{
		Status: text("status", "must be one of waiting, delivered, dead, cancelled", func(value string) bool {
			return slices.Contains([]string{"waiting", "delivered", "dead", "cancelled"}, value)
		}),
		TriggerID: text("trigger_id", "is not a trigger's id", idPattern.MatchString),
		Type:      text("type", "must be a message's type such as visitor_spike.fired", messageType.MatchString),
		From:      instant("from"),
		To:        instant("to"),
	}
}

func (a *api) showDelivery(c echo.Context, by access) error {
	webhookID, id, err := pathIDs(c, "delivery_id")
	if err != nil {
		return err
	}
	d, payload, attempts, err := a.store.Delivery(c.Request().Context(), by.site.ID, webhookID, id)
	if err != nil {
		return err
	}
	details := deliveryDetails{deliveryView: viewDelivery(d), Payload: payload, AttemptList: make([]attemptView, len(attempts))}
	for i, t := range attempts {
		details.AttemptList[i] = attemptView{
			Number: t.Number, StartedAt: t.StartedAt.UTC(), DurationMS: t.DurationMS, RequestHeaders: t.RequestHeaders,
			StatusCode: t.StatusCode, ResponseHeaders: t.ResponseHeaders, ResponseBody: t.ResponseBody, Timings: t.Timings, Error: orNull(t.Error),
		}
	}
	return c.JSON(http.StatusOK, details)
}
