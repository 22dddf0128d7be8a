package sender

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// nameserver is a real one, on the loopback interface, that knows the names of one test.
type nameserver struct {
	conn net.PacketConn

	mu sync.Mutex
	// answers of each name, one after the other; the last one stays.
	answers map[string][][]netip.Addr
	asked   []string
}

func newNameserver(t *testing.T) *nameserver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &nameserver{conn: conn, answers: map[string][][]netip.Addr{}}
	var serving sync.WaitGroup
	serving.Go(n.serve)
	t.Cleanup(func() {
		_ = conn.Close()
		serving.Wait()
	})
	return n
}

// says makes a name known: it has the first addresses when it is asked for first, and so on.
func (n *nameserver) says(name string, answers ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, answer := range answers {
		var addresses []netip.Addr
		for _, text := range answer {
			addresses = append(addresses, netip.MustParseAddr(text))
		}
		n.answers[name] = append(n.answers[name], addresses)
	}
}

// names are what was asked for, each once.
func (n *nameserver) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(n.asked)))
}

// resolves makes the sender ask this server.
func (n *nameserver) resolves(s *Sender) {
	s.dialer.Resolver.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}
}

func (n *nameserver) serve() {
	packet := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(packet[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		if reply, err := n.reply(m); err == nil {
			_, _ = n.conn.WriteTo(reply, from)
		}
	}
}

func (n *nameserver) reply(m dnsmessage.Message) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	question := m.Questions[0]
	name := question.Name.String()
	n.asked = append(n.asked, name)
	answers, known := n.answers[name]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RecursionDesired: m.RecursionDesired}
	m.Additionals = nil
	if !known {
		m.RCode = dnsmessage.RCodeNameError
		return m.Pack()
	}
	header := dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, Type: question.Type, TTL: 0}
	for _, addr := range answers[0] {
		switch {
		case question.Type == dnsmessage.TypeA && addr.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		case question.Type == dnsmessage.TypeAAAA && addr.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	// A name is asked for twice at once, by A and by AAAA; the A question counts.
	if question.Type == dnsmessage.TypeA && len(answers) > 1 {
		n.answers[name] = answers[1:]
	}
	return m.Pack()
}
