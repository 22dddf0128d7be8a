package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

const (
	firefox = `Mozilla/5.0 (X11; Linux x86_64; rv:27.0) Gecko/20100101 Firefox/27.0`
	iphone  = `Mozilla/5.0 (iPhone; CPU iPhone OS 10_3_2 like Mac OS X) AppleWebKit/603.2.4 (KHTML, like Gecko) Version/10.0 Mobile/14F89 Safari/602.1`
	chrome  = `Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.77 Safari/537.36`
)

func line(client, at, asked, status, referrer, agent string) string {
	return client + ` - - [17/May/2015:` + at + ` +0000] "` + asked + `" ` + status + ` 1234 "` + referrer + `" "` + agent + `"`
}

func TestLineIsRead(t *testing.T) {
	r, err := parseCombined(`83.149.9.216 - bob [17/May/2015:12:05:03 +0200] "GET /a\"b/?q=1 HTTP/1.1" 200 - "http://www.example.com/x" "` + firefox + `"`)
	require.NoError(t, err)
	require.Equal(t, request{
		client: "83.149.9.216", at: time.Date(2015, 5, 17, 10, 5, 3, 0, time.UTC), method: "GET", target: `/a"b/?q=1`,
		status: 200, referrer: "http://www.example.com/x", agent: firefox,
	}, r)
}

func TestBadLinesAreCounted(t *testing.T) {
	good := line("1.2.3.4", "10:05:03", "GET / HTTP/1.1", "200", "-", firefox)
	for _, bad := range []string{
		"hello", `1.2.3.4 - - [now] "GET / HTTP/1.1" 200 1 "-" "x"`, strings.Replace(good, "200", "abc", 1),
		good[:len(good)-1], strings.Replace(good, "GET / HTTP/1.1", "-", 1), strings.Repeat("x", 200_000), "\x00\xff", `1.2.3.4 - - []`,
	} {
		requests, n, err := readLog(strings.NewReader(good + "\n" + bad + "\n\n" + good + "\r\n"))
		require.NoError(t, err)
		require.Equal(t, 1, n, "%.40q", bad)
		require.Len(t, requests, 2)
	}
}

func TestZippedLogIsRead(t *testing.T) {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write([]byte(line("1.2.3.4", "10:05:03", "GET / HTTP/1.1", "200", "-", firefox)))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	requests, bad, err := readLog(&zipped)
	require.NoError(t, err)
	require.Zero(t, bad)
	require.Len(t, requests, 1)
}

func FuzzLineNeverPanics(f *testing.F) {
	f.Add(line("1.2.3.4", "10:05:03", `GET /\"x HTTP/1.1`, "200", "http://example.com", firefox))
	f.Add(`- - - [] "" 1 1 "" ""`)
	f.Add(`a b c [01/Jan/2000:00:00:00 +0000] "GET ? " 200 0 "::" "\`)
	f.Fuzz(func(t *testing.T, text string) {
		requests, bad, err := readLog(strings.NewReader(text))
		if err != nil {
			return // a broken gzip stream
		}
		if lines := strings.Count(text, "\n") + 1; len(requests)+bad > lines {
			t.Fatalf("%d requests and %d bad lines of %d", len(requests), bad, lines)
		}
		p := plan(requests)
		skipped := 0
		for _, n := range p.summary.skipped {
			skipped += n
		}
		if len(p.hits)+skipped != len(requests) || p.summary.pages+p.summary.misses != len(p.hits) {
			t.Fatalf("%+v", p.summary)
		}
	})
}

func TestWhatIsReplayed(t *testing.T) {
	for _, test := range []struct{ asked, status, agent, why string }{
		{"GET / HTTP/1.1", "200", firefox, ""},
		{"GET /blog/x.html?a=b HTTP/1.1", "304", firefox, ""},
		{"GET /releases/v1.2 HTTP/1.1", "200", firefox, ""},
		{"GET http://example.com/page HTTP/1.1", "200", firefox, ""},
		{"POST / HTTP/1.1", "200", firefox, notAsked},
		{"HEAD / HTTP/1.1", "200", firefox, notAsked},
		{"GET /style.CSS HTTP/1.1", "200", firefox, asset},
		{"GET /font.woff2?v=3 HTTP/1.1", "200", firefox, asset},
		{"GET /favicon.ico HTTP/1.1", "404", firefox, asset},
		{"GET /blog/?flav=rss20 HTTP/1.1", "200", firefox, feed},
		{"GET / HTTP/1.1", "200", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", bot},
		{"GET / HTTP/1.1", "200", "Wget/1.12 (linux-gnu)", bot},
		{"GET / HTTP/1.1", "200", "-", bot},
		{"GET / HTTP/1.1", "301", firefox, redirected},
		{"GET / HTTP/1.1", "206", firefox, failed},
		{"GET / HTTP/1.1", "500", firefox, failed},
		{"GET * HTTP/1.1", "200", firefox, unreadable},
		{"GET /%zz HTTP/1.1", "200", firefox, unreadable},
	} {
		r, err := parseCombined(line("1.2.3.4", "10:05:03", test.asked, test.status, "-", test.agent))
		require.NoError(t, err)
		_, miss, why := judge(r)
		require.Equal(t, test.why, why, "%s %s %s", test.asked, test.status, test.agent)
		require.False(t, miss)
	}
}

func TestHitsSayWhoCameAndFromWhere(t *testing.T) {
	requests, _, err := readLog(strings.NewReader(strings.Join([]string{
		line("1.1.1.1", "10:00:00", "GET /blog/a%20b?utm_source=news&utm_medium=email HTTP/1.1", "200", "https://www.google.co.uk/search", chrome),
		line("1.1.1.1", "10:00:01", "GET /style.css HTTP/1.1", "200", "http://www.semicomplete.com/blog/a%20b", chrome),
		line("2.2.2.2", "10:10:00", "GET /gone HTTP/1.1", "404", "http://semicomplete.com/", iphone),
		line("3.3.3.3", "10:20:00", "GET /x HTTP/1.1", "200", "https://www.google.co.uk/search?q=x", firefox),
	}, "\n")))
	require.NoError(t, err)
	p := plan(requests)
	require.Len(t, p.hits, 3)

	first := p.hits[0]
	require.Equal(t, "/blog/a b", first.action.Path)
	require.Equal(t, visit.Origin{Referrer: "google.co.uk/search", Source: "news", UTMSource: "news", UTMMedium: "email"}, first.action.Origin)
	require.Equal(t, []string{"Desktop", "Mac", "10.9", "Chrome", "32.0"},
		[]string{first.visitor.Device, first.visitor.OS, first.visitor.OSVersion, first.visitor.Browser, first.visitor.BrowserVersion})

	miss := p.hits[1]
	require.Equal(t, "404", miss.action.Name)
	require.Equal(t, []string{"/gone"}, miss.action.PropValues)
	require.Zero(t, miss.action.Origin, "a link within the site is no source")
	require.Equal(t, "Mobile", miss.visitor.Device)
	require.Equal(t, "iOS", miss.visitor.OS)

	require.Equal(t, "Google", p.hits[2].action.Origin.Source)
	require.NotEqual(t, first.visitor.ID, miss.visitor.ID)
}

func TestTimesThatBearOneMinuteAreSpread(t *testing.T) {
	var text []string
	for _, hour := range []string{"10", "11"} {
		for range 4 {
			text = append(text, line("1.2.3.4", hour+":05:59", "GET / HTTP/1.1", "200", "-", firefox))
		}
	}
	requests, _, err := readLog(strings.NewReader(strings.Join(text, "\n")))
	require.NoError(t, err)
	spread(requests)
	require.Equal(t, []int{0, 15, 30, 45}, []int{requests[0].at.Minute(), requests[1].at.Minute(), requests[2].at.Minute(), requests[3].at.Minute()})
	require.Equal(t, 11, requests[4].at.Hour())

	honest, _, err := readLog(strings.NewReader(text[0] + "\n" + line("1.2.3.4", "11:06:00", "GET / HTTP/1.1", "200", "-", firefox)))
	require.NoError(t, err)
	spread(honest)
	require.Equal(t, 6, honest[1].at.Minute(), "real times stay")
}

func TestReplayHappensNowInTheGivenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hits []hit
		logged := time.Date(2015, 5, 17, 0, 0, 0, 0, time.UTC)
		for i := range 49 {
			at := logged.Add(time.Duration(i) * time.Hour)
			hits = append(hits, hit{at: at, visitor: visit.Visitor{ID: 1}, action: visit.Action{At: at, Name: visit.Pageview, Path: "/"}})
		}
		began := time.Now()
		line := newTimeline(hits, began, 0, 2*time.Minute)
		sessions := map[uint64]bool{}
		inserted, err := play(t.Context(), line, hits, visit.New(1, "example.com", 1, line.live), func(_ context.Context, rows visit.Rows) error {
			for _, e := range rows.Events {
				age := time.Since(e.Timestamp)
				if age < 0 || age > visit.FlushInterval+time.Second {
					t.Errorf("a row of %s is inserted %s later", e.Timestamp, age)
				}
				sessions[e.SessionID] = true
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 49*2, inserted, "an event and a session row for each")
		require.Len(t, sessions, 49, "an hour of the log ends a visit, however fast it passes")
		require.InDelta(t, 2*time.Minute, time.Since(began), float64(visit.FlushInterval+time.Second))
	})
}

func TestWishesAreRefusedAllAtOnce(t *testing.T) {
	given := func(values map[string]string) func(string) string {
		return func(name string) string { return values[name] }
	}
	_, err := readWish(given(map[string]string{"SPEED": "NaN", "DURATION": "soon"}))
	require.ErrorContains(t, err, "LOG is not set")
	require.ErrorContains(t, err, `SPEED is "NaN"`)
	require.ErrorContains(t, err, `DURATION is "soon"`)
	require.ErrorContains(t, err, "both set")
	w, err := readWish(given(map[string]string{"LOG": "x", "SPEED": "60x"}))
	require.NoError(t, err)
	require.InDelta(t, 60, w.speed, 0)
}

func TestStackIsFoundOrMissed(t *testing.T) {
	dir := t.TempDir()
	_, err := readStack(dir)
	require.ErrorContains(t, err, "start one with `make up`")
	file := filepath.Join(dir, "stack.env")
	require.NoError(t, os.WriteFile(file, []byte("DEMO_SITE=demo.example.com\nDEMO_SITE_ID=7\nPLAUSIBLE_CLICKHOUSE_URL='http://h:1/d?a&b'\n"), 0o600))
	s, err := readStack(dir)
	require.NoError(t, err)
	require.Equal(t, stackAddress{clickhouse: "http://h:1/d?a&b", site: "demo.example.com", siteID: 7}, s)
	require.NoError(t, os.WriteFile(file, []byte("X=1"), 0o600))
	_, err = readStack(dir)
	require.ErrorContains(t, err, "is not a stack's")
}
