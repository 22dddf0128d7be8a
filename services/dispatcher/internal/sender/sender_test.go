package sender

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/outgoing"
)

// The receivers here are real servers on the loopback interface, most of them hostile.

func TestMain(m *testing.M) {
	// A proxy in the environment, which nobody may ask: it refuses every connection.
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		if err := errors.Join(os.Setenv(name, "http://127.0.0.1:1"), os.Setenv(strings.ToLower(name), "http://127.0.0.1:1")); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

var loopback = target.NewPolicy(true, target.Prefixes{netip.MustParsePrefix("127.0.0.0/8")})

func newSender(t *testing.T, policy target.Policy) *Sender {
	s := New(policy, 10)
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, s *Sender, rawURL string, timeout time.Duration) Result {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	return s.Send(t.Context(), Request{To: NewEndpoint(u, http.Header{"Content-Type": {"application/json"}, "User-Agent": {"us"}}), Body: []byte(`{"a":1}`), Timeout: timeout})
}

// raw serves each connection with f, after the request was read; it returns the URL.
func raw(t *testing.T, f func(net.Conn)) string { return rawAfter(t, `{"a":1}`, f) }

// rawAfter serves each connection with f, after what it sends first was read until its end.
func rawAfter(t *testing.T, end string, f func(net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				buffer := make([]byte, 4096)
				for read := 0; !bytes.Contains(buffer[:read], []byte(end)); {
					n, err := conn.Read(buffer[read:])
					if err != nil {
						return
					}
					read += n
				}
				f(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		late := time.AfterFunc(10*time.Second, func() {
			t.Error("the sender holds on to a connection")
			cancel()
		})
		serving.Wait()
		late.Stop()
		cancel()
	})
	return "http://" + listener.Addr().String()
}

// says answers with a text and closes.
func says(text string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, text) }
}

// drips sends a text over and over, with pauses, until the other side is gone.
func drips(first, text string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.WriteString(c, first)
		for err == nil {
			_, err = io.WriteString(c, text)
			time.Sleep(pause)
		}
	}
}

func TestSendsWhatItIsGiven(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Answer", "yes")
		w.Header().Set("Set-Cookie", "canary")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "thanks")
	}))
	defer server.Close()
	s := newSender(t, loopback)
	r := post(t, s, server.URL+"/hook?q=1", time.Second)
	assert.Nil(t, r.Failure)
	assert.Equal(t, 202, r.Status)
	assert.Equal(t, "thanks", r.Body)
	assert.Contains(t, r.Header, outgoing.Field{Name: "X-Answer", Value: "yes"})
	assert.NotContains(t, fmt.Sprint(r.Header), "canary", "of a cookie")
	assert.Equal(t, "POST /hook?q=1", got.Method+" "+got.RequestURI)
	assert.Equal(t, `{"a":1}`, string(body))
	assert.Equal(t, http.Header{"Content-Type": {"application/json"}, "User-Agent": {"us"}, "Content-Length": {"7"}}, got.Header, "nothing is added, above all no Accept-Encoding")
	assert.Positive(t, r.Timings.Connect)
	assert.Positive(t, r.Timings.FirstByte)
	assert.GreaterOrEqual(t, r.Duration, r.Timings.FirstByte)
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", keptBody+drainedBody/2)) // more than is kept, less than is drained
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	s := newSender(t, loopback)
	for range 20 {
		assert.Equal(t, 200, post(t, s, server.URL, time.Second).Status)
	}
	assert.EqualValues(t, 1, connections.Load())

	var requests sync.WaitGroup
	for range 10 {
		requests.Go(func() {
			for range 20 {
				post(t, s, server.URL, 5*time.Second)
			}
		})
	}
	requests.Wait()
	assert.LessOrEqual(t, connections.Load(), int64(20), "each worker keeps one, give or take a race to dial")
}

// TestReceiversThatCloseWithoutAWord: a connection that its receiver closed after an answer costs no attempt.
func TestReceiversThatCloseWithoutAWord(t *testing.T) {
	closed := make(chan struct{}, 1)
	url := raw(t, func(c net.Conn) {
		says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(c)
		_ = c.Close()
		closed <- struct{}{}
	})
	s := newSender(t, loopback)
	for range 20 {
		r := post(t, s, url, time.Second)
		assert.Equal(t, 200, r.Status, "%v", r.Failure)
		<-closed
	}
}

// TestLargeRequestsAreAnsweredEarly: a receiver may refuse what it has not read.
func TestLargeRequestsAreAnsweredEarly(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	address := rawAfter(t, "\r\n\r\n", func(c net.Conn) {
		says("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")(c)
		<-release
	})
	u, err := url.Parse(address)
	require.NoError(t, err)
	s := newSender(t, loopback)
	r := s.Send(t.Context(), Request{To: NewEndpoint(u, nil), Body: make([]byte, 32<<20), Timeout: 30 * time.Second})
	assert.Equal(t, 413, r.Status, "%v", r.Failure)

	whole := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		n, _ := io.Copy(io.Discard, in.Body)
		fmt.Fprint(w, n)
	}))
	defer whole.Close()
	u, err = url.Parse(whole.URL)
	require.NoError(t, err)
	r = s.Send(t.Context(), Request{To: NewEndpoint(u, nil), Body: make([]byte, 1<<20), Timeout: 30 * time.Second})
	assert.Equal(t, "1048576", r.Body, "%v", r.Failure)
}

// TestHostileReceivers: each ends in a result within its time, whatever the receiver does.
func TestHostileReceivers(t *testing.T) {
	const timeout = 400 * time.Millisecond
	const ok = "HTTP/1.1 200 OK\r\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 50<<20))
	_ = z.Close()

	timedOut := func(during phase) Failure {
		return Failure{Timeout, "timed out after 0.4 s while " + string(during)}
	}
	closed := Failure{Closed, "the connection was closed before an answer came"}
	malformed := Failure{Protocol, "the answer is not valid HTTP, or its headers are too large"}

	for name, c := range map[string]struct {
		serve   func(net.Conn)
		status  int
		failure Failure
	}{
		"says nothing":              {serve: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, failure: timedOut(waiting)},
		"drips the status line":     {serve: drips("", "H", 10*time.Millisecond), failure: timedOut(waiting)},
		"drips the header":          {serve: drips(ok, "X-A: b\r\n", 10*time.Millisecond), failure: timedOut(waiting)},
		"drips the body":            {serve: drips(ok+"Content-Length: 100000\r\n\r\n", "x", 10*time.Millisecond), status: 200},
		"drips a failure's body":    {serve: drips("HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n", "x", 10*time.Millisecond), status: 500},
		"never ends the body":       {serve: drips(ok+"Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", 0), status: 200},
		"a body of 100 MB":          {serve: drips(ok+"Content-Length: 100000000\r\n\r\n", strings.Repeat("x", 1<<20), 0), status: 200},
		"stalls the body":           {serve: func(c net.Conn) { says(ok + "Content-Length: 10\r\n\r\nx")(c); _, _ = io.Copy(io.Discard, c) }, status: 200},
		"cuts the body":             {serve: says(ok + "Content-Length: 1000\r\n\r\nshort"), status: 200},
		"body longer than declared": {serve: says(ok + "Content-Length: 2\r\n\r\nokHTTP/1.1 500 no\r\n\r\n"), status: 200},
		"204 with a body":           {serve: says("HTTP/1.1 204 No Content\r\n\r\nwhat"), status: 204},
		"broken chunks":             {serve: says(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), status: 200},
		"broken gzip":               {serve: says(ok + "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnope!"), status: 200},
		"gzip bomb":                 {serve: says(ok + "Content-Encoding: gzip\r\nContent-Length: " + fmt.Sprint(packed.Len()) + "\r\n\r\n" + packed.String()), status: 200},
		"redirect":                  {serve: says("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), status: 307},
		"redirect to nowhere":       {serve: says("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), status: 302},
		"closes at once":            {serve: func(net.Conn) {}, failure: closed},
		"closes in the header":      {serve: says(ok + "X-A: b\r\n"), failure: closed},
		"resets":                    {serve: reset, failure: closed},
		"answers, then resets":      {serve: func(c net.Conn) { says(ok + "Content-Length: 100\r\n\r\nabc")(c); reset(c) }, status: 200},
		"10,000 headers":            {serve: says(ok + strings.Repeat("X-Many: header\r\n", 10_000) + "\r\n"), failure: malformed},
		"a header of 1 MB":          {serve: says(ok + "X-Big: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), failure: malformed},
		"is no HTTP":                {serve: says("SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n"), failure: malformed},
		"bytes in a header":         {serve: says(ok + "X-Odd: a\xff\xfeb\r\nContent-Length: 0\r\n\r\n"), status: 200},
		"endless 100":               {serve: drips("", "HTTP/1.1 100 Continue\r\n\r\n", 0), failure: malformed},
		"endless 103":               {serve: drips("", "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", 0), failure: malformed},
		"switches protocols":        {serve: says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), status: 101},
		"status 999":                {serve: says("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"), status: 999},
		"NUL in a header":           {serve: says(ok + "X-Odd: a\x00b\r\nContent-Length: 0\r\n\r\n"), failure: malformed},
		"bytes in a header's name":  {serve: says(ok + "X-\xff\x00: a\r\nContent-Length: 0\r\n\r\n"), failure: malformed},
		"a header without a name":   {serve: says(ok + ": a\r\n\r\n"), failure: malformed},
		"a folded header":           {serve: says(ok + "X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n"), status: 200},
		"bytes in the reason":       {serve: says("HTTP/1.1 500 \xff\x00\r\nContent-Length: 0\r\n\r\n"), status: 500},
		"bytes in the body":         {serve: says(ok + "Content-Length: 6\r\n\r\n\x00\xff\xfe\xc3\x28\x00"), status: 200},
		"two lengths":               {serve: says(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), failure: malformed},
		"a negative length":         {serve: says(ok + "Content-Length: -1\r\n\r\nabc"), failure: malformed},
		"an enormous length":        {serve: says(ok + "Content-Length: 9223372036854775807\r\n\r\nabc"), status: 200},
		"a length and chunks":       {serve: says(ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), status: 200},
		"an unknown encoding":       {serve: says(ok + "Transfer-Encoding: gzip\r\n\r\nabc"), failure: malformed},
		"a chunk of 16 EiB":         {serve: says(ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"), status: 200},
		"an endless chunk header":   {serve: drips(ok+"Transfer-Encoding: chunked\r\n\r\n5;", "x=y;", 0), status: 200},
		"endless trailers":          {serve: drips(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: b\r\n", 0), status: 200},
		"an endless status line":    {serve: drips("HTTP/1.1 200 ", strings.Repeat("x", 1024), 0), failure: malformed},
		"an endless header":         {serve: drips(ok+"X-A: ", strings.Repeat("x", 1024), 0), failure: malformed},
		"deflate":                   {serve: says(ok + "Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nnope!"), status: 200},
		"brotli in gzip":            {serve: says(ok + "Content-Encoding: br, gzip\r\nContent-Length: " + fmt.Sprint(packed.Len()) + "\r\n\r\n" + packed.String()), status: 200},
		"100, then nothing":         {serve: func(c net.Conn) { says("HTTP/1.1 100 Continue\r\n\r\n")(c); _, _ = io.Copy(io.Discard, c) }, failure: timedOut(waiting)},
		"100, then 200":             {serve: says("HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n"), status: 200},
		"200, then resets":          {serve: func(c net.Conn) { says(ok + "Content-Length: 2\r\n\r\nok")(c); reset(c) }, status: 200},
		"resets in the header":      {serve: func(c net.Conn) { says(ok + "X-A: b\r\n")(c); reset(c) }, failure: closed},
		"HTTP/2":                    {serve: says("\x00\x00\x12\x04\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 18)), failure: malformed},
		"HTTP/9.9":                  {serve: says("HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"), status: 200},
		"HTTP/1.0 until it closes":  {serve: says("HTTP/1.0 200 OK\r\n\r\nabc"), status: 200},
		"status -1":                 {serve: says("HTTP/1.1 -1 What\r\nContent-Length: 0\r\n\r\n"), failure: malformed},
		"status 0":                  {serve: says("HTTP/1.1 000 What\r\nContent-Length: 0\r\n\r\n"), failure: malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := New(loopback, 10)
			defer s.Close()
			started := time.Now()
			r := post(t, s, raw(t, c.serve), timeout)
			assert.Less(t, time.Since(started), timeout+5*time.Second)
			assert.Equal(t, c.status, r.Status)
			assert.False(t, r.Interrupted)
			if c.failure.Text != "" && assert.NotNil(t, r.Failure) {
				assert.Equal(t, c.failure, *r.Failure)
			}
			assert.LessOrEqual(t, len(r.Body), 3*keptBody)
			presentable(t, r)
		})
	}
}

// presentable: what is kept of an answer can be stored and shown.
func presentable(t *testing.T, r Result) {
	t.Helper()
	size := 0
	for _, f := range r.Header {
		size += len(f.Name) + len(f.Value)
		assert.True(t, utf8.ValidString(f.Name+f.Value) && !strings.Contains(f.Name+f.Value, "\x00"), "%q", f)
	}
	assert.LessOrEqual(t, size, 3*keptHeader)
	assert.True(t, utf8.ValidString(r.Body) && !strings.Contains(r.Body, "\x00"), "%q", r.Body)
	if r.Failure != nil {
		assert.NotContains(t, r.Failure.Text, "127.0.0.1")
	}
}

func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

func TestBodiesAreCleaned(t *testing.T) {
	for body, want := range map[string]string{
		"a\x00b":               "a\uFFFDb",
		"a\xffb":               "a\uFFFDb",
		"caf\u00e9 \U0001F600": "caf\u00e9 \U0001F600",
		"":                     "",
		strings.Repeat("x", keptBody-1) + "\u00e9": strings.Repeat("x", keptBody-1), // not half a character
		strings.Repeat("x", keptBody-2) + "\u00e9": strings.Repeat("x", keptBody-2) + "\u00e9",
		strings.Repeat("\xff", keptBody):           "\uFFFD",
	} {
		got, ended := readBody(strings.NewReader(body))
		assert.Equal(t, want, got)
		assert.True(t, ended)
	}
	for body, ended := range map[string]bool{
		strings.Repeat("x", keptBody):                   true,
		strings.Repeat("x", keptBody+drainedBody-1):     true,
		strings.Repeat("x", keptBody+drainedBody+1_000): false,
	} {
		_, got := readBody(strings.NewReader(body))
		assert.Equal(t, ended, got, len(body))
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("a\x00\xff\u00e9"), 0)
	f.Add([]byte("\u00e9"), keptBody-1)
	f.Fuzz(func(t *testing.T, body []byte, before int) {
		before = max(0, before) % (2 * keptBody)
		got, _ := readBody(io.MultiReader(strings.NewReader(strings.Repeat("x", before)), bytes.NewReader(body)))
		if !utf8.ValidString(got) || strings.Contains(got, "\x00") || len(got) > 3*keptBody {
			t.Errorf("%q", got)
		}
		if valid := append(bytes.Repeat([]byte("x"), before), body...); utf8.Valid(valid) && !bytes.Contains(body, []byte{0}) && !strings.HasPrefix(string(valid), got) {
			t.Errorf("%q became %q", valid, got)
		}
	})
}

// TestRefusedAddresses: a listener stands ready, and is never reached.
func TestRefusedAddresses(t *testing.T) {
	var reached atomic.Int64
	listener, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			conn.Close()
		}
	})
	defer accepting.Wait()
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port

	s := newSender(t, target.NewPolicy(true, nil))
	for _, host := range []string{
		"127.0.0.1", "127.8.8.8", "localhost", "localhost.", "0.0.0.0", "127.0.0.1.", "[::1]", "[::]", "[::1%25lo]", "[::ffff:127.0.0.1]",
		"[::ffff:127.0.0.1%25x]", "[::7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "[fe80::1%25lo]", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]",
		"127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.000.000.001", "0", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "127\u30020\u30020\u30021",
	} {
		u := &url.URL{Scheme: "http", Host: fmt.Sprintf("%s:%d", strings.ReplaceAll(host, "%25", "%"), port), Path: "/"}
		r := s.Send(t.Context(), Request{To: NewEndpoint(u, nil), Body: []byte(`{"a":1}`), Timeout: 500 * time.Millisecond})
		require.NotNil(t, r.Failure, host)
		assert.Zero(t, r.Status, host)
		assert.Contains(t, []Class{Refused, DNS, Connect, Timeout}, r.Failure.Class, host)
		presentable(t, r)
	}
	assert.Zero(t, reached.Load(), "a refused address was reached")
}

func TestRefusedAddressSaysSo(t *testing.T) {
	s := newSender(t, target.NewPolicy(true, nil))
	r := post(t, s, "http://127.0.0.1:1/", time.Second)
	assert.Equal(t, &Failure{Refused, "the URL " + target.ErrRefusedAddress.Error()}, r.Failure)
}

func TestConnectFailures(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	r := post(t, newSender(t, loopback), "http://"+address, time.Second)
	assert.Equal(t, &Failure{Connect, "the connection was refused"}, r.Failure)
}

func TestTLSStallNamesItsPhase(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog, and says nothing
	require.NoError(t, err)
	defer listener.Close()
	r := post(t, newSender(t, loopback), "https://"+listener.Addr().String(), 300*time.Millisecond)
	assert.Equal(t, &Failure{Timeout, "timed out after 0.3 s while making the TLS handshake"}, r.Failure)
}

func TestInterruptionIsNotAFailureOfTheReceiver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u, err := url.Parse(raw(t, func(c net.Conn) { cancel(); _, _ = io.Copy(io.Discard, c) }))
	require.NoError(t, err)
	r := newSender(t, loopback).Send(ctx, Request{To: NewEndpoint(u, nil), Body: []byte(`{"a":1}`), Timeout: time.Minute})
	assert.True(t, r.Interrupted)
	assert.Zero(t, r.Status)
}
