package daemon

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
)

// NewTracers makes the tracers of a process, and a function that flushes and ends them. Spans
// are exported by OTLP over HTTP if OTEL_EXPORTER_OTLP_ENDPOINT is set; the other OTEL_ variables
// hold too. Without it they still get ids, which connect logs and messages.
func NewTracers(ctx context.Context, name string) (trace.TracerProvider, func(context.Context) error, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return idsOnly{}, func(context.Context) error { return nil }, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("plausible-webhooks-"+name))),
		sdktrace.WithBatcher(exporter))
	return provider, provider.Shutdown, nil
}

// idsOnly makes spans that record nothing, with the ids that spans have. Those of the SDK cost a
// twentieth of a delivery, also if nobody gets them.
type idsOnly struct{ embedded.TracerProvider }

// Tracer implements trace.TracerProvider.
func (idsOnly) Tracer(string, ...trace.TracerOption) trace.Tracer { return idTracer{} }

type idTracer struct{ embedded.Tracer }

// Start implements trace.Tracer. A span without a parent counts as sampled, so that a service which
// does export records what follows from it.
func (idTracer) Start(ctx context.Context, _ string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	ids := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled}
	config := trace.NewSpanStartConfig(options...)
	if parent := trace.SpanContextFromContext(ctx); parent.IsValid() && !config.NewRoot() {
		ids.TraceID, ids.TraceFlags, ids.TraceState = parent.TraceID(), parent.TraceFlags(), parent.TraceState()
	} else {
		binary.NativeEndian.PutUint64(ids.TraceID[:], rand.Uint64())
		binary.NativeEndian.PutUint64(ids.TraceID[8:], rand.Uint64())
	}
	binary.NativeEndian.PutUint64(ids.SpanID[:], rand.Uint64())
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(ids))
	return ctx, trace.SpanFromContext(ctx)
}

// TraceContext is the W3C traceparent of the context's span, to travel with a row or a message;
// empty without a span.
func TraceContext(ctx context.Context) string {
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	return headers["traceparent"]
}

// WithTraceContext is the context of work that began where the traceparent says. A malformed
// one is ignored.
func WithTraceContext(ctx context.Context, traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, carrier(traceparent))
}

// carrier holds a traceparent alone, and needs no map for it: it is read for each delivery.
type carrier string

// Get is the traceparent under its name.
func (c carrier) Get(name string) string {
	if name == "traceparent" {
		return string(c)
	}
	return ""
}

// Set does nothing: it is only read.
func (carrier) Set(string, string) {}

// Keys is the one name.
func (carrier) Keys() []string { return []string{"traceparent"} }
