package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health answers whether a service can do its work now.
type health struct {
	mu     sync.Mutex
	checks map[string]func(context.Context) error
}

func newHealth() *health { return &health{checks: map[string]func(context.Context) error{}} }

func (h *health) add(name string, check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[name] = check
}

// failing lists what does not work, a line each. Without any check the service has not come
// up yet.
func (h *health) failing(ctx context.Context) []string {
	h.mu.Lock()
	checks := maps.Clone(h.checks)
	h.mu.Unlock()
	if len(checks) == 0 {
		return []string{"starting"}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := checks[name](bounded)
		cancel()
		if err != nil {
			lines = append(lines, fmt.Sprintf("%s: %v", name, err))
		}
	}
	return lines
}

// Serve answers /metrics, /healthz and /readyz for the services of this process, and
// /debug/pprof where that is wanted. The address "off" serves nothing. The returned function
// stops it.
func Serve(addr string, profiles bool, registry prometheus.Gatherer, services ...*Service) (func(), error) {
	if addr == "off" {
		return func() {}, nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for _, s := range services {
			for _, line := range s.health.failing(r.Context()) {
				lines = append(lines, s.Name+": "+line)
			}
		}
		if len(lines) > 0 {
			http.Error(w, strings.Join(lines, "\n"), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("METRICS_ADDR: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			services[0].Log.Error("metrics server ended", "error", err.Error())
		}
	}()
	return func() {
		_ = server.Close() // nothing of value is in flight
		<-done
	}, nil
}
