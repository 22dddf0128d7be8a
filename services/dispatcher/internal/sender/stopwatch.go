package sender

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// Timings tell where an attempt's time went, so that its owner sees whether it is us or them.
// What did not happen, as on a connection that was used before, is zero.
type Timings struct {
	DNS, Connect, TLS time.Duration
	FirstByte         time.Duration // from the request's last byte to the answer's first
	Body              time.Duration // from there to the end of what was read
}

// stopwatch takes the times of one request. Its marks are atomic: the transport may still be
// dialling when the request is over.
type stopwatch struct {
	dnsStart, dnsDone         mark
	proxyStart, proxyDone     mark // of the connection to the operator's egress proxy
	connectStart, connectDone mark
	tlsStart, tlsDone         mark
	connected, written, first mark
}

type mark struct{ nanos atomic.Int64 }

func (m *mark) now()      { m.nanos.Store(time.Now().UnixNano()) }
func (m *mark) set() bool { return m.nanos.Load() != 0 }

func (m *mark) since(start *mark) time.Duration {
	from, to := start.nanos.Load(), m.nanos.Load()
	if from == 0 || to < from {
		return 0
	}
	return time.Duration(to - from)
}

type stopwatchKey struct{}

// stopwatchOf is the stopwatch on a request's context.
func stopwatchOf(ctx context.Context) *stopwatch { return ctx.Value(stopwatchKey{}).(*stopwatch) }

func (w *stopwatch) on(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, stopwatchKey{}, w)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { w.dnsStart.now() },
		DNSDone:      func(httptrace.DNSDoneInfo) { w.dnsDone.now() },
		ConnectStart: func(_, _ string) { w.connectStart.now() },
		ConnectDone:  func(_, _ string, _ error) { w.connectDone.now() },
	})
}

func (w *stopwatch) timings(end time.Time) Timings {
	t := Timings{
		DNS:       w.dnsDone.since(&w.dnsStart),
		Connect:   w.connectDone.since(&w.connectStart),
		TLS:       w.tlsDone.since(&w.tlsStart),
		FirstByte: w.first.since(&w.written),
	}
	if first := w.first.nanos.Load(); first != 0 {
		t.Body = max(0, time.Duration(end.UnixNano()-first))
	}
	return t
}

// phase is what a request was doing when it failed, as the end of "timed out while".
type phase string

const (
	resolving     phase = "resolving the host's name"
	reachingProxy phase = "reaching the egress proxy"
	connecting    phase = "connecting"
	handshaking   phase = "making the TLS handshake"
	sending       phase = "sending the request"
	waiting       phase = "waiting for the answer"
)

func (w *stopwatch) phase() phase {
	switch {
	case w.written.set():
		return waiting
	case w.connected.set():
		return sending
	case w.tlsStart.set():
		return handshaking
	case w.proxyDone.nanos.Load() < w.proxyStart.nanos.Load(): // it is asked for each of the host's addresses
		return reachingProxy
	case w.connectStart.set():
		return connecting
	case w.dnsStart.set() && !w.dnsDone.set():
		return resolving
	}
	return connecting
}
