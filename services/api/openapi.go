package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// openAPI is the document that the routes and types of internal/rest are generated from. What it says
// of keys, bodies and Idempotency-Key is obeyed from here.
//
//go:embed openapi.yaml
var openAPI []byte

// The scopes of the document: what a key may do.
const (
	scopeLook   = "look"
	scopeChange = "change"
)

// operation is what the document says of one.
type operation struct {
	id         string
	method     string
	scope      string // empty: no key is needed
	ofSite     bool
	mediaTypes []string // of the body; empty: it has none
	needsBody  bool
	body       *jsonschema.Schema // nil without a body
	idempotent bool               // takes an Idempotency-Key
	dryRun     bool               // can be asked only to judge the request
	streams    bool               // answers for as long as the client stays
}

// changes tells whether the operation writes: such are one transaction, with a row of what was changed.
func (o *operation) changes() bool { return o.scope == scopeChange && o.method != http.MethodGet }

// readOpenAPI reads the operations by their ids.
func readOpenAPI(source []byte) (map[string]*operation, error) {
	var paths struct {
		Paths map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(source, &paths); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	compiler, err := schemas(source)
	if err != nil {
		return nil, err
	}
	operations := map[string]*operation{}
	for path, methods := range paths.Paths {
		for method, node := range methods {
			if method == "parameters" {
				continue
			}
			o, err := readOperation(&node)
			if err != nil {
				return nil, fmt.Errorf("read openapi.yaml: %s %s: %w", method, path, err)
			}
			o.method, o.ofSite = strings.ToUpper(method), strings.Contains(path, "{site_id}")
			if len(o.mediaTypes) > 0 { // all have the same schema
				if o.body, err = compiler.Compile(schemaURL("paths", path, method, "requestBody", "content", o.mediaTypes[0], "schema")); err != nil {
					return nil, fmt.Errorf("read openapi.yaml: %w", err)
				}
			}
			operations[o.id] = o
		}
	}
	return operations, nil
}

func readOperation(node *yaml.Node) (*operation, error) {
	var written struct {
		ID         string                 `yaml:"operationId"`
		Security   *[]map[string][]string `yaml:"security"` // nil: the document's, which is to look
		Parameters []struct {
			Ref string `yaml:"$ref"`
		} `yaml:"parameters"`
		Body *struct {
			Required bool                 `yaml:"required"`
			Content  map[string]yaml.Node `yaml:"content"`
		} `yaml:"requestBody"`
		Responses map[string]struct {
			Content map[string]yaml.Node `yaml:"content"`
		} `yaml:"responses"`
	}
	if err := node.Decode(&written); err != nil {
		return nil, err
	}
	o := &operation{id: written.ID, scope: scopeLook}
	_, o.streams = written.Responses["200"].Content["text/event-stream"]
	if written.Security != nil {
		o.scope = ""
		for _, requirement := range *written.Security {
			o.scope = strings.Join(requirement["apiKey"], " ")
		}
	}
	if !slices.Contains([]string{"", scopeLook, scopeChange}, o.scope) {
		return nil, fmt.Errorf("unknown scope %q", o.scope)
	}
	for _, p := range written.Parameters {
		o.idempotent = o.idempotent || p.Ref == "#/components/parameters/IdempotencyKey"
		o.dryRun = o.dryRun || p.Ref == "#/components/parameters/DryRun"
	}
	if written.Body != nil {
		o.needsBody = written.Body.Required
		for mediaType := range written.Body.Content {
			o.mediaTypes = append(o.mediaTypes, mediaType)
		}
		slices.Sort(o.mediaTypes)
	}
	return o, nil
}

// The document's address, for references within it alone.
const documentURL = "plausible-webhooks:openapi"

// schemaURL is where a schema stands in the document.
func schemaURL(path ...string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	var url strings.Builder
	url.WriteString(documentURL + "#")
	for _, part := range path {
		url.WriteString("/" + escape.Replace(part))
	}
	return url.String()
}

// schemas is a compiler of the document's schemas, which are of JSON Schema 2020-12 as those of every
// OpenAPI 3.1 document.
func schemas(source []byte) (*jsonschema.Compiler, error) {
	var document any
	if err := yaml.Unmarshal(source, &document); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, plain); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	return compiler, nil
}

// check tells what of a JSON object the document does not allow.
func check(schema *jsonschema.Schema, raw []byte) []strict.Problem {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return []strict.Problem{{Message: err.Error()}}
	}
	refused := new(jsonschema.ValidationError)
	if err := schema.Validate(value); !errors.As(err, &refused) {
		return nil
	}
	var problems, unknown []strict.Problem
	collect(refused, &problems, &unknown)
	if len(problems) > 0 {
		// Where a part of a schema fails, unevaluatedProperties refuses the fields of that part too.
		return problems
	}
	// An unknown field makes those around it fail in the same way, and what stands beside them.
	around, seen := map[string]bool{}, map[string]bool{}
	for _, p := range unknown {
		inner := parent(p.Field)
		for field := inner; field != "" && !seen[inner]; {
			field = parent(field)
			around[field] = true
		}
		seen[inner] = true
	}
	return slices.DeleteFunc(unknown, func(p strict.Problem) bool { return around[parent(p.Field)] })
}

// parent is what a field stands in; empty for one of the body itself.
func parent(field string) string {
	return field[:max(strings.LastIndexAny(field, ".["), 0)]
}

var english = message.NewPrinter(language.English)

// collect finds the innermost reasons.
func collect(refused *jsonschema.ValidationError, problems, unknown *[]strict.Problem) {
	for _, cause := range refused.Causes {
		collect(cause, problems, unknown)
	}
	if len(refused.Causes) > 0 {
		return
	}
	field := ""
	for _, part := range refused.InstanceLocation {
		if _, err := strconv.Atoi(part); err == nil {
			field += "[" + part + "]"
		} else {
			field = strict.Join(field, part)
		}
	}
	add := func(field, message string) {
		*problems = append(*problems, strict.Problem{Field: field, Message: message})
	}
	switch reason := refused.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range reason.Properties {
			add(strict.Join(field, name), "is not a known field")
		}
	case *kind.Required:
		for _, name := range reason.Missing {
			add(strict.Join(field, name), "is required")
		}
	case *kind.FalseSchema: // of unevaluatedProperties
		*unknown = append(*unknown, strict.Problem{Field: field, Message: "is not a known field"})
	default:
		add(field, "is not valid: "+refused.ErrorKind.LocalizedString(english))
	}
}
