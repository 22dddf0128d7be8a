package proof

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
)

const (
	shortSoak       = 12 * time.Second // of load and kills; then what is in flight settles
	soakDispatchers = 3
	soakPublishers  = 8
	soakPause       = 20 * time.Millisecond // between two firings of a publisher
	longestPause    = 1500 * time.Millisecond
	// soakPatience exceeds the AckWait after which a killed dispatcher's messages go to another,
	// and the recovery of a server.
	soakPatience = 2 * time.Minute
)

// TestSoak kills dispatchers, the broker and the database at random moments under load. Every
// firing that the stream accepted is then delivered, dead or waiting, and what arrived twice was
// in flight at a kill.
//
// SOAK_DURATION makes it longer, SOAK_SEED repeats the order of the kills.
func TestSoak(t *testing.T) {
	lasting, seed := shortSoak, rand.Uint64()
	var err error
	if text := os.Getenv("SOAK_DURATION"); text != "" {
		lasting, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	fmt.Printf("soak: %s with SOAK_SEED=%d\n", lasting, seed)
	s := newSoak(t)
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	var publishing sync.WaitGroup
	for i := range soakPublishers {
		publishing.Go(func() { s.publish(ctx, i) })
	}
	s.kill(ctx, rand.New(rand.NewPCG(seed, 0)))
	publishing.Wait()
	s.settle()
	s.account()
}

// soak is an installation whose parts are killed.
type soak struct {
	*testing.T
	dir         string
	engines     *devstack.Stack // Postgres
	nats        *process
	natsPort    int
	dispatchers [soakDispatchers]*survivor
	started     int
	ended       []*survivor // killed or, in the end, stopped
	pool        *pgxpool.Pool
	js          jetstream.JetStream
	env         []string
	webhooks    []string
	receivers   *receivers

	mu       sync.Mutex
	accepted map[string]time.Time // by the stream, and when it was published first
	kills    []kill
}

// kill is who was killed, and when.
type kill struct {
	who string
	at  time.Time
}

// survivor is a dispatcher, until it is killed.
type survivor struct {
	cmd    *exec.Cmd
	log    string
	killed time.Time
}

func newSoak(t *testing.T) *soak {
	ctx := t.Context()
	s := &soak{T: t, dir: t.TempDir(), natsPort: freePort(t), accepted: map[string]time.Time{}, receivers: newReceivers(t)}
	s.engines = devstacktest.Stack(t, devstack.Options{Postgres: &devstack.Engine{}})
	s.startNATS()
	var err error
	s.pool, err = database.Open(ctx, "DATABASE_URL", s.engines.PostgresURL("postgres"), 4)
	require.NoError(t, err)
	t.Cleanup(s.pool.Close)
	require.NoError(t, database.Migrate(ctx, s.pool))
	nc, err := nats.Connect(s.nats.ready, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	s.js, err = jetstream.New(nc)
	require.NoError(t, err)
	_, _, err = stream.Ensure(ctx, s.js, stream.Options{})
	require.NoError(t, err)

	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	s.env = []string{"DATABASE_URL=" + s.engines.PostgresURL("postgres"), "NATS_URL=" + s.nats.ready, "SECRETS_KEY=" + key,
		"ALLOW_HTTP_TARGETS=true", "ALLOW_PRIVATE_TARGETS=127.0.0.0/8", "METRICS_ADDR=off", "DRAIN_TIMEOUT=5s"}
	var v vault.Vault
	require.NoError(t, v.UnmarshalText([]byte(key)))
	for _, kind := range []string{"quick", "quick", "quick", "slow", "stumbling", "failing", "gone"} {
		id := fmt.Sprintf("wh_%d_%s", len(s.webhooks), kind)
		_, err := s.pool.Exec(ctx, "INSERT INTO webhooks (id, site_id, url) VALUES ($1, 1, $2)", id, s.receivers.URL+"/"+kind)
		require.NoError(t, err)
		_, err = s.pool.Exec(ctx, "INSERT INTO webhook_secrets (webhook_id, sealed) VALUES ($1, $2)", id, v.Seal(signature.NewSecret().Reveal(), id))
		require.NoError(t, err)
		s.webhooks = append(s.webhooks, id)
	}
	for i := range s.dispatchers {
		s.startDispatcher(i)
	}
	return s
}

func (s *soak) startNATS() { s.nats = broker(s, filepath.Join(s.dir, "broker"), s.natsPort) }

func (s *soak) startDispatcher(i int) {
	s.started++
	path := filepath.Join(s.dir, fmt.Sprintf("dispatcher-%d.log", s.started))
	log, err := os.Create(path)
	require.NoError(s, err)
	defer log.Close()
	d := &survivor{cmd: roleCommand(s, "dispatcher", s.env...), log: path}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	require.NoError(s, d.cmd.Start())
	s.dispatchers[i] = d
	s.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait() // it says that it was killed
		}
	})
}

// publish hands firings to the stream, each again and again until it is accepted, as the
// evaluator does.
func (s *soak) publish(ctx context.Context, publisher int) {
	for i := 0; ctx.Err() == nil; i++ {
		now := time.Now()
		f := trigger.Firing{
			ID: fmt.Sprintf("msg_soak_%d_%d", publisher, i), Slot: now.Truncate(10 * time.Second).UTC(), SiteID: 1,
			WebhookID: s.webhooks[i%len(s.webhooks)], TriggerID: "tr_soak", TriggerType: "visitor_spike", Type: "visitor_spike.fired",
			Payload: body(now, bodySize),
		}
		for s.Context().Err() == nil {
			bounded, cancel := context.WithTimeout(s.Context(), time.Second)
			_, err := s.js.PublishMsg(bounded, stream.Encode(f))
			cancel()
			if err == nil {
				break
			}
		}
		s.mu.Lock()
		s.accepted[f.ID] = now
		s.mu.Unlock()
		rest(ctx, soakPause)
	}
}

func rest(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// kill kills somebody, lets some time pass and brings him back, until ctx ends. While a server
// is away, a dispatcher may be killed too.
func (s *soak) kill(ctx context.Context, chance *rand.Rand) {
	pause := func() { rest(ctx, time.Duration(chance.Int64N(int64(longestPause)))) }
	for turn := 0; ctx.Err() == nil; turn++ {
		pause()
		switch i := chance.IntN(soakDispatchers); (turn + chance.IntN(2)) % 4 {
		case 0, 1:
			s.killDispatcher(i)
			pause()
			s.startDispatcher(i)
		case 2:
			s.killed("NATS")
			s.nats.kill()
			if pause(); chance.IntN(2) == 0 {
				s.killDispatcher(i)
				s.startDispatcher(i)
			}
			s.startNATS()
		case 3:
			s.killed("Postgres")
			require.NoError(s, s.engines.KillPostgres())
			if pause(); chance.IntN(2) == 0 {
				s.killDispatcher(i)
				s.startDispatcher(i)
			}
			require.NoError(s, s.engines.RestartPostgres(s.Context()))
		}
	}
}

func (s *soak) killed(who string) { s.kills = append(s.kills, kill{who, time.Now()}) }

func (s *soak) killDispatcher(i int) {
	d := s.dispatchers[i]
	require.NoError(s, d.cmd.Process.Kill())
	_ = d.cmd.Wait() // it says that it was killed
	d.killed = time.Now()
	s.killed("dispatcher")
	s.ended = append(s.ended, d)
}

// settle waits until the stream owes nothing and no request is under way, and stops the
// dispatchers in good order.
func (s *soak) settle() {
	deadline := time.Now().Add(soakPatience)
	for last := ""; ; time.Sleep(100 * time.Millisecond) {
		require.True(s, time.Now().Before(deadline), "the messages are not acknowledged: %s", last)
		ctx, cancel := context.WithTimeout(s.Context(), 2*time.Second)
		consumer, err := s.js.Consumer(ctx, stream.Firings, stream.Dispatcher)
		cancel()
		if err != nil {
			last = err.Error()
			continue
		}
		info := consumer.CachedInfo()
		if info.NumPending == 0 && info.NumAckPending == 0 {
			break
		}
		last = fmt.Sprintf("%d pending, %d in flight", info.NumPending, info.NumAckPending)
	}
	for _, d := range s.dispatchers {
		if err := interrupt(d.cmd); err != nil {
			said, unread := os.ReadFile(d.log)
			assert.NoError(s, unread)
			// Status 66 is the race detector's, whose report may stand anywhere in it.
			assert.NoError(s, err, "a dispatcher ends well; it said:\n%s", said)
		}
		s.ended = append(s.ended, d)
	}
}

// recorded is what Postgres knows of a delivery.
type recorded struct {
	kind     string
	status   string
	attempts []time.Time // that got an answer or not, when they began
	at       time.Time   // when the row was written first
}

func (s *soak) recorded() map[string]*recorded {
	all := map[string]*recorded{}
	rows, err := s.pool.Query(s.Context(), `
		SELECT d.id, d.type, d.status, d.created_at, array(SELECT started_at FROM attempts a WHERE a.delivery_id = d.id AND a.slot = d.slot ORDER BY number)
		FROM deliveries d`)
	require.NoError(s, err)
	var id string
	var r recorded
	_, err = pgx.ForEachRow(rows, []any{&id, &r.kind, &r.status, &r.at, &r.attempts}, func() error {
		one := r
		all[id] = &one
		r.attempts = nil
		return nil
	})
	require.NoError(s, err)
	return all
}

// account holds what the stream accepted against what Postgres recorded and what arrived.
func (s *soak) account() {
	rows, arrived := s.recorded(), s.receivers.arrived()
	known := s.toldBy(s.ended)
	statuses, lost, requests, again, late := map[string]int{}, 0, 0, 0, 0
	for id, published := range s.accepted {
		row := rows[id]
		if row == nil {
			lost++
			s.Errorf("%s was accepted at %s and is lost", id, published)
			continue
		}
		statuses[row.status]++
		got := arrived[id]
		requests += len(got)
		if row.status == "delivered" {
			assert.True(s, slices.ContainsFunc(got, func(r arrival) bool { return r.status == http.StatusOK }), "%s is said to be delivered, and its receiver did not say so", id)
		}
		extra := len(got) - len(row.attempts)
		if extra <= 0 {
			continue
		}
		again += extra
		switch {
		case s.diedUnrecorded(got, row, known[id]):
		case s.forgotten(published, row):
			late++
		default:
			s.Errorf("%s was sent %d times and recorded %d times, and nobody was killed meanwhile: arrived %v, recorded %v, kills %v", id, len(got), len(row.attempts), got, row, s.kills)
		}
	}
	for id, row := range rows {
		_, accepted := s.accepted[id]
		assert.True(s, accepted || row.kind == "webhook.disabled", "%s (%s) is a firing that was accepted, or tells of the webhook that is gone", id, row.kind)
	}
	for id := range arrived {
		assert.NotNil(s, rows[id], "%s, which arrived, is recorded", id)
	}
	count := map[string]int{}
	for _, k := range s.kills {
		count[k.who]++
	}
	fmt.Printf("soak: %d dispatchers, NATS %d times and Postgres %d times killed\n", count["dispatcher"], count["NATS"], count["Postgres"])
	fmt.Printf("soak: %d accepted = %d delivered + %d dead + %d waiting; lost %d\n", len(s.accepted), statuses["delivered"], statuses["dead"], statuses["waiting"], lost)
	fmt.Printf("soak: %d requests arrived; %d of them were not recorded when a dispatcher died, %d went to a second dispatcher after the broker's death\n", requests, again-late, late)
	assert.Equal(s, len(s.accepted), statuses["delivered"]+statuses["dead"]+statuses["waiting"]+lost)
	assert.NotZero(s, statuses["delivered"])
}

// diedUnrecorded tells whether every request that was not recorded was a killed dispatcher's, who
// had no time to. A dispatcher tells of each answer before it records it.
func (s *soak) diedUnrecorded(got []arrival, row *recorded, told map[*survivor]int) bool {
	survivors := 0
	for d, n := range told {
		if d.killed.IsZero() {
			survivors += n
		}
	}
	if survivors > len(row.attempts) {
		return false
	}
	for i, a := range got {
		next := arrival{at: time.Now()}
		if i+1 < len(got) {
			next = got[i+1]
		}
		if !slices.ContainsFunc(row.attempts, func(began time.Time) bool { return recordedBetween(began, a, got, i) }) &&
			!slices.ContainsFunc(s.kills, func(k kill) bool {
				return k.who == "dispatcher" && k.at.After(a.at.Add(-unread)) && k.at.Before(next.at)
			}) {
			return false
		}
	}
	return true
}

// unread is how long after its sender's death a request may be noted: on a busy machine its receiver reads late.
const unread = time.Second

// recordedBetween tells whether an attempt that began then is the one that arrived as the i-th.
func recordedBetween(began time.Time, a arrival, got []arrival, i int) bool {
	return !began.After(a.at) && (i == 0 || began.After(got[i-1].at))
}

// forgotten tells whether the broker was killed between the publication and the record: it may
// have forgotten who had the message.
func (s *soak) forgotten(published time.Time, row *recorded) bool {
	return slices.ContainsFunc(s.kills, func(k kill) bool { return k.who == "NATS" && k.at.After(published) && k.at.Before(row.at) })
}

// toldBy counts the lines of the dispatchers' logs that tell of an attempt, by delivery.
func (s *soak) toldBy(all []*survivor) map[string]map[*survivor]int {
	told := map[string]map[*survivor]int{}
	for _, d := range all {
		text, err := os.ReadFile(d.log)
		require.NoError(s, err)
		for line := range bytes.Lines(text) {
			var fields struct {
				Event string `json:"event"`
				ID    string `json:"delivery_id"`
			}
			if json.Unmarshal(line, &fields) != nil || fields.Event != "delivery" {
				continue // the race detector's and a killed one's last line too
			}
			if told[fields.ID] == nil {
				told[fields.ID] = map[*survivor]int{}
			}
			told[fields.ID][d]++
		}
	}
	return told
}

// receivers are the webhooks' owners. The path says how one behaves.
type receivers struct {
	*httptest.Server
	mu   sync.Mutex
	byID map[string][]arrival
}

// arrival is a request, and what it was answered.
type arrival struct {
	at     time.Time
	status int
}

func newReceivers(t *testing.T) *receivers {
	r := &receivers{byID: map[string][]arrival{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return // a dispatcher that was killed while it sent
	}
	id, status := request.Header.Get(signature.HeaderID), http.StatusOK
	r.mu.Lock()
	switch request.URL.Path {
	case "/stumbling":
		if len(r.byID[id]) == 0 {
			status = http.StatusInternalServerError
		}
	case "/failing":
		status = http.StatusInternalServerError
	case "/gone":
		status = http.StatusGone
	}
	r.byID[id] = append(r.byID[id], arrival{time.Now(), status})
	r.mu.Unlock()
	if request.URL.Path == "/slow" {
		time.Sleep(100 * time.Millisecond)
	}
	w.WriteHeader(status)
}

func (r *receivers) arrived() map[string][]arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string][]arrival, len(r.byID))
	for id, got := range r.byID {
		all[id] = slices.Clone(got)
	}
	return all
}
