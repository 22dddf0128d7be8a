package dispatcher

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// faultPause is how long a delivery waits for a fault of ours to be mended.
const faultPause = time.Minute

// dispatch takes one delivery to its outcome, or puts it down if ctx ends before its request
// began. A claimed one holds a place among the due requests, which is given back.
func (d *dispatcher) dispatch(ctx context.Context, dl *delivery) {
	if dl.claim != nil {
		defer d.due.give(1)
	}
	w := dl.webhook
	switch {
	case w == nil:
		d.record(dl, outcome{status: postgres.Cancelled, lastError: "the webhook was removed"})
		return
	case !w.enabled.Load(): // held until it is enabled again
		d.record(dl, outcome{status: postgres.Waiting, lastError: dl.LastError})
		return
	case w.fault != nil:
		d.record(dl, outcome{status: postgres.Waiting, lastError: "it could not be signed: " + w.fault.Error(), next: time.Now().Add(faultPause)})
		return
	case !d.lanes.enter(ctx, w.id):
		d.metrics.deferred.Inc()
		// Due at once, for whichever dispatcher has a place in this webhook's lane first.
		d.record(dl, outcome{status: postgres.Waiting, lastError: dl.LastError, next: time.Now()})
		return
	}
	defer d.lanes.leave(w.id)
	if dl.claim == nil {
		if !d.fresh.take(ctx) {
			d.putDown(dl)
			return
		}
		defer d.fresh.give(1)
	}
	if ctx.Err() != nil {
		d.putDown(dl)
		return
	}
	d.attempt(dl)
}

// attempt makes one request and hands over what follows from it.
func (d *dispatcher) attempt(dl *delivery) {
	w, number := dl.webhook, dl.Attempts+1
	ctx, span := d.service.Tracer.Start(daemon.WithTraceContext(d.work, dl.TraceContext), "attempt",
		trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()

	now := time.Now()
	header := d.header(dl, now)
	if number == 1 && !dl.published.IsZero() {
		d.metrics.latency.Observe(max(0, now.Sub(dl.published).Seconds()))
	}
	result := sender.Result{StartedAt: now, Failure: w.refused}
	if w.refused == nil {
		result = d.sender.Send(ctx, sender.Request{URL: w.url, Header: header, Body: dl.Payload, Timeout: w.timeout})
	}
	if result.Interrupted { // by our stop: the receiver is not to blame, and may not even have heard of it
		d.putDown(dl)
		return
	}
	v := judge(result, number, time.Now(), rand.Float64())
	o := outcome{
		status:    postgres.Dead,
		lastError: v.reason,
		attempt: &postgres.Attempt{
			StartedAt:       result.StartedAt,
			Duration:        result.Duration,
			RequestHeaders:  shownHeaders(header, w.header),
			StatusCode:      result.Status,
			ResponseHeaders: object(result.Header),
			ResponseBody:    result.Body,
			Timings:         shownTimings(result.Timings),
			Error:           v.reason,
		},
		health: w.react(v, result.StartedAt),
	}
	switch v.decision {
	case delivered:
		o.status = postgres.Delivered
	case retry:
		o.status, o.next = postgres.Waiting, v.retryAt
	}
	span.SetAttributes(
		attribute.String("delivery.id", dl.ID), attribute.String("webhook.id", w.id), attribute.Int("attempt.number", number),
		attribute.Int("http.response.status_code", result.Status), attribute.String("attempt.decision", string(v.decision)))
	if v.decision != delivered {
		span.SetStatus(codes.Error, v.reason)
	}
	d.metrics.attempted(result)
	d.tell(dl, result, v, span.SpanContext())
	d.record(dl, o)
}

// react notes what an attempt says about its webhook. It returns what of that has to be
// written: health is a row per webhook, and most attempts change nothing in it.
func (w *webhook) react(v verdict, at time.Time) *postgres.Health {
	switch {
	case v.decision == delivered && w.failing.CompareAndSwap(true, false):
		return &postgres.Health{WebhookID: w.id}
	case v.decision == disabled && w.enabled.CompareAndSwap(true, false):
		w.failing.Store(true)
		return &postgres.Health{WebhookID: w.id, FailingSince: at, Disable: v.reason + ", which says to send nothing more"}
	case v.decision != delivered && w.failing.CompareAndSwap(false, true):
		return &postgres.Health{WebhookID: w.id, FailingSince: at}
	}
	return nil
}

// tell writes the one line of this attempt. An expected failure is not an error of ours.
func (d *dispatcher) tell(dl *delivery, r sender.Result, v verdict, span trace.SpanContext) {
	attributes := [...]slog.Attr{
		slog.String("event", "delivery"),
		slog.String("delivery_id", dl.ID),
		slog.String("webhook_id", dl.WebhookID),
		slog.String("trigger_id", dl.TriggerID),
		slog.Int64("site_id", dl.SiteID),
		slog.String("type", dl.Type),
		slog.Int("number", dl.Attempts+1),
		slog.Int("status", r.Status),
		slog.Int64("duration_us", r.Duration.Microseconds()),
		slog.String("decision", string(v.decision)),
		slog.String("trace_id", span.TraceID().String()),
		slog.String("error", v.reason),
		slog.Time("next_attempt_at", v.retryAt),
	}
	shown := attributes[:]
	if v.retryAt.IsZero() {
		shown = shown[:len(shown)-1]
	}
	d.log.LogAttrs(context.Background(), slog.LevelInfo, "delivery", shown...)
}

var (
	contentType = []string{"application/json"}
	userAgent   = []string{"Plausible-Webhooks/" + version()}
)

// version is that of the program, as its build knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// The signature's headers as net/http spells them; receivers compare without case.
var (
	headerID        = http.CanonicalHeaderKey(signature.HeaderID)
	headerTimestamp = http.CanonicalHeaderKey(signature.HeaderTimestamp)
	headerSignature = http.CanonicalHeaderKey(signature.HeaderSignature)
)

// header makes the headers of an attempt at this time: the owner's, and ours over them.
func (d *dispatcher) header(dl *delivery, now time.Time) http.Header {
	w := dl.webhook
	header := make(http.Header, len(w.header)+5)
	for name, values := range w.header {
		header[name] = values
	}
	header["Content-Type"] = contentType
	header["User-Agent"] = userAgent
	header[headerID] = []string{dl.ID}
	header[headerTimestamp] = []string{strconv.FormatInt(now.Unix(), 10)}
	header[headerSignature] = []string{signature.Sign(dl.ID, now, dl.Payload, w.secrets...)}
	return header
}

// shownHeaders is the document of a request's headers for the history. The owner's are named,
// but not shown: they are where keys of the receiver stand.
func shownHeaders(header, own http.Header) string {
	shown := make(map[string]string, len(header))
	for name, values := range header {
		if _, masked := own[name]; masked {
			shown[name] = "***"
		} else {
			shown[name] = values[0]
		}
	}
	return object(shown)
}

// object is a JSON object of texts; empty for none. It is made for each attempt, and its texts
// hardly ever need escaping.
func object(texts map[string]string) string {
	if texts == nil {
		return ""
	}
	document := make([]byte, 0, 256)
	for name, value := range texts {
		document = appendText(append(document, ','), name)
		document = appendText(append(document, ':'), value)
	}
	if len(document) == 0 {
		return "{}"
	}
	document[0] = '{'
	return string(append(document, '}'))
}

func appendText(document []byte, text string) []byte {
	for _, b := range []byte(text) {
		if b < ' ' || b > '~' || b == '"' || b == '\\' {
			escaped, _ := json.Marshal(text) // a text always can be
			return append(document, escaped...)
		}
	}
	document = append(append(document, '"'), text...)
	return append(document, '"')
}

func shownTimings(t sender.Timings) string {
	document := make([]byte, 0, 96)
	for _, part := range [...]struct {
		name string
		took time.Duration
	}{
		{`"dns":`, t.DNS}, {`"connect":`, t.Connect}, {`"tls":`, t.TLS}, {`"first_byte":`, t.FirstByte}, {`"body":`, t.Body},
	} {
		if part.took <= 0 {
			continue
		}
		document = append(document, ',')
		document = append(document, part.name...)
		document = strconv.AppendFloat(document, milliseconds(part.took), 'f', 3, 64)
	}
	if len(document) == 0 {
		return "{}"
	}
	document[0] = '{'
	return string(append(document, '}'))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
