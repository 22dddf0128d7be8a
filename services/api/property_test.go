package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAnyRequestIsAnsweredByTheDocument sends requests made of the document, most of them nearly valid, to every
// operation. Each is answered in time and as the document says, never with an error of ours: world.do holds the
// answers, and the bodies that were accepted, against it.
func TestAnyRequestIsAnsweredByTheDocument(t *testing.T) {
	w := newWorld(t)
	d, err := readDocument()
	require.NoError(t, err)
	slices.SortFunc(d.routes, func(a, b route) int { return strings.Compare(a.written.OperationID, b.written.OperationID) })
	theirs := w.do(w.demo.OtherSiteKey, "POST", w.demo.OtherDomain+"/webhooks", `{"url": "https://other.example.org", "triggers": [`+spike+`]}`)
	theirTrigger := theirs.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	untouched := w.do(w.demo.OtherSiteKey, "GET", w.demo.OtherDomain+"/webhooks/"+theirs.id(t), "").text

	made := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	ids := map[string][]string{
		"site_id":     {w.demo.Domain, itoa(w.demo.SiteID), w.demo.OtherDomain, "nothing.example"},
		"id":          {made.id(t), theirs.id(t)},
		"trigger_id":  {made.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string), theirTrigger},
		"delivery_id": {"msg_1", "msg_theirs"},
		"job_id":      {"cmd_unknown"},
	}
	w.delivery(w.demo.SiteID, made.id(t), "tr_1", "msg_1", 1)
	w.delivery(w.demo.OtherSiteID, theirs.id(t), "tr_1", "msg_theirs", 1)

	statuses := map[int]int{}
	send := func(rt *rapid.T) {
		r := rapid.SampledFrom(d.routes).Draw(rt, "operation")
		if strings.HasPrefix(r.written.OperationID, "stream") {
			rt.Skip("it answers for as long as one listens")
		}
		// The webhook may have been removed by an earlier request; it comes back.
		if a := w.at(w.demo.OwnerKey, "GET", "/webhooks/"+ids["id"][0], ""); a.status == 404 {
			ids["id"][0] = w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`).id(t)
		}
		path := r.place[1]
		for name, known := range ids {
			if strings.Contains(path, "{"+name+"}") {
				value := known[0]
				if rapid.IntRange(0, 5).Draw(rt, "own") == 0 {
					value = rapid.OneOf(rapid.SampledFrom(known), junk()).Draw(rt, name)
				}
				path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(value))
			}
		}
		query, header := url.Values{}, http.Header{}
		for _, p := range r.written.Parameters {
			if rapid.IntRange(0, 2).Draw(rt, "give "+p.Value.Name) > 0 {
				continue
			}
			text := fmt.Sprint(value(rt, p.Value.Schema.Value, 0))
			if p.Value.In == "header" {
				header.Set(p.Value.Name, strings.Map(func(r rune) rune {
					if r < ' ' || r >= 0x7f {
						return '?'
					}
					return r
				}, text))
			} else {
				query.Add(p.Value.Name, text)
			}
		}
		body := ""
		if content := r.written.RequestBody; content != nil {
			raw, err := json.Marshal(value(rt, content.Value.Content["application/json"].Schema.Value, 0))
			require.NoError(rt, err)
			body = string(raw)
			if rapid.IntRange(0, 30).Draw(rt, "cut") == 0 {
				body = body[:len(body)/2]
			}
		}
		key := rapid.SampledFrom([]string{w.demo.OwnerKey, w.demo.OwnerKey, w.demo.OwnerKey, w.demo.ViewerKey, "unknown"}).Draw(rt, "key")

		began := time.Now()
		a := w.do(key, r.method, path+"?"+query.Encode(), body, func(r *http.Request) {
			for name, values := range header {
				r.Header[name] = values
			}
		})
		require.Less(rt, time.Since(began), 20*time.Second)
		require.NotEqual(rt, 500, a.status, "%s %s %s: %s", r.method, path, body, a.text)
		statuses[a.status]++
	}
	for range 20 { // of a hundred requests each
		rapid.Check(t, send)
	}
	t.Logf("answers by status: %v", statuses)
	for _, status := range []int{200, 404, 422} {
		require.NotZero(t, statuses[status], "the requests are too wild, or too tame, to prove anything")
	}
	require.Equal(t, untouched, w.do(w.demo.OtherSiteKey, "GET", w.demo.OtherDomain+"/webhooks/"+theirs.id(t), "").text, "nothing of another site was reached")
}

// junk is what stands where an id or a text should.
func junk() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom([]string{
		"", "x", "../..", "%00", "\x00", "wh_\u00e9", "' OR true --", "\u202e", "null", "-1", "1e9", "999999999999999999999", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", strings.Repeat("a", 300),
	}), rapid.StringN(1, 20, 40))
}

// value makes a value of a schema; one of twelve is not of it.
func value(rt *rapid.T, schema *openapi3.Schema, depth int) any {
	if rapid.IntRange(0, 11).Draw(rt, "wild") == 0 || depth > 6 {
		return rapid.OneOf(
			rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(v bool) any { return v }), rapid.Map(rapid.Float64Range(-1e12, 1e12), func(v float64) any { return v }),
			rapid.Map(junk(), func(v string) any { return v }), rapid.Just[any]([]any{}), rapid.Just[any](map[string]any{"bogus": 1}),
		).Draw(rt, "junk")
	}
	switch {
	case len(schema.Enum) > 0:
		return rapid.SampledFrom(schema.Enum).Draw(rt, "enum")
	case len(schema.AnyOf) > 0:
		return value(rt, rapid.SampledFrom(schema.AnyOf).Draw(rt, "any of").Value, depth+1)
	case len(schema.AllOf) > 0:
		whole := map[string]any{}
		for _, part := range schema.AllOf {
			if fields, is := value(rt, part.Value, depth+1).(map[string]any); is {
				for name, field := range fields {
					whole[name] = field
				}
			}
		}
		return whole
	}
	kind := "null"
	if types := schema.Type.Slice(); len(types) > 0 {
		kind = rapid.SampledFrom(types).Draw(rt, "type")
	}
	switch kind {
	case "boolean":
		return rapid.Bool().Draw(rt, "boolean")
	case "integer":
		return rapid.Int64Range(int64(bound(schema.Min, 0)), int64(bound(schema.Max, 100))).Draw(rt, "integer")
	case "number":
		return rapid.Float64Range(bound(schema.Min, 0), bound(schema.Max, 100)).Draw(rt, "number")
	case "string":
		return text(rt, schema)
	case "array":
		items := []any{}
		for range rapid.IntRange(0, 3).Draw(rt, "items") {
			items = append(items, value(rt, schema.Items.Value, depth+1))
		}
		return items
	case "object":
		fields := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			if slices.Contains(schema.Required, name) || rapid.IntRange(0, 2).Draw(rt, "give "+name) == 0 {
				fields[name] = value(rt, schema.Properties[name].Value, depth+1)
			}
		}
		if free := schema.AdditionalProperties; len(schema.Properties) == 0 && rapid.Bool().Draw(rt, "free") {
			fields[rapid.SampledFrom([]string{"threshold", "window_seconds", "X-Token", "Host", "webhook-id", "goal", "a b"}).Draw(rt, "name")] = "text"
			if free.Schema != nil {
				fields["X-More"] = value(rt, free.Schema.Value, depth+1)
			}
		}
		return fields
	}
	return nil
}

func text(rt *rapid.T, schema *openapi3.Schema) string {
	switch {
	case schema.Format == "date-time":
		return rapid.SampledFrom([]string{"2026-11-23T15:04:05Z", "2026-11-01T00:00:00+02:00", "2016-12-31T23:59:60Z", "2026-02-30T00:00:00Z", "2026-11-23 15:04:05"}).Draw(rt, "time")
	case schema.MaxLength != nil && *schema.MaxLength == 2000:
		return rapid.SampledFrom([]string{"https://example.com/hook", "https://example.com:8443/a?b=c#d", "http://example.com", "https://10.0.0.1/", "https://u:p@example.com/"}).Draw(rt, "url")
	case rapid.IntRange(0, 3).Draw(rt, "wild text") == 0:
		return junk().Draw(rt, "text")
	}
	return rapid.StringMatching(`[a-zA-Z0-9 _.-]{1,12}`).Draw(rt, "text")
}

func bound(of *float64, otherwise float64) float64 {
	if of == nil {
		return otherwise
	}
	return *of
}
