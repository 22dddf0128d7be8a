package api

import (
	"context"
	"net/http"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/format"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// SignRequest implements rest.StrictServerInterface: it makes the request that a dispatcher would send now.
func (a *api) SignRequest(ctx context.Context, request rest.SignRequestRequestObject) (rest.SignRequestResponseObject, error) {
	by := callOf(ctx)
	w, err := a.store.Webhook(ctx, by.site.ID, request.ID)
	if err != nil {
		return nil, err
	}
	delivery, message, _, err := a.store.Delivery(ctx, by.site.ID, request.ID, request.DeliveryID)
	if err != nil {
		return nil, err
	}
	sealed, err := a.store.Secrets(ctx, w.ID)
	if err != nil {
		return nil, err
	}
	signers, err := outgoing.Signers(a.vault, w.ID, sealed)
	if err != nil {
		return nil, err
	}
	if err := a.targets.CheckURL(w.URL); err != nil {
		return nil, conflict("Nothing would be sent, as the webhook's URL is refused: %s.", err)
	}
	renderer, err := format.Compile(format.Format(w.Format), w.Template)
	if err != nil {
		return nil, conflict("Nothing would be sent, as the template %s.", err)
	}
	body, err := renderer.Render(ctx, message)
	if err != nil {
		return nil, conflict("Nothing would be sent, as the message cannot be made: %s.", err)
	}
	headers := map[string]string{}
	for name, values := range outgoing.Lasting(outgoing.Own(w.Headers)) {
		headers[name] = values[0]
	}
	for _, f := range outgoing.Sign(delivery.ID, body, time.Now(), signers) {
		headers[f.Name] = f.Value
	}
	return rest.SignRequest200JSONResponse{Method: http.MethodPost, URL: w.URL, Headers: headers, Body: string(body)}, nil
}
