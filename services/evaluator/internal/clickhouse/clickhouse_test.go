package clickhouse

import (
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func TestMain(m *testing.M) { devstacktest.Main(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// bench is Plausible's ClickHouse with tables, a way to add rows, and a counter of queries.
type bench struct {
	*Events
	t       *testing.T
	url     string
	queries atomic.Int64
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, url: devstacktest.ClickHouse(t)}
	require.NoError(t, plausible.CreateClickHouse(t.Context(), b.url))
	events, err := Open(t.Context(), b.url, 10*time.Second, func(string, time.Duration, error) { b.queries.Add(1) })
	require.NoError(t, err)
	t.Cleanup(func() { _ = events.Close() })
	b.Events = events
	b.queries.Store(0)
	return b
}

func (b *bench) insert(events ...plausible.Event) {
	b.t.Helper()
	conn, err := plausible.Open(b.url)
	require.NoError(b.t, err)
	defer conn.Close()
	require.NoError(b.t, plausible.InsertEvents(b.t.Context(), conn, events))
}

// at is a pageview of a visitor so many seconds before noon.
func at(secondsBefore int, visitor uint64, path string) plausible.Event {
	return plausible.Event{
		Timestamp: noon.Add(-time.Duration(secondsBefore) * time.Second), Name: "pageview",
		SiteID: 1, UserID: visitor, SessionID: visitor * 10, Pathname: path,
	}
}

func named(name string, e plausible.Event) plausible.Event { e.Name = name; return e }

func scrolled(depth uint8, e plausible.Event) plausible.Event {
	e.Name, e.ScrollDepth = "engagement", depth
	return e
}

func props(e plausible.Event, pairs ...string) plausible.Event {
	for i := 0; i < len(pairs); i += 2 {
		e.PropKeys, e.PropValues = append(e.PropKeys, pairs[i]), append(e.PropValues, pairs[i+1])
	}
	return e
}

func depth(percent int) *int { return &percent }

func TestVisitorsAreCountedLikeOnTheDashboard(t *testing.T) {
	b := newBench(t)
	other := at(10, 7, "/")
	other.SiteID = 2
	b.insert(
		at(10, 1, "/"), at(20, 1, "/b"), at(30, 2, "/"), // two visitors
		named("Signup", at(40, 3, "/")),  // a custom event's visitor counts
		scrolled(90, at(50, 4, "/")),     // who only reads on does not
		at(300, 5, "/"), at(301, 6, "/"), // the first and last before the window
		at(0, 8, "/"), // at its end
		other,
	)
	window := func(site, seconds int64) SiteWindow {
		return SiteWindow{SiteID: site, From: noon.Unix() - seconds, To: noon.Unix()}
	}
	got, err := b.Visitors(t.Context(), []SiteWindow{window(1, 300), window(1, 60), window(2, 300), window(3, 300), window(1, 3600)}, noon)
	require.NoError(t, err)
	assert.Equal(t, []int64{4, 3, 1, 0, 5}, got)
}

func TestConversionsOfEveryKindOfGoal(t *testing.T) {
	b := newBench(t)
	early := props(named("Purchase", at(400, 9, "/")), "plan", "business")
	b.insert(
		named("Signup", at(5, 1, "/signup")), named("Signup", at(15, 1, "/signup")), named("Signup", at(25, 2, "/signup")), named("signup", at(25, 3, "/")),
		props(named("Purchase", at(5, 1, "/")), "plan", "business", "seats", "5"),
		props(named("Purchase", at(6, 2, "/")), "plan", "free", "seats", "business"),
		named("Purchase", at(7, 3, "/")), early,
		at(5, 1, "/blog"), at(6, 2, "/blog/"), at(7, 3, "/blog/a/b"), at(8, 4, "/blogs"), at(9, 5, "/a+b"), at(10, 6, "/aab"), at(11, 7, "/x/y/z"),
		scrolled(80, at(30, 1, "/blog/a")), scrolled(90, at(20, 1, "/blog/a")), scrolled(75, at(20, 2, "/blog/b")),
		scrolled(74, at(20, 3, "/blog/a")), scrolled(255, at(20, 4, "/blog/a")), scrolled(99, at(20, 5, "/about")),
	)
	for name, c := range map[string]struct {
		goal        trigger.Goal
		conversions int64
		visitors    int64
	}{
		"event":                      {trigger.Goal{EventName: "Signup"}, 3, 2},
		"event of another case":      {trigger.Goal{EventName: "signup"}, 1, 1},
		"event nobody sent":          {trigger.Goal{EventName: "Nothing"}, 0, 0},
		"event with property":        {trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": "business"}}, 1, 1},
		"event with two properties":  {trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": "business", "seats": "5"}}, 1, 1},
		"event with other property":  {trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": "business", "seats": "6"}}, 0, 0},
		"absent property is not ''":  {trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": ""}}, 0, 0},
		"page":                       {trigger.Goal{PagePath: "/blog"}, 1, 1},
		"page with wildcard":         {trigger.Goal{PagePath: "/blog*"}, 4, 4},
		"page below":                 {trigger.Goal{PagePath: "/blog/*"}, 2, 2},
		"page with double wildcard":  {trigger.Goal{PagePath: "/blog/**"}, 2, 2},
		"page with wildcard within":  {trigger.Goal{PagePath: "/x/*/z"}, 1, 1},
		"page with special letters":  {trigger.Goal{PagePath: "/a+b*"}, 1, 1},
		"page with alternatives":     {trigger.Goal{PagePath: "/blog/*|/aab"}, 3, 3},
		"scroll counts sessions":     {trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depth(75)}, 2, 2},
		"scroll deeper":              {trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depth(85)}, 1, 1},
		"scroll of everything known": {trigger.Goal{PagePath: "/*", ScrollThreshold: depth(0)}, 4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			window := Condition{SiteID: 1, Goal: c.goal, From: noon.Add(-5 * time.Minute)}
			each := window
			each.Each = true
			got, err := b.Conversions(t.Context(), []Condition{window, each}, noon, 10*time.Second)
			require.NoError(t, err)
			assert.Equal(t, c.conversions, got[0].Count, "threshold: conversions")
			assert.Equal(t, c.visitors, got[0].Visitors, "threshold: visitors")
			assert.Equal(t, c.conversions, got[1].Count, "each: conversions")
			assert.Empty(t, got[0].Buckets)
			var total int64
			for _, bucket := range got[1].Buckets {
				assert.Zero(t, bucket.Start.Unix()%10)
				assert.Len(t, bucket.Fingerprints, int(bucket.Count))
				total += bucket.Count
			}
			assert.Equal(t, c.conversions, total, "each: in buckets")
		})
	}
}

func TestEqualRowsOfOneSecondAreSeveralConversions(t *testing.T) {
	b := newBench(t)
	b.insert(named("Signup", at(5, 1, "/")), named("Signup", at(5, 1, "/")), named("Signup", at(5, 1, "/")))
	c := Condition{SiteID: 1, Goal: trigger.Goal{EventName: "Signup"}, From: noon.Add(-time.Minute), Each: true}
	got, err := b.Conversions(t.Context(), []Condition{c}, noon, 10*time.Second)
	require.NoError(t, err)
	require.Len(t, got[0].Buckets, 1)
	assert.Equal(t, int64(3), got[0].Buckets[0].Count)
	assert.Len(t, got[0].Buckets[0].Fingerprints, 3)

	list, err := b.List(t.Context(), []Condition{c}, [][]uint64{got[0].Buckets[0].Fingerprints[:2]}, noon)
	require.NoError(t, err)
	assert.Len(t, list[0], 2, "as many as are wanted")
}

func TestFirstBucketStartsWithTheCondition(t *testing.T) {
	b := newBench(t)
	b.insert(named("Signup", at(8, 1, "/")), named("Signup", at(6, 2, "/")), named("Signup", at(5, 3, "/")))
	c := Condition{SiteID: 1, Goal: trigger.Goal{EventName: "Signup"}, From: noon.Add(-6 * time.Second), Each: true}
	got, err := b.Conversions(t.Context(), []Condition{c}, noon, 10*time.Second)
	require.NoError(t, err)
	require.Len(t, got[0].Buckets, 1)
	assert.Equal(t, c.From, got[0].Buckets[0].Start)
	assert.Equal(t, int64(2), got[0].Count)
}

func TestSessionThatReadsOnIsCountedOnce(t *testing.T) {
	b := newBench(t)
	b.insert(scrolled(80, at(600, 1, "/blog/a")), scrolled(90, at(5, 1, "/blog/a")), // read that far before
		scrolled(80, at(2400, 2, "/blog/a")), scrolled(90, at(5, 2, "/blog/a")), // away for over 30 minutes
		scrolled(10, at(600, 3, "/blog/a")), scrolled(90, at(5, 3, "/blog/a"))) // reads that far now
	c := Condition{SiteID: 1, Goal: trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depth(75)}, From: noon.Add(-10 * time.Second), Each: true}
	got, err := b.Conversions(t.Context(), []Condition{c}, noon, 10*time.Second)
	require.NoError(t, err)
	assert.Equal(t, int64(2), got[0].Count)
}

func TestListTellsWhatHappened(t *testing.T) {
	b := newBench(t)
	bought := props(named("Purchase", at(5, 1, "/checkout")), "plan", "business")
	bought.ReferrerSource, bought.CountryCode = "Hacker News", "EE"
	b.insert(bought, named("Purchase", at(4, 2, "/checkout")))
	c := Condition{SiteID: 1, Goal: trigger.Goal{EventName: "Purchase"}, From: noon.Add(-10 * time.Second), Each: true}
	got, err := b.Conversions(t.Context(), []Condition{c}, noon, 10*time.Second)
	require.NoError(t, err)
	list, err := b.List(t.Context(), []Condition{c}, [][]uint64{got[0].Buckets[0].Fingerprints}, noon)
	require.NoError(t, err)
	assert.Equal(t, []Conversion{
		{At: noon.Add(-4 * time.Second), Page: "/checkout"},
		{At: noon.Add(-5 * time.Second), Page: "/checkout", Source: "Hacker News", Country: "EE", Props: map[string]string{"plan": "business"}},
	}, list[0])
}

func TestTopLeavesOutDirectTraffic(t *testing.T) {
	b := newBench(t)
	from := func(source string, e plausible.Event) plausible.Event { e.ReferrerSource = source; return e }
	b.insert(from("Google", at(5, 1, "/a")), from("Google", at(5, 2, "/b")), from("Bing", at(5, 3, "/a")), at(5, 4, "/a"), named("Signup", at(5, 5, "/c")))
	top, err := b.Top(t.Context(), []SiteWindow{{SiteID: 1, From: noon.Unix() - 60, To: noon.Unix()}, {SiteID: 9, From: noon.Unix() - 60, To: noon.Unix()}}, noon)
	require.NoError(t, err)
	assert.Equal(t, []Top{{
		Sources: []Ranking{{"Google", 2}, {"Bing", 1}},
		Pages:   []Ranking{{"/a", 3}, {"/b", 1}},
	}, {}}, top)
}

// A pattern must mean what Plausible's own translation means: escaped, | an alternative again,
// * and ** anything, anchored.
func FuzzPathCondition(f *testing.F) {
	for _, path := range []string{"/", "/blog*", "/a/**/b", "/a*|/b", "/a|b", "/*.php", "/a\\*"} {
		f.Add(path, "/blog/x")
	}
	f.Fuzz(func(t *testing.T, path, pathname string) {
		if strings.ContainsAny(path+pathname, "\n") || path == "" {
			return // paths have no line breaks and are not empty
		}
		pattern := strings.ReplaceAll(strings.ReplaceAll(regexp.QuoteMeta(path), `\|`, "|"), `\*`, ".*")
		plausibles, err := regexp.Compile("^" + pattern + "$")
		if err != nil {
			return // not UTF-8
		}
		want := plausibles.MatchString(pathname)
		if !strings.Contains(path, "*") {
			want = path == pathname
		}
		var got bool
		switch kind, text := pathCondition(path); kind {
		case exactPath:
			got = pathname == text
		case prefixPath:
			got = strings.HasPrefix(pathname, text)
		case patternPath:
			got = regexp.MustCompile(text).MatchString(pathname)
		}
		assert.Equal(t, want, got, "%q on %q", path, pathname)
	})
}

func TestOpenRefusesAnotherDatabase(t *testing.T) {
	_, err := Open(t.Context(), devstacktest.ClickHouse(t), time.Second, func(string, time.Duration, error) {})
	require.ErrorContains(t, err, "is not Plausible's (v2.0 or later)")
	_, err = Open(t.Context(), "no such thing", time.Second, func(string, time.Duration, error) {})
	require.ErrorContains(t, err, "PLAUSIBLE_CLICKHOUSE_URL is not a URL")
}

func TestOpenNamesAnUnreachableServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("told to stop"))
	defer cancel()
	_, err = Open(ctx, "http://"+address+"/plausible", time.Second, func(string, time.Duration, error) {})
	require.ErrorContains(t, err, address)
	require.ErrorContains(t, err, "told to stop")
}

// v2.0 has no scroll depth: its goals of scrolling are never reached, and nothing else breaks.
func TestColumnsOfLaterReleasesMayBeMissing(t *testing.T) {
	url := devstacktest.ClickHouse(t)
	conn, err := plausible.Open(url)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Exec(t.Context(), `CREATE TABLE events_v2 (timestamp DateTime, name LowCardinality(String), site_id UInt64, user_id UInt64,
		session_id UInt64, pathname String, referrer_source String, country_code FixedString(2), `+"`meta.key` Array(String), `meta.value` Array(String))"+`
		ENGINE = MergeTree PARTITION BY toYYYYMM(timestamp) ORDER BY (site_id, toDate(timestamp), name, user_id, timestamp)`))
	require.NoError(t, conn.Exec(t.Context(), "INSERT INTO events_v2 (timestamp, name, site_id, user_id, pathname) VALUES (?, 'Signup', 1, 1, '/'), (?, 'engagement', 1, 1, '/')",
		noon.Add(-time.Second), noon.Add(-time.Second)))
	events, err := Open(t.Context(), url, 10*time.Second, func(string, time.Duration, error) {})
	require.NoError(t, err)
	t.Cleanup(func() { _ = events.Close() })
	got, err := events.Conversions(t.Context(), []Condition{
		{SiteID: 1, Goal: trigger.Goal{EventName: "Signup"}, From: noon.Add(-time.Minute)},
		{SiteID: 1, Goal: trigger.Goal{PagePath: "/", ScrollThreshold: depth(0)}, From: noon.Add(-time.Minute)},
	}, noon, 10*time.Second)
	require.NoError(t, err)
	assert.Equal(t, int64(1), got[0].Count)
	assert.Zero(t, got[1].Count)
}

func TestQueriesCannotWrite(t *testing.T) {
	b := newBench(t)
	err := b.query(t.Context(), "attempt", nil, "CREATE TABLE mine (x UInt8) ENGINE = Memory", nil, nil)
	var refusal *ch.Exception
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, int32(164), refusal.Code, "READONLY")
}

func TestSettingsFitTheUsersRights(t *testing.T) {
	for readonly, want := range map[uint64]ch.Settings{
		0: {"readonly": 1, "max_execution_time": 10},
		2: {"max_execution_time": 10},
	} {
		got, err := settings(readonly, 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := settings(1, 10*time.Second)
	require.ErrorContains(t, err, "set it to 2")
}

// Every query names itself and is bounded, as the server's own view of it shows.
func TestQueriesAreNamedAndBounded(t *testing.T) {
	b := newBench(t)
	var comment string
	var limit float64
	err := b.query(t.Context(), "family", nil, "SELECT getSetting('log_comment')::String, toFloat64(getSetting('max_execution_time'))", nil,
		func(rows driver.Rows) error { return rows.Scan(&comment, &limit) })
	require.NoError(t, err)
	assert.Equal(t, "plausible-webhooks/family", comment)
	assert.Equal(t, 10.0, limit)
}
