package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// maxBody is the size from which a body is refused.
const maxBody = 1 << 20

// withBody reads the body of an operation that has one.
func withBody(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		call := callOf(r.Context())
		if len(call.mediaTypes) == 0 || !call.needsBody && r.ContentLength == 0 {
			return next(c)
		}
		mediaType, _, err := mime.ParseMediaType(r.Header.Get(echo.HeaderContentType))
		if err != nil || !slices.Contains(call.mediaTypes, mediaType) || r.Header.Get(echo.HeaderContentEncoding) != "" {
			return errMediaType
		}
		r.Header.Set(echo.HeaderContentType, mediaType) // the generated code compares it
		raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxBody))
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return errTooLarge
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errUnread, err)
		}
		if err := requireObject(raw); err != nil {
			return err
		}
		call.body = raw
		return next(c)
	}
}

// bodies gives the generated code the body that withBody has read. It is io.EOF for an optional one that is not there.
type bodies struct{}

// Bind implements echo.Binder.
func (bodies) Bind(body any, c echo.Context) error {
	raw := callOf(c.Request().Context()).body
	if raw == nil {
		return io.EOF
	}
	*body.(*json.RawMessage) = raw
	return nil
}

// requireObject refuses what is not one JSON object. The contract knows no status 400: a body
// that cannot be read as JSON is one problem among those of 422, of no field.
func requireObject(raw []byte) error {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(raw, &fields)
	syntax := new(json.SyntaxError)
	switch {
	case errors.As(err, &syntax):
		return invalid([]strict.Problem{{Message: fmt.Sprintf("The body is not valid JSON: %s, at byte %d", syntax.Error(), syntax.Offset)}})
	case err != nil || fields == nil:
		return invalid([]strict.Problem{{Message: "The body must be a JSON object"}})
	}
	return nil
}

// mergeDepth is how deep the objects of a document are: config.goal.custom_props.
const mergeDepth = 3

// mergePatch applies an RFC 7396 merge patch to a document. At the top a null stays in the
// document instead of removing the field: it means the default either way, and a misspelt
// name is still noticed.
func mergePatch(document, patch json.RawMessage) json.RawMessage {
	return mergeObject(document, patch, 0)
}

func mergeObject(document, patch json.RawMessage, depth int) json.RawMessage {
	var base, changes map[string]json.RawMessage
	if json.Unmarshal(patch, &changes) != nil || changes == nil || depth > mergeDepth {
		return patch
	}
	if json.Unmarshal(document, &base) != nil || base == nil {
		base = map[string]json.RawMessage{}
	}
	for name, value := range changes {
		if string(value) == "null" && depth > 0 {
			delete(base, name)
			continue
		}
		base[name] = mergeObject(base[name], value, depth+1)
	}
	return mustMarshal(base)
}

// mustMarshal is for what was made of JSON, or of plain fields, and so can be written as JSON.
func mustMarshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
