package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/format"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// The limits of what owners write, besides those of the contract.
const (
	maxWebhooks    = 100 // of a site
	maxTriggers    = 100 // of a webhook
	maxDescription = 1000
	maxName        = 200
	maxHeaders     = 20
	maxHeaderBytes = 4 << 10
	maxCooldown    = 30 * 24 * 60 * 60

	defaultTimeout = 15
	longestTimeout = 30

	lowestRate  = 0.01 // per second
	highestRate = 1000

	smallestBatch    = 2
	largestBatch     = 100 // messages
	longestBatchWait = 60 * 60
	defaultBatchWait = 60
)

// webhookDocument is a webhook as its owner writes it, complete with its defaults.
type webhookDocument struct {
	url            string
	description    string
	enabled        bool
	enable         bool // enabled was given, and true
	headers        map[string]string
	timeoutSeconds int
	format         format.Format
	template       string // of the format custom, else empty
	rateLimit      *float64
	batch          *rest.Batch
	triggers       []triggerDocument
	hasTriggers    bool
}

// triggerDocument is a trigger as its owner writes it.
type triggerDocument struct {
	path            string // where it stands in the body, for problems: "triggers[0].", or empty
	id              string // of the trigger that it replaces; empty: a new one
	typ             trigger.Type
	name            string // empty: one that is made of the config
	keepName        bool   // no name was given, and that leaves it as it is
	enabled         bool
	config          trigger.Config // nil if it has problems
	filters         trigger.Filters
	cooldownSeconds int
	notifyResolved  bool
}

// purpose is what a document is for. It decides about the fields that only answers have.
type purpose int

const (
	creating purpose = iota
	replacing
	patching
)

// readWebhook reads a whole webhook. An URL that is the stored one is not judged again: after
// the operator's rules have changed, its owner must still be able to pause it.
func readWebhook(ctx context.Context, raw json.RawMessage, p purpose, stored postgres.Webhook, targets target.Policy) (webhookDocument, []strict.Problem) {
	var problems []strict.Problem
	o := strict.Read("", raw, &problems)
	d := webhookDocument{
		url:            o.Text("url", 0, 2000),
		description:    o.Text("description", 0, maxDescription),
		enabled:        o.Boolean("enabled", true),
		headers:        readHeaders(o),
		timeoutSeconds: int(o.Integer("timeout_seconds", defaultTimeout, 1, longestTimeout)),
	}
	d.rateLimit = o.Number("rate_limit_per_second", lowestRate, highestRate)
	if _, given := o.Take("enabled"); given {
		d.enable = d.enabled
	}
	if err := targets.CheckURL(d.url); err != nil && (d.url == "" || d.url != stored.URL) && !hasProblem(problems, "url") {
		o.Refuse("url", "%s", err)
	}
	d.format, d.template = readFormat(o)
	if !hasProblem(problems, "template") && !hasProblem(problems, "format") {
		checkFormat(ctx, o, d, stored)
	}
	d.batch = readBatch(o)

	if d.hasTriggers = o.Has("triggers"); d.hasTriggers {
		if _, given := o.Take("triggers"); !given { // as a default it would remove them all
			o.Refuse("triggers", "must be a list")
		}
		inner := p
		if p == patching { // a list is replaced as a whole, and so is each of its elements
			inner = replacing
		}
		for i, element := range o.List("triggers", maxTriggers) {
			d.triggers = append(d.triggers, readTrigger(fmt.Sprintf("triggers[%d]", i), element, nil, inner, &problems))
		}
		refuseRepeatedIDs(d.triggers, &problems)
	}
	o.ReadOnly(p == replacing, "id", "status", "disabled_reason", "failing_since", "created_at", "updated_at")
	o.ReadOnly(false, "secret")
	o.End()
	return d, problems
}

func hasProblem(problems []strict.Problem, field string) bool {
	return slices.ContainsFunc(problems, func(p strict.Problem) bool { return p.Field == field })
}

// readTrigger reads a whole trigger; patch is what was merged into a stored one, or nil. Whether its
// goal exists is settled later: see settle.
func readTrigger(path string, raw, patch json.RawMessage, p purpose, problems *[]strict.Problem) triggerDocument {
	o := strict.ReadPatched(path, raw, patch, problems)
	if !o.Valid() {
		return triggerDocument{path: o.Path()}
	}
	name, enabled := strings.TrimSpace(o.Text("name", 1, maxName)), o.Boolean("enabled", true)
	d := readCondition(o)
	d.name, d.enabled, d.keepName = name, enabled, !o.Has("name") && p == patching
	if path != "" && p == replacing {
		d.id = o.Text("id", 1, 100)
	}
	o.ReadOnly(p == replacing, "id", "state", "created_at", "updated_at")
	o.End()
	return d
}

// readCondition reads what a trigger waits for, and when it speaks.
func readCondition(o *strict.Object) triggerDocument {
	d := triggerDocument{
		path:            o.Path(),
		typ:             trigger.Type(o.Text("type", 0, 100)),
		cooldownSeconds: int(o.Integer("cooldown_seconds", 0, 0, maxCooldown)),
		notifyResolved:  o.Boolean("notify_resolved", false),
	}
	config, _ := o.Take("config")
	if string(config) == "null" {
		config = nil
	}
	parsed, found := trigger.ParsePatched(d.typ, config, o.Patch("config"))
	if d.typ == "" {
		found = []strict.Problem{{Field: "type", Message: "is required"}}
	}
	if len(config) > 0 && config[0] != '{' { // of no type, or of an unknown one, nothing looks at it
		found = append(found, strict.Problem{Field: "config", Message: "must be an object"})
	}
	if len(found) == 0 {
		d.config = parsed
	}
	filters, _ := o.Take("filters")
	d.filters = readFilters(filters, d.config, &found)
	for _, problem := range found {
		if !o.Refused(problem.Field) {
			o.Refuse(problem.Field, "%s", problem.Message)
		}
	}
	return d
}

// readFilters reads the filters, which must fit the config, where that is known.
func readFilters(raw json.RawMessage, config trigger.Config, problems *[]strict.Problem) trigger.Filters {
	filters, found := trigger.ParseFilters(raw)
	if len(found) == 0 {
		found = trigger.CheckFilters(config, filters)
	}
	*problems = append(*problems, found...)
	return filters
}

func refuseRepeatedIDs(triggers []triggerDocument, problems *[]strict.Problem) {
	seen := map[string]bool{}
	for _, d := range triggers {
		if d.id != "" && seen[d.id] {
			*problems = append(*problems, strict.Problem{Field: strict.Join(d.path, "id"), Message: "is given twice"})
		}
		seen[d.id] = true
	}
}

func readBatch(o *strict.Object) *rest.Batch {
	raw, given := o.Take("batch")
	if !given {
		return nil
	}
	inner := o.Inner("batch", raw)
	if !inner.Valid() {
		return nil
	}
	d := rest.Batch{
		MaxSize:        int(inner.Integer("max_size", largestBatch, smallestBatch, largestBatch)),
		MaxWaitSeconds: int(inner.Integer("max_wait_seconds", defaultBatchWait, 1, longestBatchWait)),
	}
	inner.End()
	return &d
}

// readHeaders reads the headers that the owner wants sent along.
func readHeaders(o *strict.Object) map[string]string {
	raw, given := o.Take("headers")
	if !given {
		return map[string]string{}
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		o.Refuse("headers", "must be an object of names and texts")
		return nil
	}
	if len(fields) > maxHeaders {
		o.Refuse("headers", "must have at most %d headers", maxHeaders)
		return nil
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	headers, seen, size := map[string]string{}, map[string]bool{}, 0
	for _, name := range names {
		value, reason := readHeader(name, fields[name])
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if reason == "" && seen[canonical] {
			reason = "is given twice, in different spellings"
		}
		if reason != "" {
			o.Refuse("headers."+name, "%s", reason)
		}
		headers[name], seen[canonical] = value, true
		size += len(name) + len(value)
	}
	if size > maxHeaderBytes {
		o.Refuse("headers", "must have at most %d bytes together", maxHeaderBytes)
	}
	return headers
}

// readHeader returns a header's value, or why it is refused.
func readHeader(name string, raw json.RawMessage) (value, reason string) {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return "", "is not a header name"
	case target.ReservedHeader(name):
		return "", "is set by the sender"
	case string(raw) == "null" || json.Unmarshal(raw, &value) != nil:
		return "", "must be text"
	}
	for _, b := range []byte(value) {
		if b < ' ' || b >= 0x7f {
			return "", "must be plain ASCII without control characters"
		}
	}
	if strings.TrimSpace(value) != value {
		return "", "must not begin or end with a space"
	}
	return value, ""
}
