package sender

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
)

const (
	// idleTime is how long a connection is kept that nobody needs.
	idleTime = time.Minute
	// trustTime is for how long after an answer a connection is believed to be alive without a look, if it
	// has outlived an answer before. Servers close what nobody uses after seconds, and looking costs as
	// much as reading; but some close after every answer and do not say so.
	trustTime = 50 * time.Millisecond
	// largeRequest is from what size on an answer is read while the request is still being written: a
	// receiver may refuse it without reading all. Less fits into the socket's buffer.
	largeRequest = 64 << 10
	// mostInterim is how many answers of status 1xx may come before the answer.
	mostInterim = 5
)

// client speaks HTTP/1.1 to receivers: POST requests, one at a time on each connection, written and
// read by the goroutine that makes them. The transport of net/http hands each request to two other
// goroutines and back; without that the dispatcher needs 57 MB instead of 68, and together with fewer
// system calls 1.3 times the time of a bare POST instead of 1.6. Answers are parsed by net/http.
//
// A request is never sent twice: what may have reached its receiver is an attempt. So a connection that
// was used before is looked at before anything is written to it, unless it has just been used (trustTime).
type client struct {
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
	tls         *tls.Config // nil: the system's roots
	idlePerHost int

	mu      sync.Mutex
	idle    map[string][]*connection // by origin, the one that was used last at the end
	sweeper *time.Timer              // nil: nothing is idle
	closed  bool
}

// connection is one to a receiver's origin.
type connection struct {
	net.Conn
	tcp     syscall.RawConn
	from    *bounded
	in      *bufio.Reader
	out     []byte
	used    time.Time
	answers int // that it has brought
}

var (
	errHeaderTooLarge = errors.New("the answer's headers are too large")
	errInterim        = errors.New("too many answers of status 1xx")
	errRequest        = errors.New("the request's target or headers cannot be sent")
)

// bounded reads no more than what is left.
type bounded struct {
	conn   net.Conn
	left   int64
	failed error // of the last Read, which whoever parses what came before does not always tell
}

func (b *bounded) Read(p []byte) (n int, err error) {
	if b.left <= 0 {
		b.failed = errHeaderTooLarge
		return 0, b.failed
	}
	n, b.failed = b.conn.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, b.failed
}

// answer is a response of which the body is still to be read.
type answer struct {
	*http.Response
	from   *connection
	origin string
	stop   func() bool     // of the watch over the caller's context; false: it has ended
	wrote  <-chan struct{} // of a request that may still be written: closed when it no longer is; nil: it is written
}

// post makes a request before the deadline, or before ctx ends. done must be called for its answer.
func (c *client) post(ctx context.Context, r Request, deadline time.Time, watch *stopwatch) (*answer, error) {
	if r.To.fault != nil {
		return nil, r.To.fault
	}
	conn, err := c.get(ctx, r.To, deadline, watch)
	if err != nil {
		return nil, err
	}
	watch.connected.now()
	a := &answer{from: conn, origin: r.To.origin, stop: context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })}
	if err = conn.write(r, a, watch); err == nil {
		a.Response, err = conn.answer(watch) //nolint:bodyclose // its body is read by done, or abandoned with the connection
	}
	if err != nil {
		a.abandon()
		return nil, err
	}
	return a, nil
}

// get is a connection to the origin: one that is idle and alive, or a new one.
func (c *client) get(ctx context.Context, to *Endpoint, deadline time.Time, watch *stopwatch) (*connection, error) {
	for {
		conn := c.take(to.origin)
		if conn == nil {
			return c.connect(ctx, to.url, deadline, watch)
		}
		unused := time.Since(conn.used)
		if err := conn.SetDeadline(deadline); err == nil && (unused < trustTime && conn.answers > 1 || unused < idleTime && conn.quiet()) {
			return conn, nil
		}
		conn.Close()
	}
}

// connect makes a connection, and the TLS handshake where the URL wants it.
func (c *client) connect(ctx context.Context, u *url.URL, deadline time.Time, watch *stopwatch) (*connection, error) {
	host := u.Hostname()
	if !isASCII(host) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return nil, errRequest
		}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ctx, cancel := context.WithDeadlineCause(watch.on(ctx), deadline, errTimeout)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	if u.Scheme == "https" {
		if conn, err = c.secure(ctx, conn, host, watch); err != nil {
			return nil, err
		}
	}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	made := &connection{Conn: conn, tcp: rawOf(conn), from: &bounded{conn: conn}}
	made.in = bufio.NewReader(made.from)
	return made, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func (c *client) secure(ctx context.Context, conn net.Conn, host string, watch *stopwatch) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.tls != nil {
		config = c.tls.Clone()
	}
	config.ServerName = host
	secured := tls.Client(conn, config)
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	watch.tlsStart.now()
	err := secured.HandshakeContext(ctx)
	watch.tlsDone.now()
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// rawOf is the TCP connection under a connection; nil if it has none.
func rawOf(conn net.Conn) syscall.RawConn {
	for {
		switch over := conn.(type) {
		case syscall.Conn:
			if raw, err := over.SyscallConn(); err == nil {
				return raw
			}
			return nil
		case interface{ NetConn() net.Conn }:
			conn = over.NetConn()
		default:
			return nil
		}
	}
}

// quiet tells whether nothing has come from the receiver since its last answer. What comes unasked is
// the connection's end nearly always, and never an answer.
func (c *connection) quiet() bool {
	if c.tcp == nil {
		return false
	}
	quiet := false
	err := c.tcp.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		quiet = err == syscall.EAGAIN
		return true
	})
	return err == nil && quiet
}

// write sends the request. What is large goes on being written while the answer is awaited.
func (c *connection) write(r Request, a *answer, watch *stopwatch) (err error) {
	if c.out, err = appendRequest(c.out[:0], r); err != nil {
		return err
	}
	if len(c.out) < largeRequest {
		if _, err = c.Write(c.out); err == nil {
			watch.written.now()
		}
		return err
	}
	out, wrote := c.out, make(chan struct{})
	c.out, a.wrote = nil, wrote // a megabyte is not kept
	go func() {
		defer close(wrote)
		if _, err := c.Write(out); err == nil {
			watch.written.now()
		}
	}()
	return nil
}

// Endpoint is where requests go, with what is the same in all of them.
type Endpoint struct {
	url    *url.URL
	origin string
	head   []byte // of a request, as far as the endpoint's headers
	fault  error  // nothing can be sent there
}

// NewEndpoint makes the endpoint of a URL, with headers for all requests. What could end a line is a
// fault of it, with which every request fails.
func NewEndpoint(u *url.URL, header http.Header) *Endpoint {
	e := &Endpoint{url: u, origin: u.Scheme + "://" + u.Host}
	host, err := httpguts.PunycodeHostPort(u.Host)
	target := u.RequestURI()
	if err != nil || !httpguts.ValidHostHeader(host) || !httpguts.ValidHeaderFieldValue(target) {
		e.fault = errRequest
		return e
	}
	e.head = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n", target, host)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			if e.head, err = appendField(e.head, outgoing.Field{Name: name, Value: value}); err != nil {
				e.fault = err
			}
		}
	}
	return e
}

// appendField refuses what could end a line.
func appendField(out []byte, f outgoing.Field) ([]byte, error) {
	if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
		return out, errRequest
	}
	return append(append(append(append(out, f.Name...), ": "...), f.Value...), "\r\n"...), nil
}

func appendRequest(out []byte, r Request) (_ []byte, err error) {
	out = append(out, r.To.head...)
	for _, f := range r.Header {
		if out, err = appendField(out, f); err != nil {
			return out, err
		}
	}
	out = strconv.AppendInt(append(out, "Content-Length: "...), int64(len(r.Body)), 10)
	return append(append(out, "\r\n\r\n"...), r.Body...), nil
}

var posted = &http.Request{Method: http.MethodPost} // what an answer answers decides where it ends

// answer reads up to the body of the answer that is none of status 1xx.
func (c *connection) answer(watch *stopwatch) (*http.Response, error) {
	c.from.left = maxHeader
	for range mostInterim + 1 {
		if _, err := c.in.Peek(1); err != nil {
			return nil, err
		}
		watch.first.now()
		response, err := http.ReadResponse(c.in, posted)
		switch {
		case err != nil && c.from.failed != nil && !errors.Is(c.from.failed, io.EOF):
			return nil, c.from.failed
		case err != nil:
			return nil, err
		case response.StatusCode < 100:
			return nil, errStatus
		case response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols:
			c.from.left = math.MaxInt64 // of the body the reader takes as much as it likes
			return response, nil
		}
	}
	return nil, errInterim
}

// done ends an answer whose body was read, up to its end or not: another request can be made on its
// connection only if nothing of this one is left.
func (c *client) done(a *answer, ended bool) {
	switch {
	case a.wrote != nil, !ended, a.Close, a.StatusCode == http.StatusSwitchingProtocols, a.from.in.Buffered() > 0:
		a.abandon()
	case !a.stop():
		a.from.Close()
	default:
		c.put(a.origin, a.from)
	}
}

// abandon closes the connection, whatever is under way on it.
func (a *answer) abandon() {
	a.stop()
	a.from.Close()
	if a.wrote != nil {
		<-a.wrote
	}
}

func (c *client) take(origin string) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[origin]
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	list[len(list)-1] = nil
	c.idle[origin] = list[:len(list)-1]
	return last
}

func (c *client) put(origin string, conn *connection) {
	conn.used = time.Now()
	conn.answers++
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle[origin]) >= c.idlePerHost {
		conn.Close()
		return
	}
	c.idle[origin] = append(c.idle[origin], conn)
	if c.sweeper == nil {
		c.sweeper = time.AfterFunc(idleTime, c.sweep)
	}
}

// sweep closes what was idle for long.
func (c *client) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle(time.Now().Add(-idleTime))
	if len(c.idle) > 0 && !c.closed {
		c.sweeper.Reset(idleTime / 2)
	} else {
		c.sweeper = nil
	}
}

func (c *client) closeIdle(usedBefore time.Time) {
	for origin, list := range c.idle {
		old := 0
		for old < len(list) && list[old].used.Before(usedBefore) {
			list[old].Close()
			old++
		}
		if old == len(list) {
			delete(c.idle, origin)
		} else {
			c.idle[origin] = append([]*connection(nil), list[old:]...)
		}
	}
}

// close closes what is idle, and what will be.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.closeIdle(time.Now().Add(time.Hour))
	if c.sweeper != nil {
		c.sweeper.Stop()
	}
}

// readBody keeps the beginning of a body and reads a little more. An error in it changes nothing: the
// receiver has answered. It tells whether the body has ended as it should.
func readBody(body io.Reader) (excerpt string, ended bool) {
	kept := buffers.Get().(*[keptBody]byte)
	defer buffers.Put(kept)
	n, err := 0, error(nil)
	for n < keptBody && err == nil {
		var more int
		more, err = body.Read(kept[n:])
		n += more
	}
	if err == nil {
		_, err = io.CopyN(io.Discard, body, drainedBody)
	}
	return clean(string(whole(kept[:n]))), err == io.EOF //nolint:errorlint // io.ErrUnexpectedEOF is not meant
}
