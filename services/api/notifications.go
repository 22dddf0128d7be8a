package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// asPlausible makes a trigger's config of one of Plausible's notifications: the same visitors in the
// same window, held against the number alone. A spike is judged by the current visitors, those of 5
// minutes; a drop by the visitors of 12 hours.
func asPlausible(n plausible.Notification) (trigger.Type, string) {
	if n.Type == "drop" {
		return "visitor_drop", fmt.Sprintf(`{"threshold": %d, "window_seconds": 43200, "sensitivity": "off"}`, n.Threshold)
	}
	return "visitor_spike", fmt.Sprintf(`{"threshold": %d, "window_seconds": 300, "sensitivity": "off"}`, n.Threshold)
}

// ImportNotifications implements rest.StrictServerInterface: it makes triggers of Plausible's own spike
// and drop notifications, which stay as they are.
func (a *api) ImportNotifications(ctx context.Context, request rest.ImportNotificationsRequestObject) (rest.ImportNotificationsResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	o := strict.Read("", *request.Body, &problems)
	webhookID := o.Text("webhook_id", 1, 200)
	if webhookID == "" && !o.Refused("webhook_id") {
		o.Refuse("webhook_id", "is required")
	}
	o.End()
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	if !idPattern.MatchString(webhookID) {
		return nil, errNotFound
	}
	notifications, err := a.directory.Notifications(ctx, by.site.ID)
	if lacking := new(plausible.NoGrantError); errors.As(err, &lacking) {
		return nil, &problem{status: http.StatusServiceUnavailable, sentence: "Plausible's notifications cannot be read: the operator must give the right to, by " + lacking.Grant + "."}
	}
	if err != nil {
		return nil, directoryError(ctx, err)
	}
	documents := make([]triggerDocument, len(notifications))
	for i, n := range notifications {
		typ, config := asPlausible(n)
		documents[i] = readTrigger("", mustMarshal(map[string]any{"type": typ, "config": json.RawMessage(config)}), nil, creating, &problems)
	}
	settled, err := a.settle(ctx, by, documents, nil, problems)
	if err != nil {
		return nil, err
	}
	added, err := a.addTriggers(ctx, by, webhookID, func(w postgres.Webhook) []postgres.Trigger {
		return slices.DeleteFunc(slices.Clone(settled), func(t postgres.Trigger) bool {
			return slices.ContainsFunc(w.Triggers, func(has postgres.Trigger) bool {
				return has.Type == t.Type && sameConfig(parseStored(has), parseStored(t))
			})
		})
	})
	if err != nil {
		return nil, err
	}
	by.made = &webhookID
	return rest.ImportNotifications200JSONResponse{Triggers: viewTriggers(added), Skipped: len(settled) - len(added)}, nil
}
