package stream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

func connection(t testing.TB, url string) *nats.Conn {
	nc, err := Connect(t.Context(), url, "test", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func connect(t *testing.T) (*nats.Conn, jetstream.JetStream) {
	nc := connection(t, devstacktest.NATS(t))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return nc, js
}

var firing = trigger.Firing{
	ID: "msg_1", Slot: time.Date(2026, 11, 23, 12, 0, 10, 0, time.UTC), SiteID: 7, WebhookID: "wh_1", TriggerID: "tr_1",
	TriggerType: trigger.VisitorSpikeType, Type: "visitor_spike.fired", Payload: []byte(`{"type":"visitor_spike.fired"}`),
	TraceContext: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

func TestAFiringArrivesAsItWasPublished(t *testing.T) {
	_, js := connect(t)
	s, consumer, err := Ensure(t.Context(), js, Options{})
	require.NoError(t, err)
	for range 2 { // the second is a repetition after a crash: the broker drops it
		_, err = js.PublishMsg(t.Context(), Encode(firing))
		require.NoError(t, err)
	}
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	assert.Equal(t, uint64(1), info.State.Msgs)

	m, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(t, err)
	assert.Equal(t, "firing.7.visitor_spike", m.Subject())
	got, err := Decode(m.Headers(), m.Data())
	require.NoError(t, err)
	want := firing
	want.TriggerType = "" // it stays in the subject
	assert.Equal(t, want, got)
	require.NoError(t, m.Ack())
}

func TestEnsureMayBeCalledByManyAtOnce(t *testing.T) {
	_, js := connect(t)
	errs := make(chan error, 6)
	for range cap(errs) {
		go func() {
			_, _, err := Ensure(context.Background(), js, Options{})
			errs <- err
		}()
	}
	for range cap(errs) {
		assert.NoError(t, <-errs)
	}
}

// A broker that dies with a request and comes back never answers it.
func TestEnsureAsksAgainWhatTheBrokerLost(t *testing.T) {
	address, err := url.Parse(devstacktest.NATS(t))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var lost atomic.Bool
	var passing sync.WaitGroup
	passing.Go(func() {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", address.Host)
		if !assert.NoError(t, err) {
			return
		}
		defer server.Close()
		passing.Go(func() { _, _ = io.Copy(client, server) })
		lines := bufio.NewReader(client)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			if bytes.HasPrefix(line, []byte("PUB $JS.API.STREAM.INFO.")) && lost.CompareAndSwap(false, true) {
				if _, err = lines.ReadBytes('\n'); err != nil { // what it publishes: nothing
					return
				}
				continue
			}
			if _, err = server.Write(line); err != nil {
				return
			}
		}
	})
	nc := connection(t, "nats://"+listener.Addr().String())
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	s, _, err := Ensure(t.Context(), js, Options{})
	require.NoError(t, err)
	assert.Equal(t, Firings, s.CachedInfo().Config.Name)
	assert.True(t, lost.Load())
	nc.Close()
	passing.Wait()
}

// What an operator has set stays, unless a guarantee would break by it.
func TestEnsureKeepsAnOperatorsSettings(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*jetstream.StreamConfig)
		problem string // empty: accepted
	}{
		"longer history":    {func(c *jetstream.StreamConfig) { c.MaxAge = 90 * 24 * time.Hour }, ""},
		"unbounded":         {func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = -1, jetstream.DiscardOld }, ""},
		"short memory":      {func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute }, "duplicate window of 1m0s"},
		"in memory":         {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "needs file storage"},
		"drops what is old": {func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, "discard policy new"},
	} {
		t.Run(name, func(t *testing.T) {
			_, js := connect(t)
			config := jetstream.StreamConfig{
				Name: Firings, Subjects: []string{firingSubjects}, Storage: jetstream.FileStorage,
				Duplicates: DuplicateWindow, Discard: jetstream.DiscardNew, MaxBytes: 1 << 20,
			}
			c.change(&config)
			_, err := js.CreateStream(t.Context(), config)
			require.NoError(t, err)
			s, _, err := Ensure(t.Context(), js, Options{})
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, config.MaxAge, s.CachedInfo().Config.MaxAge)
		})
	}
}

// A full stream refuses a firing, which then waits in the evaluator's outbox.
func TestAFullStreamRefuses(t *testing.T) {
	_, js := connect(t)
	_, _, err := Ensure(t.Context(), js, Options{MaxBytes: 4096})
	require.NoError(t, err)
	large := firing
	large.Payload = []byte(`{"a":"` + strings.Repeat("x", 5000) + `"}`)
	_, err = js.PublishMsg(t.Context(), Encode(large))
	require.ErrorContains(t, err, "maximum bytes exceeded")
}

// Nobody needs to read the system events: a full stream drops the oldest. A repetition is dropped.
func TestSystemEventsHaveAStreamOfTheirOwn(t *testing.T) {
	_, js := connect(t)
	_, _, err := Ensure(t.Context(), js, Options{})
	require.NoError(t, err)
	for range 2 {
		_, err = js.PublishMsg(t.Context(), EncodeSystem("sys_1", "ingestion.silent", []byte(`{"type":"ingestion.silent"}`)))
		require.NoError(t, err)
	}
	s, err := js.Stream(t.Context(), System)
	require.NoError(t, err)
	assert.Equal(t, uint64(1), s.CachedInfo().State.Msgs)
	assert.Equal(t, jetstream.DiscardOld, s.CachedInfo().Config.Discard)
	m, err := s.GetLastMsgForSubject(t.Context(), "system.ingestion.silent")
	require.NoError(t, err)
	assert.Equal(t, "sys_1", m.Header.Get(jetstream.MsgIDHeader))
	assert.JSONEq(t, `{"type":"ingestion.silent"}`, string(m.Data))
}

func TestAnnouncementsNameWhatChanged(t *testing.T) {
	nc, _ := connect(t)
	heard := make(chan string, 2)
	_, err := nc.Subscribe(AllChanges, func(m *nats.Msg) { heard <- m.Subject })
	require.NoError(t, err)
	require.NoError(t, Announce(nc, ChangedWebhook, "wh_1"))
	require.NoError(t, Announce(nc, ChangedTrigger, "tr_1"))
	assert.Equal(t, "changed.webhook.wh_1", <-heard)
	assert.Equal(t, "changed.trigger.tr_1", <-heard)
}

// A command's message names its row; what cannot name one is refused.
func TestACommandArrivesAsItWasPublished(t *testing.T) {
	_, js := connect(t)
	_, _, err := Ensure(t.Context(), js, Options{})
	require.NoError(t, err)
	for range 2 { // the second is a repetition: the broker drops it
		_, err = js.PublishMsg(t.Context(), EncodeCommand("retry", "cmd_1"))
		require.NoError(t, err)
	}
	_, err = js.PublishMsg(t.Context(), EncodeCommand("recover", "cmd 2"))
	require.NoError(t, err)
	consumer, err := CommandConsumer(t.Context(), js)
	require.NoError(t, err)

	m, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(t, err)
	assert.Equal(t, "command.retry", m.Subject())
	id, err := DecodeCommand(m.Headers())
	require.NoError(t, err)
	assert.Equal(t, "cmd_1", id)

	m, err = consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(t, err)
	assert.Equal(t, "command.recover", m.Subject(), "the copy was dropped")
	_, err = DecodeCommand(m.Headers())
	require.ErrorContains(t, err, "not an id")
}
