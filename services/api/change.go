package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// The headers of sending again.
const (
	headerIdempotencyKey = "Idempotency-Key"
	headerReplayed       = "Idempotency-Replayed"
)

// inOneTransaction makes an operation that changes something one transaction: what it changes, the
// row that says who did, and the answer for its Idempotency-Key. So there is no moment at which a
// crash leaves one of them without the others, and of two requests with the same key the second waits
// for the first. Nothing is answered, and nobody is told, before the commit. A dry run goes the same way up to
// there, and is taken back.
func (a *api) inOneTransaction(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, response := c.Request(), c.Response()
		call := callOf(r.Context())
		dry, _ := strconv.ParseBool(c.QueryParam("dry_run")) // what is neither true nor false is refused within
		dry = dry && call.dryRun
		once, err := a.onceOf(c, call)
		if err != nil {
			return err
		}
		if dry {
			once = nil
		}
		requestID := response.Header().Get(echo.HeaderXRequestID)
		held, err := hold(c, func(held *heldAnswer) error {
			return a.store.InTx(r.Context(), func(ctx context.Context) error {
				if once != nil {
					known, err := a.replay(ctx, *once, held)
					if known || err != nil {
						return err
					}
				}
				c.SetRequest(r.WithContext(ctx))
				if err := next(c); err != nil {
					return err
				}
				if dry {
					return errTakenBack
				}
				if err := a.store.Record(ctx, changeOf(c, call, requestID)); err != nil {
					return err
				}
				if once == nil {
					return nil
				}
				return a.store.KeepAnswer(ctx, *once, a.vault.Seal(string(mustMarshal(held.answer())), answerOwner(*once)))
			})
		})
		if errors.Is(err, errTakenBack) {
			return c.NoContent(http.StatusNoContent)
		}
		if err != nil {
			return err
		}
		for _, tell := range call.committed {
			tell()
		}
		for name, values := range held.header {
			response.Header()[name] = values
		}
		response.WriteHeader(held.status)
		_, err = response.Write(held.body.Bytes())
		return err
	}
}

// errTakenBack ends the transaction of a dry run that went well.
var errTakenBack = errors.New("a dry run changes nothing")

// hold keeps back what is answered while do works. Whatever comes of it, a panic too, the response is then as it was.
func hold(c echo.Context, do func(*heldAnswer) error) (*heldAnswer, error) {
	request, response := c.Request(), c.Response()
	sent, held := response.Writer, &heldAnswer{header: http.Header{}}
	response.Writer = held
	defer func() {
		response.Writer, response.Committed, response.Size, response.Status = sent, false, 0, http.StatusOK
		c.SetRequest(request)
	}()
	return held, do(held)
}

// heldAnswer is an answer that is not sent yet.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (h *heldAnswer) Header() http.Header { return h.header }

// WriteHeader implements http.ResponseWriter.
func (h *heldAnswer) WriteHeader(status int) { h.status = status }

// Write implements http.ResponseWriter.
func (h *heldAnswer) Write(p []byte) (int, error) { return h.body.Write(p) }

// storedAnswer is an answer as it is kept for an Idempotency-Key.
type storedAnswer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

func (h *heldAnswer) answer() storedAnswer {
	return storedAnswer{Status: h.status, Header: h.header, Body: h.body.Bytes()}
}

// answerOwner is what a kept answer is sealed for: it may hold a secret.
func answerOwner(o postgres.Once) string {
	return "answer " + base64.RawURLEncoding.EncodeToString(o.ID[:])
}

// onceOf reads the Idempotency-Key; nil without one. It belongs to the API key, so nobody sees the answers to others.
func (a *api) onceOf(c echo.Context, call *call) (*postgres.Once, error) {
	given := c.Request().Header.Values(headerIdempotencyKey)
	if !call.idempotent || len(given) == 0 {
		return nil, nil
	}
	if len(given) > 1 || given[0] == "" || len(given[0]) > 255 {
		return nil, invalidParameter(headerIdempotencyKey, "must be one text of 1 to 255 characters")
	}
	return &postgres.Once{
		ID:      sha256.Sum256(slices.Concat(call.keySum[:], []byte(given[0]))),
		Request: sha256.Sum256([]byte(c.Request().Method + " " + c.Request().URL.RawPath + "\n" + string(call.body))),
	}, nil
}

// replay writes the answer that was given before; not known if this is the first time.
func (a *api) replay(ctx context.Context, o postgres.Once, to *heldAnswer) (known bool, err error) {
	sealed, request, known, err := a.store.Begin(ctx, o)
	if err != nil || !known {
		return known, err
	}
	if request != o.Request {
		return true, conflict("The Idempotency-Key was used with another request: choose a new one.")
	}
	opened, err := a.vault.Open(sealed, answerOwner(o))
	if err != nil {
		return true, err
	}
	var kept storedAnswer
	if err := json.Unmarshal([]byte(opened), &kept); err != nil {
		return true, err
	}
	to.header, to.status = kept.Header, kept.Status
	to.header.Set(headerReplayed, "true")
	to.body.Write(kept.Body)
	return true, nil
}

// changeOf says what a call has changed: which fields its body named, but no values, which may be secrets.
func changeOf(c echo.Context, call *call, requestID string) postgres.Change {
	change := postgres.Change{
		ID: newID("chg_"), SiteID: call.site.ID, Operation: call.operation.id, WebhookID: orNull(param(c, "id")), UserID: call.userID, KeyPrefix: orNull(call.keyPrefix),
		RequestID: requestID, Fields: []string{},
	}
	for _, name := range []string{"trigger_id", "delivery_id", "job_id"} {
		if id := param(c, name); id != "" {
			change.ObjectID = &id
		}
	}
	if change.WebhookID == nil { // it was made
		change.WebhookID = call.made
	} else if change.ObjectID == nil {
		change.ObjectID = call.made
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(call.body, &fields) == nil {
		for name := range fields {
			change.Fields = append(change.Fields, name)
		}
		slices.Sort(change.Fields)
	}
	return change
}

// etag names the settings of a webhook or a trigger by when they were changed.
func etag(w postgres.Webhook) string {
	parts := []any{w.ID, w.UpdatedAt.UnixMicro()}
	for _, t := range w.Triggers {
		parts = append(parts, t.ID, t.UpdatedAt.UnixMicro())
	}
	return etagOf(parts...)
}

func etagOf(parts ...any) string {
	sum := sha256.Sum256(mustMarshal(parts))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// matches refuses a change of what is not any more as If-Match says. A proxy may have made the ETag a weak one.
func matches(ifMatch *string, current string) error {
	if ifMatch == nil || strings.TrimSpace(*ifMatch) == "*" {
		return nil
	}
	for tag := range strings.SplitSeq(*ifMatch, ",") {
		if strings.TrimPrefix(strings.TrimSpace(tag), "W/") == current {
			return nil
		}
	}
	return errChanged
}
