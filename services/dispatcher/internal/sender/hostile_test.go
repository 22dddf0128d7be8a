package sender

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
)

// TestHostileTLS: certificates and handshakes that must not be trusted, and those that never end.
func TestHostileTLS(t *testing.T) {
	const timeout = 400 * time.Millisecond
	trusted, unknown := newAuthority(t), newAuthority(t)
	good := trusted.certificate(t, "receiver.test", time.Hour)
	names := newNameserver(t)
	names.says("receiver.test.", []string{"127.0.0.1"})

	// shakes makes the handshake and reads the request, before it serves.
	shakes := func(config *tls.Config, f func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			secured := tls.Server(c, config)
			buffer := make([]byte, 4096)
			for read := 0; !bytes.Contains(buffer[:read], []byte(`{"a":1}`)); {
				n, err := secured.Read(buffer[read:])
				if err != nil {
					return
				}
				read += n
			}
			f(secured)
		}
	}
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	old := func(version uint16) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: version, MaxVersion: version}
	}
	answer := says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	failed := Failure{TLS, "the TLS handshake failed"}
	timedOut := func(during phase) Failure {
		return Failure{Timeout, "timed out after 0.4 s while " + string(during)}
	}
	for name, c := range map[string]struct {
		serve   func(net.Conn)
		status  int
		failure Failure
	}{
		"trusted":                 {serve: shakes(with(good), answer), status: 200},
		"TLS 1.2":                 {serve: shakes(old(tls.VersionTLS12), answer), status: 200},
		"expired":                 {serve: shakes(with(trusted.certificate(t, "receiver.test", -time.Hour)), answer), failure: Failure{TLS, "the host's certificate has expired or is not valid yet"}},
		"another name":            {serve: shakes(with(trusted.certificate(t, "other.test", time.Hour)), answer), failure: Failure{TLS, "the host's certificate is for another name"}},
		"a part of the name":      {serve: shakes(with(trusted.certificate(t, "test", time.Hour)), answer), failure: Failure{TLS, "the host's certificate is for another name"}},
		"signed by itself":        {serve: shakes(with(unknown.certificate(t, "receiver.test", time.Hour)), answer), failure: Failure{TLS, "the host's certificate is signed by an unknown authority"}},
		"TLS 1.0":                 {serve: shakes(old(tls.VersionTLS10), answer), failure: failed},
		"TLS 1.1":                 {serve: shakes(old(tls.VersionTLS11), answer), failure: failed},
		"no TLS":                  {serve: says("HTTP/1.1 400 Bad Request\r\n\r\n"), failure: Failure{TLS, "the host does not speak TLS on this port"}},
		"stalls at once":          {serve: silent, failure: timedOut(handshaking)},
		"drips the handshake":     {serve: drips("\x16\x03\x03\x40\x00", "\x02", 10*time.Millisecond), failure: timedOut(handshaking)},
		"closes in the handshake": {serve: says("\x16\x03\x03"), failure: failed},
		"resets in the handshake": {serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 1)); says("\x16\x03\x03")(c); reset(c) }, failure: failed},
		"an enormous record":      {serve: says("\x16\x03\x03\xff\xff" + strings.Repeat("x", 1<<17)), failure: Failure{TLS, "the host does not speak TLS on this port"}},
		"stalls afterwards":       {serve: shakes(with(good), silent), failure: timedOut(waiting)},
		"no close notification":   {serve: shakes(with(good), func(c net.Conn) { answer(c); _ = c.(*tls.Conn).NetConn().Close() }), status: 200},
		"resets with an answer":   {serve: shakes(with(good), func(c net.Conn) { answer(c); reset(c.(*tls.Conn).NetConn()) }), status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := New(loopback, 10)
			defer s.Close()
			names.resolves(s)
			s.client.tls = &tls.Config{RootCAs: trusted.pool}
			for _, host := range []string{"receiver.test", "receiver.test."} {
				address := strings.TrimPrefix(rawAfter(t, "", c.serve), "http://127.0.0.1")
				started := time.Now()
				r := post(t, s, "https://"+host+address+"/", timeout)
				assert.Less(t, time.Since(started), timeout+5*time.Second)
				assert.Equal(t, c.status, r.Status, "%v", r.Failure)
				if c.failure.Text != "" && assert.NotNil(t, r.Failure) {
					assert.Equal(t, c.failure, *r.Failure)
				}
				presentable(t, r)
			}
		})
	}
}

// TestMemoryIsBounded: what a receiver sends costs no more than what is kept of it, however much it is.
func TestMemoryIsBounded(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 100<<20))
	_ = z.Close()
	pour := func(first string, chunk []byte, most int) func(net.Conn) { // without an allocation for each chunk
		return func(c net.Conn) {
			_, err := io.WriteString(c, first)
			for sent := 0; err == nil && sent < most; sent += len(chunk) {
				_, err = c.Write(chunk)
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	const each, times = 2 << 20, 20
	for name, serve := range map[string]func(net.Conn){
		"100 MB":         pour(ok+"Content-Length: 104857600\r\n\r\n", bytes.Repeat([]byte("x"), 1<<16), 100<<20),
		"endless chunks": pour(ok+"Transfer-Encoding: chunked\r\n\r\n", bytes.Repeat([]byte("5\r\nhello\r\n"), 1<<12), 1<<40),
		"one byte each":  pour(ok+"Transfer-Encoding: chunked\r\n\r\n", bytes.Repeat([]byte("1\r\nx\r\n"), 1<<12), 1<<40),
		"gzip bomb":      pour(ok+"Content-Encoding: gzip\r\n\r\n", packed.Bytes(), packed.Len()),
		"headers":        pour(ok, bytes.Repeat([]byte("X-Many: header\r\n"), 1<<12), 1<<40),
		"a header":       pour(ok+"X-Big: ", bytes.Repeat([]byte("x"), 1<<16), 1<<40),
		"1xx":            pour("", bytes.Repeat([]byte("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"), 1<<10), 1<<40),
		"trailers":       pour(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", bytes.Repeat([]byte("X-A: b\r\n"), 1<<12), 1<<40),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, loopback)
			to := raw(t, serve)
			post(t, s, to, 5*time.Second)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range times {
				post(t, s, to, 5*time.Second)
			}
			runtime.ReadMemStats(&after)
			allocated := (after.TotalAlloc - before.TotalAlloc) / times
			t.Logf("%d KiB for each request", allocated>>10)
			assert.Less(t, allocated, uint64(each), "bytes allocated for a request")
		})
	}
}

// TestRetryAfterIsKeptAsItIs: what it means is decided elsewhere.
func TestRetryAfterIsKeptAsItIs(t *testing.T) {
	for _, value := range []string{"120", "-1", "99999999999", "1e9", "Mon, 01 Jan 0001 00:00:00 GMT", "garbage", "", "a\xffb", strings.Repeat("9", 20_000)} {
		s := newSender(t, loopback)
		r := post(t, s, raw(t, says("HTTP/1.1 429 Slow\r\nRetry-After: "+value+"\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")), time.Second)
		assert.Equal(t, 429, r.Status)
		assert.Equal(t, value, r.RetryAfter)
		presentable(t, r)
	}
}

// TestTimingsSayWhereTheTimeWent: each part of a first request took some time, and all of them
// together no more than the whole; a second one, on the same connection, has only the last two.
func TestTimingsSayWhereTheTimeWent(t *testing.T) {
	everyWay(t, func(t *testing.T, through func(*Sender) *Sender) {
		authority := newAuthority(t)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "first")
			_ = http.NewResponseController(w).Flush()
			fmt.Fprint(w, strings.Repeat("x", keptBody))
		}))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.certificate(t, "receiver.test", time.Hour)}}
		server.StartTLS()
		defer server.Close()
		names := newNameserver(t)
		names.says("receiver.test.", []string{"127.0.0.1"})
		s := through(newSender(t, loopback))
		names.resolves(s)
		s.client.tls = &tls.Config{RootCAs: authority.pool}
		to := "https://receiver.test:" + server.URL[strings.LastIndexByte(server.URL, ':')+1:]

		r := post(t, s, to, 10*time.Second)
		require.Equal(t, 200, r.Status, "%v", r.Failure)
		for part, took := range map[string]time.Duration{
			"DNS": r.Timings.DNS, "connect": r.Timings.Connect, "TLS": r.Timings.TLS, "first byte": r.Timings.FirstByte, "body": r.Timings.Body,
		} {
			assert.Positive(t, took, part)
		}
		assert.LessOrEqual(t, r.Timings.DNS+r.Timings.Connect+r.Timings.TLS+r.Timings.FirstByte+r.Timings.Body, r.Duration)

		r = post(t, s, to, 10*time.Second)
		assert.Equal(t, Timings{FirstByte: r.Timings.FirstByte, Body: r.Timings.Body}, r.Timings)
		assert.Positive(t, r.Timings.FirstByte)
	})
	r := post(t, newSender(t, loopback), "http://127.0.0.1:1/", time.Second)
	assert.Zero(t, r.Timings.FirstByte+r.Timings.Body+r.Timings.TLS, "what did not happen took no time")
}

// FuzzResponse: whatever bytes a receiver sends, Send returns, with a result that can be stored and shown.
func FuzzResponse(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, seed := range []string{
		"", ok + "Content-Length: 2\r\n\r\nok", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "\r\n",
		"HTTP/1.1 429 \xff\r\nRetry-After: 1\r\nX-\xff: \x00\r\nSet-Cookie: a=b\r\n\r\n\x00\xff", "HTTP/1.0 999 \r\n\r\n" + strings.Repeat("\xc3", 5000), "HTTP/1.1 000\r\n\r\n",
		"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw", "HTTP/1.1 302 Found\r\nLocation: \x7f://\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	// One listener for all: with one each, the machine soon has no port left.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f, err)
	f.Cleanup(func() { listener.Close() })
	var answering atomic.Pointer[[]byte]
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write(*answering.Load())
			conn.Close()
		}
	}()
	f.Fuzz(func(t *testing.T, answer []byte) {
		answering.Store(&answer)
		s := New(loopback, 1)
		defer s.Close()
		u := &url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/"}
		r := s.Send(t.Context(), Request{To: NewEndpoint(u, nil), Body: []byte(`{"a":1}`), Timeout: 10 * time.Second})
		presentable(t, r)
		switch {
		case r.Interrupted || r.Fault != "":
			t.Errorf("%+v", r)
		case (r.Status == 0) != (r.Failure != nil), r.Status != 0 && (r.Status < 100 || r.Status > 999):
			t.Errorf("status %d with %v", r.Status, r.Failure)
		case len(r.Body) > 3*keptBody, len(r.RetryAfter) > maxHeader:
			t.Errorf("%d bytes of body, %d of Retry-After", len(r.Body), len(r.RetryAfter))
		case slices.ContainsFunc(r.Header, func(f outgoing.Field) bool { return f.Name == "Set-Cookie" }):
			t.Error("a cookie is kept")
		case r.Failure != nil && !utf8.ValidString(r.Failure.Text):
			t.Errorf("%q", r.Failure.Text)
		}
	})
}
