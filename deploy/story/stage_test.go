// Package story tells the product's main story on real engines with the services as they are
// shipped: rows inserted into ClickHouse become a request that a library we did not write
// verifies, and are read back through REST. It is told again with a crash at each hand-over.
package story

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/services/api"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator"
)

// serviceVariable makes this test binary be a service: the same code as the shipped one, but
// with the race detector, and without a build.
const serviceVariable = "STORY_SERVICE"

func TestMain(m *testing.M) {
	switch os.Getenv(serviceVariable) {
	case "api":
		daemon.Main("api", api.Run)
	case "evaluator":
		daemon.Main("evaluator", evaluator.Run)
	case "dispatcher":
		daemon.Main("dispatcher", dispatcher.Run)
	}
	devstacktest.Main(m)
}

// patience is how long a test waits for something that must happen.
const patience = 90 * time.Second

// stage is a whole installation: engines, Plausible's tables, the services as processes, and a
// receiver.
type stage struct {
	t        *testing.T
	engines  *devstack.Stack
	demo     plausible.Demo
	env      []string
	api      string
	database string
	events   string
	receiver *receiver
	services map[string]*process
}

// process is a service at work.
type process struct {
	*exec.Cmd
	log bytes.Buffer // at rest once the process has ended
}

func newStage(t *testing.T) *stage {
	ctx := t.Context()
	engines := devstacktest.Stack(t, devstack.Options{Postgres: &devstack.Engine{}, ClickHouse: &devstack.Engine{}, NATS: &devstack.Engine{}})
	s := &stage{t: t, engines: engines, receiver: newReceiver(t), services: map[string]*process{}}
	s.database, s.events = engines.PostgresURL("webhooks"), engines.ClickHouseURL("plausible_events_db")
	secretKeyBase := strings.Repeat("s", 64)
	require.NoError(t, plausible.CreateClickHouse(ctx, s.events))
	require.NoError(t, plausible.CreatePostgres(ctx, engines.PostgresURL("plausible_db")))
	var err error
	s.demo, err = plausible.Seed(ctx, engines.PostgresURL("plausible_db"), secretKeyBase)
	require.NoError(t, err)
	s.query(engines.PostgresURL("postgres"), "CREATE DATABASE webhooks")
	pool, err := database.Open(ctx, "DATABASE_URL", s.database, 2)
	require.NoError(t, err)
	require.NoError(t, database.Migrate(ctx, pool))
	pool.Close()

	key := make([]byte, 32)
	_, _ = rand.Read(key)
	s.api = freeAddress(t)
	s.env = append(os.Environ(),
		"DATABASE_URL="+s.database, "PLAUSIBLE_DATABASE_URL="+engines.PostgresURL("plausible_db"), "PLAUSIBLE_CLICKHOUSE_URL="+s.events,
		"NATS_URL="+engines.NATSURL(), "PLAUSIBLE_BASE_URL=https://plausible.example.com", "PLAUSIBLE_SECRET_KEY_BASE="+secretKeyBase,
		"SECRETS_KEY="+base64.StdEncoding.EncodeToString(key), "LISTEN_ADDR="+s.api, "METRICS_ADDR=off",
		"ALLOW_HTTP_TARGETS=true", "ALLOW_PRIVATE_TARGETS=127.0.0.0/8",
		"EVALUATION_INTERVAL=1s", "EVALUATION_DELAY=1s",
		"RATE_LIMIT_PER_MINUTE=0") // it is looked again and again
	for _, service := range []string{"api", "evaluator", "dispatcher"} {
		s.start(service)
	}
	t.Cleanup(func() {
		for service := range s.services {
			s.stop(service, "")
		}
	})
	s.await("the api to answer", func() bool {
		response, err := http.Get("http://" + s.api + "/api/sites/demo.example.com/webhooks")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusUnauthorized
	})
	return s
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// start runs a service as a process of its own; its log goes to the test's output on failure.
func (s *stage) start(service string) {
	s.t.Helper()
	program, err := os.Executable()
	require.NoError(s.t, err)
	p := &process{Cmd: exec.Command(program)}
	p.Env, p.Stdout, p.Stderr = append(s.env, serviceVariable+"="+service), &p.log, &p.log
	require.NoError(s.t, p.Start())
	s.services[service] = p
	s.t.Cleanup(func() { // after the process has ended
		if s.t.Failed() {
			s.t.Logf("--- log of %s ---\n%s", service, p.log.String())
		}
	})
}

// kill ends a service as a crash would.
func (s *stage) kill(service string) {
	s.t.Helper()
	cmd := s.services[service]
	require.NoError(s.t, cmd.Process.Kill())
	_ = cmd.Wait() // it says that it was killed
	delete(s.services, service)
}

// stop ends a service as an operator would, expects it to end well, and returns the lines that
// it logged of the event.
func (s *stage) stop(service, event string) []map[string]any {
	s.t.Helper()
	p := s.services[service]
	delete(s.services, service)
	if err := p.Process.Signal(os.Interrupt); err != nil {
		s.t.Errorf("stop %s: %v", service, err)
	}
	if err := p.Wait(); err != nil {
		s.t.Errorf("%s ended badly: %v", service, err)
	}
	var lines []map[string]any
	for line := range bytes.Lines(p.log.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			s.t.Errorf("%s logged what is not JSON: %s", service, line)
		}
		if fields["event"] == event {
			lines = append(lines, fields)
		}
	}
	return lines
}

func (s *stage) await(what string, happened func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !happened() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %s in vain for %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond) // between two looks at a fact
	}
}

func (s *stage) query(url, statement string, results ...any) {
	s.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(s.t, err)
	defer conn.Close(ctx)
	if len(results) == 0 {
		_, err = conn.Exec(ctx, statement)
	} else {
		err = conn.QueryRow(ctx, statement).Scan(results...)
	}
	require.NoError(s.t, err)
}

// number is the result of a count in the own database.
func (s *stage) number(statement string) (n int) {
	s.t.Helper()
	s.query(s.database, statement, &n)
	return n
}

// call asks the api as the site's owner: a path under the site's webhooks, or a whole one.
func (s *stage) call(method, path, body string, status int, into any) {
	s.t.Helper()
	if !strings.HasPrefix(path, "/api/") {
		path = "/api/sites/" + s.demo.Domain + "/webhooks" + path
	}
	request, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.api+path, strings.NewReader(body))
	require.NoError(s.t, err)
	request.Header.Set("Authorization", "Bearer "+s.demo.OwnerKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, status, response.StatusCode, "%s %s: %s", method, path, answer)
	if into != nil {
		require.NoError(s.t, json.Unmarshal(answer, into), "%s", answer)
	}
}

// webhook registers the receiver for every signup and returns the webhook's id.
func (s *stage) webhook() string {
	s.t.Helper()
	var created struct{ ID, Secret string }
	body := fmt.Sprintf(`{"url": %q, "description": "The story", "triggers": [
		{"type": "goal_achieved", "name": "Signups", "config": {"goal": {"goal_id": %d}}}]}`, s.receiver.URL, s.demo.Goals.Signup)
	s.call(http.MethodPost, "", body, http.StatusCreated, &created)
	s.receiver.trust(s.t, created.Secret)
	return created.ID
}

// convert lets a visitor sign up now.
func (s *stage) convert(visitor uint64) {
	s.t.Helper()
	conn, err := plausible.Open(s.events)
	require.NoError(s.t, err)
	defer conn.Close()
	require.NoError(s.t, plausible.InsertEvents(s.t.Context(), conn, []plausible.Event{{
		Timestamp: time.Now().UTC(), Name: "Signup", SiteID: uint64(s.demo.SiteID), UserID: visitor, SessionID: visitor, Pathname: "/signup",
	}}))
}

// receiver is a webhook's owner's server. It verifies every request with a library that we did
// not write, and refuses those that it cannot.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	verifier *standardwebhooks.Webhook
	received []message
	refused  []string
	answer   func(message) int // the status for a verified message
}

type message struct {
	id     string
	header http.Header
	raw    []byte
	body   struct {
		Type string
		Data struct {
			ID          string
			Value       float64
			Conversions []struct{ Page string }
		}
	}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{answer: func(message) int { return http.StatusOK }}
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.Start()
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) trust(t *testing.T, secret string) {
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verifier = verifier
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	r.mu.Lock()
	if err == nil {
		err = r.verifier.Verify(body, request.Header)
	}
	m := message{id: request.Header.Get("webhook-id"), header: request.Header, raw: body}
	if err == nil {
		err = json.Unmarshal(body, &m.body)
	}
	if err != nil {
		r.refused = append(r.refused, err.Error())
		r.mu.Unlock()
		http.Error(w, "not verified", http.StatusUnauthorized)
		return
	}
	r.received = append(r.received, m)
	answer := r.answer
	r.mu.Unlock()
	w.WriteHeader(answer(m))
}

func (r *receiver) messages() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]message(nil), r.received...)
}
