package api

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// restart gives the world a server with the api's present settings.
func (w *world) restart() {
	w.t.Helper()
	handler, err := w.api.handler(newObserver(daemon.NewService("api", w.api.log, prometheus.NewRegistry(), sdktrace.NewTracerProvider())))
	require.NoError(w.t, err)
	server := httptest.NewServer(handler)
	w.t.Cleanup(server.Close)
	w.server = server
}

func TestKeysAreLimited(t *testing.T) {
	w := newWorld(t)
	var err error
	w.api.limiter, err = newLimiter(25) // 5 at once
	require.NoError(t, err)
	for left := range 5 {
		a := w.owner(200, "GET", "", "")
		require.Equal(t, `"key";q=25;w=60`, a.header.Get("RateLimit-Policy"))
		require.Regexp(t, `^"key";r=`+itoa(int64(4-left))+`;t=\d+$`, a.header.Get("RateLimit"))
	}
	refused := w.owner(429, "GET", "", "")
	require.Regexp(t, `^[123]$`, refused.header.Get("Retry-After"), "2.4 seconds each")
	require.Regexp(t, "^Too many requests: wait for [123] seconds.$", refused.json(t, "error"))
	require.Equal(t, 200, w.at(w.demo.ViewerKey, "GET", "/webhooks", "").status, "each key has its own")
	for range 5 {
		require.Equal(t, 401, w.at("unknown", "GET", "/webhooks", "").status)
	}
	require.Equal(t, 429, w.at("unknown", "GET", "/webhooks", "").status, "also one that is none")
	require.Equal(t, 401, w.at("", "GET", "/webhooks", "").status)
	require.Equal(t, 429, w.do(w.demo.OwnerKey, "GET", "", "").status, "the list of sites as well")
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	get, head := w.owner(200, "GET", "/"+id, ""), w.owner(200, "HEAD", "/"+id, "")
	require.Empty(t, head.text)
	require.Equal(t, get.header.Get("ETag"), head.header.Get("ETag"))
	require.Equal(t, get.header.Get("Content-Length"), head.header.Get("Content-Length"))
	require.Equal(t, 404, w.at(w.demo.OwnerKey, "HEAD", "/webhooks/wh_other", "").status)
}

func TestOtherOriginsAreAllowedByConfiguration(t *testing.T) {
	w := newWorld(t)
	from := func(origin, method string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Origin", origin)
			if method != "" {
				r.Header.Set("Access-Control-Request-Method", method)
				r.Header.Set("Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
			}
		}
	}
	options := w.at("", "OPTIONS", "/webhooks", "", from("https://app.example.com", "POST"))
	require.Empty(t, options.header.Get("Access-Control-Allow-Origin"), "none is by default")
	require.Contains(t, options.header.Get("Allow"), "POST")

	w.api.origins = []string{"https://app.example.com"}
	w.restart()
	preflight := w.at("", "OPTIONS", "/webhooks/wh_1", "", from("https://app.example.com", "PATCH"))
	require.Equal(t, 204, preflight.status)
	require.Equal(t, "https://app.example.com", preflight.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, preflight.header.Get("Access-Control-Allow-Methods"), "PATCH")
	require.Contains(t, preflight.header.Get("Access-Control-Allow-Headers"), "Idempotency-Key")
	require.Empty(t, preflight.header.Get("Access-Control-Allow-Credentials"), "keys are in a header, not in cookies")
	a := w.at(w.demo.OwnerKey, "GET", "/webhooks", "", from("https://app.example.com", ""))
	require.Equal(t, "https://app.example.com", a.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, a.header.Get("Access-Control-Expose-Headers"), "RateLimit")
	require.Empty(t, w.at(w.demo.OwnerKey, "GET", "/webhooks", "", from("https://evil.example.com", "")).header.Get("Access-Control-Allow-Origin"))
}

// evaluator answers what the api asks, as one does that is there; the story of deploy has a real one.
func (w *world) evaluator(endpoint string, answer func(micro.Request)) {
	w.t.Helper()
	service, err := micro.AddService(w.api.nats, micro.Config{Name: stream.EvaluatorService, Version: "1.0.0"})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = service.Stop() })
	require.NoError(w.t, service.AddEndpoint(endpoint, micro.HandlerFunc(answer), micro.WithEndpointSubject(stream.EvaluatorEndpoints[endpoint])))
	require.NoError(w.t, w.api.nats.Flush())
}

func TestPreviewsAreAskedOfAnEvaluator(t *testing.T) {
	w := newWorld(t)
	preview := func(status int, body string) answer {
		t.Helper()
		a := w.at(w.demo.ViewerKey, "POST", "/triggers/preview", body)
		require.Equal(t, status, a.status, a.text)
		return a
	}
	require.Contains(t, preview(503, spike).text, "No evaluator is running.")

	var asked []byte
	reply := func(r micro.Request) {
		_ = r.RespondJSON(stream.Preview{StepSeconds: 60, Points: []stream.PreviewPoint{}, Firings: []stream.PreviewFiring{}, Suggestion: &stream.SuggestedConfig{Field: "threshold", Value: 7, FiringsPerMonth: 4}})
	}
	w.evaluator("preview", func(r micro.Request) { asked = r.Data(); reply(r) })
	a := preview(200, `{"type": "visitor_spike", "config": {"threshold": 100}, "filters": [["is", "visit:country", ["EE"]]], "cooldown_seconds": 60, "notify_resolved": true,
		"from": "2026-11-01T00:00:00+02:00", "to": null, "firings_per_month": 4}`)
	require.JSONEq(t, `{"site_id": `+itoa(w.demo.SiteID)+`, "type": "visitor_spike", "config": {"threshold": 100, "window_seconds": 300}, "filters": [["is", "visit:country", ["EE"]]],
		"cooldown_seconds": 60, "notify_resolved": true, "from": "2026-10-31T22:00:00Z", "per_month": 4}`, string(asked))
	require.Equal(t, 7.0, a.json(t, "suggestion.value"))

	for body, problem := range map[string]string{
		`{}`: "type is required",
		`{"type": "visitor_spike", "config": {"threshold": 0}, "firings_per_month": 0, "from": "x", "name": "n"}`: "and 3 more",
		`{"type": "visitor_spike", "to": ""}`:                               "to must not be empty",
		`{"type": "goal_achieved", "config": {"goal": {"goal_id": 99999}}}`: "is not a goal of this site",
	} {
		require.Contains(t, preview(422, body).text, problem)
	}
	for code, status := range map[string]int{
		stream.RefusedInvalid: 422, stream.RefusedImpossible: 422, stream.RefusedBusy: 429, stream.RefusedUnavailable: 503, stream.RefusedTooLong: 503, stream.RefusedFailed: 500,
	} {
		reply = func(r micro.Request) {
			_ = r.Error(code, "A sentence.", []byte(`[{"field": "config.threshold", "message": "m"}]`))
		}
		a := preview(status, spike)
		require.Equal(t, status != 500, strings.Contains(a.text, "A sentence."), code)
		require.Equal(t, status == 422, strings.Contains(a.text, "config.threshold"), code)
	}
}

func TestExplanationsAreAskedOfAnEvaluator(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	tr := created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	path := "/" + created.id(t) + "/triggers/" + tr + "/explanation"
	require.Contains(t, w.owner(503, "GET", path, "").text, "No evaluator is running.")
	var asked []byte
	w.evaluator("explain", func(r micro.Request) {
		asked = r.Data()
		_ = r.RespondJSON(stream.Explanation{State: &stream.Standing{Status: trigger.StatusOK, Explanation: "e"}, Runs: []stream.ResultRun{{StepSeconds: 10, Status: trigger.StatusOK}}})
	})
	a := w.as(w.demo.ViewerKey, 200, "GET", path+"?from=2026-11-20T00:00:00Z", "")
	require.Equal(t, "e", a.json(t, "state.explanation"))
	require.JSONEq(t, `{"trigger_id": "`+tr+`", "from": "2026-11-20T00:00:00Z"}`, string(asked))
	w.owner(422, "GET", path+"?to=x", "")
	w.owner(404, "GET", "/"+created.id(t)+"/triggers/tr_other/explanation", "")
	require.Equal(t, 404, w.at(w.demo.OtherSiteKey, "GET", "/webhooks"+path, "").status)
}

// watch opens a stream under the site; read returns its next event or comment.
func (w *world) watch(key, path string) (read func() string, end func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/api/sites/"+w.demo.Domain+path, nil)
	require.NoError(w.t, err)
	r.Header.Set("Authorization", "Bearer "+key)
	response, err := w.server.Client().Do(r)
	require.NoError(w.t, err)
	require.Equal(w.t, 200, response.StatusCode)
	require.Equal(w.t, "text/event-stream", response.Header.Get("Content-Type"))
	require.Equal(w.t, "no", response.Header.Get("X-Accel-Buffering"))
	lines := bufio.NewReader(response.Body)
	return func() string {
		var block strings.Builder
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				return "the end"
			}
			require.NoError(w.t, err)
			if line == "\n" {
				return block.String()
			}
			block.WriteString(line)
		}
	}, func() { cancel(); response.Body.Close() }
}

func TestMessagesAreWatchedLive(t *testing.T) {
	w := newWorld(t)
	read, end := w.watch(w.demo.ViewerKey, "/messages")
	defer end()
	require.Equal(t, ": connected\n", read())
	publish := func(site int64, id, payload string) {
		require.NoError(t, w.api.nats.PublishMsg(stream.Encode(trigger.Firing{
			ID: id, Slot: time.Now(), SiteID: site, WebhookID: "wh_1", TriggerID: "tr_1", TriggerType: "visitor_spike", Type: "visitor_spike.fired", Payload: []byte(payload),
		})))
	}
	publish(w.demo.OtherSiteID, "msg_theirs", `{"a":0}`)
	require.NoError(t, w.api.nats.PublishMsg(&nats.Msg{Subject: "firing." + itoa(w.demo.SiteID) + ".x", Data: []byte("garbage\n\n")}))
	publish(w.demo.SiteID, "msg_1", `{"a":1}`)
	publish(w.demo.SiteID, "msg_2", `{"a":2}`)
	require.Equal(t, "event: message\nid: msg_1\ndata: {\"a\":1}\n", read())
	require.Equal(t, "event: message\nid: msg_2\ndata: {\"a\":2}\n", read())
	require.Equal(t, 404, w.at(w.demo.OtherSiteKey, "GET", "/messages", "").status)
	require.Equal(t, 401, w.at("", "GET", "/messages", "").status)

	w.api.streams.Add(maxStreams - 1)
	require.Contains(t, w.at(w.demo.OwnerKey, "GET", "/messages", "").text, "Too many are watching")
	end()
	await(t, func() bool { return w.api.streams.Load() == maxStreams-1 })
}

func TestChangesOfDeliveriesAreWatched(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	read, end := w.watch(w.demo.ViewerKey, "/webhooks/"+id+"/deliveries/changes")
	defer end()
	require.Equal(t, ": connected\n", read())
	require.NoError(t, stream.AnnounceDeliveries(w.api.nats, "wh_other", []string{"msg_theirs"}))
	require.NoError(t, stream.AnnounceDeliveries(w.api.nats, id, []string{"msg_1", "msg_2"}))
	require.Equal(t, "event: changed\ndata: {\"delivery_ids\":[\"msg_1\",\"msg_2\"]}\n", read())
	require.NoError(t, stream.AnnounceDeliveries(w.api.nats, id, make([]string, 101)))
	require.Equal(t, "event: changed\ndata: {\"delivery_ids\":null}\n", read())
	require.Equal(t, 404, w.at(w.demo.OwnerKey, "GET", "/webhooks/wh_other/deliveries/changes", "").status)
	require.Equal(t, 404, w.at(w.demo.OtherSiteKey, "GET", "/webhooks/"+id+"/deliveries/changes", "").status)
	end()
	await(t, func() bool { return w.api.streams.Load() == 0 })
}

func TestTheDocumentAndItsPageAreServed(t *testing.T) {
	w := newWorld(t)
	status, text := request(t, "GET", w.server.URL+"/api/openapi.yaml", "", "")
	require.Equal(t, 200, status)
	require.Equal(t, string(openAPI), text)
	r, err := w.server.Client().Get(w.server.URL + "/api/docs")
	require.NoError(t, err)
	page, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	r.Body.Close()
	require.Equal(t, 200, r.StatusCode)
	require.Contains(t, r.Header.Get("Content-Security-Policy"), "default-src 'none'")
	require.Contains(t, string(page), "/api/openapi.yaml")
	require.NotRegexp(t, `(src|href)="(https?:)?//`, string(page), "nothing comes from elsewhere")
	for _, asset := range []string{"swagger-ui.css", "swagger-ui-bundle.js"} {
		status, text := request(t, "GET", w.server.URL+"/api/docs/"+asset, "", "")
		require.Equal(t, 200, status, asset)
		require.Greater(t, len(text), 10_000, asset)
	}
}
