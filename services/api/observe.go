package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
)

// keySite is where the site's id is kept for the log.
const keySite = "site_id"

// observer gives every request an id, a span, a log line and its place in the metrics.
type observer struct {
	log      *slog.Logger
	tracer   trace.Tracer
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newObserver(s *daemon.Service) *observer {
	o := &observer{
		log:    s.Log,
		tracer: s.Tracer,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "api_requests_total", Help: "Requests by method, route and status.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "api_request_duration_seconds", Help: "Duration of requests by route and status.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "status"}),
	}
	s.Metrics.MustRegister(o.requests, o.seconds)
	return o
}

// requestID is what a client may call its request.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// observe logs routes, not paths, and of the query and the headers nothing at all: they may hold
// what is secret.
func (o *observer) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		started := time.Now()
		r, header := c.Request(), c.Response().Header()
		id := r.Header.Get(echo.HeaderXRequestID)
		if !requestID.MatchString(id) {
			id = rand.Text()
		}
		header.Set(echo.HeaderXRequestID, id)
		header.Set(echo.HeaderCacheControl, "no-store")
		header.Set(echo.HeaderXContentTypeOptions, "nosniff")

		method, route := r.Method, c.Path()
		if route == "" { // no route: whatever was sent must not become a label
			method, route = "other", "none"
		}
		ctx, span := o.tracer.Start(daemon.WithTraceContext(r.Context(), r.Header.Get("traceparent")), method+" "+route,
			trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		c.SetRequest(r.WithContext(ctx))

		err := next(c)
		if err != nil {
			c.Error(err)
		}

		status, took := c.Response().Status, time.Since(started)
		o.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
		o.seconds.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
		span.SetAttributes(
			attribute.String("http.request.method", method), attribute.String("http.route", route), attribute.Int("http.response.status_code", status))
		line := []slog.Attr{
			slog.String("event", "request"), slog.String("method", method), slog.String("route", route), slog.Int("status", status),
			slog.Float64("duration_ms", float64(took.Microseconds())/1000), slog.String("request_id", id),
			slog.String("trace_id", span.SpanContext().TraceID().String()), slog.Int64("bytes", c.Response().Size),
		}
		if site, known := c.Get(keySite).(int64); known {
			line = append(line, slog.Int64("site_id", site))
		}
		level := slog.LevelInfo
		if status >= http.StatusInternalServerError {
			level = slog.LevelError
			span.SetStatus(codes.Error, http.StatusText(status))
			if err != nil {
				line = append(line, slog.String("error", err.Error()))
			}
			if p := new(panicked); errors.As(err, &p) {
				line = append(line, slog.String("stack", string(p.stack)))
			}
		}
		o.log.LogAttrs(ctx, level, "request", line...)
		return nil
	}
}

// requestTime is the longest that a request may work: a little more than a preview may take, and less than the
// server's timeout for writing, so that the answer still arrives.
const requestTime = 15 * time.Second

func withDeadline(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), requestTime)
		defer cancel()
		c.SetRequest(c.Request().WithContext(ctx))
		return next(c)
	}
}

// withoutDeadline is for a stream: it also lifts the server's timeout for writing, and asks nginx not to hold back
// what is written.
func withoutDeadline(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := http.NewResponseController(c.Response()).SetWriteDeadline(time.Time{}); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		c.Response().Header().Set("X-Accel-Buffering", "no")
		return next(c)
	}
}

// panicked is a handler's panic: an error of ours like any other, with the place where it was.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func recoverPanic(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			switch value := recover(); value {
			case nil:
			case http.ErrAbortHandler:
				panic(value)
			default:
				err = &panicked{value: value, stack: debug.Stack()}
			}
		}()
		return next(c)
	}
}
