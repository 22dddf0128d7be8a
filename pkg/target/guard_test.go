package target

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// TestOwnPortsAreNotForWebhooks: a network that is allowed for receivers is not allowed for what
// usually listens there besides them. On public addresses a port says nothing.
func TestOwnPortsAreNotForWebhooks(t *testing.T) {
	var private Prefixes
	if err := private.UnmarshalText([]byte("10.1.0.0/16,fd00::/8,127.0.0.0/8")); err != nil {
		t.Fatal(err)
	}
	policy := NewPolicy(true, private)
	for _, port := range []int{4222, 8222, 5432, 8123, 9000} {
		for _, host := range []string{"10.1.2.3", "[fd00::1]", "[::ffff:10.1.2.3]", "localhost", "x.localhost."} {
			if err := policy.CheckURL(fmt.Sprintf("http://%s:%d/", host, port)); !errors.Is(err, ErrDenied) {
				t.Errorf("%s:%d when saved: %v", host, port, err)
			}
		}
		for _, host := range []string{"10.1.2.3", "[fd00::1]", "[::ffff:10.1.2.3]", "127.0.0.1"} {
			if err := policy.Control("tcp", fmt.Sprintf("%s:%d", host, port), nil); !errors.Is(err, ErrDenied) {
				t.Errorf("%s:%d when dialled: %v", host, port, err)
			}
		}
		for _, host := range []string{"93.184.215.14", "[2606:2800:21f:cb07::1]"} {
			if err := policy.CheckURL(fmt.Sprintf("http://%s:%d/", host, port)); err != nil {
				t.Errorf("%s:%d when saved: %v", host, port, err)
			}
			if err := policy.Control("tcp", fmt.Sprintf("%s:%d", host, port), nil); err != nil {
				t.Errorf("%s:%d when dialled: %v", host, port, err)
			}
		}
	}
	if err := policy.CheckURL("http://10.1.2.3:8080/"); err != nil {
		t.Error(err)
	}
}

// TestDenied: our own public host, by name and by address.
func TestDenied(t *testing.T) {
	var private Prefixes
	var denied Denied
	if err := errors.Join(private.UnmarshalText([]byte("10.0.0.0/8")),
		denied.UnmarshalText([]byte(" Hooks.Example.com. , 93.184.215.14,10.1.0.0/16, ::ffff:1.1.1.1,2606:4700::/32,"))); err != nil {
		t.Fatal(err)
	}
	for _, policy := range []Policy{NewPolicy(true, private).Except(denied), Policy{AllowHTTP: true, AllowPrivate: private}.Except(denied)} {
		for _, host := range []string{"hooks.example.com", "HOOKS.example.com.", "93.184.215.14", "[::ffff:93.184.215.14]", "10.1.2.3", "1.1.1.1", "[2606:4700::1111]"} {
			if err := policy.CheckURL("https://" + host + ":8443/api"); !errors.Is(err, ErrDenied) {
				t.Errorf("%s: %v", host, err)
			}
		}
		for _, address := range []string{"93.184.215.14:443", "[::ffff:93.184.215.14]:443", "10.1.2.3:443", "[2606:4700::1111]:443"} {
			if err := policy.Control("tcp", address, nil); !errors.Is(err, ErrDenied) {
				t.Errorf("%s: %v", address, err)
			}
		}
		for _, host := range []string{"example.com", "x.hooks.example.com", "93.184.215.15", "10.2.0.1"} {
			if err := policy.CheckURL("https://" + host + "/"); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	for _, text := range []string{"10.0.0.0/33", "1.2.3", "a b", "https://example.com", "*.example.com", "a..b"} {
		if err := new(Denied).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// TestNAT64LeadsWhereItsIPv4AddressDoes: to allow the translator's prefix is not to allow what lies behind it.
func TestNAT64LeadsWhereItsIPv4AddressDoes(t *testing.T) {
	var private Prefixes
	if err := private.UnmarshalText([]byte("64:ff9b::/96")); err != nil {
		t.Fatal(err)
	}
	policy := NewPolicy(true, private)
	if err := policy.CheckAddr(netip.MustParseAddr("64:ff9b::1.1.1.1")); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"} {
		if err := policy.CheckAddr(netip.MustParseAddr(text)); !errors.Is(err, ErrRefusedAddress) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSingleLabels could only be names of the operator's network, which a search domain would complete.
func TestSingleLabels(t *testing.T) {
	for _, host := range []string{"postgres", "nats.", "redis:6379", "intranet", "com"} {
		if err := NewPolicy(true, nil).CheckURL("http://" + host + "/"); err == nil {
			t.Errorf("%s is allowed", host)
		}
	}
	lenient := NewPolicy(true, Prefixes{netip.MustParsePrefix("10.0.0.0/8")})
	if err := lenient.CheckURL("http://receiver/"); err != nil { // a container's name
		t.Error(err)
	}
}

func TestReservedHeaders(t *testing.T) {
	for _, name := range []string{
		"Webhook-Signature", "webhook-id", "WEBHOOK-TIMESTAMP", "Host", "Content-Length", "Transfer-Encoding", "Connection", "Proxy-Authorization",
		"Expect", "User-Agent", "content-type", "Te", "TRAILER", "upgrade", "Keep-Alive", "accept-encoding", "X-Forwarded-For", "Idempotency-Key", "traceparent",
	} {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if !ReservedHeader(spelling) {
				t.Errorf("%s is the owner's to set", spelling)
			}
		}
	}
	for _, name := range []string{"Authorization", "X-Api-Key", "Accept", "X-Webhook", "Hosts"} {
		if ReservedHeader(name) {
			t.Errorf("%s is not the owner's to set", name)
		}
	}
}

// FuzzCheckURL: what may be saved is a URL whose host is a name, or an address that is public
// however it is read: as Go does, or as C does (127.1, 0x7f.1, 0177.1, 2130706433).
func FuzzCheckURL(f *testing.F) {
	for _, raw := range refusedURLs {
		f.Add(raw)
	}
	for _, raw := range []string{"https://example.com./hook?a=b", "http://93.184.215.14:8080/", "https://[2606:2800:21f:cb07::1]/", "https://a.0x7f", "https://1.2.3.0x4/", "http://%31.1.1.1/"} {
		f.Add(raw)
	}
	policy := NewPolicy(true, nil)
	f.Fuzz(func(t *testing.T, raw string) {
		if err := policy.CheckURL(raw); err != nil {
			if len(raw) > 30 && strings.Contains(err.Error(), raw) {
				t.Errorf("the error about %q repeats it", raw)
			}
			return
		}
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" || len(raw) > 2000 {
			t.Fatalf("%q is allowed: %v", raw, err)
		}
		host := u.Hostname()
		if addr, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil {
			if err := policy.CheckAddr(addr); err != nil {
				t.Errorf("%q is allowed", raw)
			}
			return
		}
		if addr, ok := asC(strings.TrimSuffix(host, ".")); ok {
			t.Errorf("%q is allowed, and %s to C", raw, addr)
		}
		if strings.ContainsAny(host, "\x00\r\n\t %\\/@:[]") || strings.Trim(host, ".") == "" {
			t.Errorf("%q is allowed", raw)
		}
		for _, r := range host {
			if r >= 0x7f {
				t.Errorf("%q is allowed", raw)
			}
		}
	})
}

// asC reads an IPv4 address as inet_aton does: one to four numbers, each decimal, octal or hexadecimal.
func asC(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var whole uint64
	for i, part := range parts {
		digits, base := part, 10
		switch {
		case strings.HasPrefix(strings.ToLower(part), "0x"):
			digits, base = part[2:], 16
			if digits == "" {
				digits = "0"
			}
		case len(part) > 1 && part[0] == '0':
			base = 8
		}
		n, err := strconv.ParseUint(digits, base, 64)
		if err != nil {
			return netip.Addr{}, false
		}
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		if n >= 1<<bits {
			return netip.Addr{}, false
		}
		whole = whole<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(whole >> 24), byte(whole >> 16), byte(whole >> 8), byte(whole)}), true
}
