package daemon

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
	"go.opentelemetry.io/otel/trace"
)

// NewTracers makes the tracers of a process, and a function that flushes and ends them. Spans
// are exported by OTLP over HTTP if OTEL_EXPORTER_OTLP_ENDPOINT is set; the other OTEL_ variables
// hold too. Without it they still get ids, which connect logs and messages.
func NewTracers(ctx context.Context, name string) (trace.TracerProvider, func(context.Context) error, error) {
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("plausible-webhooks-" + name))),
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	provider := sdktrace.NewTracerProvider(options...)
	return provider, provider.Shutdown, nil
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
