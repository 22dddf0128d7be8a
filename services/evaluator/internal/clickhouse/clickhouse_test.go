package clickhouse

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"regexp"
	"slices"
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
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
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

func (b *bench) insertSessions(sessions ...plausible.Session) {
	b.t.Helper()
	conn, err := plausible.Open(b.url)
	require.NoError(b.t, err)
	defer conn.Close()
	require.NoError(b.t, plausible.InsertSessions(b.t.Context(), conn, sessions))
}

func (b *bench) answer(questions ...Question) []trigger.Answer {
	b.t.Helper()
	answers, err := b.Answer(b.t.Context(), questions, noon, 10*time.Second)
	require.NoError(b.t, err)
	require.Len(b.t, answers, len(questions))
	return answers
}

// at is a pageview of a visitor so many seconds before noon.
func at(secondsBefore int, visitor uint64, path string) plausible.Event {
	return plausible.Event{
		Timestamp: noon.Add(-time.Duration(secondsBefore) * time.Second), Name: "pageview",
		SiteID: 1, UserID: visitor, SessionID: visitor * 10, Pathname: path,
	}
}

func named(name string, e plausible.Event) plausible.Event { e.Name = name; return e }

func ofSession(session uint64, e plausible.Event) plausible.Event { e.SessionID = session; return e }

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

func depthOfPage(percent int) *int { return &percent }

// before is the window from so many seconds before noon to so many.
func before(from, to int) trigger.Window {
	return trigger.Window{From: noon.Add(-time.Duration(from) * time.Second), To: noon.Add(-time.Duration(to) * time.Second)}
}

func filters(t testing.TB, text string) trigger.Filters {
	t.Helper()
	parsed, problems := trigger.ParseFilters(json.RawMessage(text))
	require.Empty(t, problems, text)
	return parsed
}

// numberOf asks site 1 for a metric.
func numberOf(metric trigger.Metric, w trigger.Window) Question {
	return Question{SiteID: 1, Question: trigger.Question{Ask: trigger.AskNumber, Metric: metric, Window: w}}
}

func (q Question) of(ask trigger.Ask) Question         { q.Ask = ask; return q }
func (q Question) at(site int64) Question              { q.SiteID = site; return q }
func (q Question) reaching(goal trigger.Goal) Question { q.Goal = &goal; return q }
func (q Question) filtered(t testing.TB, text string) Question {
	q.Filters = filters(t, text)
	return q
}
func (q Question) by(d trigger.Dimension, least int64) Question {
	q.Ask, q.By, q.Least = trigger.AskRanking, d, least
	return q
}

var signup = trigger.Goal{EventName: "Signup"}

func TestNumbersOfEvents(t *testing.T) {
	b := newBench(t)
	other := at(10, 7, "/")
	other.SiteID = 2
	b.insert(
		at(10, 1, "/"), at(20, 1, "/b"), ofSession(11, at(25, 1, "/")), at(30, 2, "/"), // two visitors, three visits
		named("Signup", at(40, 3, "/")),  // a custom event's visitor counts
		scrolled(90, at(50, 4, "/")),     // who only reads on does not
		at(300, 5, "/"), at(301, 6, "/"), // the first and last before the window
		at(0, 8, "/"), // at its end
		other,
		at(7200, 1, "/"), at(7200, 9, "/"), at(100_000, 9, "/"), named("Signup", at(9_000_000, 9, "/")), // deeper
	)
	five := before(300, 0)
	cases := []struct {
		name string
		q    Question
		want float64
	}{
		{"visitors", numberOf(trigger.Visitors, five), 4},
		{"visits", numberOf(trigger.Visits, five), 5},
		{"pageviews", numberOf(trigger.Pageviews, five), 5},
		{"events", numberOf(trigger.Events, five), 6},
		{"a shorter window", numberOf(trigger.Visitors, before(15, 0)), 1},
		{"another site", numberOf(trigger.Visitors, five).at(2), 1},
		{"a site without events", numberOf(trigger.Visitors, five).at(3), 0},
		{"the previous window: visitors", numberOf(trigger.Visitors, before(600, 300)), 1},
		{"the previous window: pageviews", numberOf(trigger.Pageviews, before(600, 300)), 1},
		{"within the past: visitors", numberOf(trigger.Visitors, before(40, 15)), 3},
		{"within the past: visits", numberOf(trigger.Visits, before(40, 15)), 4},
		{"of a day: visitors", numberOf(trigger.Visitors, before(86400, 0)), 6},
		{"of a day: visits", numberOf(trigger.Visits, before(86400, 0)), 7},
		{"of a day: pageviews", numberOf(trigger.Pageviews, before(86400, 0)), 8},
		{"of a day before", numberOf(trigger.Events, before(2*86400, 86400)), 1},
		{"of all time: events", numberOf(trigger.Events, trigger.Window{From: time.Time{}, To: noon}), 11},
		{"of all time: visitors", numberOf(trigger.Visitors, trigger.Window{From: time.Time{}, To: noon}), 6},
		{"of no time", numberOf(trigger.Visitors, before(0, 0)), 0},
		{"with a filter that all pass", numberOf(trigger.Visitors, five).filtered(t, `[["contains","event:page",["/"]]]`), 4},
		{"with a filter", numberOf(trigger.Visitors, five).filtered(t, `[["is","event:page",["/b"]]]`), 1},
		{"with a filter: events of a day", numberOf(trigger.Events, before(86400, 0)).filtered(t, `[["is_not","event:page",["/b"]]]`), 8},
	}
	questions := make([]Question, len(cases))
	for i, c := range cases {
		questions[i] = c.q
	}
	for i, answer := range b.answer(questions...) {
		assert.Equal(t, trigger.Answer{Value: cases[i].want, Volume: int64(cases[i].want)}, answer, cases[i].name)
		assert.Equal(t, cases[i].want, b.answer(cases[i].q)[0].Value, "alone: %s", cases[i].name)
	}
}

func TestNumberOfQueriesDoesNotDependOnQuestions(t *testing.T) {
	b := newBench(t)
	b.insert(at(10, 1, "/"))
	var questions []Question
	for i := range 200 {
		for _, far := range []int{60, 3600, 200_000} {
			w := before(far+i, 0)
			questions = append(questions, numberOf(trigger.Visitors, w), numberOf(trigger.Pageviews, w), numberOf(trigger.ConversionRate, w).reaching(signup),
				numberOf(trigger.BounceRate, w), numberOf(trigger.Visits, w).by(trigger.BySource, 1).at(int64(i)), numberOf(trigger.Visitors, w).by(trigger.ByPage, 1).reaching(signup),
				numberOf(trigger.Visitors, w).by(trigger.ByEntryPage, 1), numberOf(trigger.Events, w).of(trigger.AskEach).reaching(trigger.Goal{PagePath: "/", ScrollThreshold: depthOfPage(5)}))
		}
	}
	b.queries.Store(0)
	b.answer(questions...)
	assert.LessOrEqual(t, b.queries.Load(), int64(families))
	b.queries.Store(0)
	b.answer()
	assert.Zero(t, b.queries.Load())
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
		"event":                      {signup, 3, 2},
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
		"scroll counts sessions":     {trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depthOfPage(75)}, 2, 2},
		"scroll deeper":              {trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depthOfPage(85)}, 1, 1},
		"scroll of everything known": {trigger.Goal{PagePath: "/*", ScrollThreshold: depthOfPage(0)}, 4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			w := before(300, 0)
			got := b.answer(
				numberOf(trigger.Events, w).reaching(c.goal),
				numberOf(trigger.Visitors, w).reaching(c.goal),
				numberOf(trigger.ConversionRate, w).reaching(c.goal),
				numberOf(trigger.Events, w).of(trigger.AskEach).reaching(c.goal),
				numberOf(trigger.Events, w).of(trigger.AskBuckets).reaching(c.goal),
			)
			assert.Equal(t, trigger.Answer{Value: float64(c.conversions), Volume: c.conversions}, got[0], "conversions")
			assert.Equal(t, trigger.Answer{Value: float64(c.visitors), Volume: c.visitors}, got[1], "visitors")
			assert.Equal(t, trigger.Answer{Value: rounded(100*float64(c.visitors)/7, 2), Volume: 7}, got[2], "rate")
			var total int64
			for i, bucket := range got[3].Buckets {
				assert.Zero(t, bucket.Start.Unix()%10)
				assert.Len(t, bucket.Fingerprints, int(bucket.Count))
				total += bucket.Count
				bucket.Fingerprints = nil
				assert.Equal(t, bucket, got[4].Buckets[i])
			}
			assert.Equal(t, c.conversions, total, "in buckets")
		})
	}
}

func TestConversionsInThePastAndWithFilters(t *testing.T) {
	b := newBench(t)
	b.insert(named("Signup", at(5, 1, "/a")), named("Signup", at(70, 1, "/b")), named("Signup", at(80, 2, "/b")), at(80, 3, "/b"), at(80, 4, "/b"), at(1, 4, "/b"),
		named("Signup", at(100_000, 5, "/c")))
	rate := func(w trigger.Window) Question { return numberOf(trigger.ConversionRate, w).reaching(signup) }
	got := b.answer(rate(before(60, 0)), rate(before(120, 60)), rate(before(120, 0)), rate(before(120, 60)).filtered(t, `[["is","event:page",["/b"]]]`),
		rate(before(120, 0)).filtered(t, `[["is","event:page",["/a"]]]`), rate(before(200, 150)),
		numberOf(trigger.Visits, before(120, 0)).reaching(signup), numberOf(trigger.Events, before(120_000, 0)).reaching(signup),
		rate(before(60, 0)).filtered(t, `[["is","event:props:plan",["(none)"]]]`), rate(before(60, 0)).filtered(t, `[["is","event:props:plan",["x"]],["is","event:page",["/a"]]]`))
	want := [][2]float64{{50, 2}, {50, 4}, {50, 4}, {50, 4}, {100, 1}, {0, 0}, {2, 2}, {4, 4}, {50, 2}, {0, 1}}
	for i, w := range want {
		assert.Equal(t, trigger.Answer{Value: w[0], Volume: int64(w[1])}, got[i], "%d", i)
	}
}

func TestEqualRowsOfOneSecondAreSeveralConversions(t *testing.T) {
	b := newBench(t)
	b.insert(named("Signup", at(5, 1, "/")), named("Signup", at(5, 1, "/")), named("Signup", at(5, 1, "/")))
	q := numberOf(trigger.Events, before(60, 0)).of(trigger.AskEach).reaching(signup)
	buckets := b.answer(q)[0].Buckets
	require.Len(t, buckets, 1)
	assert.Equal(t, int64(3), buckets[0].Count)
	assert.Len(t, buckets[0].Fingerprints, 3)

	list, err := b.List(t.Context(), []Question{q}, [][]uint64{buckets[0].Fingerprints[:2]})
	require.NoError(t, err)
	assert.Len(t, list[0], 2, "as many as are wanted")
}

// A basket is sent as one event for each thing in it, within a second.
func TestConversionsOfOneVisitorAndSecondAreListedEach(t *testing.T) {
	b := newBench(t)
	b.insert(props(named("Purchase", at(5, 1, "/a")), "item", "tea"), props(named("Purchase", at(5, 1, "/a")), "item", "cup"), props(named("Purchase", at(5, 1, "/b")), "item", "pot"),
		props(named("Purchase", at(5, 2, "/a")), "item", "mug"))
	q := numberOf(trigger.Events, before(60, 0)).of(trigger.AskEach).reaching(trigger.Goal{EventName: "Purchase"})
	list := func(wanted []uint64) (items []string) {
		lists, err := b.List(t.Context(), []Question{q}, [][]uint64{wanted})
		require.NoError(t, err)
		for _, c := range lists[0] {
			items = append(items, c.Page+" "+c.Props["item"])
		}
		return items
	}
	fingerprints := b.answer(q)[0].Buckets[0].Fingerprints
	require.Len(t, fingerprints, 4)
	assert.ElementsMatch(t, []string{"/a tea", "/a cup", "/b pot", "/a mug"}, list(fingerprints))
	ofFirst := fingerprints[1] // they are sorted, and three of four are the first visitor's
	assert.Len(t, list([]uint64{ofFirst, ofFirst}), 2, "one was told before")
}

func TestFirstBucketStartsWithItsWindow(t *testing.T) {
	b := newBench(t)
	b.insert(named("Signup", at(18, 1, "/")), named("Signup", at(16, 2, "/")), named("Signup", at(15, 3, "/")), at(12, 4, "/"), at(1, 4, "/"))
	each := numberOf(trigger.Events, before(16, 0)).of(trigger.AskEach).reaching(signup)
	all := numberOf(trigger.Events, before(16, 0)).of(trigger.AskBuckets)
	pageviews := numberOf(trigger.Pageviews, before(16, 0)).of(trigger.AskBuckets)
	got := b.answer(each, all, pageviews)
	require.Len(t, got[0].Buckets, 1)
	assert.Equal(t, noon.Add(-16*time.Second), got[0].Buckets[0].Start)
	assert.Equal(t, int64(2), got[0].Buckets[0].Count)
	assert.Equal(t, []trigger.Bucket{{Start: noon.Add(-16 * time.Second), Count: 3}, {Start: noon.Add(-10 * time.Second), Count: 1}}, got[1].Buckets)
	assert.Equal(t, []trigger.Bucket{{Start: noon.Add(-16 * time.Second), Count: 1}, {Start: noon.Add(-10 * time.Second), Count: 1}}, got[2].Buckets)
}

func TestLastEvent(t *testing.T) {
	b := newBench(t)
	b.insert(at(100, 1, "/"), at(50, 1, "/a"), scrolled(90, at(20, 1, "/a")), named("Signup", at(2000, 1, "/")), at(0, 1, "/"))
	last := func(w trigger.Window) Question { return numberOf(trigger.Pageviews, w).of(trigger.AskLast) }
	got := b.answer(last(before(300, 0)), last(before(300, 60)), last(before(300, 0)).filtered(t, `[["is","event:page",["/"]]]`), last(before(3600, 0)).reaching(signup),
		last(before(40, 0)), last(before(3600, 0)).reaching(trigger.Goal{PagePath: "/*", ScrollThreshold: depthOfPage(80)}))
	for i, ago := range []int{50, 100, 100, 2000, 0, 20} {
		want := time.Time{}
		if ago > 0 {
			want = noon.Add(-time.Duration(ago) * time.Second)
		}
		assert.Equal(t, want, got[i].Last, "%d", i)
	}
}

func TestSessionThatReadsOnIsCountedOnce(t *testing.T) {
	b := newBench(t)
	b.insert(scrolled(80, at(600, 1, "/blog/a")), scrolled(90, at(5, 1, "/blog/a")), // read that far before
		scrolled(80, at(2400, 2, "/blog/a")), scrolled(90, at(5, 2, "/blog/a")), // away for over 30 minutes
		scrolled(10, at(600, 3, "/blog/a")), scrolled(90, at(5, 3, "/blog/a"))) // reads that far now
	q := numberOf(trigger.Events, before(10, 0)).of(trigger.AskEach).reaching(trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depthOfPage(75)})
	buckets := b.answer(q)[0].Buckets
	require.Len(t, buckets, 1)
	assert.Equal(t, trigger.Bucket{Start: noon.Add(-10 * time.Second), Count: 2, Fingerprints: []uint64{20, 30}}, buckets[0])
	list, err := b.List(t.Context(), []Question{q}, [][]uint64{{10, 20, 30}})
	require.NoError(t, err)
	assert.Equal(t, []Conversion{{At: noon.Add(-5 * time.Second), Page: "/blog/a"}, {At: noon.Add(-5 * time.Second), Page: "/blog/a"}}, list[0])
}

func TestListTellsWhatHappened(t *testing.T) {
	b := newBench(t)
	bought := props(named("Purchase", at(5, 1, "/checkout")), "plan", "business")
	bought.ReferrerSource, bought.CountryCode = "Hacker News", "EE"
	b.insert(bought, named("Purchase", at(4, 2, "/checkout")))
	q := numberOf(trigger.Events, before(10, 0)).of(trigger.AskEach).reaching(trigger.Goal{EventName: "Purchase"})
	german := q.filtered(t, `[["is","visit:country",["DE"]]]`)
	fingerprints := b.answer(q)[0].Buckets[0].Fingerprints
	list, err := b.List(t.Context(), []Question{numberOf(trigger.Visitors, before(10, 0)), q, german}, [][]uint64{nil, fingerprints, fingerprints})
	require.NoError(t, err)
	assert.Equal(t, []Conversion{
		{At: noon.Add(-4 * time.Second), Page: "/checkout"},
		{At: noon.Add(-5 * time.Second), Page: "/checkout", Source: "Hacker News", Country: "EE", Props: map[string]string{"plan": "business"}},
	}, list[1])
	assert.Empty(t, list[0])
	assert.Empty(t, list[2])
}

// One visitor has everything, one nothing; the cases tell who passes.
func TestFilters(t *testing.T) {
	b := newBench(t)
	full := props(at(5, 1, "/blog/Äpfel"), "plan", "Business", "x'y", "1")
	full.Hostname, full.Referrer, full.ReferrerSource, full.CountryCode, full.ScreenSize = "app.example.com", "news.ycombinator.com/item", "Hacker News", "EE", "Mobile"
	full.OS, full.OSVersion, full.Browser, full.BrowserVersion, full.Region, full.CityGeonameID = "Mac", "14.1", "Firefox", "120.0", "EE-37", 588409
	full.UTMMedium, full.UTMSource, full.UTMCampaign, full.UTMContent, full.UTMTerm = "email", "letter", "spring", "top", "shoes"
	b.insert(full, named("Signup", at(6, 2, "/")))
	const one, two, both, none = 1, 2, 3, 0
	cases := []struct {
		filters string
		passes  int
	}{
		{`[]`, both},
		{`[["is","event:page",["/blog/Äpfel"]]]`, one},
		{`[["is","event:page",["/blog/Äpfel","/"]]]`, both},
		{`[["is","event:page",["/BLOG/ÄPFEL"]]]`, none},
		{`[["is","event:page",["/BLOG/ÄPFEL"],{"case_sensitive":false}]]`, one},
		{`[["is_not","event:page",["/BLOG/ÄPFEL"],{"case_sensitive":false}]]`, two},
		{`[["is_not","event:page",["/"]]]`, one},
		{`[["contains","event:page",["log","zzz"]]]`, one},
		{`[["contains","event:page",["LOG"]]]`, none},
		{`[["contains","event:page",["ÄPF"],{"case_sensitive":false}]]`, one},
		{`[["contains_not","event:page",["log"]]]`, two},
		{`[["matches","event:page",["^/b.og"]]]`, one},
		{`[["matches","event:page",["^/B.OG"],{"case_sensitive":false}]]`, one},
		{`[["matches_not","event:page",["^/b","^/$"]]]`, none},
		{`[["matches_wildcard","event:page",["/blog/*"]]]`, one},
		{`[["matches_wildcard","event:page",["/BLOG/**"],{"case_sensitive":false}]]`, one},
		{`[["matches_wildcard","event:page",["/blo"]]]`, none},
		{`[["matches_wildcard_not","event:page",["/blog/*"]]]`, two},
		{`[["is","event:hostname",["app.example.com"]]]`, one},
		{`[["is","event:name",["Signup"]]]`, two},
		{`[["is","visit:source",["Hacker News"]]]`, one},
		{`[["is","visit:source",["Direct / None"]]]`, two},
		{`[["is","visit:source",["direct / none"]]]`, none},
		{`[["is","visit:source",["direct / none"],{"case_sensitive":false}]]`, two},
		{`[["is_not","visit:source",["Direct / None","Bing"]]]`, one},
		{`[["is","visit:referrer",["Direct / None"]]]`, two},
		{`[["contains","visit:referrer",["ycomb"]]]`, one},
		{`[["is","visit:channel",["Referral"]]]`, one},
		{`[["is","visit:channel",["Direct"]]]`, two},
		{`[["is","visit:utm_medium",["email"]]]`, one},
		{`[["is","visit:utm_source",["letter"]]]`, one},
		{`[["is","visit:utm_campaign",["(not set)"]]]`, two},
		{`[["is","visit:utm_content",["top"]]]`, one},
		{`[["is","visit:utm_term",["(not set)","shoes"]]]`, both},
		{`[["is","visit:device",["Mobile"]]]`, one},
		{`[["is","visit:device",["(not set)"]]]`, two},
		{`[["is","visit:browser",["Firefox"]]]`, one},
		{`[["matches","visit:browser_version",["^12"]]]`, one},
		{`[["is","visit:os",["mac"],{"case_sensitive":false}]]`, one},
		{`[["contains","visit:os_version",["14."]]]`, one},
		{`[["is","visit:country",["EE","FI"]]]`, one},
		{`[["is_not","visit:country",["EE"]]]`, two},
		{`[["is","visit:region",["EE-37"]]]`, one},
		{`[["is","visit:city",[588409]]]`, one},
		{`[["is","event:props:plan",["Business"]]]`, one},
		{`[["is","event:props:plan",["business"],{"case_sensitive":false}]]`, one},
		{`[["is","event:props:plan",["(none)"]]]`, two},
		{`[["is","event:props:plan",["(none)","Business"]]]`, both},
		{`[["is_not","event:props:plan",["Business"]]]`, two},
		{`[["is_not","event:props:plan",["(none)"]]]`, one},
		{`[["contains","event:props:plan",["usi"]]]`, one},
		{`[["contains","event:props:plan",[""]]]`, one},
		{`[["contains_not","event:props:plan",["usi"]]]`, two},
		{`[["matches","event:props:plan",["(?i)^bus"]]]`, one},
		{`[["is","event:props:x'y",["1"]]]`, one},
		{`[["is","event:props:x'y",["2"]]]`, none},
		{`[["is","visit:country",["EE"]],["is","event:page",["/"]]]`, none},
		{`[["or",[["is","visit:country",["EE"]],["is","event:page",["/"]]]]]`, both},
		{`[["and",[["is","visit:country",["EE"]],["is","event:page",["/blog/Äpfel"]]]]]`, one},
		{`[["not",["is","visit:country",["EE"]]]]`, two},
		{`[["not",["or",[["is","visit:country",["EE"]],["is","event:page",["/"]]]]]]`, none},
		{`[["not",["not",["is_not","visit:country",["EE"]]]]]`, two},
		{`[["or",[["and",[["is","visit:os",["Mac"]],["is","visit:device",["Desktop"]]]],["is","event:name",["Signup"]]]]]`, two},
	}
	var questions []Question
	for _, c := range cases {
		q := numberOf(trigger.Visitors, before(60, 0)).filtered(t, c.filters)
		questions = append(questions, q, q.by(trigger.ByPage, 1), numberOf(trigger.Visitors, before(60, 0)).filtered(t, c.filters).reaching(signup))
	}
	b.queries.Store(0)
	got := b.answer(questions...)
	assert.LessOrEqual(t, b.queries.Load(), int64(4))
	for i, c := range cases {
		var pages []string
		for _, r := range got[3*i+1].Ranking {
			pages = append(pages, r.Name)
		}
		want := map[int][]string{one: {"/blog/Äpfel"}, two: {"/"}, both: {"/", "/blog/Äpfel"}}[c.passes]
		assert.Equal(t, want, pages, c.filters)
		assert.Equal(t, float64(len(want)), got[3*i].Value, c.filters)
		assert.Equal(t, float64(c.passes>>1), got[3*i+2].Value, "with a goal: %s", c.filters)
	}
}

// Three visits: one that began before the window, one that left by another page than it first seemed, and one
// whose own rows are not there yet.
func TestFiltersAskOfVisits(t *testing.T) {
	b := newBench(t)
	visit := func(id uint64, startedBefore, duration int, pages int32, entry, exit string) plausible.Session {
		s := state(id, startedBefore, duration, pages)
		s.EntryPage, s.ExitPage = entry, exit
		return s
	}
	b.insert(
		at(400, 1, "/"), at(100, 1, "/pricing"), scrolled(80, at(60, 1, "/pricing")), named("Signup", at(50, 1, "/checkout")),
		at(90, 2, "/pricing"), at(80, 2, "/about"),
		at(70, 3, "/"), named("Late", at(0, 3, "/")),
	)
	b.insertSessions(visit(10, 400, 0, 1, "/", "/"), visit(20, 90, 0, 1, "/pricing", "/pricing"))
	b.insertSessions( // apart: of one insertion, ClickHouse keeps only what is left
		takenBack(visit(10, 400, 0, 1, "/", "/")), visit(10, 400, 350, 2, "/", "/pricing"),
		takenBack(visit(20, 90, 0, 1, "/pricing", "/pricing")), visit(20, 90, 10, 2, "/pricing", "/about"),
	)
	goals := []trigger.NamedGoal{
		{Name: "Signup", Goal: trigger.Goal{EventName: "Signup"}},
		{Name: "Read", Goal: trigger.Goal{PagePath: "/*", ScrollThreshold: depthOfPage(80)}},
		{Name: "Read all", Goal: trigger.Goal{PagePath: "/*", ScrollThreshold: depthOfPage(81)}},
	}
	cases := []struct {
		filters string
		who     []uint64
	}{
		{`[["has_done",["is","event:goal",["Signup"]]]]`, []uint64{1}},
		{`[["has_not_done",["is","event:goal",["Signup"]]]]`, []uint64{2, 3}},
		{`[["has_done",["is","event:page",["/"]]]]`, []uint64{1, 3}},
		{`[["has_done",["is","event:page",["/pricing"]]],["has_done",["is","event:page",["/about"]]]]`, []uint64{2}},
		{`[["has_done",["and",[["is","event:page",["/pricing"]],["is","event:page",["/about"]]]]]]`, nil},
		{`[["has_done",["is","event:name",["Late"]]]]`, nil},
		{`[["has_done",["is","event:name",["engagement"]]]]`, nil},
		{`[["has_done",["is","event:goal",["Read"]]]]`, []uint64{1}},
		{`[["has_done",["is","event:goal",["Read all"]]]]`, nil},
		{`[["has_done",["not",["is","event:page",["/pricing","/about"]]]]]`, []uint64{1, 3}},
		{`[["or",[["has_done",["is","event:page",["/about"]]],["is","event:name",["Signup"]]]]]`, []uint64{1, 2}},
		{`[["is","visit:entry_page",["/"]]]`, []uint64{1}},
		{`[["is_not","visit:entry_page",["/"]]]`, []uint64{2, 3}},
		{`[["is","visit:exit_page",["/pricing"]]]`, []uint64{1}},
		{`[["matches_wildcard","visit:exit_page",["/a*"]],["is","event:page",["/pricing"]]]`, []uint64{2}},
		{`[["contains","visit:entry_page",["PRI"],{"case_sensitive":false}],["has_done",["is","event:page",["/about"]]]]`, []uint64{2}},
		{`[["not",["or",[["is","visit:entry_page",["/"]],["is","visit:exit_page",["/about"]]]]]]`, []uint64{3}},
	}
	var questions []Question
	for _, c := range cases {
		q := numberOf(trigger.Visitors, before(300, 0))
		var problems []strict.Problem
		q.Filters, problems = filters(t, c.filters).WithGoals(goals)
		require.Empty(t, problems)
		questions = append(questions, q)
	}
	earlier := questions[0]
	earlier.Window = before(300, 51)
	b.queries.Store(0)
	got := b.answer(append(questions, earlier)...)
	assert.Equal(t, int64(1), b.queries.Load(), "all in one")
	assert.Zero(t, got[len(cases)].Value, "not done yet")
	for i, c := range cases {
		assert.Equal(t, float64(len(c.who)), got[i].Value, c.filters)
		var who []uint64
		arrivals, err := b.Arrivals(t.Context(), questions[i], noon.Add(-300*time.Second), noon, time.Hour, time.Time{})
		require.NoError(t, err)
		for _, a := range arrivals {
			who = append(who, a.Visitor)
		}
		slices.Sort(who)
		assert.Equal(t, c.who, who, c.filters)
	}

	ofVisits := func(m trigger.Metric, text string) trigger.Answer {
		q := numberOf(m, before(300, 0))
		var problems []strict.Problem
		q.Filters, problems = filters(t, text).WithGoals(goals)
		require.Empty(t, problems)
		return b.answer(q)[0]
	}
	assert.Equal(t, trigger.Answer{Value: 2, Volume: 2}, ofVisits(trigger.ViewsPerVisit, `[]`))
	assert.Equal(t, trigger.Answer{Value: 350, Volume: 1}, ofVisits(trigger.VisitDuration, `[["is","event:goal",["Signup"]]]`))
	assert.Equal(t, trigger.Answer{}, ofVisits(trigger.VisitDuration, `[["is","event:page",["/"]]]`), "in the window")
	assert.Equal(t, trigger.Answer{Value: 350, Volume: 1}, ofVisits(trigger.VisitDuration, `[["has_done",["is","event:page",["/"]]]]`), "before it")
	assert.Equal(t, trigger.Answer{Value: 10, Volume: 1}, ofVisits(trigger.VisitDuration, `[["is","event:page",["/pricing"]],["is","visit:exit_page",["/about"]]]`))
	assert.Equal(t, trigger.Answer{Value: 0, Volume: 2}, ofVisits(trigger.BounceRate, `[["is","event:page",["/pricing"]]]`), "of the one that entered there")
}

// The text of a statement may depend on how filters look, not on what they look for.
func TestFiltersThatDifferInValuesShareTheirShape(t *testing.T) {
	b := newBench(t)
	shape := func(text string) string { return b.compile(filters(t, text), false).text }
	assert.Equal(t, shape(`[["is","event:props:plan",["a"]],["is","visit:country",["EE"]]]`), shape(`[["is","event:props:x",["b","(none)"]],["is","visit:country",["DE","FI"]]]`))
	assert.Equal(t, shape(`[["matches","event:page",["a"]]]`), shape(`[["matches_wildcard","event:page",["/b*"],{"case_sensitive":false}]]`))
	assert.NotEqual(t, shape(`[["is","visit:country",["EE"]]]`), shape(`[["is","visit:region",["EE"]]]`))
	assert.NotContains(t, shape(`[["is","event:props:sec'ret",["val'ue"]]]`), "sec")
}

// Go's syntax has what ClickHouse's does not; that must only concern the trigger that uses it.
func TestRegularExpressionThatClickHouseDoesNotUnderstand(t *testing.T) {
	b := newBench(t)
	b.insert(at(5, 1, "/a"), at(5, 2, "/b"))
	huge := `[["matches","event:page",["(\\pL{500}){2}"]]]`
	q := numberOf(trigger.Visitors, before(60, 0))
	fine, broken := q.filtered(t, `[["matches","event:page",["^/a"]]]`), q.filtered(t, huge)
	assert.Empty(t, b.Unavailable(broken.Filters), "nobody asked yet")
	for range 2 {
		got := b.answer(fine, broken, q)
		assert.Equal(t, []trigger.Answer{{Value: 1, Volume: 1}, {}, {Value: 2, Volume: 2}}, got)
		assert.Contains(t, b.Unavailable(broken.Filters), "does not understand")
		assert.Empty(t, b.Unavailable(fine.Filters))
	}
	_, err := b.Cells(t.Context(), []Question{broken, fine}, noon.Add(-time.Hour), noon)
	require.NoError(t, err)
	_, err = b.Series(t.Context(), []Question{broken, fine}, 5)
	require.NoError(t, err)
}

func TestFiltersOfTooManyComparisons(t *testing.T) {
	b := newBench(t)
	one := `["is","visit:country",["EE"]]`
	ten := `["or",[` + strings.Repeat(one+",", 9) + one + `]]`
	hundreds := `["and",[` + strings.Repeat(ten+",", 9) + ten + `]]`
	assert.Empty(t, b.Unavailable(filters(t, "["+ten+"]")))
	assert.Contains(t, b.Unavailable(filters(t, "["+strings.Repeat(hundreds+",", 9)+hundreds+"]")), "more comparisons")
}

// state is a visit's state: two of them are a visit that went on, with what takes the first back.
func state(visit uint64, startedBefore, duration int, pageviews int32) plausible.Session {
	start := noon.Add(-time.Duration(startedBefore) * time.Second)
	return plausible.Session{
		SessionID: visit, UserID: visit, SiteID: 1, Sign: 1, Start: start, Timestamp: start.Add(time.Duration(duration) * time.Second),
		Duration: uint32(duration), Pageviews: pageviews, Events: pageviews, IsBounce: pageviews < 2, EntryPage: "/",
	}
}

func takenBack(s plausible.Session) plausible.Session { s.Sign = -1; return s }

func TestSessionMetrics(t *testing.T) {
	b := newBench(t)
	estonian := state(4, 90, 60, 3)
	estonian.CountryCode = "EE"
	estonian.EntryPage = "/pricing"
	b.insertSessions(
		state(1, 250, 0, 1),
		state(2, 200, 0, 1), takenBack(state(2, 200, 0, 1)), state(2, 200, 31, 2), // went on
		state(3, 400, 0, 1), takenBack(state(3, 400, 0, 1)), state(3, 400, 200, 5), // began before the window
		estonian,
		state(5, 1000, 100, 2), // over before the window
		state(6, 100_000, 0, 1),
	)
	ask := func(w trigger.Window, country string) []trigger.Answer {
		var questions []Question
		for _, m := range []trigger.Metric{trigger.BounceRate, trigger.VisitDuration, trigger.ViewsPerVisit} {
			questions = append(questions, numberOf(m, w).filtered(t, country))
		}
		return b.answer(questions...)
	}
	for name, c := range map[string]struct {
		window  trigger.Window
		filters string
		volume  int64
		values  [3]float64
	}{
		"the window":        {before(300, 0), `[]`, 4, [3]float64{25, 73, 2.75}},
		"previous":          {before(1200, 300), `[]`, 2, [3]float64{0, 150, 3.5}},
		"a country's":       {before(300, 0), `[["is","visit:country",["EE"]]]`, 1, [3]float64{0, 60, 3}},
		"and all others'":   {before(300, 0), `[["is_not","visit:country",["EE"]]]`, 3, [3]float64{33, 77, 2.67}},
		"deep":              {before(200_000, 90_000), `[]`, 1, [3]float64{100, 0, 1}},
		"without visits":    {before(90_000, 80_000), `[]`, 0, [3]float64{}},
		"of what events do": {before(300, 0), `[["is","event:page",["/"]]]`, 0, [3]float64{}},
	} {
		for i, a := range ask(c.window, c.filters) {
			assert.Equal(t, trigger.Answer{Value: c.values[i], Volume: c.volume}, a, "%s: %d", name, i)
		}
	}
	got := b.answer(numberOf("", before(300, 0)).by(trigger.ByEntryPage, 1), numberOf("", before(1200, 0)).by(trigger.ByEntryPage, 2),
		numberOf("", before(300, 0)).by(trigger.ByEntryPage, 1).filtered(t, `[["is","visit:country",["EE"]]]`))
	assert.Equal(t, []trigger.Ranked{{Name: "/", Visitors: 2}, {Name: "/pricing", Visitors: 1}}, got[0].Ranking)
	assert.Equal(t, []trigger.Ranked{{Name: "/", Visitors: 4}}, got[1].Ranking)
	assert.Equal(t, []trigger.Ranked{{Name: "/pricing", Visitors: 1}}, got[2].Ranking)
}

func TestSumsOfVisitsMayBeNegativeForAMoment(t *testing.T) {
	assert.Equal(t, trigger.Answer{Value: 0}, visits{visits: -1, bounces: 1}.answer(trigger.BounceRate))
	assert.Equal(t, trigger.Answer{}, visits{bounces: 1}.answer(trigger.BounceRate))
	assert.Equal(t, 2.0, visits{visits: 2, duration: 5}.answer(trigger.VisitDuration).Value, "halves to even, as ClickHouse rounds")
}

func TestRankings(t *testing.T) {
	b := newBench(t)
	from := func(source string, e plausible.Event) plausible.Event {
		e.ReferrerSource, e.Referrer, e.UTMCampaign = source, strings.ToLower(source), "c-"+source
		return e
	}
	estonian := from("Bing", at(5, 3, "/a"))
	estonian.CountryCode = "EE"
	b.insert(from("Google", at(5, 1, "/a")), from("Google", at(5, 1, "/a")), from("Google", at(5, 2, "/b")), estonian, scrolled(90, at(5, 9, "/z")),
		props(named("404", at(5, 4, "/404")), "path", "/gone"), props(named("404", at(6, 4, "/404")), "path", "/gone"), named("404", at(6, 5, "/lost")),
		from("Old", at(100, 6, "/old")))
	for i := range 60 {
		e := at(7, uint64(100+i), "/")
		e.SiteID, e.ReferrerSource = 2, "s"+string(rune('A'+i))
		b.insert(e)
	}
	w := before(60, 0)
	q := numberOf("", w)
	gone := trigger.Goal{EventName: "404"}
	cases := []struct {
		q    Question
		want []trigger.Ranked
	}{
		{q.by(trigger.BySource, 1), []trigger.Ranked{{Name: "Google", Visitors: 2}, {Name: "Bing", Visitors: 1}}},
		{q.by(trigger.BySource, 2), []trigger.Ranked{{Name: "Google", Visitors: 2}}},
		{q.by(trigger.BySource, 1).of(trigger.AskNewcomers).filtered(t, `[["is","visit:country",["EE"]]]`), []trigger.Ranked{{Name: "Bing", Visitors: 1}}},
		{q.by(trigger.ByReferrer, 1), []trigger.Ranked{{Name: "google", Visitors: 2}, {Name: "bing", Visitors: 1}}},
		{q.by(trigger.ByCampaign, 1), []trigger.Ranked{{Name: "c-Google", Visitors: 2}, {Name: "c-Bing", Visitors: 1}}},
		{q.by(trigger.ByCountry, 1), []trigger.Ranked{{Name: "EE", Visitors: 1}}},
		{q.by(trigger.ByPage, 2).reaching(gone), []trigger.Ranked{{Name: "/gone", Visitors: 2}}},
		{q.by(trigger.ByPage, 1).reaching(gone), []trigger.Ranked{{Name: "/gone", Visitors: 2}, {Name: "/lost", Visitors: 1}}},
		{q.by(trigger.BySource, 1).reaching(gone), nil},
		{numberOf("", before(200, 60)).by(trigger.BySource, 1), []trigger.Ranked{{Name: "Old", Visitors: 1}}},
		{q.by(trigger.BySource, 1).at(3), nil},
		{q.by("unknown", 1), nil},
	}
	questions := make([]Question, 0, len(cases)+1)
	for _, c := range cases {
		questions = append(questions, c.q)
	}
	got := b.answer(append(questions, q.by(trigger.BySource, 1).at(2))...)
	for i, c := range cases {
		assert.Equal(t, trigger.Answer{Ranking: c.want}, got[i], "%d", i)
	}
	assert.Len(t, got[len(cases)].Ranking, trigger.RankingCap)
	assert.Equal(t, 10, got[len(cases)].More)
}

func TestTopLeavesOutDirectTraffic(t *testing.T) {
	b := newBench(t)
	from := func(source string, e plausible.Event) plausible.Event { e.ReferrerSource = source; return e }
	b.insert(from("Google", at(5, 1, "/a")), from("Google", at(5, 2, "/b")), from("Bing", at(5, 3, "/a")), at(5, 4, "/a"), named("Signup", at(5, 5, "/c")))
	q := numberOf(trigger.Visitors, before(60, 0))
	top, err := b.Top(t.Context(), []Question{q.reaching(signup), q.at(9), q.filtered(t, `[["is","event:page",["/b"]]]`)})
	require.NoError(t, err)
	assert.Equal(t, []Top{
		{Sources: []trigger.Ranked{{Name: "Google", Visitors: 2}, {Name: "Bing", Visitors: 1}}, Pages: []trigger.Ranked{{Name: "/a", Visitors: 3}, {Name: "/b", Visitors: 1}}},
		{},
		{Sources: []trigger.Ranked{{Name: "Google", Visitors: 1}}, Pages: []trigger.Ranked{{Name: "/b", Visitors: 1}}},
	}, top)
}

func TestSeries(t *testing.T) {
	b := newBench(t)
	b.insert(at(5, 1, "/"), at(7, 1, "/"), at(65, 1, "/"), at(66, 2, "/a"), named("Signup", at(66, 2, "/")), at(120, 4, "/"), at(121, 5, "/"), at(0, 6, "/"))
	q := func(m trigger.Metric) Question { return numberOf(m, before(60, 0)) }
	got, err := b.Series(t.Context(), []Question{
		q(trigger.Visitors), q(trigger.Events), q(trigger.Pageviews).filtered(t, `[["is","event:page",["/"]]]`), q(trigger.Visitors).reaching(signup),
		q(trigger.ConversionRate).reaching(signup), q(trigger.BounceRate), numberOf(trigger.Visitors, before(180, 60)),
	}, 3)
	require.NoError(t, err)
	want := [][]float64{{1, 3, 1}, {1, 4, 2}, {1, 2, 2}, {0, 1, 0}, {0, 33.33, 0}, nil, {0, 0, 4}}
	for i, values := range want {
		require.Len(t, got[i], len(values), "%d", i)
		for k, value := range values {
			assert.Equal(t, value, got[i][k].Value, "%d: %d", i, k)
		}
	}
	assert.Equal(t, noon.Add(-2*time.Minute), got[0][0].At)
	assert.Equal(t, noon.Add(-time.Minute), got[6][2].At)
	far, err := b.Series(t.Context(), []Question{numberOf(trigger.Visitors, before(3*86400, 0))}, 60)
	require.NoError(t, err)
	assert.Len(t, far[0], 2, "seven days at most")
	none, err := b.Series(t.Context(), nil, 60)
	require.NoError(t, err)
	assert.Empty(t, none)
}

func TestCells(t *testing.T) {
	b := newBench(t)
	b.insert(at(60, 1, "/"), at(70, 1, "/a"), at(700, 1, "/"), at(710, 2, "/"), named("Signup", at(720, 2, "/")), // 11:59, 11:48
		at(3700, 1, "/"), at(3700, 3, "/"), // 10:58
		at(7300, 4, "/"), // 9:58
		at(0, 5, "/"))
	cell := func(before int, samples int, sum, squares float64) Cell {
		return Cell{Hour: noon.Add(-time.Duration(before) * time.Hour), Samples: samples, Sum: sum, Squares: squares}
	}
	q := func(m trigger.Metric, length int) Question { return numberOf(m, before(length, 0)) }
	got, err := b.Cells(t.Context(), []Question{
		q(trigger.Visitors, 600), q(trigger.Visitors, 3600), q(trigger.Visitors, 7200), q(trigger.Events, 7200), q(trigger.Pageviews, 600).filtered(t, `[["is","event:page",["/"]]]`),
		q(trigger.Visitors, 3600).reaching(signup), q(trigger.Visits, 24*3600), q(trigger.Visitors, 2700), q(trigger.BounceRate, 600), q(trigger.Visitors, 25*3600),
	}, noon.Add(-2*time.Hour), noon)
	require.NoError(t, err)
	assert.Equal(t, [][]Cell{
		{cell(2, 6, 2, 4), cell(1, 6, 3, 5)},
		{cell(2, 1, 2, 4), cell(1, 1, 2, 4)},
		{cell(2, 1, 3, 9), cell(1, 1, 3, 9)},
		{cell(2, 1, 3, 9), cell(1, 1, 7, 49)},
		{cell(2, 6, 2, 4), cell(1, 6, 3, 5)},
		{cell(1, 1, 1, 1)},
		{cell(2, 1, 3, 9), cell(1, 1, 4, 16)},
		nil, nil, nil,
	}, got)
}

func TestNowTellsTheNewestEvent(t *testing.T) {
	b := newBench(t)
	now, newest, err := b.Now(t.Context())
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), now, time.Minute)
	assert.Zero(t, newest)
	b.insert(at(10, 1, "/"), at(300, 1, "/"))
	_, newest, err = b.Now(t.Context())
	require.NoError(t, err)
	assert.Equal(t, noon.Add(-10*time.Second), newest)
}

func TestSpansLeaveOutTheLongestGaps(t *testing.T) {
	assert.Equal(t, []span{{10, 40}, {50, 60}}, covering([]span{{50, 60}, {20, 40}, {10, 30}}))
	var many []span
	for i := range uint32(100) {
		many = append(many, span{i * i * 10, i*i*10 + 5})
	}
	few := covering(many)
	assert.Len(t, few, fewSpans)
	assert.Equal(t, uint32(0), few[0].from)
	assert.Equal(t, span{99 * 99 * 10, 99*99*10 + 5}, few[fewSpans-1])
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

// v2.0 has no scroll depth: its goals of scrolling are never reached, and nothing else breaks. What
// needs other missing columns is known beforehand.
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
	assert.Equal(t, "scroll_depth: no, acquisition_channel: no, sessions_v2: no", events.Describe())
	w := before(60, 0)
	channel := filters(t, `[["is","visit:channel",["Direct"]]]`)
	got, err := events.Answer(t.Context(), []Question{
		numberOf(trigger.Events, w).reaching(signup),
		numberOf(trigger.Events, w).reaching(trigger.Goal{PagePath: "/", ScrollThreshold: depthOfPage(0)}),
		{SiteID: 1, Question: trigger.Question{Metric: trigger.Visitors, Window: w, Filters: channel}},
		numberOf(trigger.BounceRate, w),
	}, noon, 10*time.Second)
	require.NoError(t, err)
	assert.Equal(t, []trigger.Answer{{Value: 1, Volume: 1}, {}, {}, {}}, got)
	assert.Equal(t, "this release of Plausible has no column acquisition_channel, which the filter of visit:channel needs", events.Unavailable(channel))
	assert.Empty(t, events.Unavailable(filters(t, `[["is","visit:country",["EE"]],["is","event:props:x",["y"]]]`)))
	assert.Contains(t, events.Lacks(numberOf(trigger.BounceRate, w).Question), "sessions_v2")
}

func TestDescribe(t *testing.T) {
	assert.Equal(t, "scroll_depth: yes, acquisition_channel: yes, sessions_v2: yes", newBench(t).Describe())
}

func TestQueriesCannotWrite(t *testing.T) {
	b := newBench(t)
	err := b.query(t.Context(), "attempt", nil, "CREATE TABLE mine (x UInt8) ENGINE = Memory", nil)
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
	err := b.query(t.Context(), "family", nil, "SELECT getSetting('log_comment')::String, toFloat64(getSetting('max_execution_time'))",
		func(rows driver.Rows) error { return rows.Scan(&comment, &limit) })
	require.NoError(t, err)
	assert.Equal(t, "plausible-webhooks/family", comment)
	assert.Equal(t, 10.0, limit)
}
