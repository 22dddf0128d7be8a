// Command replay lets a web server's access log pass through the running local stack, as if its
// visitors came to the demo site now.
//
// combined.go reads the lines, page.go tells pages from everything else a server is asked for,
// agent.go and source.go say who came and from where, timeline.go decides when each request
// happens again, replay.go lets it happen.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

func main() {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer context.AfterFunc(ctx, release)()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "replay: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	w, err := readWish(os.Getenv)
	if err != nil {
		return err
	}
	stack, err := readStack(w.dir)
	if err != nil {
		return err
	}
	events, err := plausible.Open(stack.clickhouse)
	if err != nil {
		return err
	}
	defer events.Close()
	if err := answers(ctx, events, w.dir); err != nil {
		return err
	}
	file, err := os.Open(w.log)
	if err != nil {
		return fmt.Errorf("LOG: %w", err)
	}
	defer file.Close()
	requests, badLines, err := readLog(file)
	if err != nil {
		return fmt.Errorf("read LOG: %w", err)
	}
	p := plan(requests)
	p.summary.bad = badLines
	if len(p.hits) == 0 {
		fmt.Print(p.summary)
		return errors.New("LOG has no request for a page that could be replayed")
	}
	t := newTimeline(p.hits, time.Now(), w.speed, w.duration)
	fmt.Printf("Replaying %d hits of %s in about %s, %s times as fast as they happened.\n",
		len(p.hits), t.span().Round(time.Second), t.length().Round(time.Second), strconv.FormatFloat(t.speed, 'f', 0, 64))
	inserted, err := play(ctx, t, p.hits, visit.New(stack.siteID, stack.site, uint64(time.Now().UnixNano()), t.live),
		func(ctx context.Context, rows visit.Rows) error { return visit.Insert(ctx, events, rows) })
	p.summary.inserted = inserted
	fmt.Print(p.summary)
	if ctx.Err() != nil {
		fmt.Println("Interrupted: the rest of the log was not replayed.")
		return nil
	}
	return err
}

// wish is what the user asks for.
type wish struct {
	log, dir string
	speed    float64       // 0: as the duration has it
	duration time.Duration // of the replay
}

func readWish(getenv func(string) string) (wish, error) {
	w := wish{log: getenv("LOG"), dir: getenv("LOCAL_DIR"), duration: 2 * time.Minute}
	var problems []error
	if w.log == "" {
		problems = append(problems, errors.New("LOG is not set: name an access log in combined format, as in `make replay LOG=access.log`"))
	}
	if w.dir == "" {
		w.dir = ".local"
	}
	speed, duration := getenv("SPEED"), getenv("DURATION")
	if speed != "" {
		n, err := strconv.ParseFloat(strings.TrimSuffix(speed, "x"), 64)
		if err != nil || !(n > 0 && n <= 1e9) {
			problems = append(problems, fmt.Errorf("SPEED is %q: it must be how many times as fast as the log it goes, such as 60", speed))
		}
		w.speed = n
	}
	if duration != "" {
		d, err := time.ParseDuration(duration)
		if err != nil || d <= 0 {
			problems = append(problems, fmt.Errorf("DURATION is %q: it must be a duration such as 2m", duration))
		}
		w.duration = d
	}
	if speed != "" && duration != "" {
		problems = append(problems, errors.New("SPEED and DURATION are both set: one follows from the other, give one"))
	}
	return w, errors.Join(problems...)
}

// stackAddress is what is needed of stack.env.
type stackAddress struct {
	clickhouse string
	site       string
	siteID     uint64
}

func readStack(dir string) (stackAddress, error) {
	path := filepath.Join(dir, "stack.env")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return stackAddress{}, notRunning(dir)
	}
	if err != nil {
		return stackAddress{}, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = strings.Trim(value, "'")
	}
	id, err := strconv.ParseUint(values["DEMO_SITE_ID"], 10, 64)
	s := stackAddress{clickhouse: values["PLAUSIBLE_CLICKHOUSE_URL"], site: values["DEMO_SITE"], siteID: id}
	if err != nil || s.clickhouse == "" || s.site == "" {
		return s, fmt.Errorf("%s is not a stack's: PLAUSIBLE_CLICKHOUSE_URL, DEMO_SITE and DEMO_SITE_ID are needed", path)
	}
	return s, nil
}

func notRunning(dir string) error {
	return fmt.Errorf("no stack is running in %s: start one with `make up` in another terminal, and wait until it is up", dir)
}

// answers tells a running stack from the addresses of one that was killed.
func answers(ctx context.Context, events driver.Conn, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := events.Ping(ctx); err != nil {
		return fmt.Errorf("%w (its ClickHouse does not answer: %w)", notRunning(dir), err)
	}
	return nil
}
