package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver is what a user of the product writes: a server that checks each message's signature
// before it believes it. It does so with the Standard Webhooks library, not with our own code.
//
//	POST any path            takes a message
//	PUT  /hooks/<name>       tells the secret of an own webhook with that URL; the body is the secret
//	GET  /messages           the latest messages, as JSON
type receiver struct {
	home   *home
	out    *terminal
	server *http.Server
	done   chan struct{}

	mu       sync.Mutex
	memory   receiverMemory
	arrivals []arrival // the oldest first
}

// demoPath is where the demo webhook points.
const demoPath = "/hooks/demo"

// receiverMemory survives a restart, as the api shows a webhook's secret only once.
type receiverMemory struct {
	WebhookID string            `json:"webhook_id"` // the demo webhook's
	Secrets   map[string]string `json:"secrets"`    // by path
}

// arrival is one request that came.
type arrival struct {
	ReceivedAt time.Time       `json:"received_at"`
	Path       string          `json:"path"`
	ID         string          `json:"id"`
	Verified   bool            `json:"verified"`
	Problem    string          `json:"problem,omitempty"` // why it was refused
	Body       json.RawMessage `json:"body,omitempty"`    // left out if it is not JSON
}

const (
	rememberedArrivals = 200
	largestBody        = 1 << 20
)

func newReceiver(h *home, out *terminal) (*receiver, error) {
	r := &receiver{home: h, out: out, done: make(chan struct{})}
	if err := h.load(receiverFile, &r.memory); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if r.memory.Secrets == nil {
		r.memory.Secrets = map[string]string{}
	}
	r.server = &http.Server{Handler: r.routes(), ReadHeaderTimeout: 5 * time.Second}
	return r, nil
}

func (r *receiver) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", r.take)
	mux.HandleFunc("PUT /hooks/{name}", r.learnOverHTTP)
	mux.HandleFunc("GET /messages", r.list)
	return mux
}

func (r *receiver) listen(address string, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("start the receiver (RECEIVER_PORT): %w", err)
	}
	go func() {
		defer close(r.done)
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the receiver ended", "error", err.Error())
		}
	}()
	return nil
}

func (r *receiver) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if r.server.Shutdown(ctx) != nil {
		_ = r.server.Close() // whoever is still connected has had the time
	}
	<-r.done
}

// take answers a message: 200 if its signature is right or nobody told how to check it, 401 if
// the signature is wrong.
func (r *receiver) take(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, largestBody))
	if err != nil {
		http.Error(w, "the body could not be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	a := arrival{
		ReceivedAt: time.Now(),
		Path:       clean(request.URL.Path),
		ID:         clean(request.Header.Get(standardwebhooks.HeaderWebhookID)),
	}
	if json.Valid(body) {
		a.Body = body
	}
	if secret := r.secret(request.URL.Path); secret != "" {
		if err := verify(secret, body, request.Header); err != nil {
			a.Problem = err.Error()
		} else {
			a.Verified = true
		}
	}
	r.remember(a)
	r.out.arrival(a)
	if a.Problem != "" {
		http.Error(w, a.Problem, http.StatusUnauthorized)
		return
	}
	_, _ = fmt.Fprintln(w, "thank you") // the sender may have hung up
}

func verify(secret string, body []byte, header http.Header) error {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return fmt.Errorf("the secret of this path is unusable: %w", err)
	}
	return webhook.Verify(body, header)
}

func (r *receiver) secret(path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memory.Secrets[path]
}

func (r *receiver) remember(a arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrivals = append(r.arrivals, a)
	if extra := len(r.arrivals) - rememberedArrivals; extra > 0 {
		r.arrivals = slices.Delete(r.arrivals, 0, extra)
	}
}

// learn keeps the secret of a path, and which webhook of ours it is.
func (r *receiver) learn(path, secret, demoWebhook string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	memory := receiverMemory{WebhookID: r.memory.WebhookID, Secrets: maps.Clone(r.memory.Secrets)}
	if secret != "" {
		memory.Secrets[path] = secret
	}
	if demoWebhook != "" {
		memory.WebhookID = demoWebhook
	}
	if err := r.home.save(receiverFile, memory); err != nil {
		return err
	}
	r.memory = memory
	return nil
}

func (r *receiver) learnOverHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 1000))
	secret := strings.TrimSpace(string(body))
	if err == nil && !strings.HasPrefix(secret, "whsec_") {
		err = errors.New("it does not start with whsec_")
	}
	if err == nil {
		_, err = standardwebhooks.NewWebhook(secret)
	}
	if err != nil {
		http.Error(w, "the body must be the webhook's secret: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := r.learn(request.URL.Path, secret, ""); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) list(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	messages := slices.Clone(r.arrivals)
	r.mu.Unlock()
	slices.Reverse(messages) // newest first, as the API lists
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"messages": messages}) // the reader may have hung up
}
