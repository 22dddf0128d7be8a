package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// document is the OpenAPI document as the tests hold answers against it: read by itself, with another reader than
// the api's.
type document struct {
	compiler *jsonschema.Compiler
	mu       sync.Mutex // of the compiler
	routes   []route
}

type route struct {
	method  string
	path    *regexp.Regexp
	written *openapi3.Operation
	place   []string
}

var readDocument = sync.OnceValues(func() (*document, error) {
	compiler, err := schemas(openAPI)
	if err != nil {
		return nil, err
	}
	d := &document{compiler: compiler}
	loaded, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		return nil, err
	}
	if err := loaded.Validate(context.Background(), openapi3.IsOpenAPI31OrLater()); err != nil {
		return nil, err
	}
	parameter := regexp.MustCompile(`\\\{[a-z_]+\\\}`)
	for path, item := range loaded.Paths.Map() {
		pattern := regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "/?$")
		for method, operation := range item.Operations() {
			d.routes = append(d.routes, route{method, pattern, operation, []string{"paths", path, strings.ToLower(method)}})
		}
	}
	return d, nil
})

// route finds the operation of a request; literal paths go before those with parameters.
func (d *document) route(method, path string) (found route, known bool) {
	for _, r := range d.routes {
		if r.method == method && r.path.MatchString(path) && (!known || strings.Count(r.path.String(), "[^/]") < strings.Count(found.path.String(), "[^/]")) {
			found, known = r, true
		}
	}
	return found, known
}

func (d *document) schema(t *testing.T, place ...string) *jsonschema.Schema {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	compiled, err := d.compiler.Compile(schemaURL(place...))
	require.NoError(t, err)
	return compiled
}

// requireConform holds an answer, and the request, against the document. What the document refuses of a body, the api must refuse;
// and it must have a sentence of its own for it.
func (d *document) requireConform(t *testing.T, r *http.Request, body string, a answer) {
	t.Helper()
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	operation, known := d.route(method, r.URL.EscapedPath())
	if !known {
		return
	}
	what := fmt.Sprintf("%s %s %s: %d %s", r.Method, r.URL, body, a.status, a.text)
	place := append(operation.place, "responses", fmt.Sprint(a.status))
	response := operation.written.Responses.Value(fmt.Sprint(a.status))
	switch {
	case a.status == http.StatusInternalServerError: // a fault of ours is not part of the contract, but looks like the others
		place = []string{"components", "responses", "Unavailable"}
		response = operation.written.Responses.Value("503")
	case response == nil:
		t.Fatalf("the document has no such answer: %s", what)
	case response.Ref != "":
		place = strings.Split(strings.TrimPrefix(response.Ref, "#/"), "/")
	}
	for name, header := range response.Value.Headers {
		require.False(t, header.Value.Required && a.header.Get(name) == "", "no header %s: %s", name, what)
	}
	require.Equal(t, a.status == http.StatusTooManyRequests, a.header.Get("Retry-After") != "", what)
	mediaType, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	if len(response.Value.Content) == 0 {
		require.Empty(t, a.text, what)
	} else {
		require.Contains(t, response.Value.Content, mediaType, what)
	}
	if mediaType == "application/json" && r.Method != http.MethodHead {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(a.text))
		require.NoError(t, err, what)
		require.NoError(t, d.schema(t, append(place, "content", mediaType, "schema")...).Validate(value), what)
	}
	if operation.written.RequestBody == nil || body == "" {
		return
	}
	schema := d.schema(t, append(operation.place, "requestBody", "content", "application/json", "schema")...)
	switch {
	case a.status < 300:
		require.Empty(t, check(schema, []byte(body)), "accepted, though the document refuses it: %s", what)
	case a.status == http.StatusUnprocessableEntity && json.Valid([]byte(body)):
		d.requireNamed(t, check(schema, []byte(body)), a.text, what)
	}
}

// requireNamed wants every field that the document refuses among those of an answer, each with a sentence of the code's.
func (d *document) requireNamed(t *testing.T, refused []strict.Problem, text, what string) {
	t.Helper()
	require.NotContains(t, text, "is not valid: ", "the code has no sentence for it: %s", what)
	var answered struct{ Errors []strict.Problem }
	require.NoError(t, json.Unmarshal([]byte(text), &answered), what)
	if len(answered.Errors) == 0 || len(answered.Errors) >= maxProblems || answered.Errors[0].Field == headerIdempotencyKey { // parameters are looked at before the body
		return
	}
	for _, p := range refused {
		require.True(t, slices.ContainsFunc(answered.Errors, func(named strict.Problem) bool { return within(p.Field[:min(len(p.Field), maxFieldName)], named.Field) }), "%.200v is not named: %s", p, what)
	}
}

// within tells whether a field is the other one, or a part of it.
func within(field, of string) bool {
	rest, is := strings.CutPrefix(field, of)
	return is && (rest == "" || of == "" || rest[0] == '.' || rest[0] == '[')
}

// TestUnknownFieldsAreNamedOnce: a field that is not known is what is wrong, and neither the list that it stands in nor what
// stands beside that. Whether those are known cannot be told then, so an unknown one among them is named when the inner ones are gone.
func TestUnknownFieldsAreNamedOnce(t *testing.T) {
	d, err := readDocument()
	require.NoError(t, err)
	schema := d.schema(t, "components", "schemas", "WebhookCreate")
	require.ElementsMatch(t, []strict.Problem{
		{Field: "triggers[0].window_seconds", Message: "is not a known field"},
		{Field: "triggers[1].window", Message: "is not a known field"},
	}, check(schema, []byte(`{"url": "https://example.com", "headers": {}, "trigger": 1, "triggers": [{"type": "visitor_drop", "window_seconds": "text"}, {"type": "visitor_drop", "window": {}}]}`)))
	require.Equal(t, []strict.Problem{{Field: "trigger", Message: "is not a known field"}},
		check(schema, []byte(`{"url": "https://example.com", "headers": {}, "trigger": 1, "triggers": [{"type": "visitor_drop"}]}`)))
}

// TestTheDocumentIsWhole: every operation has an example of what is sent and of what is answered, which its own
// schema allows.
func TestTheDocumentIsWhole(t *testing.T) {
	d, err := readDocument()
	require.NoError(t, err)
	operations, err := readOpenAPI(openAPI)
	require.NoError(t, err)
	require.Len(t, operations, len(d.routes))
	check := func(place []string, content openapi3.Content) {
		for mediaType, c := range content {
			require.NotNil(t, c.Example, "%s %s has no example", place, mediaType)
			if mediaType == "text/event-stream" {
				continue
			}
			raw, err := json.Marshal(c.Example)
			require.NoError(t, err)
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
			require.NoError(t, err)
			require.NoError(t, d.schema(t, append(place, "content", mediaType, "schema")...).Validate(value), "%s: %s", place, raw)
		}
	}
	for _, r := range d.routes {
		require.Contains(t, operations, r.written.OperationID)
		require.NotEmpty(t, r.written.Summary, r.written.OperationID)
		require.NotEmpty(t, r.written.Tags, r.written.OperationID)
		if r.written.RequestBody != nil {
			check(append(r.place, "requestBody"), r.written.RequestBody.Value.Content)
		}
		for status, response := range r.written.Responses.Map() {
			place := append(r.place, "responses", status)
			if response.Ref != "" {
				place = strings.Split(strings.TrimPrefix(response.Ref, "#/"), "/")
			}
			check(place, response.Value.Content)
		}
	}
}

// TestTheDocumentKnowsEveryTriggerType: the list in the document is that of pkg/trigger.
func TestTheDocumentKnowsEveryTriggerType(t *testing.T) {
	var document struct {
		Components struct {
			Schemas struct {
				TriggerType struct {
					Enum []trigger.Type `yaml:"enum"`
				} `yaml:"TriggerType"`
			} `yaml:"schemas"`
		} `yaml:"components"`
	}
	require.NoError(t, yaml.Unmarshal(openAPI, &document))
	require.Equal(t, trigger.Types(), document.Components.Schemas.TriggerType.Enum)
}
