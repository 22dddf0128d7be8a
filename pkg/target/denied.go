package target

import (
	"fmt"
	"net/netip"
	"strings"
)

// Denied is what an operator keeps from webhooks, written as networks, addresses and host names with
// commas between them: "10.1.0.7, webhooks.example.com". A name is compared with the URL's, an address
// with where a connection leads; so one's own public host is best named with both.
type Denied struct {
	networks []netip.Prefix
	hosts    map[string]bool
}

// UnmarshalText reads the list; empty text is the empty one.
func (d *Denied) UnmarshalText(text []byte) error {
	*d = Denied{hosts: map[string]bool{}}
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(part), "."))
		if part == "" {
			continue
		}
		if prefix, err := netip.ParsePrefix(part); err == nil {
			d.networks = append(d.networks, prefix.Masked())
			continue
		}
		if addr, err := netip.ParseAddr(part); err == nil {
			addr = addr.Unmap()
			d.networks = append(d.networks, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		if !isName(part) || strings.Trim(part, "0123456789.") == "" {
			return fmt.Errorf("%q is not a network, an address or a host's name", part)
		}
		d.hosts[part] = true
	}
	return nil
}

func (d Denied) addr(addr netip.Addr) bool {
	for _, network := range d.networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}
