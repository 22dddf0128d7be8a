package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// problem is an answer that is not a success.
type problem struct {
	status   int
	sentence string
	errors   []strict.Problem // of a body or query that is not valid: every reason
}

func (p *problem) Error() string { return p.sentence }

// The problems without details. Unknown sites, sites without access and ids of other sites have
// the same answer, so that nobody learns what exists.
var (
	errNoKey       = &problem{status: http.StatusUnauthorized, sentence: "A Plausible API key is needed: send the header Authorization: Bearer <key>."}
	errUnknownKey  = &problem{status: http.StatusUnauthorized, sentence: "The API key is unknown."}
	errNotFound    = &problem{status: http.StatusNotFound, sentence: "It does not exist, or the API key has no access to it."}
	errNoPath      = &problem{status: http.StatusNotFound, sentence: "There is nothing at this path."}
	errMayOnlyLook = &problem{status: http.StatusForbidden, sentence: "The API key's user may look at this site's webhooks, but not change them."}
	errChanged     = &problem{status: http.StatusPreconditionFailed, sentence: "It was changed since you read it: read it again, and send its new ETag as If-Match."}
	errTooLarge    = &problem{status: http.StatusRequestEntityTooLarge, sentence: "The body is larger than 1 MiB."}
	errMediaType   = &problem{status: http.StatusUnsupportedMediaType, sentence: "The body must be JSON: send the header Content-Type: application/json."}
	errUnread      = &problem{status: http.StatusBadRequest, sentence: "The body could not be read to its end."}
	errAway        = &problem{status: http.StatusServiceUnavailable, sentence: "The database cannot be reached; try again later."}
	errSlow        = &problem{status: http.StatusServiceUnavailable, sentence: "The answer took too long; try again later."}

	// errPlausibleAway wraps what Plausible's database said.
	errPlausibleAway = &problem{status: http.StatusServiceUnavailable, sentence: "Plausible's database cannot be read, so the API key cannot be checked; try again later."}
)

// These bound an answer: a body of 1 MiB has room for a hundred thousand unknown fields, or for
// one with a very long name.
const (
	maxProblems  = 100
	maxFieldName = 200
)

// invalid is the answer to a body or a query with problems; nil without any.
func invalid(problems []strict.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	more := len(problems) - 1
	problems = problems[:min(len(problems), maxProblems)]
	for i, p := range problems {
		problems[i].Field = p.Field[:min(len(p.Field), maxFieldName)]
	}
	first := problems[0]
	sentence := first.Message
	if first.Field != "" {
		sentence = first.Field + " " + sentence
	}
	if more > 0 {
		sentence += fmt.Sprintf("; and %d more", more)
	}
	return &problem{status: http.StatusUnprocessableEntity, sentence: sentence + ".", errors: problems}
}

// invalidParameter is the answer to a header that is not valid.
func invalidParameter(name, message string) error {
	return invalid([]strict.Problem{{Field: name, Message: message}})
}

func conflict(format string, arguments ...any) error {
	return &problem{status: http.StatusConflict, sentence: fmt.Sprintf(format, arguments...)}
}

// statusClientGone is what is logged for a request whose sender did not wait; nobody reads it.
const statusClientGone = 499

// problemOf makes an answer of any error: the only place where errors become statuses. What it
// does not know is our own fault, and is shown as nothing but that.
func problemOf(err error, requestID string) *problem {
	known, echoed := new(problem), new(echo.HTTPError)
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, postgres.ErrNotFound), errors.Is(err, plausible.ErrNoSite):
		return errNotFound
	case errors.Is(err, plausible.ErrUnknownKey):
		return errUnknownKey
	case errors.Is(err, postgres.ErrBusy):
		return &problem{status: http.StatusConflict, sentence: "A recovery of this webhook is running: wait for its end, or cancel it."}
	case errors.Is(err, postgres.ErrFull):
		return &problem{status: http.StatusConflict, sentence: fmt.Sprintf("The site already has %d webhooks, which is the most it may have.", maxWebhooks)}
	case errors.Is(err, context.Canceled):
		return &problem{status: statusClientGone, sentence: "The request was cancelled."}
	case errors.Is(err, context.DeadlineExceeded):
		return errSlow
	case errors.Is(err, postgres.ErrAway):
		return errAway
	case errors.As(err, &echoed) && echoed.Code == http.StatusNotFound:
		return errNoPath
	case errors.As(err, &echoed) && echoed.Code == http.StatusBadRequest: // of a parameter that the generated code cannot read
		return &problem{status: http.StatusUnprocessableEntity, sentence: fmt.Sprint(echoed.Message) + "."}
	case errors.As(err, &echoed) && echoed.Code == http.StatusMethodNotAllowed:
		return &problem{status: http.StatusMethodNotAllowed, sentence: "The path exists, but not with this method."}
	}
	return &problem{status: http.StatusInternalServerError, sentence: "internal error (request " + requestID + ")"}
}

// busyFor is after how many seconds it may be tried again, where others keep something busy: about as long as a preview takes.
const busyFor = "5"

// answerError is echo's HTTPErrorHandler.
func answerError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	p := problemOf(err, c.Response().Header().Get(echo.HeaderXRequestID))
	if p.status == http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
	}
	if header := c.Response().Header(); p.status == http.StatusTooManyRequests && header.Get(echo.HeaderRetryAfter) == "" {
		header.Set(echo.HeaderRetryAfter, busyFor)
	}
	body := struct {
		Error  string           `json:"error"`
		Errors []strict.Problem `json:"errors,omitempty"`
	}{p.sentence, p.errors}
	_ = c.JSON(p.status, body) // whoever asked has gone if this fails
}
