package sender

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const proxyPassword = "CANARY-of-the-proxy"

// forwarder is a forward proxy that knows CONNECT, and wants a password.
type forwarder struct {
	*httptest.Server
	mu        sync.Mutex
	connected []string // what it was asked to connect to
}

// newForwarder: of these roots its certificate is one; without any it speaks plain HTTP.
func newForwarder(t *testing.T, roots *x509.CertPool) *forwarder {
	f := &forwarder{}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.forward))
	if roots != nil {
		f.StartTLS()
		roots.AddCert(f.Certificate())
	} else {
		f.Start()
	}
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

func (f *forwarder) proxy(t *testing.T) Proxy {
	var p Proxy
	require.NoError(t, p.UnmarshalText([]byte(strings.Replace(f.URL, "://", "://user:"+proxyPassword+"@", 1))))
	return p
}

func (f *forwarder) targets() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.connected...)
}

func (f *forwarder) forward(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("user:"+proxyPassword)) {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	f.mu.Lock()
	f.connected = append(f.connected, r.RequestURI)
	f.mu.Unlock()
	there, err := net.Dial("tcp", r.RequestURI)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(there, here); there.Close() })
	_, _ = io.Copy(here, there)
	here.Close()
	copying.Wait()
}

// TestThroughAProxy: a receiver sees its own name, the proxy nothing but addresses that were judged.
func TestThroughAProxy(t *testing.T) {
	authority := newAuthority(t)
	for _, proxyOverTLS := range []bool{false, true} {
		for _, overTLS := range []bool{false, true} {
			t.Run(fmt.Sprintf("proxy over TLS %t, receiver %t", proxyOverTLS, overTLS), func(t *testing.T) {
				var mu sync.Mutex
				var hosts, servers []string
				receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					hosts = append(hosts, r.Host)
					if r.TLS != nil {
						servers = append(servers, r.TLS.ServerName)
					}
					assert.NotContains(t, fmt.Sprint(r.Header), "Proxy")
				}))
				scheme := "http"
				if overTLS {
					scheme = "https"
					receiver.TLS = &tls.Config{Certificates: []tls.Certificate{authority.certificate(t, "receiver.test", time.Hour)}}
					receiver.StartTLS()
				} else {
					receiver.Start()
				}
				defer receiver.Close()
				names := newNameserver(t)
				names.says("receiver.test.", []string{"127.0.0.1"})
				s := newSender(t, loopback)
				names.resolves(s)
				s.client.tls = &tls.Config{RootCAs: authority.pool}
				if proxyOverTLS {
					s.proxyRoots = x509.NewCertPool()
				}
				f := newForwarder(t, s.proxyRoots)
				s.Through(f.proxy(t))

				host := fmt.Sprintf("receiver.test:%d", receiver.Listener.Addr().(*net.TCPAddr).Port)
				for range 3 {
					r := post(t, s, scheme+"://"+host+"/", 10*time.Second)
					assert.Equal(t, 200, r.Status, "%v %s", r.Failure, r.Fault)
				}
				assert.Equal(t, []string{receiver.Listener.Addr().String()}, f.targets(), "one connection, to an address")
				mu.Lock()
				defer mu.Unlock()
				assert.Equal(t, []string{host, host, host}, hosts)
				if overTLS {
					assert.Equal(t, []string{"receiver.test", "receiver.test", "receiver.test"}, servers)
				}
				r := post(t, s, "http://10.0.0.1/", 10*time.Second)
				assert.Equal(t, Refused, r.Failure.Class)
				assert.Len(t, f.targets(), 1, "the proxy does not hear of what is refused")
			})
		}
	}
}

// connects reads a CONNECT of the sender, and answers with f.
func connects(t *testing.T, f func(net.Conn)) string {
	return strings.Replace(rawAfter(t, "\r\n\r\n", f), "://", "://user:"+proxyPassword+"@", 1)
}

// TestFaultsOfTheProxyAreOurs, and what it says of a receiver is the receiver's.
func TestFaultsOfTheProxyAreOurs(t *testing.T) {
	const timeout = 400 * time.Millisecond
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		url     string
		fault   string
		failure *Failure
	}{
		"nobody listens":     {url: "http://user:" + proxyPassword + "@127.0.0.1:1", fault: "the egress proxy could not be reached"},
		"no such name":       {url: "http://user:" + proxyPassword + "@proxy.invalid", fault: "the egress proxy could not be reached"},
		"wants another":      {url: connects(t, says("HTTP/1.1 407 "+proxyPassword+"\r\n\r\n")), fault: "the egress proxy answered 407"},
		"forbids":            {url: connects(t, says("HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n")), fault: "the egress proxy answered 403"},
		"redirects":          {url: connects(t, says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n")), fault: "the egress proxy answered 302"},
		"fails":              {url: connects(t, says("HTTP/1.1 500 Oh\r\n\r\n")), fault: "the egress proxy answered 500"},
		"is no HTTP":         {url: connects(t, says("SSH-2.0-OpenSSH\r\n\r\n")), fault: "the egress proxy's answer is not valid HTTP"},
		"closes":             {url: connects(t, func(net.Conn) {}), fault: "the egress proxy's answer is not valid HTTP"},
		"endless header":     {url: connects(t, drips("HTTP/1.1 200 OK\r\n", "X-A: b\r\n", 0)), fault: "the egress proxy's answer is not valid HTTP"},
		"no TLS":             {url: strings.Replace(connects(t, says("HTTP/1.1 400 no\r\n\r\n")), "http:", "https:", 1), fault: "timed out while reaching the egress proxy"},
		"TLS stalls":         {url: strings.Replace(connects(t, silent), "http:", "https:", 1), fault: "timed out while reaching the egress proxy"},
		"receiver is away":   {url: connects(t, says("HTTP/1.1 502 Bad Gateway\r\n\r\n")), failure: &Failure{Connect, "the host could not be reached"}},
		"receiver times out": {url: connects(t, says("HTTP/1.1 504 Gateway Timeout\r\n\r\n")), failure: &Failure{Connect, "the host could not be reached"}},
		"receiver is silent": {url: connects(t, silent), failure: &Failure{Timeout, "timed out after 0.4 s while connecting"}},
		"receiver is first":  {url: connects(t, says("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), failure: &Failure{Connect, "the host could not be reached"}},
		"tunnel closes":      {url: connects(t, says("HTTP/1.1 200 OK\r\n\r\n")), failure: &Failure{Closed, "the connection was closed before an answer came"}},
	} {
		t.Run(name, func(t *testing.T) {
			var p Proxy
			require.NoError(t, p.UnmarshalText([]byte(c.url)))
			s := newSender(t, loopback).Through(p)
			started := time.Now()
			r := post(t, s, "http://127.0.0.1:9/", timeout)
			assert.Less(t, time.Since(started), timeout+5*time.Second)
			assert.Zero(t, r.Status)
			assert.False(t, r.Interrupted)
			assert.Equal(t, c.fault, r.Fault)
			assert.Equal(t, c.failure, r.Failure)
			assert.NotContains(t, fmt.Sprintf("%+v %#v %v", r, s.proxy, s.proxy), proxyPassword)
		})
	}
}

func TestProxyIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "http://proxy.test": "proxy.test:80", "https://proxy.test/": "proxy.test:443", "http://user:" + proxyPassword + "@[::1]:3128": "[::1]:3128",
	} {
		var p Proxy
		require.NoError(t, p.UnmarshalText([]byte(text)))
		assert.Equal(t, want, p.String())
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			for _, printed := range []string{fmt.Sprintf(format, p), fmt.Sprintf(format, struct{ p Proxy }{p})} {
				assert.NotContains(t, printed, proxyPassword)
				assert.NotContains(t, printed, base64.StdEncoding.EncodeToString([]byte("user:"+proxyPassword)))
			}
		}
	}
	for _, text := range []string{
		"proxy.test:3128", "socks5://user:" + proxyPassword + "@proxy.test", "http://user:" + proxyPassword + "@", "http://user:" + proxyPassword + "@proxy.test/path",
		"http://proxy.test?" + proxyPassword, "http://user:" + proxyPassword + "@pro\x7fxy", "http://%zz" + proxyPassword, "http://proxy.test:99999", "http://proxy.test:0",
	} {
		err := new(Proxy).UnmarshalText([]byte(text))
		if assert.Error(t, err, text) {
			assert.NotContains(t, err.Error(), proxyPassword)
		}
	}
}
