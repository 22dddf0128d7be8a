// Package receivers holds docs/receivers.md to what it says: its code is that of docs/examples, and
// these programs, started as a reader would start them, take what pkg/signature signs and nothing else.
package receivers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/format"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
)

const (
	page     = "../../docs/receivers.md"
	examples = "../../docs/examples"
	// patience is how long something may take that must happen, on a machine that does other things too.
	patience = 60 * time.Second
)

// receiver is one of the page's programs: those of a language, with one of its ways to verify.
type receiver struct {
	language string
	variant  string   // a folder of the language's with another verify.*; empty: the library
	needs    string   // the program that runs it
	required bool     // where continuous integration runs
	probe    []string // succeeds if the library is there; nil: it is installed, or none is needed
	install  []string
	start    []string
}

func receivers(t *testing.T) []receiver {
	rack, err := filepath.Abs("testdata/rack.rb")
	require.NoError(t, err)
	goBuild := []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", "receiver", "."}
	npm := []string{"npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"}
	python, php, ruby := []string{"python3", "receiver.py"}, []string{"php", "-S", "127.0.0.1:0", "receiver.php"}, []string{"ruby", rack}
	return []receiver{
		{language: "go", needs: "go", required: true, install: goBuild, start: []string{"./receiver"}},
		{language: "go", variant: "by-hand", needs: "go", required: true, install: goBuild, start: []string{"./receiver"}},
		{language: "go", variant: "public-key", needs: "go", required: true, install: goBuild, start: []string{"./receiver"}},
		{language: "node", needs: "npm", required: true, install: npm, start: []string{"node", "receiver.mjs"}},
		{language: "node", variant: "by-hand", needs: "node", required: true, start: []string{"node", "receiver.mjs"}},
		{language: "node", variant: "public-key", needs: "node", required: true, start: []string{"node", "receiver.mjs"}},
		{language: "python", needs: "python3", probe: []string{"python3", "-c", "import standardwebhooks"}, start: python},
		{language: "python", variant: "by-hand", needs: "python3", start: python},
		{language: "php", needs: "php", probe: []string{"php", "-r", "exit(file_exists('vendor/autoload.php') ? 0 : 1);"}, start: php},
		{language: "php", variant: "by-hand", needs: "php", start: php},
		{language: "ruby", needs: "ruby", probe: []string{"ruby", "-e", "require 'standardwebhooks'"}, start: ruby},
		{language: "ruby", variant: "by-hand", needs: "ruby", start: ruby},
	}
}

// message is one as the dispatcher sends it.
type message struct {
	id      string
	body    string
	at      time.Time
	signers []signature.Signer
	spoil   func(http.Header) // after the signing
}

func TestReceivers(t *testing.T) {
	for _, r := range receivers(t) {
		t.Run(filepath.Join(r.language, r.variant), func(t *testing.T) {
			t.Parallel()
			dir := r.assemble(t)
			secret, key := signature.NewSecret(), signature.NewKey()
			own, env := signature.Signer(secret), "WEBHOOK_SECRET="+secret.Reveal()
			other := signature.Signer(signature.NewSecret())
			if r.variant == "public-key" {
				own, env, other = key, "WEBHOOK_PUBLIC_KEY="+key.Public(), signature.NewKey()
			}
			p := r.run(t, dir, env)
			firing := func(id string) string {
				return fmt.Sprintf(`{"type":"visitor_spike.fired","timestamp":"2026-11-23T15:04:10Z","data":{"id":%q,"value":143.0}}`, id)
			}
			takes := func(what string, m message) {
				t.Helper()
				status, text := p.post(t, m)
				assert.Equal(t, http.StatusNoContent, status, "%s: %s", what, text)
				kept, err := os.ReadFile(filepath.Join(dir, "messages", m.id+".json"))
				assert.NoError(t, err, what)
				assert.Equal(t, m.body, string(kept), "%s: the inbox holds the bytes that came", what)
			}

			takes("a message", message{id: "msg_1", body: firing("msg_1"), signers: []signature.Signer{own}})
			takes("the same, tried again", message{id: "msg_1", body: firing("msg_1"), at: time.Now().Add(time.Second), signers: []signature.Signer{own}})
			takes("a slow one", message{id: "msg_2", body: firing("msg_2"), at: time.Now().Add(-4 * time.Minute), signers: []signature.Signer{own}})
			takes("one of a sender whose clock is ahead", message{id: "msg_3", body: firing("msg_3"), at: time.Now().Add(4 * time.Minute), signers: []signature.Signer{own}})
			takes("the new signer first", message{id: "msg_4", body: firing("msg_4"), signers: []signature.Signer{own, other}})
			takes("the old signer last", message{id: "msg_5", body: firing("msg_5"), signers: []signature.Signer{other, own}})
			takes("both kinds", message{id: "msg_6", body: firing("msg_6"), signers: []signature.Signer{secret, key}})
			takes("both kinds, the other way round", message{id: "msg_13", body: firing("msg_13"), signers: []signature.Signer{key, secret}})
			takes("a version to come", message{id: "msg_14", body: firing("msg_14"), signers: []signature.Signer{own}, spoil: func(h http.Header) {
				h.Set(signature.HeaderSignature, "v3,c2hvcnQ= "+h.Get(signature.HeaderSignature))
			}})
			takes("bytes that no encoder writes", message{id: "msg_7", body: " {\"data\": {\"id\":\"msg_7\",\"x\":[1.00, 1e2, \"caf\\u00e9 \u00e9 \U0001f600\"]},\n\t\"type\":\"webhook.ping\"} \r\n", signers: []signature.Signer{own}})
			batch := fmt.Sprintf(`{"type":"batch","timestamp":"2026-11-23T15:04:10Z","data":{"messages":[%s,%s]}}`, firing("msg_9"), firing("msg_10"))
			takes("a batch", message{id: "msg_8", body: batch, signers: []signature.Signer{own}})
			large := strings.Replace(firing("msg_11"), `"value"`, `"text":"`+strings.Repeat("é", 1<<20)+`","value"`, 1)
			takes("2 MiB", message{id: "msg_11", body: large, signers: []signature.Signer{own}})

			var together sync.WaitGroup
			for range 4 {
				together.Go(func() {
					takes("four at a time", message{id: "msg_12", body: firing("msg_12"), signers: []signature.Signer{own}})
				})
			}
			together.Wait()

			header := func(name string, change func(string) string) func(http.Header) {
				return func(h http.Header) { h.Set(name, change(h.Get(name))) }
			}
			for what, m := range map[string]message{
				"another signer":       {signers: []signature.Signer{other}},
				"too old":              {signers: []signature.Signer{own}, at: time.Now().Add(-6 * time.Minute)},
				"too new":              {signers: []signature.Signer{own}, at: time.Now().Add(6 * time.Minute)},
				"another id":           {signers: []signature.Signer{own}, spoil: header(signature.HeaderID, func(string) string { return "msg_another" })},
				"another second":       {signers: []signature.Signer{own}, at: time.Now().Add(-time.Minute), spoil: header(signature.HeaderTimestamp, func(string) string { return strconv.FormatInt(time.Now().Unix(), 10) })},
				"no id":                {signers: []signature.Signer{own}, spoil: func(h http.Header) { h.Del(signature.HeaderID) }},
				"no timestamp":         {signers: []signature.Signer{own}, spoil: func(h http.Header) { h.Del(signature.HeaderTimestamp) }},
				"no signature":         {signers: []signature.Signer{own}, spoil: func(h http.Header) { h.Del(signature.HeaderSignature) }},
				"a timestamp in words": {signers: []signature.Signer{own}, spoil: header(signature.HeaderTimestamp, func(string) string { return "now" })},
				"half a signature":     {signers: []signature.Signer{own}, spoil: header(signature.HeaderSignature, func(s string) string { return s[:len(s)/2] })},
				"a version alone":      {signers: []signature.Signer{own}, spoil: header(signature.HeaderSignature, func(s string) string { v, _, _ := strings.Cut(s, ","); return v })},
				"an empty signature":   {signers: []signature.Signer{own}, spoil: header(signature.HeaderSignature, func(s string) string { v, _, _ := strings.Cut(s, ","); return v + "," })},
				"another version":      {signers: []signature.Signer{own}, spoil: header(signature.HeaderSignature, func(s string) string { _, made, _ := strings.Cut(s, ","); return "v2," + made })},
			} {
				m.id, m.body = "msg_forged", firing("msg_forged")
				status, text := p.post(t, m)
				assert.Equal(t, http.StatusUnauthorized, status, "%s: %s", what, text)
			}
			if r.language != "python" || r.variant != "" { // that library's decoder stops at the padding
				m := message{id: "msg_forged", body: firing("msg_forged"), signers: []signature.Signer{own}, spoil: header(signature.HeaderSignature, func(s string) string { return s + "x" })}
				status, _ := p.post(t, m)
				assert.Equal(t, http.StatusUnauthorized, status, "more than a signature")
			}
			path := message{id: "../outside", body: firing("msg_forged"), signers: []signature.Signer{own}}
			status, _ := p.post(t, path)
			assert.Equal(t, http.StatusInternalServerError, status, "an id that is no file's name")

			takes("the last", message{id: "msg_last", body: firing("msg_last"), signers: []signature.Signer{own}})
			ids := []string{"msg_1", "msg_2", "msg_3", "msg_4", "msg_5", "msg_6", "msg_7", "msg_9", "msg_10", "msg_11", "msg_12", "msg_13", "msg_14", "msg_last"}
			for _, id := range ids { // after their answers, so in any order
				p.await(t, id)
			}
			assert.ElementsMatch(t, ids, p.worked(), "each message once, and none that was forged")
			kept, err := filepath.Glob(filepath.Join(dir, "messages", "*"))
			require.NoError(t, err)
			assert.Len(t, kept, len(ids)-1, "a batch is one message, and no part is left: %v", kept)

			p.stop()
			p = r.run(t, dir, env)
			takes("what was taken before a restart", message{id: "msg_1", body: firing("msg_1"), signers: []signature.Signer{own}})
			takes("a new one", message{id: "msg_new", body: firing("msg_new"), signers: []signature.Signer{own}})
			p.await(t, "msg_new")
			assert.Equal(t, []string{"msg_new"}, p.worked())
		})
	}
}

// TestReceiversNeedAKey: with an empty one anybody could sign.
func TestReceiversNeedAKey(t *testing.T) {
	for _, r := range receivers(t) {
		t.Run(filepath.Join(r.language, r.variant), func(t *testing.T) {
			t.Parallel()
			p := r.begin(t, r.assemble(t))
			if !p.listens(t) {
				require.Contains(t, p.text(), "WEBHOOK_")
				return
			}
			const body = `{"type":"webhook.ping","data":{"id":"msg_forged"}}`
			status, text := p.post(t, message{id: "msg_forged", body: body, spoil: func(h http.Header) {
				mac := hmac.New(sha256.New, nil)
				mac.Write([]byte("msg_forged." + h.Get(signature.HeaderTimestamp) + "." + body))
				h.Set(signature.HeaderSignature, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
			}})
			require.Equal(t, http.StatusUnauthorized, status)
			require.Contains(t, text, "WEBHOOK_SECRET")
		})
	}
}

// assemble makes the folder that the page tells to make, or skips the test where this machine lacks
// what it needs.
func (r receiver) assemble(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath(r.needs); err != nil {
		lack := fmt.Sprintf("%s is missing, which the %s receivers of docs/receivers.md need: install it (on Debian: apt-get install nodejs npm, python3, php-cli or ruby)", r.needs, r.language)
		if r.required && os.Getenv("CI") == "true" {
			t.Fatal(lack)
		}
		t.Skip(lack)
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(examples, r.language)))) // with a library that somebody installed there
	if r.variant != "" {
		verify, err := filepath.Glob(filepath.Join(examples, r.language, r.variant, "verify.*"))
		require.NoError(t, err)
		require.Len(t, verify, 1)
		content, err := os.ReadFile(verify[0])
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(verify[0])), content, 0o600))
	}
	if r.probe != nil {
		if err := command(t.Context(), dir, r.probe).Run(); err != nil {
			t.Skipf("%s has no Standard Webhooks library here, so its receiver is not tried with it: %v", r.language, err)
		}
	}
	if r.install != nil {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		output, err := command(ctx, dir, r.install).CombinedOutput()
		require.NoError(t, err, "%s: %s", strings.Join(r.install, " "), output)
	}
	return dir
}

func command(ctx context.Context, dir string, words []string) *exec.Cmd {
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.Dir = dir
	// Outside the workspace, and as `make build` builds, which has compiled the standard library then.
	c.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	c.WaitDelay = time.Second // a grandchild may hold the output
	return c
}

// process is a receiver at work.
type process struct {
	address string
	stop    func() // ends it, and waits for its end

	mu    sync.Mutex
	lines []string
	ended bool
	news  chan struct{} // a line came, or it ended
}

// begin starts the receiver on a port that the system chooses.
func (r receiver) begin(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := command(ctx, dir, r.start)
	c.Env = slices.DeleteFunc(c.Env, func(entry string) bool { return strings.HasPrefix(entry, "WEBHOOK_") })
	c.Env = append(append(c.Env, "PORT=0", "INBOX="+filepath.Join(dir, "messages")), env...)
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	c.Stdout, c.Stderr = writer, writer
	err = c.Start()
	require.NoError(t, writer.Close())
	require.NoError(t, err)
	p := &process{news: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer reader.Close()
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			p.tell(func() { p.lines = append(p.lines, scanner.Text()) })
		}
		_ = c.Wait() // killed, or ended because it must not start
		p.tell(func() { p.ended = true })
	}()
	p.stop = func() { cancel(); <-done }
	t.Cleanup(p.stop)
	return p
}

// run starts the receiver, and waits until it listens.
func (r receiver) run(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	p := r.begin(t, dir, env...)
	require.True(t, p.listens(t), "it ended: %s", p.text())
	return p
}

func (p *process) tell(change func()) {
	p.mu.Lock()
	change()
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

var address = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`)

// listens waits until the receiver says where it listens, or has ended.
func (p *process) listens(t *testing.T) bool {
	t.Helper()
	return p.until(t, "to listen", func() bool {
		p.address = address.FindString(strings.Join(p.lines, "\n"))
		return p.address != ""
	})
}

// await waits until the message was worked on.
func (p *process) await(t *testing.T, id string) {
	t.Helper()
	require.True(t, p.until(t, "to work on "+id, func() bool { return slices.Contains(worked(p.lines), id) }), "it ended: %s", p.text())
}

// until waits for what must happen; it is false if the process ended first.
func (p *process) until(t *testing.T, what string, happened func() bool) bool {
	t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		now, ended := happened(), p.ended
		p.mu.Unlock()
		if now || ended {
			return now
		}
		select {
		case <-p.news:
		case <-late:
			t.Fatalf("%s is not enough for it %s: %s", patience, what, p.text())
		}
	}
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *process) worked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return worked(p.lines)
}

var work = regexp.MustCompile(`(?:visitor_spike\.fired|webhook\.ping) (msg_\w+)$`)

// worked are the ids of the messages that the lines tell of.
func worked(lines []string) (ids []string) {
	for _, line := range lines {
		if found := work.FindStringSubmatch(line); found != nil {
			ids = append(ids, found[1])
		}
	}
	return ids
}

// post sends a message as the dispatcher does. The status is 0 if there was no answer.
func (p *process) post(t *testing.T, m message) (status int, text string) {
	t.Helper()
	if m.at.IsZero() {
		m.at = time.Now()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address+"/webhooks", strings.NewReader(m.body))
	if err != nil {
		return 0, err.Error()
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(signature.HeaderID, m.id)
	request.Header.Set(signature.HeaderTimestamp, strconv.FormatInt(m.at.Unix(), 10))
	if len(m.signers) > 0 {
		request.Header.Set(signature.HeaderSignature, signature.Sign(m.id, m.at, []byte(m.body), m.signers...))
	}
	if m.spoil != nil {
		m.spoil(request.Header)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(answer)
}

var (
	// shown is a file on the page: its name, which links to it, and a block of code.
	shown = regexp.MustCompile("(?ms)^\\[([^\\]\n]+)\\]\\(examples/([^)\n]+)\\)[^\n]*\n\n```[a-z]+\n(.*?)^```$")
	block = regexp.MustCompile("(?m)^```(go|js|python|php|ruby)$")
)

// TestThePageShowsTheFiles: each source file of docs/examples stands on the page once, byte by byte,
// and no other program does.
func TestThePageShowsTheFiles(t *testing.T) {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	onThePage := map[string]string{}
	for _, found := range shown.FindAllSubmatch(text, -1) {
		name := string(found[2])
		require.NotContains(t, onThePage, name, "it stands there twice")
		require.Equal(t, strings.TrimPrefix(name, strings.SplitAfter(name, "/")[0]), string(found[1]))
		onThePage[name] = string(found[3])
	}
	require.Len(t, block.FindAll(text, -1), len(onThePage), "a block of code is of no file")

	require.NoError(t, filepath.WalkDir(examples, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{"node_modules", "vendor", "inbox"}, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".go", ".mjs", ".py", ".php", ".ru", ".rb"}, filepath.Ext(path)) {
			return nil // what package managers write
		}
		name, err := filepath.Rel(examples, path)
		require.NoError(t, err)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, string(content), onThePage[filepath.ToSlash(name)], name)
		delete(onThePage, filepath.ToSlash(name))
		if filepath.Ext(path) == ".go" { // they are in no module of the workspace, which `make lint` looks at
			formatted, err := format.Source(content)
			require.NoError(t, err)
			assert.Equal(t, string(formatted), string(content), "%s is not formatted", name)
		}
		return nil
	}))
	require.Empty(t, slices.Collect(maps.Keys(onThePage)), "no such files")
}

// TestThePagesVector is what we sign.
func TestThePagesVector(t *testing.T) {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	vector := map[string]string{}
	for _, found := range regexp.MustCompile(`(?m)^(id|timestamp|body|secret|signature)  +(.+)$`).FindAllSubmatch(text, -1) {
		vector[string(found[1])] = string(found[2])
	}
	secret, err := signature.ParseSecret(vector["secret"])
	require.NoError(t, err)
	at, err := strconv.ParseInt(vector["timestamp"], 10, 64)
	require.NoError(t, err)
	require.Equal(t, vector["signature"], signature.Sign(vector["id"], time.Unix(at, 0), []byte(vector["body"]), secret))
}

// TestThePageNamesTheTestedVersions, and the lock file names no host.
func TestThePageNamesTheTestedVersions(t *testing.T) {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	manifest, err := os.ReadFile(filepath.Join(examples, "node/package.json"))
	require.NoError(t, err)
	var node struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	require.NoError(t, json.Unmarshal(manifest, &node))
	require.Contains(t, string(text), "standardwebhooks@"+node.Dependencies["standardwebhooks"]+"`")
	module, err := os.ReadFile(filepath.Join(examples, "go/go.mod"))
	require.NoError(t, err)
	found := regexp.MustCompile(`require (\S+) (v\S+)`).FindSubmatch(module)
	require.NotNil(t, found)
	require.Contains(t, string(text), string(bytes.Join(found[1:], []byte("@")))+"`")
	lock, err := os.ReadFile(filepath.Join(examples, "node/package-lock.json"))
	require.NoError(t, err)
	require.Contains(t, string(lock), `"integrity": "sha512-`)
	require.NotContains(t, string(lock), "://")
}
