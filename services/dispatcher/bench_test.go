package dispatcher

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// These measure, on one machine that everything shares: the dispatcher, the broker, the
// database and a receiver that does next to nothing. Rates drift with the machine, so compare
// the ratio to the bare sender of the same minute.
//
//	go test -run '^$' -bench . -benchtime 1x

const benchBody = 615 // bytes, as in the measurements of peers

// BenchmarkBareSender is the limit: net/http posts, without anything around them.
func BenchmarkBareSender(b *testing.B) {
	r := newBareReceiver(b)
	s := sender.New(target.NewPolicy(true, loopback), 192)
	defer s.Close()
	u, err := url.Parse(r.url)
	require.NoError(b, err)
	body := bytes.Repeat([]byte("x"), benchBody)
	const n = 60_000
	for b.Loop() {
		var left atomic.Int64
		left.Store(n)
		var workers sync.WaitGroup
		started, cpu := time.Now(), cpuTime()
		for range 192 {
			workers.Go(func() {
				for left.Add(-1) >= 0 {
					header := http.Header{"Content-Type": contentType, "User-Agent": userAgent}
					if got := s.Send(b.Context(), sender.Request{URL: u, Header: header, Body: body, Timeout: 15 * time.Second}); got.Status != 200 {
						b.Error(got.Failure)
					}
				}
			})
		}
		workers.Wait()
		report(b, n, time.Since(started), cpuTime()-cpu)
	}
}

// BenchmarkDispatcher drains a stream that was filled before, to many and to few webhooks.
func BenchmarkDispatcher(b *testing.B) {
	for _, webhooks := range []int{64, 1} {
		b.Run(fmt.Sprintf("webhooks=%d", webhooks), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				drain(b, webhooks)
				b.StartTimer()
			}
		})
	}
}

func drain(b *testing.B, webhooks int) {
	const n = 60_000
	w := newWorld(b)
	r := newBareReceiver(b)
	w.config.Concurrency = 256
	ids := make([]string, webhooks)
	for i := range ids {
		ids[i] = w.webhook(r.url, options{})
	}
	w.fill(n, ids)
	started, cpu := time.Now(), cpuTime()
	d := w.start()
	w.eventually(func() bool { return r.served.Load() >= n }, "all arrive")
	took := time.Since(started)
	w.settled()
	report(b, n, took, cpuTime()-cpu)
	b.ReportMetric(float64(w.count("status = 'delivered'")), "rows")
	require.NoError(b, d.stop())
	require.Equal(b, n, w.count("status = 'delivered'"))
	if seen := r.served.Load(); seen != n {
		b.Errorf("%d requests for %d firings", seen, n)
	}
}

// BenchmarkLatency is from a firing's publication to its request's arrival, at 50 per second.
func BenchmarkLatency(b *testing.B) {
	for b.Loop() {
		w := newWorld(b)
		r := newBareReceiver(b)
		id := w.webhook(r.url, options{})
		d := w.start()
		var took []time.Duration
		for range 250 {
			before := r.served.Load()
			sent := time.Now()
			f := firing(id)
			_, err := w.js.PublishMsg(b.Context(), stream.Encode(f))
			require.NoError(b, err)
			for r.served.Load() == before {
				time.Sleep(20 * time.Microsecond)
			}
			took = append(took, time.Since(sent))
			time.Sleep(20*time.Millisecond - time.Since(sent))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		require.NoError(b, d.stop())
	}
}

func report(b *testing.B, n int, took, cpu time.Duration) {
	b.ReportMetric(float64(n)/took.Seconds(), "deliveries/s")
	b.ReportMetric(cpu.Seconds()*10_000/float64(n), "core-s/10k")
	b.Logf("%d in %s: %.0f/s, %.2f core-s per 10k in this process", n, took.Round(time.Millisecond), float64(n)/took.Seconds(), cpu.Seconds()*10_000/float64(n))
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill publishes n firings without waiting for each.
func (w *world) fill(n int, webhookIDs []string) {
	w.Helper()
	for i := range n {
		f := firing(webhookIDs[i%len(webhookIDs)])
		f.Payload = fmt.Appendf(nil, `{"id":%q,"fill":%q}`, f.ID, strings.Repeat("x", benchBody-40))
		_, err := w.js.PublishMsgAsync(stream.Encode(f))
		require.NoError(w, err)
		if i%2000 == 1999 {
			<-w.js.PublishAsyncComplete()
		}
	}
	<-w.js.PublishAsyncComplete()
}

// bareReceiver speaks just enough HTTP to answer 200 to every POST.
type bareReceiver struct {
	url    string
	served atomic.Int64
}

func newBareReceiver(t testing.TB) *bareReceiver {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &bareReceiver{url: "http://" + listener.Addr().String() + "/hook"}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			serving.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		serving.Wait()
	})
	return r
}

func (r *bareReceiver) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 8<<10)
	for {
		length := 0
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			if value, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
			}
		}
		if _, err := io.CopyN(io.Discard, in, int64(length)); err != nil {
			return
		}
		r.served.Add(1)
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}
