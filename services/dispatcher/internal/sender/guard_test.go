package sender

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
)

// In these tests 127.0.0.2 and 127.0.0.3 stand for the public internet: they are allowed. All
// other addresses of the machine are what must not be reached.
const public, down = "127.0.0.2", "127.0.0.3"

var publicOnly = target.NewPolicy(true, target.Prefixes{netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("127.0.0.3/32")})

// twins are a receiver at the public address and a trap at the private one, on the same port. Nothing
// listens on that port of the address that is down.
type twins struct {
	port     int
	receiver *httptest.Server
	reached  atomic.Int64 // connections to the trap
}

func newTwins(t *testing.T, answer http.HandlerFunc) *twins {
	w := &twins{}
	for range 100 {
		receiving, err := net.Listen("tcp", public+":0")
		require.NoError(t, err)
		w.port = receiving.Addr().(*net.TCPAddr).Port
		trap, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", w.port))
		if err != nil { // somebody else's port there
			receiving.Close()
			continue
		}
		w.receiver = httptest.NewUnstartedServer(answer)
		w.receiver.Listener.Close()
		w.receiver.Listener = receiving
		w.receiver.Start()
		var accepting sync.WaitGroup
		accepting.Go(func() {
			for {
				conn, err := trap.Accept()
				if err != nil {
					return
				}
				w.reached.Add(1)
				conn.Close()
			}
		})
		t.Cleanup(func() {
			w.receiver.Close()
			trap.Close()
			accepting.Wait()
		})
		return w
	}
	t.Fatal("no port is free on both addresses")
	return nil
}

func (w *twins) url(host string) string { return fmt.Sprintf("http://%s:%d/", host, w.port) }

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

// everyWay runs a test for connections of our own and for those through a proxy.
func everyWay(t *testing.T, test func(t *testing.T, through func(*Sender) *Sender)) {
	t.Run("directly", func(t *testing.T) { test(t, func(s *Sender) *Sender { return s }) })
	t.Run("through a proxy", func(t *testing.T) {
		p := newForwarder(t, nil)
		test(t, func(s *Sender) *Sender { return s.Through(p.proxy(t)) })
	})
}

// TestNamesAreJudgedByWhereTheyLead, after DNS and for each connection anew.
func TestNamesAreJudgedByWhereTheyLead(t *testing.T) {
	everyWay(t, func(t *testing.T, through func(*Sender) *Sender) {
		w, names := newTwins(t, ok), newNameserver(t)
		s := through(newSender(t, publicOnly))
		names.resolves(s)
		refused := &Failure{Refused, "the URL " + target.ErrRefusedAddress.Error()}
		for name, c := range map[string]struct {
			answers []string
			status  int
			failure *Failure
		}{
			"public.test":            {answers: []string{public}, status: 200},
			"dot.test.":              {answers: []string{public}, status: 200},
			"private.test":           {answers: []string{"127.0.0.1"}, failure: refused},
			"loopback6.test":         {answers: []string{"::1"}, failure: refused},
			"mapped.test":            {answers: []string{"::ffff:127.0.0.1"}, failure: refused},
			"translated.test":        {answers: []string{"64:ff9b::7f00:1"}, failure: refused},
			"metadata.test":          {answers: []string{"169.254.169.254"}, failure: refused},
			"unspecified.test":       {answers: []string{"0.0.0.0"}, failure: refused},
			"several.test":           {answers: []string{"127.0.0.1", "10.0.0.1", "::1", "fd00::1"}, failure: refused},
			"public-private.test":    {answers: []string{public, "127.0.0.1"}, status: 200},
			"private-public.test":    {answers: []string{"127.0.0.1", public}, status: 200},
			"down-private.test":      {answers: []string{down, "127.0.0.1"}},
			"private-down.test":      {answers: []string{"127.0.0.1", down}},
			"down-private-both.test": {answers: []string{down, "127.0.0.1", "::1", "127.0.0.4"}},
		} {
			fqdn := name
			if name[len(name)-1] != '.' {
				fqdn += "."
			}
			names.says(fqdn, c.answers)
			r := post(t, s, w.url(name), 5*time.Second)
			assert.Equal(t, c.status, r.Status, "%s: %v", name, r.Failure)
			assert.Empty(t, r.Fault, name)
			if c.status == 0 && assert.NotNil(t, r.Failure, name) {
				if c.failure != nil {
					assert.Equal(t, c.failure, r.Failure, name)
				}
				presentable(t, r)
			}
		}
		r := post(t, s, w.url("unknown.test"), 5*time.Second)
		assert.Equal(t, &Failure{DNS, "the host's name does not exist"}, r.Failure)
		assert.Zero(t, w.reached.Load(), "a private address was reached")
	})
}

// TestRebinding: a name that was public when it was saved, and at the last attempt, is judged again.
func TestRebinding(t *testing.T) {
	everyWay(t, func(t *testing.T, through func(*Sender) *Sender) {
		w, names := newTwins(t, ok), newNameserver(t)
		s := through(newSender(t, publicOnly))
		names.resolves(s)
		names.says("rebinding.test.", []string{public}, []string{"127.0.0.1"}, []string{public}, []string{"127.0.0.1"})
		require.NoError(t, publicOnly.CheckURL(w.url("rebinding.test")))
		for i, want := range []int{200, 0, 200, 0} {
			r := post(t, s, w.url("rebinding.test"), 5*time.Second)
			assert.Equal(t, want, r.Status, "attempt %d: %v", i+1, r.Failure)
			s.Close() // or the connection of the last time would be used again
		}
		assert.Zero(t, w.reached.Load(), "a private address was reached")
	})
}

// TestNamesAreAbsolute: no search domain of this machine completes them, so that "postgres" is not
// the operator's.
func TestNamesAreAbsolute(t *testing.T) {
	for host, want := range map[string]string{
		"postgres": "postgres.", "example.com": "example.com.", "example.com.": "example.com.", "127.1": "127.1.",
		"127.0.0.1": "127.0.0.1", "::1": "::1", "::1%lo": "::1%lo",
	} {
		assert.Equal(t, want, absolute(host))
	}
	everyWay(t, func(t *testing.T, through func(*Sender) *Sender) {
		w, names := newTwins(t, ok), newNameserver(t)
		s := through(newSender(t, publicOnly))
		names.resolves(s)
		names.says("postgres.corp.test.", []string{public})
		r := post(t, s, w.url("postgres"), 5*time.Second)
		assert.Equal(t, &Failure{DNS, "the host's name does not exist"}, r.Failure)
		assert.Equal(t, []string{"postgres."}, names.names())
	})
}

// TestRedirectsLeadNowhere, wherever they point.
func TestRedirectsLeadNowhere(t *testing.T) {
	everyWay(t, func(t *testing.T, through func(*Sender) *Sender) {
		var code, asked atomic.Int64
		var location atomic.Value
		w := newTwins(t, func(out http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			out.Header().Set("Location", location.Load().(string))
			out.WriteHeader(int(code.Load()))
		})
		s := through(newSender(t, publicOnly))
		for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
			for _, to := range []string{w.url("127.0.0.1"), w.url(public), "http://[::1]/", "//127.0.0.1/", "", "file:///etc/passwd", ":"} {
				code.Store(int64(status))
				location.Store(to)
				before := asked.Load()
				r := post(t, s, w.url(public), 5*time.Second)
				assert.Equal(t, status, r.Status, "%v", r.Failure)
				assert.Equal(t, before+1, asked.Load(), "%d to %q was followed", status, to)
			}
		}
		assert.Zero(t, w.reached.Load(), "a private address was reached")
	})
}

// TestProxyOfTheEnvironmentIsIgnored: TestMain sets one, for names as for addresses. (A loopback
// address or localhost would never go through it.)
func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	w, names := newTwins(t, ok), newNameserver(t)
	request, err := http.NewRequest(http.MethodPost, w.url("public.test"), nil)
	require.NoError(t, err)
	proxy, err := http.ProxyFromEnvironment(request)
	require.NoError(t, err)
	require.NotNil(t, proxy, "the test needs it")
	s := newSender(t, publicOnly)
	names.resolves(s)
	names.says("public.test.", []string{public})
	r := post(t, s, w.url("public.test"), 5*time.Second)
	assert.Equal(t, 200, r.Status, "%v", r.Failure)
}
