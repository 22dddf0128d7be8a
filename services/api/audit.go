package api

import (
	"context"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// ListChanges implements rest.StrictServerInterface.
func (a *api) ListChanges(ctx context.Context, request rest.ListChangesRequestObject) (rest.ListChangesResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := ofOurs.page(request.Params.Limit, request.Params.After, request.Params.Before, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	changes, around, err := a.store.Changes(ctx, by.site.ID, page)
	if err != nil {
		return nil, err
	}
	views := make([]rest.Change, len(changes))
	for i, c := range changes {
		views[i] = rest.Change{
			ID: c.ID, At: c.At.UTC(), Operation: c.Operation, WebhookID: c.WebhookID, ObjectID: c.ObjectID, Fields: c.Fields,
			UserID: c.UserID, KeyPrefix: c.KeyPrefix, RequestID: c.RequestID,
		}
	}
	return rest.ListChanges200JSONResponse{Changes: views, Meta: ofOurs.meta(page, around)}, nil
}
