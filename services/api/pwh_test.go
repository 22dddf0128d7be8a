package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/pwh"
)

// program is a call of pwh on a world's api, by the demo site's owner. The oracles are its exit code, what it
// printed, and what the api has stored.
type program struct {
	w           *world
	environment []string
	input       string
	out, notes  buffer
}

func (w *world) program(environment ...string) *program {
	return &program{w: w, environment: append([]string{
		"PWH_URL=" + w.server.URL, "PWH_API_KEY=" + w.demo.OwnerKey, "PWH_SITE=" + w.demo.Domain, "TZ=UTC",
	}, environment...)}
}

func (p *program) run(ctx context.Context, arguments ...string) int {
	return pwh.Run(ctx, arguments, strings.NewReader(p.input), &p.out, &p.notes, p.environment)
}

// pwh calls it to its end, which must be with a code, and returns what was asked for and what was told about it.
// Neither has the key, nor more than a terminal's line.
func (w *world) pwh(code int, arguments ...string) (out, notes string) {
	w.t.Helper()
	return w.program().expect(code, arguments...)
}

func (p *program) expect(code int, arguments ...string) (out, notes string) {
	p.w.t.Helper()
	got := p.run(p.w.t.Context(), arguments...)
	out, notes = p.out.String(), p.notes.String()
	require.Equal(p.w.t, code, got, "pwh %s\n%s%s", arguments, out, notes)
	require.NotContains(p.w.t, out+notes, p.w.demo.OwnerKey, "pwh %s", arguments)
	return out, notes
}

var (
	anyID     = regexp.MustCompile(`\b(wh|tr|msg|cmd)_[a-z2-7]{26}\b`)
	anySecret = regexp.MustCompile(`whsec_[A-Za-z0-9+/]{43}=`)
	anyTime   = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`)
)

// steady makes the ids, secrets and times of an output the same in each run.
func steady(text string) string {
	text = anyID.ReplaceAllString(text, "${1}_"+strings.Repeat("x", 26))
	text = anySecret.ReplaceAllString(text, "whsec_…")
	return anyTime.ReplaceAllString(text, "2026-11-26 00:00:00")
}

// table is steady for what was asked for, of which no line is longer than a terminal's.
func table(t *testing.T, text string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 100, line)
	}
	return steady(text)
}

func TestPwhListsSitesAndGoals(t *testing.T) {
	w := newWorld(t)
	out, notes := w.pwh(0, "sites")
	assert.Empty(t, notes)
	assert.Equal(t, fmt.Sprintf("ID  ROLE   TIME ZONE       DOMAIN\n%-2d  owner  Europe/Tallinn  demo.example.com\n", w.demo.SiteID), out)
	out, _ = w.pwh(0, "sites", "--json")
	assert.Equal(t, w.do(w.demo.OwnerKey, "GET", "", "").text+"\n", out, "as the api answers")

	out, notes = w.pwh(0, "goals")
	assert.Empty(t, notes)
	assert.Contains(t, out, "scroll 75 %  ")
	assert.Contains(t, out, "\n  plan = business\n")
	out, _ = w.pwh(0, "goals", "--json")
	assert.Equal(t, w.do(w.demo.OwnerKey, "GET", w.demo.Domain+"/goals", "").text+"\n", out)

	// A page ends with what the next one begins with.
	first, notes := w.pwh(0, "goals", "--limit=2")
	cursor, found := strings.CutPrefix(strings.TrimSpace(notes), "There are more: --after ")
	require.True(t, found, notes)
	second, notes := w.pwh(0, "goals", "--limit=3", "--after", cursor)
	assert.Empty(t, notes)
	whole := func(text string) (names []string) {
		for line := range strings.Lines(text) {
			if line[0] >= '0' && line[0] <= '9' {
				names = append(names, line[strings.LastIndex(line, "  "):])
			}
		}
		return names
	}
	assert.Len(t, whole(first), 2)
	all, _ := w.pwh(0, "goals")
	assert.Equal(t, whole(all), append(whole(first), whole(second)...))
}

func TestPwhShowsTriggerTypes(t *testing.T) {
	w := newWorld(t)
	nobody := &program{w: w, environment: []string{"PWH_URL=" + w.server.URL}}
	out, notes := nobody.expect(0, "types")
	assert.Empty(t, notes)
	for _, typ := range trigger.Types() {
		assert.Contains(t, table(t, out), "\n"+string(typ)+" ")
	}
	out, _ = w.pwh(0, "types", "new_source")
	assert.Equal(t, `new_source: A source, country, campaign or page that was never seen before brings visitors.

FIELD           DEFAULT  VALUES
dimension       source   source, referrer, utm_campaign, country, entry_page
  What must be new.
min_visitors    5        integer from 1 to 1000000000
  How many unique visitors it must bring within the window.
window_seconds  1800     integer from 60 to 86400
  Length of the window that is looked at, which ends now.
`, out)
	for _, typ := range trigger.Types() {
		out, _ = w.pwh(0, "types", string(typ))
		table(t, out)
	}
	out, _ = w.pwh(0, "types", "goal_achieved")
	assert.Regexp(t, `(?m)^FIELD .*\ngoal +required +object$`, out, "in the order of a form")
	assert.Regexp(t, `(?m)^goal\.event_name +– +string$`, out)
	_, notes = w.pwh(2, "types", "visitors")
	assert.Equal(t, "pwh: there is no trigger type \"visitors\": pwh types lists them.\n", notes)
}

func TestPwhLeadsAWebhookThroughItsLife(t *testing.T) {
	w := newWorld(t)
	out, _ := w.pwh(0, "webhooks")
	assert.Equal(t, "The site has no webhooks: pwh create makes one.\n", out)

	out, notes := w.pwh(0, "create", "https://example.com/hook", "--description=To the team", "--trigger=visitor_spike:threshold=100,name=Rush hour,cooldown_seconds=60,notify_resolved=true",
		`--trigger=goal_achieved:goal.event_name=Signup,filters=[["is","visit:country",["EE","FI"]]]`)
	assert.Equal(t, `Webhook      wh_xxxxxxxxxxxxxxxxxxxxxxxxxx
Secret       whsec_…
Trigger      tr_xxxxxxxxxxxxxxxxxxxxxxxxxx  Rush hour
Trigger      tr_xxxxxxxxxxxxxxxxxxxxxxxxxx  Signup: every conversion
`, table(t, out))
	assert.Equal(t, "Keep the secret now: it verifies the messages, and is never shown again.\n", notes)
	id := anyID.FindString(out)
	assert.Equal(t, []string{anySecret.FindString(out)}, w.opened(id))
	stored := w.owner(200, "GET", "/"+id, "")
	first, second := stored.json(t, "triggers").([]any)[0].(map[string]any), stored.json(t, "triggers").([]any)[1].(map[string]any)
	if first["type"] != "visitor_spike" {
		first, second = second, first
	}
	assert.Equal(t, []any{"Rush hour", 60.0, true, 100.0}, []any{first["name"], first["cooldown_seconds"], first["notify_resolved"], first["config"].(map[string]any)["threshold"]})
	assert.Equal(t, map[string]any{"event_name": "Signup"}, second["config"].(map[string]any)["goal"])
	assert.Equal(t, []any{[]any{"is", "visit:country", []any{"EE", "FI"}}}, second["filters"])

	w.exec(w.own, "UPDATE webhooks SET description = E'To the \\x1b[31mteam'")
	out, notes = w.pwh(0, "webhooks")
	assert.Empty(t, notes)
	assert.Equal(t, `ID                             STATUS  TRIGGERS  URL
wh_xxxxxxxxxxxxxxxxxxxxxxxxxx  active  2         https://example.com/hook
  To the �[31mteam
`, table(t, out))
	out, _ = w.pwh(0, "webhooks", "--json")
	assert.Equal(t, w.owner(200, "GET", "", "").text+"\n", out)

	out, _ = w.pwh(0, "show", id)
	assert.Regexp(t, `(?s)^Webhook      wh_x+\nURL          https://example.com/hook\nDescription  To the �\[31mteam\nStatus       active\nFormat       standard\nTimeout      15s\n`+
		`Created      2026-11-26 00:00:00\n\nTRIGGER +TYPE +STATUS +LAST FIRED\ntr_x+ .*\n  Rush hour\n`, table(t, out))
	out, _ = w.pwh(0, "show", id, "--json")
	assert.Equal(t, w.owner(200, "GET", "/"+id, "").text+"\n", out)
	w.exec(w.own, "INSERT INTO webhook_health (webhook_id, failing_since) VALUES ($1, now())", id)
	out, _ = w.pwh(0, "show", id)
	assert.Contains(t, table(t, out), "Status       failing\nFailing      since 2026-11-26 00:00:00\n")
	w.exec(w.own, "DELETE FROM webhook_health")

	w.exec(w.own, "UPDATE webhooks SET description = ''")
	_, notes = w.pwh(0, "disable", id)
	assert.Equal(t, id+" is disabled: what fires waits until pwh enable.\n", notes)
	assert.Equal(t, false, w.owner(200, "GET", "/"+id, "").json(t, "enabled"))
	out, _ = w.pwh(0, "webhooks")
	assert.Contains(t, out, "  off     2  ")
	out, _ = w.pwh(0, "enable", id, "--json")
	assert.Equal(t, w.owner(200, "GET", "/"+id, "").text+"\n", out)

	out, notes = w.pwh(0, "rotate", id, "--overlap=1h")
	assert.Equal(t, anySecret.FindString(out), w.opened(id)[0])
	assert.Len(t, w.opened(id), 2)
	assert.Equal(t, "Keep it now: it is never shown again. The old one signs beside it until 2026-11-26 00:00:00.\n", steady(notes))
	out, _ = w.pwh(0, "rotate", id, "--kind=v1a")
	assert.Regexp(t, `^Public key   whpk_\S+\nFound at     `+w.server.URL+`/api/public-keys/`+id+`\n$`, out)

	_, notes = w.pwh(2, "delete", id)
	assert.Equal(t, "Delete "+id+" with its triggers, and cancel what waits? [y/N] \npwh: nothing was deleted: answer y, or give --yes.\n", notes)
	w.owner(200, "GET", "/"+id, "")
	asked := w.program()
	asked.input = "y\n"
	_, notes = asked.expect(0, "delete", id)
	assert.Contains(t, notes, id+" is deleted.\n")
	w.owner(404, "GET", "/"+id, "")
	w.pwh(0, "delete", w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t), "--yes")
	assert.Empty(t, w.owner(200, "GET", "", "").json(t, "webhooks"))
}

func TestPwhCreatesFromAFile(t *testing.T) {
	w := newWorld(t)
	const body = `{"url": "https://example.com", "headers": {"X-Team": "a"}, "triggers": [` + spike + `]}`
	piped := w.program()
	piped.input = body
	out, _ := piped.expect(0, "create", "--file=-", "--json")
	var created map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &created))
	assert.Equal(t, map[string]any{"X-Team": "a"}, created["headers"])
	assert.NotEmpty(t, created["secret"])

	file := filepath.Join(t.TempDir(), "webhook.json")
	require.NoError(t, os.WriteFile(file, []byte(body), 0o600))
	w.pwh(0, "create", "--file", file)
	assert.Len(t, w.owner(200, "GET", "", "").json(t, "webhooks"), 2)
	_, notes := w.pwh(2, "create", "https://example.com", "--file", file)
	assert.Equal(t, "pwh: --file has the whole webhook: give nothing beside it.\n", notes)
}

func TestPwhSaysWhatWasRefused(t *testing.T) {
	w := newWorld(t)
	out, notes := w.pwh(1, "create", "http://example.com", "--format=morse", "--trigger=visitor_spike:threshold=0,window=5", "--trigger=bell")
	assert.Empty(t, out)
	assert.Equal(t, `pwh: the api refused this for 5 reasons:
  url: must start with https://
  format: must be one of standard, slack, discord, teams, custom
  triggers[0].config.threshold: must be at least 1
  triggers[0].config.window: is not a known field
  triggers[1].type: must be one of `+strings.Join(typeNames(), ", ")+"\n", notes)
	_, notes = w.pwh(1, "create", "http://example.com")
	assert.Equal(t, "pwh: url must start with https://.\n", notes)
	out, _ = w.pwh(1, "create", "http://example.com", "--json")
	assert.JSONEq(t, `{"error": "url must start with https://.", "errors": [{"field": "url", "message": "must start with https://"}]}`, out, "machines get it whole")

	stranger := w.program("PWH_API_KEY=" + w.demo.OwnerKey[1:])
	_, notes = stranger.expect(1, "sites")
	assert.Equal(t, "pwh: The API key is unknown: check $PWH_API_KEY or --key-file.\n", notes)
	assert.NotContains(t, notes, w.demo.OwnerKey[1:])
	for _, arguments := range [][]string{{"webhooks", "--site=" + w.demo.OtherDomain}, {"show", "wh_other"}, {"delete", "wh_other", "--yes"}, {"delivery", "wh_other", "msg_1"}, {"tail", "wh_other"},
		{"test", "wh_other"}, {"explain", "wh_other", "tr_1"}, {"recover", "wh_other", "--since=1h"}, {"listen", "--site=nowhere", "--forward=http://127.0.0.1:1"}} {
		_, notes = w.pwh(1, arguments...)
		assert.Contains(t, notes, "pwh: It does not exist, or the API key has no access to it: check the ids and --site; pwh sites and pwh webhooks list what there is.\n", arguments)
	}
	id := w.owner(201, "POST", "", `{"url": "https://example.com", "enabled": false}`).id(t)
	viewer := w.program("PWH_API_KEY=" + w.demo.ViewerKey)
	_, notes = viewer.expect(1, "enable", id)
	assert.Equal(t, "pwh: The API key's user may look at this site's webhooks, but not change them.\n", notes)
	_, notes = w.pwh(1, "test", id)
	assert.Equal(t, "pwh: The webhook is disabled, so nothing is sent to it: enable it first.\n", notes)
	_, notes = w.pwh(1, "deliveries", id, "--status=lost", "--limit=101")
	assert.Equal(t, "pwh: the api refused this for 2 reasons:\n  limit: must be a whole number from 1 to 100\n  status: must be one of waiting, delivered, dead, cancelled\n", notes)
}

func typeNames() (names []string) {
	for _, typ := range trigger.Types() {
		names = append(names, string(typ))
	}
	return names
}

func TestPwhIsCalledWrongly(t *testing.T) {
	w := newWorld(t)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("  "+w.demo.OwnerKey+"\n"), 0o600))
	for want, arguments := range map[string][]string{
		"unexpected argument nope: see pwh --help":                                                                                                      {"nope"},
		"unknown flag --nope: see pwh webhooks --help":                                                                                                  {"webhooks", "--nope"},
		`expected "<webhook>": see pwh show --help`:                                                                                                     {"show"},
		"missing flags: --since=TIME: see pwh recover --help":                                                                                           {"recover", "wh_1"},
		"a site is needed: give it as --site or $PWH_SITE; pwh sites lists them":                                                                        {"webhooks", "--site="},
		"a URL is needed, to which messages are sent: pwh create https://…":                                                                             {"create"},
		`--trigger "visitor_spike:100": "100" has no =; write TYPE:KEY=VALUE,KEY=VALUE`:                                                                 {"create", "https://example.com", "--trigger=visitor_spike:100"},
		`--since "soon" is neither a time such as 2026-11-23T15:04:05Z nor how long ago, such as 24h or 7d`:                                             {"recover", "wh_1", "--since=soon"},
		"--every must be at least 100ms":                                                                                                                {"tail", "wh_1", "--every=1ms"},
		"the api's address must be like http://127.0.0.1:8080: check --url or $PWH_URL":                                                                 {"sites", "--url=localhost:8080"},
		"the key is given twice, as --key or $PWH_API_KEY and as --key-file or $PWH_API_KEY_FILE: leave one away":                                       {"sites", "--key-file", key},
		"the webhook's secret is needed: give it as $PWH_SECRET or --secret":                                                                            {"verify"},
		"--secret cannot be used: a webhook secret must be padded standard base64":                                                                      {"verify", "--secret=whsec_x"},
		"--forward must be a URL such as http://127.0.0.1:3000/hook":                                                                                    {"listen", "--forward=3000"},
		"8.8.8.8 is neither on this machine nor in a private network, and messages tell of a site's visitors: give --allow-remote if they may go there": {"listen", "--forward=http://8.8.8.8/hook"},
	} {
		out, notes := w.pwh(2, arguments...)
		assert.Empty(t, out, arguments)
		assert.Equal(t, "pwh: "+want+".\n", notes, arguments)
	}
	for _, environment := range [][]string{{"PWH_API_KEY="}, {"PWH_API_KEY=\n"}} {
		_, notes := w.program(environment...).expect(2, "sites")
		assert.Equal(t, "pwh: a Plausible API key is needed: give it as $PWH_API_KEY or --key-file.\n", notes)
	}
	_, notes := w.program("PWH_API_KEY=a\x00b").expect(2, "sites")
	assert.Equal(t, "pwh: the API key has a character that no key has: check $PWH_API_KEY or --key-file.\n", notes)

	out, _ := w.program("PWH_API_KEY=", "PWH_API_KEY_FILE="+key).expect(0, "sites")
	assert.Contains(t, out, w.demo.Domain)
	out, _ = w.program("PWH_SITE=nowhere").expect(0, "webhooks", "--site", strconv.FormatInt(w.demo.SiteID, 10))
	assert.Contains(t, out, "no webhooks", "a flag goes before the environment")
	out, _ = w.pwh(0)
	assert.Contains(t, out, "Usage: pwh <command> [flags]")
	out, _ = w.pwh(0, "sites", "--help")
	assert.Contains(t, out, "($PWH_API_KEY)")
}

// obstacle is the api behind something that answers in its place as long as it is told so.
func (w *world) obstacle(answer func(n int, r *http.Request, to http.ResponseWriter) bool) *httptest.Server {
	target, err := url.Parse(w.server.URL)
	require.NoError(w.t, err)
	var n atomic.Int32
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, Transport: w.server.Client().Transport,
		ErrorHandler: func(to http.ResponseWriter, _ *http.Request, _ error) { to.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		if !answer(int(n.Add(1)), r, to) {
			proxy.ServeHTTP(to, r)
		}
	}))
	w.t.Cleanup(server.Close)
	return server
}

func TestPwhAsksAgain(t *testing.T) {
	w := newWorld(t)
	var keys, bodies []string
	busy := func(status, times int) *program {
		keys, bodies = nil, nil
		server := w.obstacle(func(n int, r *http.Request, to http.ResponseWriter) bool {
			keys = append(keys, r.Header.Get("Idempotency-Key"))
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			bodies = append(bodies, string(body))
			r.Body = io.NopCloser(bytes.NewReader(body))
			if n > times {
				return false
			}
			to.Header().Set("Retry-After", "0")
			to.WriteHeader(status)
			_, _ = io.WriteString(to, `{"error": "Busy; try again later."}`)
			return true
		})
		return w.program("PWH_URL=" + server.URL)
	}
	out, notes := busy(503, 2).expect(0, "sites")
	assert.Contains(t, out, w.demo.Domain)
	assert.Equal(t, strings.Repeat("The api answered 503 Service Unavailable; it is asked again in 0s.\n", 2), notes)
	busy(429, 3).expect(0, "create", "https://example.com")
	assert.Len(t, w.owner(200, "GET", "", "").json(t, "webhooks"), 1)
	require.Len(t, keys, 4)
	for i := range keys {
		assert.Len(t, keys[i], 26)
		assert.Equal(t, []string{keys[0], bodies[0]}, []string{keys[i], bodies[i]}, "the same request, so that it is obeyed once")
	}
	first := keys[0]
	busy(429, 0).expect(0, "create", "https://example.com")
	assert.NotEqual(t, first, keys[0])

	_, notes = busy(503, 100).expect(1, "sites")
	assert.Len(t, keys, 4, "tries are bounded")
	assert.Contains(t, notes, "pwh: Busy; try again later.\n")
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	busy(503, 1).expect(1, "delete", id, "--yes")
	assert.Len(t, keys, 1, "it might be gone, and then be a 404")
	busy(429, 1).expect(0, "delete", id, "--yes")

	patient := w.obstacle(func(_ int, _ *http.Request, to http.ResponseWriter) bool {
		to.Header().Set("Retry-After", "3600")
		to.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(to, `{"error": "Too many requests: wait for 3600 seconds."}`)
		return true
	})
	_, notes = w.program("PWH_URL="+patient.URL).expect(1, "sites")
	assert.Equal(t, "pwh: Too many requests: wait for 3600 seconds.\n", notes, "an hour is not waited for")
}

func TestPwhMeetsWhatIsNotTheAPI(t *testing.T) {
	w := newWorld(t)
	for status, text := range map[int]string{200: "<html>", 502: "Bad gateway", 404: `{"message": "not found"}`, 301: ""} {
		server := w.obstacle(func(_ int, r *http.Request, to http.ResponseWriter) bool {
			to.Header().Set("Location", w.server.URL+r.URL.Path)
			to.WriteHeader(status)
			_, _ = io.WriteString(to, text)
			return true
		})
		out, notes := w.program("PWH_URL="+server.URL).expect(1, "sites", "--json")
		assert.Empty(t, out)
		assert.Equal(t, fmt.Sprintf("pwh: %s answered %d %s with something that is not Plausible Webhooks' api: check --url or $PWH_URL.\n",
			strings.TrimPrefix(server.URL, "http://"), status, http.StatusText(status)), notes)
	}
	_, notes := w.program("PWH_URL=http://"+freeAddress(t)).expect(1, "sites")
	assert.Contains(t, notes, "connection refused): start it, or give its address as --url.\n")
}

// dispatch stores what a dispatcher makes of a delivery: a row that an attempt led to.
func (w *world) dispatch(webhook, id, status string, attempts int, answered *int, trouble string) {
	w.t.Helper()
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, next_attempt_at, last_error, payload, created_at, finished_at)
		VALUES ($1, date_trunc('minute', now()), $2, $3, NULL, '{}', 'webhook.ping', $4, $5, CASE WHEN $4 = 'waiting' THEN now() + interval '5 seconds' END, $6, '{"type": "webhook.ping"}', now(),
			CASE WHEN $4 <> 'waiting' THEN now() END)
		ON CONFLICT (id, slot) DO UPDATE SET status = $4, attempts = $5, next_attempt_at = excluded.next_attempt_at, last_error = $6, finished_at = excluded.finished_at`,
		id, w.demo.SiteID, webhook, status, attempts, trouble)
	if attempts > 0 {
		w.exec(w.own, `INSERT INTO attempts (delivery_id, slot, number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings, error)
			SELECT $1, slot, $2, now(), 41.24, '{}', $3, NULL, '', '{}', $4 FROM deliveries WHERE id = $1`, id, attempts, answered, trouble)
	}
}

// asked waits for the command that a program gives.
func (w *world) asked() (deliveryID string) {
	w.t.Helper()
	await(w.t, func() bool {
		var n int
		require.NoError(w.t, w.own.QueryRow(w.t.Context(), "SELECT count(*) FROM commands").Scan(&n))
		return n == 1
	})
	_, _, deliveryID, _ = w.command()
	return deliveryID
}

// started is a program that goes on; ended returns what it printed.
func (p *program) started(arguments ...string) (interrupt func(), ended func(code int) (out, notes string)) {
	p.w.t.Helper()
	ctx, cancel := context.WithCancel(p.w.t.Context())
	code := make(chan int, 1)
	go func() { code <- p.run(ctx, arguments...) }()
	p.w.t.Cleanup(cancel)
	return cancel, func(want int) (string, string) {
		p.w.t.Helper()
		select {
		case got := <-code:
			out, notes := p.out.String(), p.notes.String()
			require.Equal(p.w.t, want, got, "%s%s", out, notes)
			require.NotContains(p.w.t, out+notes, p.w.demo.OwnerKey)
			return out, notes
		case <-time.After(30 * time.Second):
			p.w.t.Fatalf("it goes on: %s%s", p.out.String(), p.notes.String())
			return "", ""
		}
	}
}

func TestPwhTestsAWebhook(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	out, notes := w.pwh(0, "test", id)
	delivery := w.asked()
	assert.Equal(t, delivery+"\n", out)
	assert.Equal(t, "It is on its way: pwh delivery "+id+" "+delivery+" shows what came of it.\n", notes)
	out, _ = w.pwh(0, "test", id, "--json")
	assert.Contains(t, out, `"id":"`+w.asked()+`"`)

	_, ended := w.program().started("test", id, "--wait")
	w.dispatch(id, w.asked(), "delivered", 1, new(204), "")
	out, notes = ended(0)
	assert.Empty(t, notes)
	assert.Equal(t, "ID                              TRY  ANSWER  TOOK     STATUS\nmsg_xxxxxxxxxxxxxxxxxxxxxxxxxx  1    204     41.2 ms  delivered\n", table(t, out))

	_, ended = w.program().started("test", id, "--wait")
	w.dispatch(id, w.asked(), "waiting", 1, nil, "no answer within 15s")
	out, notes = ended(1)
	assert.Equal(t, "ID                              TRY  ANSWER  TOOK     STATUS\nmsg_xxxxxxxxxxxxxxxxxxxxxxxxxx  1    –       41.2 ms  waiting\n"+
		"  no answer within 15s; sent again at 2026-11-26 00:00:00\n", table(t, out))
	assert.Equal(t, "pwh: the receiver did not take it: see above.\n", notes)

	_, notes = w.pwh(1, "test", id, "--wait", "--timeout=10ms")
	assert.Equal(t, "pwh: "+w.asked()+" was not tried within 10ms: look whether the webhook is enabled and a dispatcher runs.\n", notes)
	interrupt, ended := w.program().started("test", id, "--wait")
	w.asked()
	interrupt()
	_, notes = ended(1)
	assert.Equal(t, "pwh: interrupted.\n", notes)
}

func TestPwhRetriesADelivery(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.dispatch(id, "msg_1", "dead", 2, new(500), "answered 500")
	_, ended := w.program().started("retry", id, "msg_1", "--wait")
	require.Equal(t, "msg_1", w.asked())
	w.dispatch(id, "msg_1", "delivered", 3, new(200), "")
	out, _ := ended(0)
	assert.Contains(t, out, "\nmsg_1  3    200 ", "what had been tried before is not its outcome")
	out, _ = w.pwh(0, "retry", id, "msg_1")
	assert.Equal(t, "msg_1\n", out)
}

func TestPwhShowsDeliveries(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.delivery(w.demo.SiteID, id, "tr_2", "msg_old", -3600)
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, next_attempt_at, last_error, payload, created_at)
		VALUES ('msg_1', '2026-11-23T10:00:00Z', $1, $2, 'tr_1', '{msg_1}', 'visitor_spike.fired', 'waiting', 2, '2026-11-23T10:06:00Z', $4, $3, '2026-11-23T10:00:15Z')`,
		w.demo.SiteID, id, []byte(`{"type":"visitor_spike.fired","data":{"value":143,"note":"<ü>"}}`), "the receiver answered 500 "+strings.Repeat("and was not sorry ", 6)+"\x1b]0;owned\a")
	w.exec(w.own, `INSERT INTO attempts (delivery_id, slot, number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings, error) VALUES
		('msg_1', '2026-11-23T10:00:00Z', 2, '2026-11-23T10:00:20Z', 30.5, '{"Webhook-Id": "msg_1"}', 500, '{"Server": "x"}', E'oh\nno', '{"dns": 1.5, "connect": 2, "tls": 10, "first_byte": 16.25, "body": 0.75}', ''),
		('msg_1', '2026-11-23T10:00:00Z', 1, '2026-11-23T10:00:15Z', 15000, '{}', NULL, NULL, '', '{}', 'timeout')`)
	out, _ := w.pwh(0, "deliveries", id, "--trigger=tr_1")
	assert.Equal(t, `CREATED              ID     STATUS   TRIES  TYPE
2026-11-23 10:00:15  msg_1  waiting  2      visitor_spike.fired
  the receiver answered 500 and was not sorry and was not sorry and was not sorry and was not sorry
  and was not sorry and was not sorry �]0;owned�; sent again at 2026-11-23 10:06:00
`, out)
	table(t, out)
	out, _ = w.pwh(0, "deliveries", id, "--since=2026-11-01", "--until=2026-11-23T10:00:01Z", "--type=visitor_spike.fired", "--json")
	assert.Equal(t, w.owner(200, "GET", "/"+id+"/deliveries?trigger_id=tr_1", "").text+"\n", out)
	out, _ = w.pwh(0, "deliveries", id, "--status=delivered")
	assert.Regexp(t, `(?m)^2026-11-26 00:00:00  msg_old  delivered  1 +visitor_spike.fired$`, table(t, out))
	out, _ = w.pwh(0, "deliveries", id, "--status=dead")
	assert.Equal(t, "There are none.\n", out)
	_, notes := w.pwh(0, "deliveries", id, "--limit=1")
	assert.Contains(t, notes, "There are more: --after ")

	out, _ = w.pwh(0, "delivery", id, "msg_1")
	assert.Equal(t, `Delivery     msg_1
Type         visitor_spike.fired
Trigger      tr_1
Status       waiting
Created      2026-11-23 10:00:15
Finished     –
Next try     2026-11-23 10:06:00

TRY  STARTED              ANSWER  TOOK        DNS  CONNECT  TLS   FIRST BYTE  BODY
1    2026-11-23 10:00:15  –       15000.0 ms  –    –        –     –           –
  timeout
2    2026-11-23 10:00:20  500     30.5 ms     1.5  2.0      10.0  16.2        0.8
  oh no

{
  "data": {
    "note": "<ü>",
    "value": 143
  },
  "type": "visitor_spike.fired"
}
`, out)
	elsewhere := w.program("TZ=Asia/Kolkata")
	out, _ = elsewhere.expect(0, "delivery", id, "msg_1")
	assert.Contains(t, out, "Created      2026-11-23 15:30:15\n")
	out, _ = w.pwh(0, "delivery", id, "msg_1", "--json")
	assert.Equal(t, w.owner(200, "GET", "/"+id+"/deliveries/msg_1", "").text+"\n", out)
}

func TestPwhRecovers(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	job := func() (command string) {
		await(t, func() bool {
			return w.own.QueryRow(t.Context(), "SELECT id FROM commands WHERE id NOT IN (SELECT command_id FROM command_progress WHERE status <> 'running')").Scan(&command) == nil
		})
		return command
	}
	progress := func(p *program, command, status string, done int, shown string) {
		w.exec(w.own, `INSERT INTO command_progress (command_id, status, total, done, error, finished_at) VALUES ($1, $2, 3, $3, CASE WHEN $2 = 'failed' THEN 'the history is gone' ELSE '' END, CASE WHEN $2 <> 'running' THEN now() END)
			ON CONFLICT (command_id) DO UPDATE SET status = excluded.status, done = excluded.done, error = excluded.error, finished_at = excluded.finished_at`, command, status, done)
		if shown != "" {
			await(t, func() bool { return strings.Contains(p.notes.String(), shown) })
		}
	}
	p := w.program()
	_, ended := p.started("recover", id, "--since=7d", "--rate=5")
	command := job()
	progress(p, command, "running", 1, "running: 1 of 3 sent again\n")
	progress(p, command, "done", 3, "")
	_, notes := ended(0)
	assert.Equal(t, "waiting: 0 of an unknown number sent again\nrunning: 1 of 3 sent again\ndone: 3 of 3 sent again\n", notes)
	var since time.Time
	var status string
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT since, status FROM commands WHERE id = $1", command).Scan(&since, &status))
	assert.WithinDuration(t, time.Now().AddDate(0, 0, -7), since, time.Minute)
	assert.Equal(t, "dead", status)

	p = w.program()
	_, ended = p.started("recover", id, "--since=2026-11-01 10:00", "--until=2026-11-02", "--status=cancelled", "--json")
	command = job()
	progress(p, command, "failed", 1, "")
	out, notes := ended(1)
	assert.Equal(t, w.owner(200, "GET", "/"+id+"/recoveries/"+command, "").text+"\n", out)
	assert.Equal(t, "pwh: the recovery failed: the history is gone.\n", notes)

	p = w.program()
	interrupt, ended := p.started("recover", id, "--since=1h")
	command = job()
	await(t, func() bool { return strings.Contains(p.notes.String(), "waiting") })
	interrupt()
	_, notes = ended(0)
	assert.Contains(t, notes, "The recovery "+command+" goes on without being watched.\n")
	_, notes = w.pwh(1, "recover", id, "--since=1h")
	assert.Equal(t, "pwh: A recovery of this webhook is running: wait for its end, or cancel it.\n", notes)
}

// TestPwhTailsDeliveries: each delivery and each change is printed once, wherever in the list it comes in.
func TestPwhTailsDeliveries(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	store := func(delivery, age, status string, attempts int) {
		w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, last_error, payload, finished_at)
			VALUES ($1, date_trunc('hour', now()) - $2::interval, $3, $4, 'tr_1', ARRAY [$1], 'visitor_spike.fired', $5, $6, CASE WHEN $5 <> 'delivered' AND $6 > 0 THEN 'answered 500' ELSE '' END, '{}', CASE WHEN $5 NOT IN ('waiting', 'gathering') THEN now() END)`,
			delivery, age, w.demo.SiteID, id, status, attempts)
	}
	change := func(delivery, status string, attempts int) {
		w.exec(w.own, `UPDATE deliveries SET status = $2, attempts = $3, last_error = CASE WHEN $2 = 'waiting' THEN 'answered 500' ELSE '' END, finished_at = CASE WHEN $2 <> 'waiting' THEN now() END WHERE id = $1`, delivery, status, attempts)
	}
	store("msg_before", "10 s", "waiting", 0)
	store("msg_ancient", "8 h", "waiting", 0)
	human, machine := w.program(), w.program()
	stop, ended := human.started("tail", id, "--every=100ms")
	stopMachine, endedMachine := machine.started("tail", id, "--every=100ms", "--json")
	for _, p := range []*program{human, machine} {
		await(t, func() bool {
			return strings.Contains(p.notes.String(), "Watching the deliveries of "+id+" until Ctrl-C.\n")
		})
	}
	seen := func(text string) {
		for _, p := range []*program{human, machine} {
			await(t, func() bool { return strings.Contains(p.out.String(), text) })
		}
	}
	store("msg_new", "0 s", "waiting", 0)
	seen("msg_new")
	store("msg_late", "4 h", "delivered", 1) // after an outage
	seen("msg_late")
	change("msg_before", "waiting", 1)
	seen("msg_before")
	change("msg_new", "delivered", 1)
	delivered := regexp.MustCompile(`"id":"msg_new".*"status":"delivered"`)
	await(t, func() bool {
		return strings.Count(human.out.String(), "msg_new") == 2 && delivered.MatchString(machine.out.String())
	})
	for n := range 250 { // more than two pages at once
		store(fmt.Sprintf("msg_%03d", n), fmt.Sprintf("%d s", n%7), "delivered", 1)
	}
	await(t, func() bool {
		return strings.Count(human.out.String(), "\n") == 5+250 && strings.Count(machine.out.String(), "\n") == 4+250
	})
	// What still waits is followed when it is too old for the list, and what went with others is not looked for any more.
	store("msg_old", "1 s", "waiting", 0)
	store("msg_with", "1 s", "gathering", 0)
	seen("msg_old")
	seen("msg_with")
	w.exec(w.own, "UPDATE deliveries SET slot = slot - interval '7 hours' WHERE id = 'msg_old'")
	change("msg_old", "dead", 3)
	change("msg_ancient", "delivered", 2)
	w.exec(w.own, "UPDATE deliveries SET status = 'batched', batch_id = 'msg_batch', finished_at = now() WHERE id = 'msg_with'")
	store("msg_batch", "1 s", "delivered", 1)
	seen("msg_batch")
	await(t, func() bool { return strings.Count(human.out.String(), "msg_old ") == 2 })
	seen("msg_ancient")
	store("msg_last", "30 s", "delivered", 1)
	seen("msg_last")
	stop()
	stopMachine()
	out, _ := ended(0)
	lines := strings.Split(regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  `).ReplaceAllString(out, ""), "\n")
	assert.Equal(t, []string{
		"waiting    msg_new                         visitor_spike.fired", "delivered  msg_late                        visitor_spike.fired",
		"waiting    msg_before                      visitor_spike.fired", "  answered 500", "delivered  msg_new                         visitor_spike.fired",
	}, lines[:5])
	for n := range 250 {
		assert.Equal(t, 1, strings.Count(out, fmt.Sprintf("msg_%03d ", n)))
	}
	for delivery, times := range map[string]int{"msg_late": 1, "msg_with": 1, "msg_batch": 1, "msg_last": 1, "dead       msg_old": 1, "msg_ancient": 1} {
		assert.Equal(t, times, strings.Count(out, delivery+" "), delivery)
	}
	out, _ = endedMachine(0)
	var first map[string]any
	require.NoError(t, json.Unmarshal([]byte(out[:strings.Index(out, "\n")]), &first))
	assert.Equal(t, []any{"msg_new", "waiting"}, []any{first["id"], first["status"]})
}

func TestPwhTailOutlivesTheAPI(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	var away, forbidden atomic.Bool
	server := w.obstacle(func(_ int, _ *http.Request, to http.ResponseWriter) bool {
		switch {
		case forbidden.Load():
			to.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(to, `{"error": "The API key is unknown."}`)
		case away.Load():
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	})
	p := w.program("PWH_URL=" + server.URL)
	_, ended := p.started("tail", id, "--every=100ms")
	await(t, func() bool { return strings.Contains(p.notes.String(), "Watching") })
	away.Store(true)
	await(t, func() bool { return strings.Contains(p.notes.String(), ": it goes on when that is over.\n") })
	w.delivery(w.demo.SiteID, id, "tr_1", "msg_1", 0)
	away.Store(false)
	await(t, func() bool { return strings.Contains(p.out.String(), "msg_1") })
	forbidden.Store(true)
	out, notes := ended(1)
	assert.Equal(t, 1, strings.Count(out, "msg_1"))
	assert.Contains(t, notes, "pwh: The API key is unknown: check $PWH_API_KEY or --key-file.\n")
}

func TestPwhPreviewsAndExplains(t *testing.T) {
	w := newWorld(t)
	answering := func(endpoint string, answer any) func() *nats.Msg {
		heard := make(chan *nats.Msg, 10)
		s, err := w.api.nats.Subscribe(stream.EvaluatorEndpoints[endpoint], func(m *nats.Msg) {
			heard <- m
			assert.NoError(t, m.Respond(mustMarshal(answer)))
		})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, s.Unsubscribe()) })
		return func() *nats.Msg { return <-heard }
	}
	at := time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)
	asked := answering("preview", stream.Preview{
		From: at.AddDate(0, 0, -30), To: at, StepSeconds: 60, Points: []stream.PreviewPoint{}, Count: 1,
		Firings:    []stream.PreviewFiring{{At: at, Transition: "fired", Value: 143, Threshold: 100, Explanation: "143 visitors in 5 minutes reached the threshold of 100."}},
		Suggestion: &stream.SuggestedConfig{Field: "threshold", Value: 80, FiringsPerMonth: 4},
	})
	out, notes := w.pwh(0, "preview", "visitor_spike:threshold=100,cooldown_seconds=60", "--per-month=4", "--since=2026-11-01")
	assert.Equal(t, `AT                   VALUE  THRESHOLD  MESSAGE
2026-11-23 15:00:00  143    100        fired
  143 visitors in 5 minutes reached the threshold of 100.
`, out)
	assert.Equal(t, "It would have fired 1 time between 2026-10-24 15:00:00 and 2026-11-23 15:00:00.\nWith threshold=80 it would fire 4 times in a month.\n", notes)
	var request stream.PreviewRequest
	require.NoError(t, json.Unmarshal(asked().Data, &request))
	assert.Equal(t, []any{trigger.Type("visitor_spike"), int64(60), time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 4.0}, []any{request.Type, request.CooldownSeconds, request.From, request.PerMonth})
	assert.Contains(t, string(request.Config), `"threshold":100`)
	out, _ = w.pwh(0, "preview", "visitor_spike", "--json")
	assert.Contains(t, out, `"step_seconds":60`)
	_, notes = w.pwh(1, "preview", "visitor_spike:threshold=ten,x=1")
	assert.Contains(t, notes, "for 2 reasons")

	created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	answering("explain", stream.Explanation{
		State: &stream.Standing{Status: "ok", Value: new(12.0), Threshold: new(100.0), Since: at, Explanation: "12 visitors in 5 minutes; it fires at 100."},
		Runs: []stream.ResultRun{{From: at, To: at.Add(time.Hour), StepSeconds: 10, Value: new(12.5), Threshold: new(100.0), Status: "ok"},
			{From: at.Add(time.Hour), To: at.Add(2 * time.Hour), StepSeconds: 10, Status: "insufficient_data"}}, Truncated: true,
	})
	of := created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	out, notes = w.pwh(0, "explain", created.id(t), of, "--since=3h")
	assert.Equal(t, `ok since 2026-11-23 15:00:00.
12 visitors in 5 minutes; it fires at 100.

FROM                 TO                   VALUE  THRESHOLD  STATUS
2026-11-23 15:00:00  2026-11-23 16:00:00  12.5   100        ok
2026-11-23 16:00:00  2026-11-23 17:00:00  –      –          insufficient_data
`, out)
	assert.Equal(t, "Older ones were left out: ask for a shorter time with --since and --until.\n", notes)
	out, _ = w.pwh(0, "explain", created.id(t), of, "--json")
	assert.Contains(t, out, `"truncated":true`)
}

// hook is a program in development that takes messages and verifies them with the official library.
type hook struct {
	mu       sync.Mutex
	bodies   []string
	ids      []string
	problems []error
	answer   int
	*httptest.Server
}

func newHook(t *testing.T, secret string) *hook {
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	h := &hook{answer: 200}
	h.Server = httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.problems = append(h.problems, err, verifier.Verify(body, r.Header))
		h.bodies, h.ids = append(h.bodies, string(body)), append(h.ids, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("webhook-id"))
		to.WriteHeader(h.answer)
	}))
	t.Cleanup(h.Close)
	return h
}

func (w *world) fire(id string) {
	w.t.Helper()
	require.NoError(w.t, w.api.nats.PublishMsg(stream.Encode(trigger.Firing{
		ID: id, Slot: time.Now().Truncate(time.Second), SiteID: w.demo.SiteID, WebhookID: "wh_1", TriggerID: "tr_1", TriggerType: "visitor_spike", Type: "visitor_spike.fired",
		Payload: []byte(`{"type":"visitor_spike.fired","data":{"id":"` + id + `","note":"<ü>"}}`),
	})))
}

func TestPwhForwardsMessages(t *testing.T) {
	w := newWorld(t)
	secret := signature.NewSecret().Reveal()
	h := newHook(t, secret)
	p := w.program("PWH_SECRET=" + secret)
	stop, ended := p.started("listen", "--forward", h.URL+"/hook")
	await(t, func() bool {
		return strings.Contains(p.notes.String(), "Listening: each message of "+w.demo.Domain+" is sent to "+h.URL+"/hook, until Ctrl-C.\n")
	})
	for n := range 3 {
		w.fire(fmt.Sprintf("msg_%d", n))
	}
	await(t, func() bool { return strings.Count(p.out.String(), "\n") == 3 })
	h.mu.Lock()
	h.answer = 500
	h.mu.Unlock()
	w.fire("msg_3")
	await(t, func() bool { return strings.Count(p.out.String(), "\n") == 4 })
	h.Close()
	w.fire("msg_4")
	await(t, func() bool { return strings.Count(p.out.String(), "\n") == 6 })
	stop()
	out, notes := ended(0)
	for _, problem := range h.problems {
		assert.NoError(t, problem, "the official library takes it")
	}
	assert.Equal(t, []string{"POST /hook application/json msg_0", "POST /hook application/json msg_1", "POST /hook application/json msg_2", "POST /hook application/json msg_3"}, h.ids)
	assert.Equal(t, `{"type":"visitor_spike.fired","data":{"id":"msg_0","note":"<ü>"}}`, h.bodies[0], "byte for byte")
	assert.NotContains(t, out+notes, secret, "whoever gave it knows it")
	lines := strings.Split(out, "\n")
	assert.Regexp(t, `^\d\d:\d\d:\d\d  msg_0                           visitor_spike\.fired        200 in \d+\.\d ms$`, lines[0])
	assert.Regexp(t, `^\d\d:\d\d:\d\d  msg_3 .* 500 in `, lines[3])
	assert.Regexp(t, `^\d\d:\d\d:\d\d  msg_4 .* no answer in `, lines[4])
	assert.Regexp(t, `^  dial tcp 127\.0\.0\.1:\d+: connect: connection refused$`, lines[5])
}

func TestPwhForwardsElsewhereIfAllowed(t *testing.T) {
	w := newWorld(t)
	for _, arguments := range [][]string{{"--forward=http://8.8.8.8/hook", "--allow-remote"}, {"--forward=http://10.1.2.3/hook"}, {"--forward=https://[fd00::1]/hook"}, {"--forward=http://localhost:3000"}} {
		p := w.program()
		stop, ended := p.started(append([]string{"listen"}, arguments...)...)
		await(t, func() bool { return strings.Contains(p.notes.String(), "Listening: ") })
		stop()
		ended(0)
	}
}

func TestPwhMakesASecretAndComesBack(t *testing.T) {
	w := newWorld(t)
	var gate sync.Mutex
	var streams []context.CancelFunc
	server := w.obstacle(func(n int, r *http.Request, to http.ResponseWriter) bool {
		if n == 2 { // the api is not back yet
			to.WriteHeader(http.StatusBadGateway)
			return true
		}
		ctx, cancel := context.WithCancel(r.Context())
		gate.Lock()
		streams = append(streams, cancel)
		gate.Unlock()
		*r = *r.WithContext(ctx)
		return false
	})
	p := w.program("PWH_URL=" + server.URL)
	received := make(chan *http.Request, 10)
	local := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		r.Body = io.NopCloser(bytes.NewReader(body))
		received <- r
		to.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(local.Close)
	stop, ended := p.started("listen", "--json", "--forward", local.URL)
	listening := func(times int) {
		await(t, func() bool { return strings.Count(p.notes.String(), "Listening: ") == times })
	}
	listening(1)
	w.fire("msg_1")
	verifier, err := standardwebhooks.NewWebhook(anySecret.FindString(p.notes.String()))
	require.NoError(t, err)
	verify := func(id string) {
		t.Helper()
		r := <-received
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, verifier.Verify(body, r.Header))
		require.Equal(t, id, r.Header.Get("webhook-id"))
	}
	verify("msg_1")
	gate.Lock()
	streams[0]()
	gate.Unlock()
	listening(2)
	w.fire("msg_2")
	verify("msg_2")
	await(t, func() bool { return strings.Count(p.out.String(), "\n") == 2 })
	stop()
	out, notes := ended(0)
	assert.Equal(t, 2, strings.Count(notes, "The stream broke off ("), notes)
	assert.Contains(t, notes, "It is opened again in 500ms; what fires meanwhile is not seen here, but in pwh deliveries.\n")
	var first struct {
		ID         string          `json:"id"`
		StatusCode int             `json:"status_code"`
		Message    json.RawMessage `json:"message"`
	}
	require.NoError(t, json.Unmarshal([]byte(out[:strings.Index(out, "\n")]), &first))
	assert.Equal(t, []any{"msg_1", 202}, []any{first.ID, first.StatusCode})
	assert.JSONEq(t, `{"type":"visitor_spike.fired","data":{"id":"msg_1","note":"<ü>"}}`, string(first.Message))
}

func TestPwhVerifies(t *testing.T) {
	w := newWorld(t)
	secret := signature.NewSecret().Reveal()
	official, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	const body = `{"type":"visitor_spike.fired","data":{"note":"<ü>"}}` + "\n"
	file := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(file, []byte(body), 0o600))
	now := time.Now()
	signed := func(at time.Time) string {
		made, err := official.Sign("msg_1", at, []byte(body))
		require.NoError(t, err)
		return made
	}
	verify := func(code int, body, secret string, at time.Time, signatures string, more ...string) string {
		t.Helper()
		p := &program{w: w, environment: []string{"TZ=UTC", "PWH_SECRET=" + secret}, input: body}
		out, notes := p.expect(code, append([]string{"verify", "--id=msg_1", "--timestamp=" + strconv.FormatInt(at.Unix(), 10), "--signature=" + signatures}, more...)...)
		assert.NotContains(t, out+notes, secret)
		return steady(out + notes)
	}
	const right = "The signature of msg_1 is right; it was made at 2026-11-26 00:00:00.\n"
	const wrong = "pwh: the signature is not right: check the secret, and that the body is byte for byte what arrived.\n"
	assert.Equal(t, right, verify(0, body, secret, now, signed(now)))
	assert.Equal(t, right, verify(0, "", secret, now, "v1,AAAA "+signed(now)+" v1a,AAAA", file), "one of several is enough")
	assert.Equal(t, wrong, verify(1, body, signature.NewSecret().Reveal(), now, signed(now)))
	assert.Equal(t, wrong, verify(1, strings.TrimSpace(body), secret, now, signed(now)))
	assert.Equal(t, wrong, verify(1, body, secret, now.Add(time.Second), signed(now)), "the timestamp is signed as well")
	assert.Equal(t, wrong, verify(1, body, secret, now, strings.TrimPrefix(signed(now), "v1,")))
	for _, at := range []time.Time{now.Add(-time.Hour), now.Add(time.Hour)} {
		assert.Equal(t, "pwh: the signature is right, but the message is of 2026-11-26 00:00:00 and only 5m0s are tolerated: it may have been sent before, or a clock is wrong.\n",
			verify(1, body, secret, at, signed(at)))
		assert.Equal(t, right, verify(0, body, secret, at, signed(at), "--tolerance=2h"))
	}
	assert.Contains(t, verify(0, body, secret, now, signed(now), "--json"), `"valid":true`)
	assert.Contains(t, verify(1, body, secret, now, "v1,AAAA", "--json"), `"valid":false`)

	key := signature.NewKey()
	with := signature.Sign("msg_1", now, []byte(body), key)
	assert.Equal(t, right, verify(0, body, key.Public(), now, signed(now)+" "+with))
	assert.Equal(t, wrong, verify(1, body, signature.NewKey().Public(), now, signed(now)+" "+with))
	assert.Contains(t, verify(2, body, "whpk_AAAA", now, with), "begins as a public key, but is none")

	headers := filepath.Join(t.TempDir(), "headers")
	lines := fmt.Sprintf("POST /hook HTTP/1.1\r\nHost: localhost:3000\r\n> Webhook-Id: msg_1\r\nWEBHOOK-TIMESTAMP: %d\r\nwebhook-signature:%s\r\n\r\n", now.Unix(), signed(now))
	require.NoError(t, os.WriteFile(headers, []byte(lines), 0o600))
	offline := func(code int, arguments ...string) string {
		t.Helper()
		p := &program{w: w, environment: []string{"TZ=UTC", "PWH_SECRET=" + secret}, input: body}
		out, notes := p.expect(code, append([]string{"verify"}, arguments...)...)
		return steady(out + notes)
	}
	assert.Equal(t, right, offline(0, "--headers", headers))
	assert.Equal(t, "pwh: --headers has all headers: give no other beside it.\n", offline(2, "--headers", headers, "--id=msg_1"))
	assert.Equal(t, "pwh: the header webhook-signature is missing: give it as a flag or in --headers.\n", offline(2, "--id=a", "--timestamp=1"))
	assert.Contains(t, offline(2, "--id=a", "--timestamp=yesterday", "--signature=v1,x"), "pwh: the timestamp must be the seconds since 1970, such as ")

	preview := w.owner(200, "POST", "/preview", `{"type": "visitor_spike"}`)
	sent := preview.json(t, "headers").(map[string]any)
	_, raw, _ := strings.Cut(preview.text, `"body":`)
	var bodySent json.RawMessage
	require.NoError(t, json.NewDecoder(strings.NewReader(raw)).Decode(&bodySent))
	shown := &program{w: w, environment: []string{"PWH_SECRET=" + preview.json(t, "secret").(string)}, input: string(bodySent)}
	out, _ := shown.expect(0, "verify", "--id", sent["webhook-id"].(string), "--timestamp", sent["webhook-timestamp"].(string), "--signature", sent["webhook-signature"].(string))
	assert.Contains(t, out, " is right; ")
}
