package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// complaints reads a document and returns its problems, as "field: message".
func complaints(body string, p purpose) []string {
	_, problems := readWebhook(context.Background(), []byte(body), p, postgres.Webhook{}, target.NewPolicy(false, nil))
	lines := []string{}
	for _, problem := range problems {
		lines = append(lines, problem.Field+": "+problem.Message)
	}
	return lines
}

func TestEveryProblemOfAWebhookIsNamed(t *testing.T) {
	with := func(fields string) string { return `{"url": "https://example.com", ` + fields + `}` }
	for body, want := range map[string][]string{
		`{}`:                                    {"url: is required"},
		`{"url": null}`:                         {"url: is required"},
		`{"url": 7}`:                            {"url: must be text"},
		`{"url": ""}`:                           {"url: is required"},
		`{"url": "http://example.com"}`:         {"url: must start with https://"},
		`{"url": "https://u:p@example.com"}`:    {"url: must not carry a user name or password; use headers"},
		`{"url": "https://127.0.0.1/"}`:         {"url: leads to an address that is not public, which ALLOW_PRIVATE_TARGETS does not allow"},
		`{"url": "https://example.com/\u0000"}`: {"url: must not contain control characters"},
		`{"url": "https://example.com/` + strings.Repeat("x", 2000) + `"}`: {"url: must have at most 2000 characters"},
		with(`"URL": "x"`):                                         {"URL: is not a known field"},
		with(`"b": 1, "a": 1`):                                     {"a: is not a known field", "b: is not a known field"},
		with(`"description": "a\u0000b"`):                          {"description: must not contain control characters"},
		with(`"description": "line\nline\t"`):                      {},
		with(`"description": []`):                                  {"description: must be text"},
		with(`"description": "` + strings.Repeat("ü", 1000) + `"`): {},
		with(`"description": "` + strings.Repeat("ü", 1001) + `"`): {"description: must have at most 1000 characters"},
		with(`"enabled": "yes"`):                                   {"enabled: must be true or false"},
		with(`"timeout_seconds": 0`):                               {"timeout_seconds: must be at least 1"},
		with(`"timeout_seconds": 31`):                              {"timeout_seconds: must be at most 30"},
		with(`"timeout_seconds": 1.5`):                             {"timeout_seconds: must be a whole number"},
		with(`"timeout_seconds": 1e99`):                            {"timeout_seconds: must be a whole number"},
		with(`"timeout_seconds": "15"`):                            {"timeout_seconds: must be a whole number"},
		with(`"format": "standard", "template": null, "batch": null, "rate_limit_per_second": null`): {},
		with(`"format": "morse"`):                                                                       {"format: must be one of standard, slack, discord, teams, custom"},
		with(`"format": 7, "template": 7`):                                                              {"format: must be one of standard, slack, discord, teams, custom", "template: must be text"},
		with(`"format": "slack", "template": "."`):                                                      {`template: needs the format "custom"`},
		with(`"template": "."`):                                                                         {`template: needs the format "custom"`},
		with(`"format": "teams", "template": null`):                                                     {},
		with(`"format": "custom", "template": "{text: .data.trigger.name}"`):                            {},
		with(`"format": "custom", "template": ".data.conversions[0].page | length"`):                    {},
		with(`"format": "custom", "template": ".data.baseline | if . then . else error(\"none\") end"`): {},
		with(`"format": "custom"`):                                                                      {"template: is required: a jq expression that makes the body of the message"},
		with(`"format": "custom", "template": ""`):                                                      {"template: is required: a jq expression that makes the body of the message"},
		with(`"format": "custom", "template": ".data | {"`):                                             {"template: is not a valid jq expression: unexpected EOF, in line 1 at character 10"},
		with(`"format": "custom", "template": "$ENV"`):                                                  {"template: uses $ENV, which templates do not have"},
		with(`"format": "custom", "template": ".type.x"`):                                               {"template: fails for every example of a message, for goal_achieved because the template failed: expected an object but got: string (\"goal_achieved.fired\")"},
		with(`"format": "custom", "template": "empty"`):                                                 {"template: fails for every example of a message, for goal_achieved because the template makes no value of this message; it must make exactly one"},
		with(`"format": "custom", "template": "` + strings.Repeat("é", 8193) + `"`):                     {"template: must have at most 16384 bytes"},
		with(`"batch": {}`):                                                                             {},
		with(`"batch": {"max_size": 1, "max_wait_seconds": 0, "x": 1}`):                                 {"batch.max_size: must be at least 2", "batch.max_wait_seconds: must be at least 1", "batch.x: is not a known field"},
		with(`"batch": {"max_size": 101, "max_wait_seconds": 3601}`):                                    {"batch.max_size: must be at most 100", "batch.max_wait_seconds: must be at most 3600"},
		with(`"batch": 5`):                                                                              {"batch: must be an object"},
		with(`"rate_limit_per_second": 0.01`):                                                           {},
		with(`"rate_limit_per_second": 1000`):                                                           {},
		with(`"rate_limit_per_second": 0`):                                                              {"rate_limit_per_second: must be at least 0.01"},
		with(`"rate_limit_per_second": 1000.1`):                                                         {"rate_limit_per_second: must be at most 1000"},
		with(`"rate_limit_per_second": "fast"`):                                                         {"rate_limit_per_second: must be a number"},
		with(`"id": "wh_1", "status": "active", "created_at": "x", "secret": "whsec_x"`): {
			"id: cannot be set", "status: cannot be set", "created_at: cannot be set", "secret: cannot be set"},

		with(`"headers": []`): {"headers: must be an object of names and texts"},
		with(`"headers": {"X-A": 1, "X-B": null, "X-C": ["x"]}`):        {"headers.X-A: must be text", "headers.X-B: must be text", "headers.X-C: must be text"},
		with(`"headers": {"X A": "v", "": "v", "X:": "v", "Ü": "v"}`):   {"headers.: is not a header name", "headers.X A: is not a header name", "headers.X:: is not a header name", "headers.Ü: is not a header name"},
		with(`"headers": {"X-A": "a\r\nX-B: b"}`):                       {"headers.X-A: must be plain ASCII without control characters"},
		with(`"headers": {"X-A": "a\u0000"}`):                           {"headers.X-A: must be plain ASCII without control characters"},
		with(`"headers": {"X-A": "ü"}`):                                 {"headers.X-A: must be plain ASCII without control characters"},
		with(`"headers": {"X-A": " a"}`):                                {"headers.X-A: must not begin or end with a space"},
		with(`"headers": {"X-A": "1", "x-a": "2"}`):                     {"headers.x-a: is given twice, in different spellings"},
		with(`"headers": {"X-A": "` + strings.Repeat("x", 4093) + `"}`): {},
		with(`"headers": {"X-A": "` + strings.Repeat("x", 4094) + `"}`): {"headers: must have at most 4096 bytes together"},
		with(`"headers": {` + repeat(20, `"H%d": ""`) + `}`):            {},
		with(`"headers": {` + repeat(21, `"H%d": ""`) + `}`):            {"headers: must have at most 20 headers"},

		with(`"triggers": null`):                                      {"triggers: must be a list"},
		with(`"triggers": {}`):                                        {"triggers: must be a list"},
		with(`"triggers": [` + repeat(101, `{"n": %d}`) + `]`):        {"triggers: must have at most 100 elements"},
		with(`"triggers": [null, 1, "x"]`):                            {"triggers[0]: must be an object", "triggers[1]: must be an object", "triggers[2]: must be an object"},
		with(`"triggers": [{}]`):                                      {"triggers[0].type: is required"},
		with(`"triggers": [{"type": 7}]`):                             {"triggers[0].type: must be text"},
		with(`"triggers": [{"type": "visitors"}]`):                    {"triggers[0].type: must be one of goal_achieved, goal_silence, metric_change, metric_threshold, new_source, not_found_burst, pageview_milestone, tracking_silence, visitor_drop, visitor_spike"},
		with(`"triggers": [{"type": "visitor_spike", "config": []}]`): {"triggers[0].config: must be an object"},
		with(`"triggers": [{"type": "visitor_spike", "config": null, "name": null, "filters": null, "cooldown_seconds": null}]`): {},
		with(`"triggers": [{"type": "visitor_spike", "config": {"threshold": 0, "window": 5}, "name": "", "enabled": 1, "cooldown_seconds": -1,
			"notify_resolved": "no", "filters": [["is", "visit:country", ["EE"]], ["is", "visit:country"], 7], "id": "tr_1", "state": {}, "bogus": {}}, {"type": "goal_achieved"}]`): {
			"triggers[0].name: must not be empty", "triggers[0].enabled: must be true or false",
			"triggers[0].cooldown_seconds: must be at least 0", "triggers[0].notify_resolved: must be true or false",
			"triggers[0].config.threshold: must be at least 1", "triggers[0].config.window: is not a known field",
			"triggers[0].filters[1]: must have an operator, a dimension and a list of values",
			`triggers[0].filters[2]: must be a filter such as ["is", "visit:country", ["EE"]]`, "triggers[0].id: cannot be set", "triggers[0].state: cannot be set",
			"triggers[0].bogus: is not a known field",
			`triggers[1].config.goal: is required: {"goal_id": …}, {"event_name": …}, {"page_path": …} or {"page_path": …, "scroll_threshold": …}`},
		with(`"triggers": [{"type": "visitor_spike", "filters": {}}, {"type": "visitor_spike", "filters": [["or", []], ["not", ["is", "event:goals", ["A"]]]]}, {"type": "metric_threshold",
			"filters": [["is", "event:page", ["/"]]]}, {"type": "metric_threshold", "config": {"metric": "bounce_rate", "threshold": 70}, "filters": [["or", [["is", "event:page", ["/"]], ["is", "visit:exit_page", ["/"]]]]]},
			{"type": "future", "filters": [["has_done", []]]}]`): {
			`triggers[0].filters: must be a list of filters such as ["is", "visit:country", ["EE"]]`,
			`triggers[1].filters[0]: "or" needs at least one filter`,
			"triggers[1].filters[1]: the dimension must be one of event:page, event:hostname, event:name, event:goal, visit:source, visit:channel, visit:referrer, " +
				"visit:utm_medium, visit:utm_source, visit:utm_campaign, visit:utm_content, visit:utm_term, visit:device, visit:browser, visit:browser_version, " +
				"visit:os, visit:os_version, visit:country, visit:region, visit:city, visit:entry_page, visit:exit_page, event:props:<name>",
			"triggers[2].config.threshold: is required",
			"triggers[3].filters[0]: cannot use event:page and visit:exit_page in one filter: bounce_rate is a matter of whole visits; make it two filters",
			"triggers[4].type: must be one of goal_achieved, goal_silence, metric_change, metric_threshold, new_source, not_found_burst, pageview_milestone, tracking_silence, visitor_drop, visitor_spike",
			`triggers[4].filters[0]: must be a filter such as ["is", "visit:country", ["EE"]]`},
	} {
		require.Equal(t, want, complaints(body, creating), body)
	}
	require.Empty(t, complaints(with(`"id": "wh_1", "status": "active", "disabled_reason": null, "failing_since": null, "created_at": "x", "updated_at": "x",
		"triggers": [{"id": "tr_1", "type": "visitor_spike", "state": {}, "created_at": "x", "updated_at": "x"}]`), replacing), "an answer can be sent back")
	require.Equal(t, []string{"triggers[1].id: is given twice"},
		complaints(with(`"triggers": [{"id": "tr_1", "type": "visitor_spike"}, {"id": "tr_1", "type": "visitor_spike"}]`), replacing))
}

// repeat writes n elements of a list or an object.
func repeat(n int, format string) string {
	elements := make([]string, n)
	for i := range elements {
		elements[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(elements, ", ")
}

func TestHeadersOfTheSenderAreReserved(t *testing.T) {
	for _, name := range []string{"webhook-id", "Webhook-Signature", "WEBHOOK-ANYTHING", "Host", "content-type", "Content-Length", "Transfer-Encoding",
		"connection", "Keep-Alive", "Proxy-Authorization", "proxy-connection", "Expect", "TE", "Trailer", "Upgrade", "User-Agent", "Accept-Encoding",
		"X-Forwarded-For", "traceparent", "Idempotency-Key"} {
		body := `{"url": "https://example.com", "headers": {"` + name + `": "v"}}`
		require.Equal(t, []string{"headers." + name + ": is set by the sender"}, complaints(body, creating), name)
	}
	for _, name := range []string{"Authorization", "X-Api-Key", "Cookie", "webhook", "X-Webhook-Id", "Accept"} {
		require.Empty(t, complaints(`{"url": "https://example.com", "headers": {"`+name+`": "v"}}`, creating), name)
	}
}

func TestMergePatchIsRFC7396BelowTheTop(t *testing.T) {
	for _, c := range [][3]string{ // the examples of its appendix A, as fields of a document
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"b"}`, `{"a":null}`, `{"a":null}`}, // at the top null stays: the default
	} {
		require.JSONEq(t, c[2], string(mergePatch([]byte(c[0]), []byte(c[1]))), "%s with %s", c[0], c[1])
	}
}

func TestBodiesAreRefusedBeforeTheyAreRead(t *testing.T) {
	w := newWorld(t)
	send := func(body, contentType string) answer {
		return w.do(w.demo.OwnerKey, "POST", w.demo.Domain+"/webhooks", body, func(r *http.Request) {
			r.Header.Del("Content-Type")
			if contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
		})
	}
	const good = `{"url": "https://example.com"}`
	for contentType, status := range map[string]int{
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "application/jsonp": 415, "application/merge-patch+json": 415, ";": 415,
		"application/json": 201, "Application/JSON; charset=utf-8": 201,
	} {
		require.Equal(t, status, send(good, contentType).status, contentType)
	}
	encoded := w.do(w.demo.OwnerKey, "POST", w.demo.Domain+"/webhooks", good, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") })
	require.Equal(t, 415, encoded.status)

	for body, sentence := range map[string]string{
		"":                         "The body is not valid JSON: unexpected end of JSON input, at byte 0.",
		" ":                        "The body is not valid JSON: unexpected end of JSON input, at byte 1.",
		"{":                        "The body is not valid JSON: unexpected end of JSON input, at byte 1.",
		`{"url": }`:                "The body is not valid JSON: invalid character '}' looking for beginning of value, at byte 9.",
		good + "x":                 "The body is not valid JSON: invalid character 'x' after top-level value, at byte 31.",
		"[]":                       "The body must be a JSON object.",
		"null":                     "The body must be a JSON object.",
		`"x"`:                      "The body must be a JSON object.",
		strings.Repeat("[", 20000): "The body is not valid JSON: invalid character '[' exceeded max depth, at byte 10001.",
	} {
		a := send(body, "application/json")
		require.Equal(t, []any{422, sentence}, []any{a.status, a.json(t, "error")}, "%.40s", body)
		require.Len(t, a.json(t, "errors"), 1)
	}
	padded := func(size int) string { return good + strings.Repeat(" ", size-len(good)) }
	require.Equal(t, 201, send(padded(maxBody), "application/json").status)
	require.Equal(t, 413, send(padded(maxBody+1), "application/json").status)

	many := send(`{"url": "x", `+repeat(50_000, `"field%d": 0`)+`}`, "application/json")
	require.Equal(t, 422, many.status)
	require.Len(t, many.json(t, "errors"), 100, "an answer is bounded")
	long := send(`{"url": "https://example.com", "`+strings.Repeat("x", 1_000_000)+`": 0}`, "application/json")
	require.Equal(t, 422, long.status)
	require.Less(t, len(long.text), 1000)
}

// FuzzDocuments: whatever the body, reading it ends, and what is accepted is stored as it was
// meant: shown and sent back it is the same.
func FuzzDocuments(f *testing.F) {
	for _, seed := range []string{
		`{"url": "https://example.com", "headers": {"A": "b"}, "triggers": [{"type": "visitor_spike"}]}`,
		`{"url": "https://example.com", "triggers": [{"type": "goal_achieved", "config": {"goal": {"page_path": "/*", "scroll_threshold": 5}, "mode": "threshold"}}]}`,
		`{"url": "https://example.com", "triggers": [{"type": "goal_achieved", "config": {"goal": {"event_name": "A", "custom_props": {"a": "b"}}}}]}`,
		`{"url": "https://example.com", "triggers": [{"type": "tracking_silence", "filters": [["not", ["and", [["is", "visit:city", [588409]], ["contains", "event:props:a", ["<b>"], {"case_sensitive": false}]]]]]}]}`,
		`{"url": null, "enabled": false, "timeout_seconds": 5}`, `{"headers": {"a": {"b": {"c": {"d": {"e": null}}}}}}`, `{`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	targets := target.NewPolicy(true, nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		if requireObject(body) != nil {
			return
		}
		for _, p := range []purpose{creating, replacing} {
			d, problems := readWebhook(context.Background(), body, p, postgres.Webhook{}, targets)
			if invalid(problems) != nil {
				continue
			}
			w := d.apply(postgres.Webhook{ID: "wh_1"})
			for i, document := range d.triggers {
				if document.config == nil {
					t.Fatalf("trigger %d of %q has neither a config nor a problem", i, body)
				}
				config, filters := mustMarshal(document.config), mustMarshal(document.filters)
				if strings.Contains(string(config)+string(filters), `\u0000`) || strings.Contains(document.name, "\x00") {
					t.Fatalf("Postgres cannot store %s with %s", config, filters)
				}
				w.Triggers = append(w.Triggers, postgres.Trigger{ID: fmt.Sprintf("tr_%d", i), Type: document.typ, Name: "n", Enabled: document.enabled,
					Config: config, Filters: filters, CooldownSeconds: document.cooldownSeconds, NotifyResolved: document.notifyResolved})
			}
			view := mustMarshal(viewWebhook(w, access{canChange: true}))
			again, problems := readWebhook(context.Background(), view, replacing, postgres.Webhook{}, targets)
			if len(problems) > 0 {
				t.Fatalf("%q was accepted, but not %s: %v", body, view, problems)
			}
			if again.url != d.url || again.description != d.description || again.enabled != d.enabled || !maps.Equal(again.headers, d.headers) ||
				again.timeoutSeconds != d.timeoutSeconds || len(again.triggers) != len(d.triggers) {
				t.Fatalf("%q became %s", body, view)
			}
			for i := range d.triggers {
				if string(mustMarshal(again.triggers[i].config)) != string(mustMarshal(d.triggers[i].config)) || again.triggers[i].filters != d.triggers[i].filters {
					t.Fatalf("%q became %s", body, view)
				}
			}
		}
		var problems []strict.Problem
		readTrigger("", body, body, patching, &problems)
		if merged := mergePatch([]byte(`{"url": "https://example.com", "headers": {"A": "b"}}`), body); !json.Valid(merged) {
			t.Fatalf("a patch of %q makes %s", body, merged)
		}
	})
}
