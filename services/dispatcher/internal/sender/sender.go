// Package sender is the one HTTP client that talks to receivers. It guards both sides: the
// operator's network (addresses are judged after DNS, redirects are not followed, no proxy but
// the operator's own is asked) and the dispatcher (every wait has a deadline, every read a bound, and whatever a
// receiver does ends in a Result).
package sender

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
)

const (
	// connectTimeout bounds the name's resolution and the TCP handshake together, and the TLS
	// handshake once more, within the request's own deadline.
	connectTimeout = 10 * time.Second

	maxHeader  = 64 << 10 // of an answer, in bytes; more ends the attempt
	keptHeader = 8 << 10  // of them are shown to the owner
	keptBody   = 4 << 10  // bytes of the body are shown to the owner
	// drainedBody is how much more of a body is read so that its connection can be used again;
	// beyond it a new connection is cheaper.
	drainedBody = 64 << 10
)

// Request is one POST.
type Request struct {
	To      *Endpoint
	Header  []outgoing.Field // besides the endpoint's; nothing is added but the length
	Body    []byte
	Timeout time.Duration // for all of it, from the name's resolution to the body's last byte
}

// Result is what became of a Request: a status, or a Failure, or it was interrupted by us.
type Result struct {
	StartedAt time.Time
	Duration  time.Duration
	Timings   Timings

	Status     int              // 0: no response was received
	Header     []outgoing.Field // of the response, cut to keptHeader, sorted by their names; no cookies
	Body       string           // the first bytes of the response: valid UTF-8 without NUL
	RetryAfter string           // the response's header, untouched

	Failure *Failure // why there is no status

	// Fault is why there is no status if it is the operator's egress proxy that failed: nothing is
	// known about the receiver. Its text is fit for the webhook's owner; empty otherwise.
	Fault string

	// Interrupted means that the caller's context ended before there was a status: nothing is
	// known about the receiver.
	Interrupted bool
}

// Sender is safe for concurrent use.
type Sender struct {
	policy target.Policy
	dialer *net.Dialer // to receivers
	client *client

	proxy      Proxy
	toProxy    *net.Dialer
	proxyRoots *x509.CertPool // nil: the system's
}

// New makes a client that keeps a connection for each of so many concurrent requests, even if
// all go to one host.
func New(policy target.Policy, concurrency int) *Sender {
	s := &Sender{
		policy: policy,
		dialer: &net.Dialer{
			Timeout:  connectTimeout,
			Control:  policy.Control,
			Resolver: &net.Resolver{PreferGo: true}, // the system's own accepts spellings such as 127.1
		},
		toProxy: &net.Dialer{Timeout: connectTimeout},
	}
	s.client = &client{dial: s.dial, idlePerHost: concurrency, idle: map[string][]*connection{}}
	return s
}

// dial connects to a receiver.
func (s *Sender) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	host = absolute(host)
	if s.proxy.address != "" {
		return s.tunnel(ctx, host, port)
	}
	return s.dialer.DialContext(ctx, network, net.JoinHostPort(host, port))
}

// absolute ends a name with a dot, so that it is not completed with the search domains of this
// machine, which lead into the operator's network.
func absolute(host string) string {
	if _, err := netip.ParseAddr(host); err == nil || strings.HasSuffix(host, ".") {
		return host
	}
	return host + "."
}

// Close closes the connections that are not in use.
func (s *Sender) Close() { s.client.close() }

var (
	errTimeout = errors.New("the request's time is over")
	errStatus  = errors.New("a status below 100")
)

// Send makes one request. It follows no redirect and returns within r.Timeout, give or take
// the scheduler.
func (s *Sender) Send(ctx context.Context, r Request) Result {
	var watch stopwatch
	result := Result{StartedAt: time.Now()}
	answer, err := s.client.post(ctx, r, result.StartedAt.Add(r.Timeout), &watch)
	if err == nil {
		result.Status = answer.StatusCode
		result.RetryAfter = answer.Header.Get("Retry-After")
		result.Header = excerptHeader(answer.Header)
		var ended bool
		result.Body, ended = readBody(answer.Body)
		s.client.done(answer, ended)
	}
	result.Duration = time.Since(result.StartedAt)
	result.Timings = watch.timings(result.StartedAt.Add(result.Duration))
	if err != nil {
		var ours fault
		switch during := watch.phase(); {
		case ctx.Err() == nil && errors.As(err, &ours):
			result.Fault = ours.Error()
		case ctx.Err() == nil && during == reachingProxy:
			result.Fault = "timed out while " + string(during)
		default:
			result.Interrupted = ctx.Err() != nil
			result.Failure = classify(err, during, r.Timeout)
		}
	}
	return result
}

var buffers = sync.Pool{New: func() any { return new([keptBody]byte) }}

// whole leaves out a character that was cut in two at the end.
func whole(excerpt []byte) []byte {
	n := len(excerpt)
	if n < keptBody {
		return excerpt
	}
	for i := 1; i < utf8.UTFMax && i <= n; i++ {
		if utf8.RuneStart(excerpt[n-i]) {
			if !utf8.FullRune(excerpt[n-i:]) {
				return excerpt[:n-i]
			}
			break
		}
	}
	return excerpt
}

// excerptHeader keeps what fits. Cookies are left out: they are somebody's keys.
func excerptHeader(header http.Header) []outgoing.Field {
	kept := make([]outgoing.Field, 0, len(header))
	for name, values := range header {
		if name != "Set-Cookie" {
			kept = append(kept, outgoing.Field{Name: clean(name), Value: clean(strings.Join(values, ", "))})
		}
	}
	slices.SortFunc(kept, func(a, b outgoing.Field) int { return strings.Compare(a.Name, b.Name) })
	room := keptHeader
	for i, f := range kept {
		if room -= len(f.Name) + len(f.Value); room < 0 {
			return kept[:i]
		}
	}
	return kept
}

// clean makes text that a database and a JSON document can hold.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return s
}
