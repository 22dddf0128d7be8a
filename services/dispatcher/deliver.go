package dispatcher

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// faultPause is how long a delivery waits for a fault of ours to be mended.
const faultPause = time.Minute

// disagreement is how long a webhook is not asked for whose deliveries were claimed although it seems
// to be off.
const disagreement = time.Second

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
	case dl.claim == nil && w.batched && json.Valid(dl.Payload): // also while it is off: its firings are kept together
		d.record(dl, outcome{status: postgres.Gathering})
		return
	case !w.enabled.Load():
		if dl.admitted { // the database knows more than the cache, or less, for a moment
			d.backlog.later(w.id, disagreement)
		}
		d.hold(dl)
		return
	case !dl.admitted && (w.limited || w.circuitOpen.Load()):
		d.hold(dl)
		return
	case w.fault != nil:
		d.record(dl, outcome{status: postgres.Waiting, lastError: "it could not be signed: " + w.fault.Error(), next: time.Now().Add(faultPause)})
		return
	case !d.lanes.enter(ctx, w.id, dl.patience()):
		d.hold(dl) // for whichever dispatcher has a place in this webhook's lane first
		return
	}
	defer d.leave(w.id)
	if dl.claim == nil {
		if !d.fresh.take(ctx) {
			d.putDown(dl)
			return
		}
		defer d.fresh.give(1)
	}
	switch {
	case ctx.Err() != nil:
		d.putDown(dl)
	case !dl.admitted && (!w.enabled.Load() || w.circuitOpen.Load()): // since it began to wait for its turn
		d.hold(dl)
	default:
		d.attempt(dl)
	}
}

// patience is how long a delivery waits for a place in its lane. A firing may be one of a short
// burst; a claimed one was claimed because there was a place.
func (dl *delivery) patience() time.Duration {
	if dl.claim != nil {
		return 0
	}
	return patience
}

// hold puts a delivery among those that wait for their webhook.
func (d *dispatcher) hold(dl *delivery) {
	d.metrics.held.Inc()
	d.record(dl, outcome{status: postgres.Waiting, lastError: dl.LastError})
}

// leave gives a lane's place back, to a held delivery if there is one.
func (d *dispatcher) leave(webhookID string) {
	d.lanes.leave(webhookID)
	if d.backlog.has(webhookID) {
		wake(d.mayGo)
	}
}

// attempt makes one request and hands over what follows from it.
func (d *dispatcher) attempt(dl *delivery) {
	w, number := dl.webhook, dl.Attempts+1
	ctx, span := d.service.Tracer.Start(daemon.WithTraceContext(d.work, dl.TraceContext), "attempt",
		trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()

	now := time.Now()
	body, failure := w.render(ctx, dl.Payload)
	if number == 1 && !dl.published.IsZero() {
		d.metrics.latency.Observe(max(0, now.Sub(dl.published).Seconds()))
	}
	result := sender.Result{StartedAt: now, Failure: failure, Interrupted: failure != nil && ctx.Err() != nil}
	shown := "{}"
	if failure == nil {
		header := outgoing.Sign(dl.ID, body, now, w.signers)
		shown = w.shownHeaders(header)
		result = d.sender.Send(ctx, sender.Request{To: w.endpoint, Header: header[:], Body: body, Timeout: w.timeout})
	}
	if result.Interrupted { // by our stop: the receiver is not to blame, and may not even have heard of it
		d.putDown(dl)
		return
	}
	if result.Fault != "" { // the egress proxy's, which has told the receiver nothing
		d.metrics.attempts.WithLabelValues(egressFault).Inc()
		d.log.Error("a delivery could not be sent", "delivery_id", dl.ID, "webhook_id", w.id, "error", result.Fault)
		d.record(dl, outcome{status: postgres.Waiting, lastError: "it could not be sent: " + result.Fault, next: time.Now().Add(faultPause)})
		return
	}
	v := judge(result, number-dl.ScheduleStart, time.Now(), rand.Float64())
	asked := failure == nil || failure.Class != unrendered // else it says nothing of the receiver
	trips := asked && d.breakers.note(w.id, v)
	o := outcome{
		status:    postgres.Dead,
		lastError: v.reason,
		attempt: &postgres.Attempt{
			StartedAt:       result.StartedAt,
			Duration:        result.Duration,
			RequestHeaders:  shown,
			StatusCode:      result.Status,
			ResponseHeaders: object(result.Header),
			ResponseBody:    result.Body,
			Timings:         shownTimings(result.Timings),
			Error:           v.reason,
		},
		health: w.react(v, result.StartedAt, trips, asked && dl.probe),
	}
	switch v.decision {
	case delivered:
		o.status = postgres.Delivered
	case retry:
		o.status, o.next = postgres.Waiting, v.retryAt
	}
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("delivery.id", dl.ID), attribute.String("webhook.id", w.id), attribute.Int("attempt.number", number),
			attribute.Int("http.response.status_code", result.Status), attribute.String("attempt.decision", string(v.decision)))
		if v.decision != delivered {
			span.SetStatus(codes.Error, v.reason)
		}
	}
	d.metrics.attempted(result)
	d.tell(dl, result, v, span.SpanContext())
	d.record(dl, o)
}

// react notes what an attempt says about its webhook. It returns what of that has to be
// written: health is a row per webhook, and most attempts change nothing in it.
func (w *webhook) react(v verdict, at time.Time, trips, probe bool) *postgres.Health {
	if v.decision == delivered {
		failed, open := w.failedAt.Swap(0) != 0, w.circuitOpen.Swap(false)
		if failed || open || probe {
			return &postgres.Health{WebhookID: w.id, Closes: open || probe}
		}
		return nil
	}
	health := &postgres.Health{WebhookID: w.id, FailedAt: at, Error: v.reason}
	before := w.failedAt.Load()
	changes := at.UnixNano()-before >= int64(failureNote) && w.failedAt.CompareAndSwap(before, at.UnixNano())
	if v.decision == disabled && w.enabled.CompareAndSwap(true, false) {
		changes, health.Disable = true, v.reason+", which says to send nothing more"
	}
	// Of the requests that were in flight together, one opens the circuit; then its probes do.
	if probe || trips && w.circuitOpen.CompareAndSwap(false, true) {
		changes, health.Opens, health.AtLeast = true, true, v.putOff
	}
	if !changes {
		return nil
	}
	return health
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

// shownHead is the beginning of the document of a request's headers for the history. The owner's are
// named, but not shown: they are where keys of the receiver stand.
func shownHead(header, own http.Header) string {
	shown := make([]outgoing.Field, 0, len(header))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		value := header[name][0]
		if _, masked := own[name]; masked {
			value = "***"
		}
		shown = append(shown, outgoing.Field{Name: name, Value: value})
	}
	return strings.TrimSuffix(object(shown), "}")
}

// shownHeaders is that document, which is made for each attempt.
func (w *webhook) shownHeaders(attempt [3]outgoing.Field) string {
	document := make([]byte, 0, len(w.shownHead)+256)
	return string(append(appendFields(append(document, w.shownHead...), attempt[:]), '}'))
}

// object is a JSON object of texts; empty for nil.
func object(fields []outgoing.Field) string {
	if fields == nil {
		return ""
	}
	document := appendFields(make([]byte, 0, 256), fields)
	if len(document) == 0 {
		return "{}"
	}
	document[0] = '{'
	return string(append(document, '}'))
}

// appendFields begins each with a comma. The texts hardly ever need escaping.
func appendFields(document []byte, fields []outgoing.Field) []byte {
	for _, f := range fields {
		document = appendText(append(document, ','), f.Name)
		document = appendText(append(document, ':'), f.Value)
	}
	return document
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
