package api

import (
	"context"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

const activityHours = 24

// ListActivity implements rest.StrictServerInterface.
func (a *api) ListActivity(ctx context.Context, _ rest.ListActivityRequestObject) (rest.ListActivityResponseObject, error) {
	webhooks, err := a.store.Activity(ctx, callOf(ctx).site.ID, activityHours, time.Now())
	if err != nil {
		return nil, err
	}
	views := make([]rest.Activity, len(webhooks))
	for i, w := range webhooks {
		view := rest.Activity{WebhookID: w.WebhookID, Hours: make([]rest.ActivityHour, len(w.Hours)), Truncated: w.Truncated}
		if last := w.Last; last != nil {
			view.LastDelivery = &rest.LastDelivery{
				ID: last.ID, Status: rest.DeliveryStatus(last.Status), Type: last.Type, CreatedAt: last.CreatedAt.UTC(), FinishedAt: utc(last.FinishedAt),
			}
		}
		for h, outcomes := range w.Hours {
			view.Delivered += outcomes.Delivered
			view.Dead += outcomes.Dead
			view.Retrying += outcomes.Retrying
			view.Hours[h] = rest.ActivityHour{From: outcomes.From, Delivered: outcomes.Delivered, Failed: outcomes.Dead + outcomes.Retrying}
		}
		views[i] = view
	}
	return rest.ListActivity200JSONResponse{Activity: views}, nil
}
