package simulation

import (
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

var noon = day(2026, 6, 10).Add(12 * time.Hour)

// view is a pageview of a visitor so many seconds before noon.
func view(seconds int, visitor uint64, path string) plausible.Event {
	return plausible.Event{
		SiteID: 1, Timestamp: noon.Add(-time.Duration(seconds) * time.Second), Name: "pageview",
		UserID: visitor, SessionID: visitor * 10, Pathname: path,
	}
}

func custom(seconds int, visitor uint64, name string, props ...string) plausible.Event {
	e := view(seconds, visitor, "/")
	e.Name = name
	for i := 0; i < len(props); i += 2 {
		e.PropKeys, e.PropValues = append(e.PropKeys, props[i]), append(e.PropValues, props[i+1])
	}
	return e
}

func read(seconds int, visitor uint64, path string, depth uint8) plausible.Event {
	e := view(seconds, visitor, path)
	e.Name, e.ScrollDepth = "engagement", depth
	return e
}

// seen lets every event become visible 5 seconds after its time.
func seen(events ...plausible.Event) *Oracle {
	var t Traffic
	for _, e := range events {
		t.Events = append(t.Events, Row{e, e.Timestamp.Add(5 * time.Second)})
	}
	return NewOracle(t)
}

func last(seconds int) trigger.Window {
	return trigger.Window{From: noon.Add(-time.Duration(seconds) * time.Second), To: noon}
}

func filters(t testing.TB, text string) trigger.Filters {
	t.Helper()
	f, problems := trigger.ParseFilters(json.RawMessage(text))
	require.Empty(t, problems)
	return f
}

func depthOf(percent int) *int { return &percent }

// always is when everything is visible.
var always = noon.AddDate(1, 0, 0)

func TestOracleCounts(t *testing.T) {
	other := view(10, 8, "/")
	other.SiteID = 2
	o := seen(
		view(10, 1, "/"), view(20, 1, "/b"), view(20, 1, "/b"), // one visitor, three pageviews
		custom(30, 2, "Signup"), read(40, 3, "/", 80), // who only reads on is none
		view(300, 4, "/"), view(301, 5, "/"), view(0, 6, "/"), // at the edges: only the first is within
		other,
	)
	for metric, want := range map[trigger.Metric]trigger.Answer{
		trigger.Visitors: {Value: 3, Volume: 3}, trigger.Visits: {Value: 3, Volume: 3},
		trigger.Pageviews: {Value: 4, Volume: 4}, trigger.Events: {Value: 5, Volume: 5},
	} {
		assert.Equal(t, want, o.Answer(1, trigger.Question{Metric: metric, Window: last(300)}, time.Minute, always), "%s", metric)
	}
	q := trigger.Question{Metric: trigger.Visitors, Window: last(300)}
	assert.Equal(t, 2.0, o.Answer(1, q, time.Minute, noon.Add(-20*time.Second)).Value, "of the rows that were visible")
	assert.Zero(t, o.Answer(3, q, time.Minute, always).Value)
}

func TestOracleKnowsGoals(t *testing.T) {
	o := seen(
		custom(5, 1, "Signup"), custom(6, 1, "Signup"), custom(7, 2, "signup"),
		custom(8, 3, "Purchase", "plan", "business", "seats", "5"), custom(9, 4, "Purchase", "seats", "business"),
		view(10, 5, "/blog"), view(11, 6, "/blog/a/b"), view(12, 7, "/a+b"), view(13, 8, "/aab"), view(14, 9, "/blog|x"),
		read(20, 5, "/blog/a", 80), read(21, 5, "/blog/a", 90), read(22, 6, "/blog/a", 74), read(23, 7, "/blog/a", 255),
	)
	for name, c := range map[string]struct {
		goal             trigger.Goal
		events, visitors float64
	}{
		"event":               {trigger.Goal{EventName: "Signup"}, 2, 1},
		"properties":          {trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": "business", "seats": "5"}}, 1, 1},
		"absent property":     {trigger.Goal{EventName: "Signup", CustomProps: map[string]string{"plan": ""}}, 0, 0},
		"page":                {trigger.Goal{PagePath: "/blog"}, 1, 1},
		"wildcard":            {trigger.Goal{PagePath: "/blog*"}, 3, 3},
		"below":               {trigger.Goal{PagePath: "/blog/**"}, 1, 1},
		"special letters":     {trigger.Goal{PagePath: "/a+*"}, 1, 1},
		"alternatives":        {trigger.Goal{PagePath: "/blog/*|aab"}, 2, 2},
		"no alternatives":     {trigger.Goal{PagePath: "/blog|x"}, 1, 1},
		"scroll":              {trigger.Goal{PagePath: "/blog/*", ScrollThreshold: depthOf(75)}, 1, 1},
		"scroll of any depth": {trigger.Goal{PagePath: "*", ScrollThreshold: depthOf(0)}, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			q := trigger.Question{Metric: trigger.Events, Goal: &c.goal, Window: last(60)}
			assert.Equal(t, c.events, o.Answer(1, q, time.Minute, always).Value)
			q.Metric = trigger.Visitors
			assert.Equal(t, c.visitors, o.Answer(1, q, time.Minute, always).Value)
		})
	}
}

func TestOracleDividesByEverybody(t *testing.T) {
	o := seen(custom(5, 1, "Purchase", "plan", "free"), view(6, 2, "/"), view(7, 3, "/"))
	q := trigger.Question{Metric: trigger.ConversionRate, Goal: &trigger.Goal{EventName: "Purchase"}, Window: last(60)}
	assert.Equal(t, trigger.Answer{Value: 33.33, Volume: 3}, o.Answer(1, q, time.Minute, always))
	q.Filters = filters(t, `[["is","event:props:plan",["free"]]]`)
	assert.Equal(t, trigger.Answer{Value: 33.33, Volume: 3}, o.Answer(1, q, time.Minute, always), "whatever their properties")
	q.Filters = filters(t, `[["is","event:page",["/nowhere"]]]`)
	assert.Equal(t, trigger.Answer{}, o.Answer(1, q, time.Minute, always))
}

func TestOracleCountsASessionsReadingOnce(t *testing.T) {
	o := seen(
		read(600, 1, "/a", 80), read(5, 1, "/a", 90), // read that far before
		read(1900, 2, "/a", 80), read(15, 2, "/a", 90), read(5, 2, "/a", 90), // was away for over 30 minutes
		read(600, 3, "/a", 10), read(25, 3, "/a", 75), // reads that far now
	)
	q := trigger.Question{Ask: trigger.AskEach, Goal: &trigger.Goal{PagePath: "/a", ScrollThreshold: depthOf(75)}, Window: last(26)}
	assert.Equal(t, []trigger.Bucket{
		{Start: noon.Add(-26 * time.Second), Count: 1}, // the first one starts with the window
		{Start: noon.Add(-20 * time.Second), Count: 1},
	}, o.Answer(1, q, 10*time.Second, always).Buckets)
	q.Ask = trigger.AskLast
	assert.Equal(t, noon.Add(-5*time.Second), o.Answer(1, q, 10*time.Second, always).Last)
	q.Window.From = q.Window.To
	assert.Zero(t, o.Answer(1, q, 10*time.Second, always).Last)
}

func TestOracleKnowsFilters(t *testing.T) {
	google := view(5, 1, "/Blog/a")
	google.ReferrerSource, google.UTMCampaign, google.CountryCode = "Google", "Frühjahr", "EE"
	o := seen(google, custom(6, 2, "Signup", "plan", "free"), read(7, 3, "/Blog/a", 50))
	for text, want := range map[string]float64{
		`[]`: 2,
		`[["is","visit:source",["Google","Bing"]]]`:                             1,
		`[["is","visit:source",["google"]]]`:                                    0,
		`[["is","visit:source",["google"],{"case_sensitive":false}]]`:           1,
		`[["is_not","visit:source",["Google"]]]`:                                1,
		`[["is","visit:source",["Direct / None"]]]`:                             1,
		`[["is","visit:channel",["Direct"]]]`:                                   1,
		`[["contains","visit:utm_campaign",["JAHR"],{"case_sensitive":false}]]`: 1,
		`[["contains","visit:utm_campaign",["FRÜH"],{"case_sensitive":false}]]`: 1,
		`[["is","visit:utm_campaign",["(not set)"]]]`:                           1,
		`[["is","event:props:plan",["(none)"]]]`:                                1,
		`[["is_not","event:props:plan",["free"]]]`:                              1,
		`[["matches","event:page",["^/B.+a$"]]]`:                                1,
		`[["matches","event:page",["b"]]]`:                                      0,
		`[["matches_wildcard","event:page",["/Blog/*"]]]`:                       1,
		`[["matches_wildcard_not","event:page",["/Blog*"]]]`:                    1,
		`[["matches","event:props:plan",["."]]]`:                                1, `[["contains","visit:source",["Direct"]]]`: 0,
		`[["contains","event:hostname",["none"]]]`:                                                           2,
		`[["is","visit:city",[0]]]`:                                                                          2,
		`[["is","visit:country",["EE"]],["is","event:name",["Signup"]]]`:                                     0,
		`[["or",[["is","visit:country",["EE"]],["is","event:name",["Signup"]]]]]`:                            2,
		`[["not",["or",[["is","visit:country",["EE"]],["is","event:name",["x"]]]]]]`:                         1,
		`[["not",["and",[["is","visit:country",["EE"]],["not",["contains","event:page",["/Blog","x"]]]]]]]`:  2,
		`[["and",[["is","visit:country",["EE"]],["not",["contains_not","event:page",["/Blog"]]]]]]`:          1,
		`[["is_not","visit:country",["EE"],{"case_sensitive":false}],["contains","event:name",["ign","x"]]]`: 1,
	} {
		q := trigger.Question{Metric: trigger.Events, Filters: filters(t, text), Window: last(60)}
		assert.Equal(t, want, o.Answer(1, q, time.Minute, always).Value, text)
	}
}

// What filters make of goals must let those events through that the goals count by their own definition.
func TestFiltersOnGoalsAreTheGoals(t *testing.T) {
	events := []*plausible.Event{}
	for _, name := range []string{"pageview", "Signup", "signup", "Purchase"} {
		for _, page := range []string{"/", "/pricing", "/blog", "/blog/a", "/blogs", "/x/pricing", "/pricing/"} {
			for _, props := range [][]string{{}, {"plan", "business", "seats", "5"}, {"plan", "business"}, {"logged_in", "true"}, {"logged_in", "false"}} {
				e := custom(5, 1, name, props...)
				e.Pathname = page
				events = append(events, &e)
			}
		}
	}
	var a asked
	a.patterns = map[string]*regexp.Regexp{}
	reached := 0
	for _, g := range Goals {
		one, problems := filters(t, `[["is","event:goal",["`+g.Name+`"]]]`).WithGoals(Goals)
		require.Empty(t, problems)
		none, problems := filters(t, `[["is_not","event:goal",["`+g.Name+`"]]]`).WithGoals(Goals)
		require.Empty(t, problems)
		for _, e := range events {
			reaches := a.reaches(e, g.Goal)
			if reaches {
				reached++
			}
			require.Equal(t, []bool{reaches, !reaches}, []bool{a.all(e, one.List()), a.all(e, none.List())}, "%s: %s %s %v %v", g.Name, e.Name, e.Pathname, e.PropKeys, e.PropValues)
		}
	}
	require.Greater(t, reached, 20)
}

func TestOracleKnowsVisits(t *testing.T) {
	session := func(id uint64, start, end int, pages int32, bounce bool, entry string) plausible.Session {
		return plausible.Session{
			SiteID: 1, SessionID: id, UserID: id, Sign: 1, Start: noon.Add(-time.Duration(start) * time.Second), Timestamp: noon.Add(-time.Duration(end) * time.Second),
			Duration: uint32(start - end), Pageviews: pages, IsBounce: bounce, EntryPage: entry,
		}
	}
	const week = 7 * 24 * 3600
	first := session(1, 400, 400, 1, true, "/")
	taken := first
	taken.Sign = -1
	var t1 Traffic
	for _, s := range []plausible.Session{
		first, taken, session(1, 400, 100, 2, false, "/"), // begins before the window
		session(2, 50, 50, 1, true, "/a"), session(3, 40, 29, 1, true, "/a"),
		session(4, 600, 301, 3, false, "/"), session(5, 0, -10, 1, true, "/"), // over before it, begins after it
		session(6, week+301, 100, 9, false, "/"), // too long
	} {
		t1.Sessions = append(t1.Sessions, SessionRow{s, s.Timestamp.Add(5 * time.Second)})
	}
	for _, e := range []plausible.Event{view(100, 1, "/b"), view(50, 2, "/a"), view(29, 3, "/a")} {
		e.SessionID = e.UserID
		t1.Events = append(t1.Events, Row{e, e.Timestamp})
	}
	o := NewOracle(t1)
	for metric, want := range map[trigger.Metric]float64{trigger.BounceRate: 67, trigger.VisitDuration: 104, trigger.ViewsPerVisit: 1.33} {
		got := o.Answer(1, trigger.Question{Metric: metric, Window: last(300)}, time.Minute, always)
		assert.Equal(t, trigger.Answer{Value: want, Volume: 3}, got, "%s", metric)
	}
	q := trigger.Question{Metric: trigger.VisitDuration, Window: last(300), Filters: filters(t, `[["is","event:page",["/b"]]]`)}
	assert.Equal(t, trigger.Answer{Value: 300, Volume: 1}, o.Answer(1, q, time.Minute, always))
	q.Metric = trigger.BounceRate
	assert.Equal(t, trigger.Answer{Value: 0, Volume: 1}, o.Answer(1, q, time.Minute, always), "nobody entered there")
	ranking := trigger.Question{Ask: trigger.AskRanking, By: trigger.ByEntryPage, Window: last(300)}
	assert.Equal(t, []trigger.Ranked{{Name: "/a", Visitors: 2}}, o.Answer(1, ranking, time.Minute, always).Ranking)
}

func TestOracleRanks(t *testing.T) {
	from := func(e plausible.Event, source string) plausible.Event { e.ReferrerSource = source; return e }
	events := []plausible.Event{
		from(view(5, 1, "/a"), "Google"), from(view(6, 1, "/a"), "Google"), from(view(7, 2, "/b"), "Google"), from(view(8, 3, "/b"), "Bing"),
		view(9, 4, "/a"), custom(10, 5, "404", "path", "/missing"), from(view(90, 6, "/"), "Bing"),
	}
	o := seen(events...)
	q := trigger.Question{Ask: trigger.AskRanking, By: trigger.BySource, Window: last(60), Least: 1}
	assert.Equal(t, []trigger.Ranked{{Name: "Google", Visitors: 2}, {Name: "Bing", Visitors: 1}}, o.Answer(1, q, time.Minute, always).Ranking)
	q.Ask = trigger.AskNewcomers
	assert.Equal(t, []trigger.Ranked{{Name: "Google", Visitors: 2}}, o.Answer(1, q, time.Minute, always).Ranking)
	q.Ask, q.By, q.Least = trigger.AskRanking, trigger.ByPage, 2
	assert.Equal(t, []trigger.Ranked{{Name: "/a", Visitors: 3}, {Name: "/b", Visitors: 2}}, o.Answer(1, q, time.Minute, always).Ranking, "of events")
	q.Goal, q.Least = &trigger.Goal{EventName: "404"}, 1
	assert.Equal(t, []trigger.Ranked{{Name: "/missing", Visitors: 1}}, o.Answer(1, q, time.Minute, always).Ranking)

	for n := range 60 {
		events = append(events, from(view(20, uint64(100+n), "/"), time.Duration(n).String()))
	}
	q = trigger.Question{Ask: trigger.AskRanking, By: trigger.BySource, Window: last(60)}
	many := seen(events...).Answer(1, q, time.Minute, always)
	assert.Len(t, many.Ranking, trigger.RankingCap)
	assert.Equal(t, 12, many.More)
}

// What must hold of any traffic: parts add up to the whole, and a filter and its contrary to everything.
func TestOracleAddsUp(t *testing.T) {
	s := Scenario{Seed: 21, From: day(2026, 6, 8), To: noon, Sites: 2, Visitors: 10, Skew: 1, Zones: []*time.Location{zone(t, "Europe/Tallinn")}}
	traffic := Generate(s)
	o := NewOracle(traffic)
	random := rand.New(rand.NewPCG(1, 1))
	answered, contraries := 0, 0
	for _, a := range Questions(random, s, traffic, noon, 300, trigger.AskNumber) {
		if a.Metric != trigger.Events && a.Metric != trigger.Pageviews || a.Goal != nil && a.Goal.Scroll() {
			continue
		}
		value := func(q trigger.Question) float64 { return o.Answer(a.SiteID, q, time.Minute, always).Value }
		whole := value(a.Question)
		first, second := a.Question, a.Question
		middle := a.Window.From.Add(a.Window.To.Sub(a.Window.From) / 3).Truncate(time.Second)
		first.Window.To, second.Window.From = middle, middle
		if !strings.Contains(a.Filters.String(), "_done") { // a visit may do it after the middle
			assert.Equal(t, whole, value(first)+value(second), "%s", a)
		}
		if len(a.Filters.List()) == 1 {
			contrary, everything := a.Question, a.Question
			everything.Filters = trigger.Filters{}
			one := strings.TrimSuffix(strings.TrimPrefix(a.Filters.String(), "["), "]")
			var tooDeep []strict.Problem // what goals are made of is not for people to write
			if contrary.Filters, tooDeep = trigger.ParseFilters(json.RawMessage(`[["not",` + one + `]]`)); len(tooDeep) == 0 {
				assert.Equal(t, value(everything), whole+value(contrary), "%s", a)
				contraries++
			}
		}
		if whole > 0 {
			answered++
		}
	}
	assert.Greater(t, answered, 20)
	assert.Greater(t, contraries, 10)
}

func TestQuestionsAreOfEveryKind(t *testing.T) {
	s := Scenario{Seed: 22, From: day(2026, 6, 8), To: noon, Sites: 2, Visitors: 20, Skew: 1}
	traffic := Generate(s)
	o := NewOracle(traffic)
	kinds := []trigger.Ask{trigger.AskNumber, trigger.AskBuckets, trigger.AskEach, trigger.AskLast, trigger.AskRanking, trigger.AskNewcomers}
	told := map[trigger.Ask]int{}
	for _, a := range Questions(rand.New(rand.NewPCG(3, 4)), s, traffic, noon, 600, kinds...) {
		answer := o.Answer(a.SiteID, a.Question, 10*time.Second, noon)
		if answer.Value > 0 || len(answer.Buckets) > 0 || !answer.Last.IsZero() || len(answer.Ranking) > 0 {
			told[a.Ask]++
		}
		assert.False(t, a.Window.To.After(noon), "%s", a)
		assert.True(t, a.Window.From.Before(a.Window.To), "%s", a)
	}
	for _, kind := range kinds {
		assert.Greater(t, told[kind], 3, "most questions of kind %d have nothing to count", kind)
	}
}
