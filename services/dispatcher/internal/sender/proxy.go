package sender

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Proxy is a forward proxy through which receivers are reached, so that they see its address and
// not ours. Its zero value is none. Its printed form has no password.
type Proxy struct {
	address       string // host and port
	host          string
	overTLS       bool
	authorization func() string // of Proxy-Authorization; a function, because fmt looks into unexported fields
}

// UnmarshalText reads http(s)://user:password@host:port; empty text is no proxy.
func (p *Proxy) UnmarshalText(text []byte) error {
	*p = Proxy{}
	if len(text) == 0 {
		return nil
	}
	u, err := url.Parse(string(text))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be a URL such as http://user:password@proxy.example.com:3128") // url.Parse's own text would repeat the password
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("must have a port between 1 and 65535")
	}
	p.host, p.address, p.overTLS = u.Hostname(), net.JoinHostPort(u.Hostname(), port), u.Scheme == "https"
	p.authorization = func() string { return "" }
	if u.User != nil {
		password, _ := u.User.Password()
		request := http.Request{Header: http.Header{}}
		request.SetBasicAuth(u.User.Username(), password)
		p.authorization = func() string { return request.Header.Get("Authorization") }
	}
	return nil
}

// String is fit for logs: empty for no proxy.
func (p Proxy) String() string { return p.address }

// Through lets requests go through a proxy. Receivers' names are resolved and their addresses
// judged here nevertheless, and the proxy is told the address: it can be led nowhere else.
func (s *Sender) Through(p Proxy) *Sender {
	s.proxy = p
	return s
}

// fault is a failure of the proxy itself, of which the receiver knows nothing.
type fault string

// Error is stable, and holds no address: it is shown to the webhook's owner.
func (f fault) Error() string { return string(f) }

// errUnreachable: the proxy did its part, and says that the receiver is not there.
var errUnreachable = errors.New("the proxy could not reach the host")

// tunnel connects to a receiver through the proxy, trying its addresses in turn.
func (s *Sender) tunnel(ctx context.Context, host, port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	addresses, err := s.dialer.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	err = errUnreachable
	for _, addr := range addresses {
		to := netip.AddrPortFrom(addr.Unmap(), uint16(number))
		if refusal := s.policy.CheckAddrPort(to); refusal != nil {
			err = refusal
			continue
		}
		conn, failed := s.connect(ctx, to)
		if failed == nil || !errors.Is(failed, errUnreachable) {
			return conn, failed
		}
		err = failed
	}
	return nil, err
}

// connect asks the proxy for a connection to one address that was judged.
func (s *Sender) connect(ctx context.Context, to netip.AddrPort) (_ net.Conn, err error) {
	watch := stopwatchOf(ctx)
	watch.proxyStart.now()
	conn, err := s.toProxy.DialContext(untraced{ctx}, "tcp", s.proxy.address)
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // whatever it broke off
		}
		if err != nil && conn != nil {
			conn.Close()
		}
	}()
	if err != nil {
		return nil, fault("the egress proxy could not be reached")
	}
	if s.proxy.overTLS {
		secured := tls.Client(conn, &tls.Config{ServerName: s.proxy.host, RootCAs: s.proxyRoots, MinVersion: tls.VersionTLS12})
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fault("the TLS handshake with the egress proxy failed")
		}
		conn = secured
	}
	// What is read and written here ends with ctx.
	ended := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	header := "CONNECT " + to.String() + " HTTP/1.1\r\nHost: " + to.String() + "\r\n"
	if authorization := s.proxy.authorization(); authorization != "" {
		header += "Proxy-Authorization: " + authorization + "\r\n"
	}
	if _, err := io.WriteString(conn, header+"\r\n"); err != nil {
		return nil, fault("the egress proxy could not be reached")
	}
	watch.proxyDone.now() // from here on the wait is for the receiver
	if trace := httptrace.ContextClientTrace(ctx); trace != nil {
		trace.ConnectStart("tcp", "")
		defer func() { trace.ConnectDone("tcp", "", err) }()
	}
	buffered := bufio.NewReader(io.LimitReader(conn, maxHeader))
	response, err := http.ReadResponse(buffered, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it has none: what follows is the receiver's
	switch {
	case err != nil:
		return nil, fault("the egress proxy's answer is not valid HTTP")
	case response.StatusCode >= 502 && response.StatusCode <= 504:
		return nil, errUnreachable
	case response.StatusCode/100 != 2:
		return nil, fault(fmt.Sprintf("the egress proxy answered %d", response.StatusCode))
	case buffered.Buffered() > 0: // a receiver that speaks before it is asked does not speak HTTP
		return nil, errUnreachable
	case !ended():
		return nil, context.Cause(ctx)
	}
	return conn, nil
}

// untraced hides a request's trace, so that the times of the proxy's connection are not taken
// for the receiver's.
type untraced struct{ context.Context }

func (untraced) Value(any) any { return nil }
