package proof

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
)

// bareReceiver speaks just enough HTTP to answer 200 to every POST, at a cost next to the
// socket's own.
type bareReceiver struct {
	served  atomic.Int64
	wanted  atomic.Int64 // of served, for whoever waits on reached
	reached chan struct{}

	sampling atomic.Bool
	mu       sync.Mutex
	took     []time.Duration // from the time that a body names to its arrival
}

func runReceiver() (string, func([]string) (string, error), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	r := &bareReceiver{reached: make(chan struct{}, 1)}
	r.wanted.Store(-1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(conn)
		}
	}()
	return "http://" + listener.Addr().String() + "/hook", r.answer, nil
}

func (r *bareReceiver) answer(command []string) (string, error) {
	switch command[0] {
	case "reset":
		r.mu.Lock()
		r.took = nil
		r.mu.Unlock()
		r.sampling.Store(len(command) > 1)
		r.served.Store(0)
		return "", nil
	case "count":
		return strconv.FormatInt(r.served.Load(), 10), nil
	case "await":
		n, err := strconv.ParseInt(command[1], 10, 64)
		if err != nil {
			return "", err
		}
		select {
		case <-r.reached: // by whoever was waited for before
		default:
		}
		r.wanted.Store(n)
		if r.served.Load() < n {
			<-r.reached
		}
		return "", nil
	case "latencies":
		r.mu.Lock()
		defer r.mu.Unlock()
		slices.Sort(r.took)
		return fmt.Sprintf("%d %.3f %.3f", len(r.took), percentile(r.took, 50), percentile(r.took, 99)), nil
	}
	return "", errors.New("unknown command " + command[0])
}

// percentile of sorted durations, in milliseconds.
func percentile(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[len(sorted)*p/100]) / float64(time.Millisecond)
}

var (
	answerOK      = []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	lengthHeader  = []byte("\r\nContent-Length: ")
	endOfHeader   = []byte("\r\n\r\n")
	sentProperty  = []byte(`{"sent":`)
	sentDigits    = 19 // of the nanoseconds since 1970, until the year 2286
	receiveBuffer = 16 << 10
)

func (r *bareReceiver) serve(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, receiveBuffer)
	filled := 0
	for {
		end, length := -1, 0
		for end < 0 || filled < end+length {
			n, err := conn.Read(buffer[filled:])
			if err != nil {
				return
			}
			filled += n
			if end < 0 {
				if end = bytes.Index(buffer[:filled], endOfHeader); end < 0 {
					continue
				}
				end += len(endOfHeader)
				_, after, _ := bytes.Cut(buffer[:end], lengthHeader)
				for _, digit := range after {
					if digit < '0' || digit > '9' {
						break
					}
					length = length*10 + int(digit-'0')
				}
			}
		}
		r.arrived(buffer[end : end+length])
		filled = copy(buffer, buffer[end+length:filled])
		if _, err := conn.Write(answerOK); err != nil {
			return
		}
	}
}

func (r *bareReceiver) arrived(body []byte) {
	if r.sampling.Load() {
		now := time.Now()
		if digits, found := bytes.CutPrefix(body, sentProperty); found {
			nanos, _ := strconv.ParseInt(string(digits[:sentDigits]), 10, 64)
			r.mu.Lock()
			r.took = append(r.took, now.Sub(time.Unix(0, nanos)))
			r.mu.Unlock()
		}
	}
	if r.served.Add(1) == r.wanted.Load() {
		r.reached <- struct{}{}
	}
}

// bodySize is that of peers' measurements.
const bodySize = 615

// body is a JSON object of the wanted size that names its time of sending.
func body(sent time.Time, size int) []byte {
	text := fmt.Appendf(make([]byte, 0, size), `{"sent":%d,"fill":"`, sent.UnixNano())
	for len(text) < size-2 {
		text = append(text, 'x')
	}
	return append(text, `"}`...)
}

// runBare is the limit: net/http posts signed bodies, and nothing else happens.
func runBare() (string, func([]string) (string, error), error) {
	const workers = 64
	client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers, DisableCompression: true}}
	secret := signature.NewSecret()
	return "ready", func(command []string) (string, error) {
		url := command[0]
		n, err := strconv.ParseInt(command[1], 10, 64)
		if err != nil {
			return "", err
		}
		var next atomic.Int64
		var failure atomic.Pointer[error]
		var working sync.WaitGroup
		for range workers {
			working.Go(func() {
				message := body(time.Now(), bodySize)
				for {
					i := next.Add(1)
					if i > n {
						return
					}
					if err := post(client, url, fmt.Sprintf("msg_%d", i), message, secret); err != nil {
						failure.Store(&err)
						return
					}
				}
			})
		}
		working.Wait()
		if failed := failure.Load(); failed != nil {
			return "", *failed
		}
		return "done", nil
	}, nil
}
