package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
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
		return invalid([]trigger.Problem{{Message: fmt.Sprintf("The body is not valid JSON: %s, at byte %d", syntax.Error(), syntax.Offset)}})
	case err != nil || fields == nil:
		return invalid([]trigger.Problem{{Message: "The body must be a JSON object"}})
	}
	return nil
}

// object reads the fields of a JSON object and collects every problem with its path, where
// encoding/json would stop at the first. Each reader marks its field as known; end reports those
// that nobody read. Names match exactly; null stands for a field that was not given.
type object struct {
	path     string // ends with a dot, or is empty
	fields   map[string]json.RawMessage
	read     []string
	problems *[]trigger.Problem
}

// readObject needs a path only where the object stands within another.
func readObject(path string, raw json.RawMessage, problems *[]trigger.Problem) *object {
	o := &object{problems: problems}
	if path != "" {
		o.path = path + "."
	}
	if err := json.Unmarshal(raw, &o.fields); err != nil || o.fields == nil {
		*problems = append(*problems, trigger.Problem{Field: path, Message: "must be an object"})
	}
	return o
}

func (o *object) refuse(name, format string, arguments ...any) {
	*o.problems = append(*o.problems, trigger.Problem{Field: o.path + name, Message: fmt.Sprintf(format, arguments...)})
}

func (o *object) take(name string) (json.RawMessage, bool) {
	o.read = append(o.read, name)
	raw, given := o.fields[name]
	return raw, given && string(raw) != "null"
}

func (o *object) boolean(name string, fallback bool) bool {
	raw, given := o.take(name)
	if !given {
		return fallback
	}
	var value bool
	if err := json.Unmarshal(raw, &value); err != nil {
		o.refuse(name, "must be true or false")
	}
	return value
}

func (o *object) integer(name string, fallback, lowest, highest int) int {
	raw, given := o.take(name)
	if !given {
		return fallback
	}
	var n int
	switch err := json.Unmarshal(raw, &n); {
	case err != nil:
		o.refuse(name, "must be a whole number")
	case n < lowest || n > highest:
		o.refuse(name, "must be between %d and %d", lowest, highest)
	}
	return n
}

// text refuses control characters: nothing that shows these texts expects them, and Postgres
// cannot store NUL.
func (o *object) text(name string, shortest, longest int) string {
	raw, given := o.take(name)
	if !given {
		return ""
	}
	var s string
	switch err := json.Unmarshal(raw, &s); {
	case err != nil:
		o.refuse(name, "must be text")
		return ""
	case utf8.RuneCountInString(s) > longest:
		o.refuse(name, "must have at most %d characters", longest)
	case utf8.RuneCountInString(s) < shortest:
		o.refuse(name, "must not be empty")
	case strings.ContainsFunc(s, isControl):
		o.refuse(name, "must not contain control characters")
	}
	return s
}

func isControl(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }

// list reads an array of at most longest elements.
func (o *object) list(name string, longest int) []json.RawMessage {
	raw, given := o.take(name)
	if !given {
		return nil
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		o.refuse(name, "must be a list")
		return nil
	}
	if len(elements) > longest {
		o.refuse(name, "must have at most %d elements", longest)
		return nil
	}
	return elements
}

// unavailable reads a field of the contract whose only value, as yet, is its default.
func (o *object) unavailable(name, only, message string) {
	if raw, given := o.take(name); given && string(raw) != only {
		o.refuse(name, "%s", message)
	}
}

// readOnly is for the fields that an answer has besides those of a request. They are ignored
// where the whole thing is replaced, so that an answer can be sent back with changes, and
// refused where naming one can only mean that it should be set.
func (o *object) readOnly(ignore bool, names ...string) {
	for _, name := range names {
		o.read = append(o.read, name)
		if _, given := o.fields[name]; given && !ignore {
			o.refuse(name, "cannot be set")
		}
	}
}

// end reports the fields that no reader asked for, in alphabetical order.
func (o *object) end() {
	var unknown []string
	for name := range o.fields {
		if !slices.Contains(o.read, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		o.refuse(name, "is not a known field")
	}
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
