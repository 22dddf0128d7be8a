package api

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// viewWebhook hides the headers' values from those who may not change them: they are often
// credentials of the receiver.
func viewWebhook(w postgres.Webhook, by access) rest.Webhook {
	v := rest.Webhook{
		ID: w.ID, URL: w.URL, Description: w.Description, Enabled: w.Enabled, Status: rest.WebhookStatusActive,
		Headers: make(map[string]string, len(w.Headers)), Format: rest.Format(w.Format), TimeoutSeconds: w.TimeoutSeconds, RateLimitPerSecond: w.RateLimit,
		FailingSince: utc(w.FailingSince),
		Triggers:     make([]rest.Trigger, len(w.Triggers)), CreatedAt: w.CreatedAt.UTC(), UpdatedAt: w.UpdatedAt.UTC(),
	}
	if w.Template != "" {
		v.Template = &w.Template
	}
	v.Batch = batchOf(w)
	switch {
	case !w.Enabled:
		v.Status = rest.WebhookStatusDisabled
	case w.SwitchedOff:
		v.Status, v.DisabledReason = rest.WebhookStatusDisabled, &w.DisabledReason
	case w.FailingSince != nil:
		v.Status = rest.WebhookStatusFailing
	}
	for name, value := range w.Headers {
		if !by.canChange {
			value = "***"
		}
		v.Headers[name] = value
	}
	for i, t := range w.Triggers {
		v.Triggers[i] = viewTrigger(t)
	}
	return v
}

func batchOf(w postgres.Webhook) *rest.Batch {
	if w.BatchSize == nil {
		return nil
	}
	return &rest.Batch{MaxSize: *w.BatchSize, MaxWaitSeconds: *w.BatchWait}
}

// ListWebhooks implements rest.StrictServerInterface.
func (a *api) ListWebhooks(ctx context.Context, request rest.ListWebhooksRequestObject) (rest.ListWebhooksResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := ofOurs.page(request.Params.Limit, request.Params.After, request.Params.Before, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	webhooks, around, err := a.store.Webhooks(ctx, by.site.ID, page)
	if err != nil {
		return nil, err
	}
	views := make([]rest.Webhook, len(webhooks))
	for i, w := range webhooks {
		views[i] = viewWebhook(w, by.access)
	}
	return rest.ListWebhooks200JSONResponse{Webhooks: views, Meta: ofOurs.meta(page, around)}, nil
}

// CreateWebhook implements rest.StrictServerInterface.
func (a *api) CreateWebhook(ctx context.Context, request rest.CreateWebhookRequestObject) (rest.CreateWebhookResponseObject, error) {
	by := callOf(ctx)
	d, problems := readWebhook(ctx, *request.Body, creating, postgres.Webhook{}, a.targets)
	triggers, err := a.settle(ctx, by, d.triggers, nil, problems)
	if err != nil {
		return nil, err
	}
	id, secret := newID("wh_"), signature.NewSecret()
	w := d.apply(postgres.Webhook{ID: id, SiteID: by.site.ID})
	w.Triggers = triggers
	w, err = a.store.CreateWebhook(ctx, w, a.vault.Seal(secret.Reveal(), id), maxWebhooks)
	if err != nil {
		return nil, err
	}
	by.made = &id
	by.afterCommit(func() {
		a.announce(stream.ChangedWebhook, id)
		a.announce(stream.ChangedTrigger, triggerIDs(w.Triggers)...)
	})
	return rest.CreateWebhook201JSONResponse{
		Body:    rest.CreatedWebhook{WebhookView: viewWebhook(w, by.access), Secret: secret.Reveal()},
		Headers: rest.CreateWebhook201ResponseHeaders{Location: pathOf(request.SiteID, id), ETag: etag(w)},
	}, nil
}

// pathOf is where a webhook of a site is found, or what is under it.
func pathOf(siteID, webhookID string, under ...string) string {
	path := "/api/sites/" + url.PathEscape(siteID) + "/webhooks/" + webhookID
	for _, part := range under {
		path += "/" + part
	}
	return path
}

// newID makes 128 random bits of an id.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

func triggerIDs(triggers []postgres.Trigger) []string {
	ids := make([]string, len(triggers))
	for i, t := range triggers {
		ids[i] = t.ID
	}
	return ids
}

// apply makes the document's settings those of the webhook; its triggers are settled elsewhere.
func (d webhookDocument) apply(w postgres.Webhook) postgres.Webhook {
	w.URL, w.Description, w.Enabled, w.Enable = d.url, d.description, d.enabled, d.enable
	w.Headers, w.TimeoutSeconds, w.RateLimit = d.headers, d.timeoutSeconds, d.rateLimit
	w.Format, w.Template = string(d.format), d.template
	w.BatchSize, w.BatchWait = nil, nil
	if d.batch != nil {
		w.BatchSize, w.BatchWait = &d.batch.MaxSize, &d.batch.MaxWaitSeconds
	}
	return w
}

// ShowWebhook implements rest.StrictServerInterface.
func (a *api) ShowWebhook(ctx context.Context, request rest.ShowWebhookRequestObject) (rest.ShowWebhookResponseObject, error) {
	by := callOf(ctx)
	w, err := a.store.Webhook(ctx, by.site.ID, request.ID)
	if err != nil {
		return nil, err
	}
	return rest.ShowWebhook200JSONResponse{WebhookJSONResponse: answerWebhook(w, by.access)}, nil
}

func answerWebhook(w postgres.Webhook, by access) rest.WebhookJSONResponse {
	return rest.WebhookJSONResponse{Body: viewWebhook(w, by), Headers: rest.WebhookResponseHeaders{ETag: etag(w)}}
}

// ReplaceWebhook implements rest.StrictServerInterface.
func (a *api) ReplaceWebhook(ctx context.Context, request rest.ReplaceWebhookRequestObject) (rest.ReplaceWebhookResponseObject, error) {
	answer, err := a.saveWebhook(ctx, request.ID, replacing, request.Params.IfMatch)
	return rest.ReplaceWebhook200JSONResponse{WebhookJSONResponse: answer}, err
}

// PatchWebhook implements rest.StrictServerInterface.
func (a *api) PatchWebhook(ctx context.Context, request rest.PatchWebhookRequestObject) (rest.PatchWebhookResponseObject, error) {
	answer, err := a.saveWebhook(ctx, request.ID, patching, request.Params.IfMatch)
	return rest.PatchWebhook200JSONResponse{WebhookJSONResponse: answer}, err
}

// saveWebhook replaces a webhook by the body, or by what the body makes of it. Without triggers
// in the body they stay as they are.
func (a *api) saveWebhook(ctx context.Context, id string, p purpose, ifMatch *string) (rest.WebhookJSONResponse, error) {
	by := callOf(ctx)
	w, changes, err := a.store.ChangeWebhook(ctx, by.site.ID, id, func(current postgres.Webhook) (postgres.Webhook, error) {
		if err := matches(ifMatch, etag(current)); err != nil {
			return postgres.Webhook{}, err
		}
		raw := by.body
		if p == patching {
			raw = mergePatch(webhookBase(current, by.body), by.body)
		}
		d, problems := readWebhook(ctx, raw, p, current, a.targets)
		next := d.apply(current)
		settled, err := a.settle(ctx, by, d.triggers, current.Triggers, problems)
		if err != nil {
			return postgres.Webhook{}, err
		}
		if d.hasTriggers {
			next.Triggers = settled
		}
		return next, nil
	})
	if err != nil {
		return rest.WebhookJSONResponse{}, err
	}
	by.afterCommit(func() { a.announceChanges(id, changes) })
	return answerWebhook(w, by.access), nil
}

// webhookBase is what a patch is merged into. That a webhook is enabled stands there as the
// default, so that only a patch that says so enables one that was switched off for its failures. A
// template means nothing to another format that the patch names.
func webhookBase(w postgres.Webhook, patch []byte) []byte {
	base := map[string]any{"url": w.URL, "description": w.Description, "headers": w.Headers, "timeout_seconds": w.TimeoutSeconds, "format": w.Format, "rate_limit_per_second": w.RateLimit, "batch": batchOf(w)}
	o := strict.Read("", patch, new([]strict.Problem))
	if format, _ := o.Take("format"); w.Template != "" && (!o.Has("format") || string(format) == string(mustMarshal(w.Format))) {
		base["template"] = w.Template
	}
	if !w.Enabled {
		base["enabled"] = false
	}
	return mustMarshal(base)
}

// RemoveWebhook implements rest.StrictServerInterface.
func (a *api) RemoveWebhook(ctx context.Context, request rest.RemoveWebhookRequestObject) (rest.RemoveWebhookResponseObject, error) {
	triggers, err := a.store.RemoveWebhook(ctx, callOf(ctx).site.ID, request.ID, func(current postgres.Webhook) error {
		return matches(request.Params.IfMatch, etag(current))
	})
	if err != nil {
		return nil, err
	}
	callOf(ctx).afterCommit(func() {
		a.announce(stream.ChangedWebhook, request.ID)
		a.announce(stream.ChangedTrigger, triggers...)
	})
	return rest.RemoveWebhook204Response{}, nil
}
