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

	denied   Denied
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

// Except makes a policy that refuses these too, whatever it allows.
func (p Policy) Except(d Denied) Policy {
	p.denied = d
	return p
}

// ErrRefusedAddress is the error of an address that the policy does not allow. Its text names
// no address: it is shown to the webhook's owner, who must not learn what a name resolves to
// inside the operator's network.
var ErrRefusedAddress = errors.New("leads to an address that is not public, which ALLOW_PRIVATE_TARGETS does not allow")

// ErrDenied is the error of a host, an address or a port that is not for webhooks.
var ErrDenied = errors.New("leads to a host or a port that is not for webhooks here")

// ownPorts are those where our own parts and their peers usually listen: Postgres, NATS (clients,
// routes, monitoring) and ClickHouse, which runs the query of a POST's URL. On public addresses they
// are anybody's. In the operator's network they are refused, although the network may be allowed:
// it was allowed for receivers.
var ownPorts = map[uint16]bool{5432: true, 4222: true, 6222: true, 8222: true, 8123: true, 9000: true, 9004: true, 9005: true, 9009: true}

// CheckAddrPort decides on where a connection leads.
func (p Policy) CheckAddrPort(to netip.AddrPort) error {
	if err := p.CheckAddr(to.Addr()); err != nil {
		return err
	}
	if ownPorts[to.Port()] && publicOnly.CheckAddr(to.Addr()) != nil {
		return ErrDenied
	}
	return nil
}

var publicOnly = NewPolicy(false, nil)

// nat64 is where a translator puts IPv4 addresses (RFC 6052). Networks without IPv4 allow it.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// CheckAddr decides on one address. An IPv4 address inside an IPv6 one (mapped, or NAT64 where it is
// allowed) is judged as the IPv4 address it reaches; other embeddings (6to4, compatible) are not public.
func (p Policy) CheckAddr(addr netip.Addr) error {
	if p.guardian == nil {
		p = NewPolicy(p.AllowHTTP, p.AllowPrivate).Except(p.denied)
	}
	switch plain := addr.Unmap(); {
	case addr.Zone() != "" || p.guardian.SafeAddr(plain) != nil || isISATAP(addr):
		return ErrRefusedAddress
	case p.denied.addr(plain):
		return ErrDenied
	case nat64.Contains(plain):
		b := plain.As16()
		return p.CheckAddr(netip.AddrFrom4([4]byte(b[12:])))
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
	return p.CheckAddrPort(addrPort)
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
	}
	port := uint64(443)
	if u.Scheme == "http" {
		port = 80
	}
	if given := u.Port(); given != "" {
		if port, err = strconv.ParseUint(given, 10, 16); err != nil || port == 0 {
			return errors.New("must have a port between 1 and 65535")
		}
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.CheckAddrPort(netip.AddrPortFrom(addr, uint16(port)))
	}
	switch {
	case !isName(host):
		return errors.New("must name its host in plain ASCII (an international name as xn--…)")
	case host == "localhost" || strings.HasSuffix(host, ".localhost"):
		return p.CheckAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)))
	case p.denied.hosts[host]:
		return ErrDenied
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "" {
		return errors.New("must write an IP address in its usual form") // 127.1, 0x7f000001, 2130706433
	}
	if !strings.Contains(host, ".") && len(p.AllowPrivate) == 0 {
		return errors.New("must have the full name of a public host") // "postgres" could only be one of the operator's
	}
	return nil
}

// isName tells what a resolver would ask for: letters, digits, hyphens and underscores between dots.
func isName(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return len(host) <= 253
}
