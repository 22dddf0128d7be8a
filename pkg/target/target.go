// Package target says where webhooks may be sent. The api asks before it stores a URL, the
// dispatcher asks again for the final address of every connection, after DNS: a name that
// resolves elsewhere by then is caught there, and an URL that can never work is refused early.
package target

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// Policy is what an operator allows. Its zero value allows https to public addresses only.
type Policy struct {
	AllowHTTP    bool
	AllowPrivate Prefixes // reachable although not public

	guardian *ssrf.Guardian
}

// Prefixes is a list of networks, written as CIDRs with commas between them.
type Prefixes []netip.Prefix

// UnmarshalText reads "10.0.0.0/8,fd00::/8"; empty text is the empty list.
func (p *Prefixes) UnmarshalText(text []byte) error {
	*p = nil
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			return fmt.Errorf("%q is not a network such as 10.0.0.0/8", part)
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

// NewPolicy prepares the address tables.
func NewPolicy(allowHTTP bool, allowPrivate Prefixes) Policy {
	var v4, v6 []netip.Prefix
	for _, prefix := range allowPrivate {
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	return Policy{
		AllowHTTP:    allowHTTP,
		AllowPrivate: allowPrivate,
		guardian:     ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...)),
	}
}

// ErrRefusedAddress is the error of an address that the policy does not allow. Its text names
// no address: it is shown to the webhook's owner, who must not learn what a name resolves to
// inside the operator's network.
var ErrRefusedAddress = errors.New("leads to an address that is not public, which ALLOW_PRIVATE_TARGETS does not allow")

// CheckAddr decides on one address. An IPv4 address inside an IPv6 one (mapped) is judged as
// the IPv4 address it reaches; other embeddings (NAT64, 6to4, compatible) are not public.
func (p Policy) CheckAddr(addr netip.Addr) error {
	if p.guardian == nil {
		p = NewPolicy(p.AllowHTTP, p.AllowPrivate)
	}
	if addr.Zone() != "" || p.guardian.SafeAddr(addr.Unmap()) != nil || isISATAP(addr) {
		return ErrRefusedAddress
	}
	return nil
}

// isISATAP tells an interface identifier that holds an IPv4 address (RFC 5214, section 6.1):
// ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d below any prefix.
func isISATAP(addr netip.Addr) bool {
	if !addr.Is6() || addr.Is4In6() {
		return false
	}
	b := addr.As16()
	return (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// Control is for net.Dialer: it refuses a connection by its final address.
func (p Policy) Control(_, address string, _ syscall.RawConn) error {
	addrPort, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrRefusedAddress
	}
	return p.CheckAddr(addrPort.Addr())
}

// CheckURL says in one sentence why a webhook may not have this URL. It does not resolve
// names: that is decided when dialling.
func (p Policy) CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return errors.New("is required")
	case len(raw) > 2000:
		return errors.New("must have at most 2000 characters")
	case err != nil:
		return errors.New("must be a URL such as https://example.com/hook") // url.Parse's own text would repeat a secret in it
	case u.Scheme != "https" && (u.Scheme != "http" || !p.AllowHTTP):
		return errors.New("must start with https://")
	case u.Opaque != "" || u.Hostname() == "":
		return errors.New("must name a host")
	case u.User != nil:
		return errors.New("must not carry a user name or password; use headers")
	case u.Fragment != "":
		return errors.New("must not have a fragment")
	case strings.ContainsAny(u.Host, "\\ \t%") || !ascii(u.Hostname()):
		return errors.New("must name its host in plain ASCII (an international name as xn--…)")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("must have a port between 1 and 65535")
		}
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.CheckAddr(addr)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return p.CheckAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; last == "" || strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "" {
		return errors.New("must write an IP address in its usual form") // 127.1, 0x7f000001, 2130706433
	}
	return nil
}

func ascii(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b >= 0x7f {
			return false
		}
	}
	return true
}
