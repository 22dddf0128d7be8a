package api

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// webhookView is a webhook as the contract shows it.
type webhookView struct {
	ID                 string            `json:"id"`
	URL                string            `json:"url"`
	Description        string            `json:"description"`
	Enabled            bool              `json:"enabled"`
	Status             string            `json:"status"`
	DisabledReason     *string           `json:"disabled_reason"`
	Headers            map[string]string `json:"headers"`
	Format             string            `json:"format"`
	Template           *string           `json:"template"`
	Batch              *batchDocument    `json:"batch"`
	RateLimitPerSecond *float64          `json:"rate_limit_per_second"`
	TimeoutSeconds     int               `json:"timeout_seconds"`
	Triggers           []triggerView     `json:"triggers"`
	CreatedAt          time.Time         `json:"created_at"`
	UpdatedAt          time.Time         `json:"updated_at"`
	Secret             string            `json:"secret,omitempty"` // when it was created, and never again
}

// viewWebhook hides the headers' values from those who may not change them: they are often
// credentials of the receiver.
func viewWebhook(w postgres.Webhook, by access) webhookView {
	v := webhookView{
		ID: w.ID, URL: w.URL, Description: w.Description, Enabled: w.Enabled, Status: "active",
		Headers: make(map[string]string, len(w.Headers)), Format: w.Format, TimeoutSeconds: w.TimeoutSeconds, RateLimitPerSecond: w.RateLimit,
		Triggers: make([]triggerView, len(w.Triggers)), CreatedAt: w.CreatedAt.UTC(), UpdatedAt: w.UpdatedAt.UTC(),
	}
	if w.Template != "" {
		v.Template = &w.Template
	}
	v.Batch = batchOf(w)
	switch {
	case !w.Enabled:
		v.Status = "disabled"
	case w.SwitchedOff:
		v.Status, v.DisabledReason = "disabled", &w.DisabledReason
	case w.Failing:
		v.Status = "failing"
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

func batchOf(w postgres.Webhook) *batchDocument {
	if w.BatchSize == nil {
		return nil
	}
	return &batchDocument{MaxSize: *w.BatchSize, MaxWaitSeconds: *w.BatchWait}
}

func (a *api) listWebhooks(c echo.Context, by access) error {
	var problems []strict.Problem
	page := readPage(c.QueryParams(), &problems)
	if err := invalid(problems); err != nil {
		return err
	}
	webhooks, around, err := a.store.Webhooks(c.Request().Context(), by.site.ID, page)
	if err != nil {
		return err
	}
	views := make([]webhookView, len(webhooks))
	for i, w := range webhooks {
		views[i] = viewWebhook(w, by)
	}
	return c.JSON(http.StatusOK, struct {
		Webhooks []webhookView `json:"webhooks"`
		Meta     meta          `json:"meta"`
	}{views, metaOf(page, around)})
}

func (a *api) createWebhook(c echo.Context, by access) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	d, problems := readWebhook(c.Request().Context(), raw, creating, postgres.Webhook{}, a.targets)
	triggers, err := a.settle(c, by, d.triggers, nil, problems)
	if err != nil {
		return err
	}
	id, secret := newID("wh_"), signature.NewSecret()
	w := d.apply(postgres.Webhook{ID: id, SiteID: by.site.ID})
	w.Triggers = triggers
	w, err = a.store.CreateWebhook(c.Request().Context(), w, a.vault.Seal(secret.Reveal(), id), maxWebhooks)
	if err != nil {
		return err
	}
	a.announce(stream.ChangedWebhook, id)
	a.announce(stream.ChangedTrigger, triggerIDs(w.Triggers)...)
	view := viewWebhook(w, by)
	view.Secret = secret.Reveal()
	c.Response().Header().Set(echo.HeaderLocation, c.Request().URL.RawPath+"/"+id)
	return c.JSON(http.StatusCreated, view)
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

func (a *api) showWebhook(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	w, err := a.store.Webhook(c.Request().Context(), by.site.ID, id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, viewWebhook(w, by))
}

// pathID is an id of the path; what cannot be one is not found.
func pathID(c echo.Context, name string) (string, error) {
	id := param(c, name)
	if !idPattern.MatchString(id) {
		return "", errNotFound
	}
	return id, nil
}

// pathIDs are those of a webhook and of something of it.
func pathIDs(c echo.Context, name string) (webhookID, id string, err error) {
	if webhookID, err = pathID(c, "id"); err == nil {
		id, err = pathID(c, name)
	}
	return webhookID, id, err
}

func (a *api) replaceWebhook(c echo.Context, by access) error {
	return a.saveWebhook(c, by, replacing)
}

func (a *api) patchWebhook(c echo.Context, by access) error {
	return a.saveWebhook(c, by, patching)
}

// saveWebhook replaces a webhook by the body, or by what the body makes of it. Without triggers
// in the body they stay as they are.
func (a *api) saveWebhook(c echo.Context, by access, p purpose) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	w, changes, err := a.store.ChangeWebhook(c.Request().Context(), by.site.ID, id, func(current postgres.Webhook) (postgres.Webhook, error) {
		raw := body
		if p == patching {
			raw = mergePatch(webhookBase(current, body), body)
		}
		d, problems := readWebhook(c.Request().Context(), raw, p, current, a.targets)
		next := d.apply(current)
		settled, err := a.settle(c, by, d.triggers, current.Triggers, problems)
		if err != nil {
			return postgres.Webhook{}, err
		}
		if d.hasTriggers {
			next.Triggers = settled
		}
		return next, nil
	})
	if err != nil {
		return err
	}
	a.announceChanges(id, changes)
	return c.JSON(http.StatusOK, viewWebhook(w, by))
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

func (a *api) removeWebhook(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	triggers, err := a.store.RemoveWebhook(c.Request().Context(), by.site.ID, id)
	if err != nil {
		return err
	}
	a.announce(stream.ChangedWebhook, id)
	a.announce(stream.ChangedTrigger, triggers...)
	return c.NoContent(http.StatusNoContent)
}
