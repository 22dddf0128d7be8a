package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
)

// asProgram makes the test binary be the program itself, race detector included.
const asProgram = "TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestStackFromTheOutside runs the program as `make up` does and looks at it as a user does: by
// what it prints, by its address file, over HTTP, and by the processes that are left.
func TestStackFromTheOutside(t *testing.T) {
	if devstack.Provider() != "embedded" {
		t.Skip("the local stack brings its own engines; DEVSTACK asks for others")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	dir := t.TempDir()

	first := runStack(t, dir)
	first.await(t, ctx)
	require.Contains(t, first.printed(), "curl -H 'Authorization: Bearer "+first.env["DEMO_API_KEY"]+"'")
	require.Len(t, first.webhooks(t, ctx), 1)
	first.awaitVerified(t, ctx)
	require.Contains(t, first.printed(), "✔ verified")
	var before receiverMemory
	readJSON(t, filepath.Join(dir, receiverFile), &before)

	// Another one may not live in the same folder, and does not harm the one that does.
	second := runStack(t, dir)
	require.Equal(t, 1, second.wait(t, ctx))
	require.Contains(t, second.printed(), errInhabited.Error())
	require.FileExists(t, filepath.Join(dir, envFile))

	first.interrupt(t, ctx)
	requireNothingLeft(t, dir)

	// The next one goes on with the same data, although every port is another one.
	third := runStack(t, dir)
	third.await(t, ctx)
	require.Equal(t, first.env["DEMO_API_KEY"], third.env["DEMO_API_KEY"])
	webhooks := third.webhooks(t, ctx)
	require.Len(t, webhooks, 1, "no second demo webhook")
	require.Equal(t, before.WebhookID, webhooks[0].ID)
	require.Equal(t, third.env["RECEIVER_URL"]+demoPath, webhooks[0].URL, "it follows the receiver's port")
	var after receiverMemory
	readJSON(t, filepath.Join(dir, receiverFile), &after)
	require.Equal(t, before, after, "the same secret")
	third.awaitVerified(t, ctx)
	third.interrupt(t, ctx)
	requireNothingLeft(t, dir)
}

// process is one run of the program.
type process struct {
	cmd  *exec.Cmd
	dir  string
	done chan struct{}
	env  map[string]string // of its address file

	mu   sync.Mutex
	text strings.Builder
}

func runStack(t *testing.T, dir string) *process {
	t.Helper()
	// Without a context: it is to be interrupted, not killed.
	p := &process{cmd: exec.Command(os.Args[0]), dir: dir, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=yes",
		"LOCAL_DIR="+dir, "API_PORT=0", "RECEIVER_PORT=0", "NATS_PORT=0", "POSTGRES_PORT=0", "CLICKHOUSE_PORT=0", "METRICS_ADDR=127.0.0.1:0",
		// Slots follow each other quickly, so that the test does not wait for them.
		"EVALUATION_INTERVAL=1s", "EVALUATION_DELAY=1s", "TRAFFIC=on")
	output, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.cmd.Stderr = p.cmd.Stdout
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			p.mu.Lock()
			p.text.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // the test looks at the exit code
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it has usually ended
		<-p.done
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, logFile))
			t.Logf("it printed:\n%s\nand its log ends with:\n%s", p.printed(), log[max(0, len(log)-8000):])
		}
	})
	return p
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await waits for the address file.
func (p *process) await(t *testing.T, ctx context.Context) {
	t.Helper()
	poll(t, ctx, "the stack is up", func() bool {
		select {
		case <-p.done:
			t.Fatalf("it ended while it started:\n%s", p.printed())
		default:
		}
		text, err := os.ReadFile(filepath.Join(p.dir, envFile))
		if err != nil {
			return false
		}
		p.env = map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			p.env[name] = value
		}
		return true
	})
	for _, name := range []string{
		"API_URL", "DATABASE_URL", "PLAUSIBLE_DATABASE_URL", "PLAUSIBLE_CLICKHOUSE_URL", "NATS_URL", "DEMO_SITE", "DEMO_SITE_ID", "DEMO_API_KEY", "RECEIVER_URL",
	} {
		require.NotEmpty(t, p.env[name], name)
	}
}

func (p *process) awaitVerified(t *testing.T, ctx context.Context) {
	t.Helper()
	poll(t, ctx, "a verified delivery", func() bool {
		var got struct{ Messages []arrival }
		get(t, ctx, p.env["RECEIVER_URL"]+"/messages", "", &got)
		for _, m := range got.Messages {
			require.Empty(t, m.Problem)
			if m.Verified {
				return true
			}
		}
		return false
	})
}

func (p *process) webhooks(t *testing.T, ctx context.Context) []webhook {
	t.Helper()
	var list struct{ Webhooks []webhook }
	get(t, ctx, p.env["API_URL"]+"/api/sites/"+p.env["DEMO_SITE"]+"/webhooks", p.env["DEMO_API_KEY"], &list)
	return list.Webhooks
}

// interrupt is Ctrl-C.
func (p *process) interrupt(t *testing.T, ctx context.Context) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 0, p.wait(t, ctx))
	require.NoFileExists(t, filepath.Join(p.dir, envFile))
}

func (p *process) wait(t *testing.T, ctx context.Context) int {
	t.Helper()
	select {
	case <-p.done:
	case <-ctx.Done():
		t.Fatalf("it does not end:\n%s", p.printed())
	}
	return p.cmd.ProcessState.ExitCode()
}

// requireNothingLeft looks for processes that work in the stack's folder.
func requireNothingLeft(t *testing.T, dir string) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	if len(commands) == 0 { // no such file system here
		out, err := exec.CommandContext(t.Context(), "ps", "-axo", "command").Output()
		require.NoError(t, err)
		require.NotContains(t, string(out), dir)
		return
	}
	for _, file := range commands {
		command, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has just ended
		}
		require.NoError(t, err)
		require.NotContains(t, string(command), dir)
	}
}

func poll(t *testing.T, ctx context.Context, what string, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func get(t *testing.T, ctx context.Context, url, key string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s", url, body)
	require.NoError(t, json.Unmarshal(body, into))
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, into))
}
