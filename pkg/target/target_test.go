package target

import (
	"errors"
	"math/big"
	"net/netip"
	"strings"
	"testing"
)

// Spellings that must not be saved. What a name resolves to is judged when dialling; here
// stand those that say by themselves where they lead, and those that are no URL of a receiver.
var refusedURLs = []string{
	"http://127.0.0.1/", "http://127.8.8.8/", "http://localhost/", "http://localhost./", "http://foo.localhost/", "http://LOCALHOST/",
	"http://0.0.0.0/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.000.000.001/",
	"http://0/", "http://127.0.0.1./", "http://[::1]/", "http://[::]/", "http://[::1%25lo]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:127.0.0.1%25x]/",
	"http://[::7f00:1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::1]/", "http://[2002:7f00:1::1]/", "http://[::ffff:0:127.0.0.1]/",
	"http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://100.64.0.1/", "http://10.0.0.1/", "http://172.16.0.1/",
	"http://192.168.0.1/", "http://198.18.0.1/", "http://240.0.0.1/", "http://255.255.255.255/", "http://[fc00::1]/", "http://[fe80::1%25eth0]/", "http://[fec0::1]/",
	"http://[5f00::1]/", "http://[2001:db8::1]/", "http://[2606:4700::5efe:a00:1]/",
	"http://example.com@127.0.0.1/", `http://example.com\@127.0.0.1/`, "http://127.0.0.1%00.example.com/", "http://[127.0.0.1]/", "http://127.0.0.1:65536/",
	"http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://１２７.0.0.1/",
	"file:///etc/passwd", "gopher://127.0.0.1:4222/", "ftp://example.com/", "javascript:alert(1)", "//example.com/", "example.com", "", "https://", "https:///path", "https:example.com",
	"https://user:secret@example.com/", "https://example.com/#fragment", "https://example.com:0/", "https://example.com:65536/", "https://93.184.215.14:0/",
	"https://93.184.215.14:65536/", "https://[2606:2800:21f:cb07::1]:99999/", "https://exa mple.com/", "https://example.com\r\nX: y/", "https://.../", "https://./",
	"https://example.com/" + strings.Repeat("a", 2000),
}

func TestCheckURLRefuses(t *testing.T) {
	open := NewPolicy(true, nil)
	for _, raw := range refusedURLs {
		err := open.CheckURL(raw)
		if err == nil {
			t.Errorf("%q is allowed", raw)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error about %q repeats it: %v", raw, err)
		}
	}
}

func TestCheckURLAllows(t *testing.T) {
	for _, raw := range []string{
		"https://example.com", "https://example.com./hook", "https://EXAMPLE.com:8443/hook?token=x", "https://93.184.215.14/", "https://93.184.215.14:65535/",
		"https://[2606:2800:21f:cb07::1]:1/", "https://xn--bcher-kva.example/", "https://1and1.com/", "https://a-b_c.example/",
	} {
		if err := (Policy{}).CheckURL(raw); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
	if err := (Policy{}).CheckURL("http://example.com/"); err == nil {
		t.Error("http is allowed without ALLOW_HTTP_TARGETS")
	}
	var private Prefixes
	if err := private.UnmarshalText([]byte(" 10.1.0.0/16, fd00::/8,,127.0.0.0/8 ")); err != nil {
		t.Fatal(err)
	}
	lenient := NewPolicy(true, private)
	for _, raw := range []string{"http://10.1.2.3/", "http://[::ffff:10.1.2.3]/", "http://[fd00::1]/", "http://localhost:8080/"} {
		if err := lenient.CheckURL(raw); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
	for _, raw := range []string{"http://10.2.0.0/", "http://[fc00::1]/", "http://169.254.169.254/"} {
		if err := lenient.CheckURL(raw); err == nil {
			t.Errorf("%q is allowed by another network", raw)
		}
	}
}

func TestPrefixesRefuseWhatIsNoNetwork(t *testing.T) {
	for _, text := range []string{"10.0.0.0", "10.0.0.0/33", "x", "10.0.0.0/8;fd00::/8"} {
		if err := new(Prefixes).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// nonPublic is every range that is not the public internet: IANA's special-purpose registries,
// and every way to write an IPv4 address into an IPv6 one.
var nonPublic = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	"::ffff:0.0.0.0/104", "::ffff:10.0.0.0/104", "::ffff:127.0.0.0/104", "::ffff:169.254.0.0/112", "::ffff:192.168.0.0/112", "::ffff:100.64.0.0/106",
}

// FuzzCheckAddr: no address of a range that is not public passes, wherever in it it lies, and
// Control says the same about it.
func FuzzCheckAddr(f *testing.F) {
	for i := range nonPublic {
		f.Add(uint(i), []byte{0})
		f.Add(uint(i), []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255})
		f.Add(uint(i), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	}
	policy := NewPolicy(true, nil)
	f.Fuzz(func(t *testing.T, which uint, offset []byte) {
		prefix := netip.MustParsePrefix(nonPublic[which%uint(len(nonPublic))])
		addr := within(prefix, offset)
		if !prefix.Contains(addr) {
			t.Fatalf("the test is wrong: %s is not in %s", addr, prefix)
		}
		if err := policy.CheckAddr(addr); !errors.Is(err, ErrRefusedAddress) {
			t.Errorf("%s of %s passes", addr, prefix)
		}
		if err := policy.Control("tcp", netip.AddrPortFrom(addr, 80).String(), nil); !errors.Is(err, ErrRefusedAddress) {
			t.Errorf("%s of %s can be dialled", addr, prefix)
		}
		if err := (Policy{}).CheckAddr(addr); !errors.Is(err, ErrRefusedAddress) {
			t.Errorf("%s of %s passes the zero policy", addr, prefix)
		}
	})
}

// within is the address of a prefix at an offset, modulo its size.
func within(prefix netip.Prefix, offset []byte) netip.Addr {
	base := prefix.Masked().Addr().AsSlice()
	host := len(base)*8 - prefix.Bits()
	n := new(big.Int).SetBytes(offset)
	n.Mod(n, new(big.Int).Lsh(big.NewInt(1), uint(host)))
	n.Add(n, new(big.Int).SetBytes(base))
	addr, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, len(base))))
	return addr
}

func TestISATAPOnAGlobalPrefix(t *testing.T) {
	for _, text := range []string{"2606:4700::5efe:a00:1", "2606:4700::200:5efe:a00:1"} {
		if err := (Policy{}).CheckAddr(netip.MustParseAddr(text)); err == nil {
			t.Errorf("%s passes", text)
		}
	}
}

func TestPublicAddressesPass(t *testing.T) {
	for _, text := range []string{"1.1.1.1", "93.184.215.14", "11.0.0.0", "9.255.255.255", "172.32.0.1", "100.128.0.0", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1"} {
		if err := (Policy{}).CheckAddr(netip.MustParseAddr(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := (Policy{}).Control("tcp", "not an address", nil); err == nil {
		t.Error("what cannot be read can be dialled")
	}
}
