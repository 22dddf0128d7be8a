package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
)

// sendArgs is a delivery as a job: River's row of it is what a row of deliveries is to us.
type sendArgs struct {
	ID      string          `json:"id"`
	URL     string          `json:"url"`
	Payload json.RawMessage `json:"payload"`
}

// Kind is the job's name.
func (sendArgs) Kind() string { return "send" }

// sendWorker makes the request and records the attempt, as the documentation of River would
// have one do it.
type sendWorker struct {
	river.WorkerDefaults[sendArgs]
	client *http.Client
	pool   *pgxpool.Pool
	secret signature.Secret
}

const riverAttemptSQL = `
INSERT INTO attempts (delivery_id, slot, number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings)
VALUES ($1, $2, $3, $4, $5, '{"Content-Type": "application/json", "User-Agent": "bench"}', 200, '{"Content-Length": "2"}', 'ok', '{"first_byte": 1.5}')`

// Work is one attempt.
func (w *sendWorker) Work(ctx context.Context, job *river.Job[sendArgs]) error {
	started := time.Now()
	if err := post(w.client, job.Args.URL, job.Args.ID, job.Args.Payload, w.secret); err != nil {
		return err
	}
	took := float64(time.Since(started)) / float64(time.Millisecond)
	_, err := w.pool.Exec(ctx, riverAttemptSQL, job.Args.ID, job.CreatedAt.Truncate(time.Second), job.Attempt, started, took)
	return err
}

// riverWorkers and the pauses are what made it fastest here; with its defaults it fetches ten
// times a second.
const (
	riverWorkers     = 500
	riverCooldown    = 5 * time.Millisecond
	riverConnections = 24
)

// runRiver is River doing the same: jobs that were inserted before, a signed request and an
// attempt row for each.
func runRiver() (string, func([]string) (string, error), error) {
	ctx := context.Background()
	pool, err := database.Open(ctx, "DATABASE_URL", os.Getenv("DATABASE_URL"), riverConnections)
	if err != nil {
		return "", nil, err
	}
	if err := database.Migrate(ctx, pool); err != nil {
		return "", nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return "", nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return "", nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &sendWorker{
		client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: riverWorkers, DisableCompression: true}},
		pool:   pool,
		secret: signature.NewSecret(),
	})
	var client *river.Client[pgx.Tx]
	return "ready", func(command []string) (string, error) {
		switch command[0] {
		case "insert": // into tables without traces of the round before
			var err error
			if client, err = river.NewClient(riverpgxv5.New(pool), &river.Config{
				Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
				FetchCooldown:     riverCooldown,
				FetchPollInterval: riverCooldown,
				Workers:           workers,
				Logger:            slog.New(slog.DiscardHandler),
			}); err != nil {
				return "", err
			}
			if _, err := pool.Exec(ctx, "TRUNCATE river_job, attempts"); err != nil {
				return "", err
			}
			n, err := strconv.Atoi(command[1])
			if err != nil {
				return "", err
			}
			for start := 0; start < n; start += 5000 {
				var jobs []river.InsertManyParams
				for i := start; i < min(n, start+5000); i++ {
					jobs = append(jobs, river.InsertManyParams{Args: sendArgs{ID: fmt.Sprintf("msg_%d", i), URL: command[2], Payload: body(time.Now(), bodySize)}})
				}
				if _, err := client.InsertManyFast(ctx, jobs); err != nil {
					return "", err
				}
			}
			_, err = pool.Exec(ctx, "VACUUM ANALYZE river_job")
			return "inserted", err
		case "start":
			return "started", client.Start(ctx)
		case "stop": // and tell of how many jobs the end and an attempt are recorded
			if err := client.Stop(ctx); err != nil {
				return "", err
			}
			var recorded int
			err := pool.QueryRow(ctx, "SELECT count(*) FROM river_job j JOIN attempts a ON a.delivery_id = j.args->>'id' WHERE j.state = 'completed'").Scan(&recorded)
			return strconv.Itoa(recorded), err
		}
		return "", errors.New("unknown command " + command[0])
	}, nil
}
