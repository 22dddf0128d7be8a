package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// maxBody is the size from which a body is refused.
const maxBody = 1 << 20

// readBody reads a request's JSON, whose fields are then read one by one.
func readBody(c echo.Context) (json.RawMessage, error) {
	r := c.Request()
	mediaType, _, err := mime.ParseMediaType(r.Header.Get(echo.HeaderContentType))
	accepted := mediaType == "application/json" || mediaType == "application/merge-patch+json" && r.Method == http.MethodPatch
	if err != nil || !accepted || r.Header.Get(echo.HeaderContentEncoding) != "" {
		return nil, errMediaType
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	return raw, requireObject(raw)
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
