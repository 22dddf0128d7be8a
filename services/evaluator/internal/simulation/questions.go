package simulation

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Asked is a question about a site.
type Asked struct {
	SiteID int64
	trigger.Question
}

// String tells the question so that somebody can ask it again.
func (a Asked) String() string {
	goal, err := json.Marshal(a.Goal)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("site %d, ask %d, metric %q, by %q, least %d, goal %s, filters %s, window %s – %s", a.SiteID, a.Ask, a.Metric, a.By, a.Least,
		goal, a.Filters, a.Window.From.Format(time.RFC3339), a.Window.To.Format(time.RFC3339))
}

// Questions makes up so many questions about the scenario's sites, of the kinds that are asked for,
// as they would be asked for the slot: of all goals, shapes of filters and windows that triggers
// have, with values that the traffic has and some that it has not. Some windows begin and end with rows
// of the traffic.
func Questions(random *rand.Rand, scenario Scenario, traffic Traffic, slot time.Time, n int, kinds ...trigger.Ask) []Asked {
	list := make([]Asked, n)
	for i := range list {
		list[i] = question(random, scenario, traffic, slot.UTC(), kinds[random.IntN(len(kinds))])
	}
	return list
}

func question(random *rand.Rand, scenario Scenario, traffic Traffic, slot time.Time, kind trigger.Ask) Asked {
	a := Asked{SiteID: 1 + random.Int64N(int64(scenario.Sites))}
	if random.IntN(25) == 0 {
		a.SiteID = int64(scenario.Sites) + 1 // it has no rows
	}
	a.Ask, a.Filters = kind, Filters(random)
	a.Window = window(random, scenario.Zone(a.SiteID), slot)
	if random.IntN(4) == 0 {
		a.Window = between(random, traffic, a.SiteID, a.Window)
	}
	switch kind {
	case trigger.AskNumber:
		a.Metric = any1(random, trigger.Visitors, trigger.Visits, trigger.Pageviews, trigger.Events, trigger.ConversionRate,
			trigger.BounceRate, trigger.VisitDuration, trigger.ViewsPerVisit)
		if a.Metric == trigger.ConversionRate || !a.Metric.OfSessions() && random.IntN(2) == 0 {
			a.Goal = goal(random)
		}
	case trigger.AskEach:
		a.Goal = goal(random)
	case trigger.AskRanking, trigger.AskNewcomers:
		a.By = any1(random, trigger.BySource, trigger.ByReferrer, trigger.ByCampaign, trigger.ByCountry, trigger.ByEntryPage, trigger.ByPage)
		a.Least = any1[int64](random, 1, 1, 2, 5, 20)
		if kind == trigger.AskNewcomers { // they are few
			a.Least = any1[int64](random, 1, 2)
		}
		if a.By == trigger.ByPage && random.IntN(2) == 0 {
			a.Goal = &trigger.Goal{EventName: "404"}
		}
	default:
		if random.IntN(2) == 0 {
			a.Goal = goal(random)
		}
		if kind == trigger.AskBuckets {
			a.Metric = any1(random, trigger.Events, trigger.Pageviews)
		}
	}
	if (a.Metric.OfSessions() || a.By == trigger.ByEntryPage) && random.IntN(5) > 0 { // mostly of what visits know
		a.Filters = filtersOf(random, compared[firstOfVisits:])
	}
	if kind == trigger.AskBuckets || kind == trigger.AskEach { // buckets are of the latest past
		back := any1(random, time.Minute, 2*time.Minute, 5*time.Minute, 17*time.Minute, time.Hour, 12*time.Hour)
		a.Window = trigger.Window{From: slot.Add(-back - time.Duration(random.IntN(10))*time.Second), To: slot}
	}
	return a
}

func any1[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

// window draws a span that ends at the slot or before.
func window(random *rand.Rand, zone *time.Location, slot time.Time) trigger.Window {
	local := slot.In(zone)
	midnight := func(days int) time.Time {
		return time.Date(local.Year(), local.Month(), local.Day()+days, 0, 0, 0, 0, zone).UTC()
	}
	length := any1(random, time.Minute, 5*time.Minute, 30*time.Minute, time.Hour, 12*time.Hour, 24*time.Hour, 3*24*time.Hour)
	switch random.IntN(8) {
	case 0: // the previous period
		return trigger.Window{From: slot.Add(-2 * length), To: slot.Add(-length)}
	case 1: // the same hour a day, or a week before
		to := slot.AddDate(0, 0, -any1(random, 1, 7))
		return trigger.Window{From: to.Add(-length), To: to}
	case 2: // today
		return trigger.Window{From: midnight(0), To: slot}
	case 3: // a day, perhaps of 23 or 25 hours
		days := random.IntN(7)
		return trigger.Window{From: midnight(-days - 1), To: midnight(-days)}
	case 4: // across the midnight at which visitors get other ids
		day := slot.Truncate(24 * time.Hour)
		return trigger.Window{From: day.Add(-length), To: minTime(day.Add(length), slot)}
	case 5: // since stats were reset or a revision began: at any second
		return trigger.Window{From: slot.Add(-time.Duration(1+random.Int64N(int64(length/time.Second))) * time.Second), To: slot}
	default:
		return trigger.Window{From: slot.Add(-length), To: slot}
	}
}

// between is a part of the window that begins and ends at the time of a row, of which one belongs to it
// and the other does not; all of it where the site has too few.
func between(random *rand.Rand, traffic Traffic, siteID int64, w trigger.Window) trigger.Window {
	var ends []time.Time
	for range 400 {
		row := &traffic.Events[random.IntN(len(traffic.Events))]
		if at := row.Timestamp; int64(row.SiteID) == siteID && at.After(w.From) && at.Before(w.To) {
			ends = append(ends, at)
		}
	}
	switch {
	case len(ends) < 2 || ends[0].Equal(ends[1]):
		return w
	case ends[1].Before(ends[0]):
		return trigger.Window{From: ends[1], To: ends[0]}
	default:
		return trigger.Window{From: ends[0], To: ends[1]}
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// goal draws one of every kind.
func goal(random *rand.Rand) *trigger.Goal {
	depth := func() *int { d := any1(random, 0, 25, 50, 75, 90, 100); return &d }
	path := any1(random, "/", "/pricing", "/blog", "/blog*", "/blog/*", "/blog/**", "/*", "*", "/docs/a+b", "/docs/*.y/z", "/*-7", "/blog/*|/pricing",
		"/blog|news", "/über*", "/nowhere", "/b*g/post-1*")
	switch random.IntN(6) {
	case 0:
		return &trigger.Goal{EventName: any1(random, "Signup", "Purchase", "signup", "404", "Scroll Marker", "Nothing")}
	case 1:
		return &trigger.Goal{EventName: "Purchase", CustomProps: any1(random,
			map[string]string{"plan": "business"}, map[string]string{"plan": "business", "seats": "5"},
			map[string]string{"seats": "business"}, map[string]string{"plan": ""})}
	case 2:
		return &trigger.Goal{PagePath: path, CustomProps: map[string]string{"logged_in": any1(random, "true", "false")}}
	case 3, 4:
		return &trigger.Goal{PagePath: path, ScrollThreshold: depth()}
	default:
		return &trigger.Goal{PagePath: path}
	}
}

// Filters draws none, or a list of one or two, nested up to three levels.
func Filters(random *rand.Rand) trigger.Filters { return filtersOf(random, compared) }

func filtersOf(random *rand.Rand, dimensions []dimension) trigger.Filters {
	if random.IntN(2) == 0 {
		return trigger.Filters{}
	}
	var list []any
	for range 1 + random.IntN(4)/3 {
		list = append(list, filter(random, dimensions, 2))
	}
	raw, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	filters, problems := trigger.ParseFilters(raw)
	if len(problems) == 0 {
		filters, problems = filters.WithGoals(slices.Concat(Goals, Readings))
	}
	if len(problems) > 0 {
		panic(fmt.Sprintf("%s: %v", raw, problems))
	}
	return filters
}

// Goals are those that filters name.
var Goals = []trigger.NamedGoal{
	{Name: "Signup", Goal: trigger.Goal{EventName: "Signup"}},
	{Name: "Business", Goal: trigger.Goal{EventName: "Purchase", CustomProps: map[string]string{"plan": "business", "seats": "5"}}},
	{Name: "Pricing", Goal: trigger.Goal{PagePath: "/pricing"}},
	{Name: "Blog", Goal: trigger.Goal{PagePath: "/blog*"}},
	{Name: "News", Goal: trigger.Goal{PagePath: "/blog/*|/pricing", CustomProps: map[string]string{"logged_in": "true"}}},
}

// Readings are those of scrolling, which only filters on what a visit has done can name.
var Readings = []trigger.NamedGoal{
	{Name: "Read anything", Goal: trigger.Goal{PagePath: "*", ScrollThreshold: percent(90)}},
	{Name: "Read the blog", Goal: trigger.Goal{PagePath: "/blog*", ScrollThreshold: percent(50)}},
}

func percent(depth int) *int { return &depth }

// named is a filter on goals.
func named(random *rand.Rand, goals []trigger.NamedGoal) any {
	operator := any1(random, "is", "contains")
	values := []string{any1(random, goals...).Name}
	if operator == "contains" {
		values = []string{any1(random, "s", "Pri", "nothing")}
	}
	if random.IntN(2) == 0 {
		operator += "_not"
	}
	return []any{operator, "event:goal", values}
}

func filter(random *rand.Rand, dimensions []dimension, depth int) any {
	if depth > 0 {
		switch random.IntN(8) {
		case 0:
			return []any{"not", filter(random, dimensions, depth-1)}
		case 1, 2:
			return []any{any1(random, "and", "or"), []any{filter(random, dimensions, depth-1), filter(random, dimensions, depth-1)}}
		}
	}
	switch {
	case depth > 0 && random.IntN(6) == 0:
		return done(random, depth-1)
	case random.IntN(8) == 0 && dimensions[0].name == compared[0].name: // not of visits
		return named(random, Goals)
	}
	return comparison(random, dimensions)
}

// done is a filter on what a visit has done.
func done(random *rand.Rand, depth int) any {
	operator := any1(random, "has_done", "has_done", "has_not_done")
	if random.IntN(2) == 0 {
		return []any{operator, named(random, slices.Concat(Goals, Readings))}
	}
	return []any{operator, filterWithin(random, depth)}
}

// filterWithin is what one event must meet: all but what only visits know.
func filterWithin(random *rand.Rand, depth int) any {
	events := compared[:len(compared)-pagesOfVisits]
	if depth > 0 && random.IntN(3) == 0 {
		return []any{any1(random, "and", "or"), []any{comparison(random, events), comparison(random, events)}}
	}
	return comparison(random, events)
}

// dimension is one with values to compare it with.
type dimension struct {
	name   string
	values []string
}

const (
	firstOfVisits = 7 // the number of those that only events know
	pagesOfVisits = 2 // the number of those at the end that only visits know
)

// compared are the dimensions. Values with a pattern's characters mean something else to every operator.
var compared = []dimension{
	{"event:page", []string{"/", "/blog", "/blog/post-1", "/BLOG", "/pricing", "/docs/a+b", "/über-uns", "/ÜBER-UNS", "/blog*", "/blog/post-?", "^/blog/", "post-[12]$", "**/post-*"}},
	{"event:hostname", []string{"example.com", "EXAMPLE", "(none)", "*.example.com", "blog.", "^example"}},
	{"event:name", []string{"pageview", "Signup", "signup", "Purchase", "40", "S*", "[pP]u"}},
	{"event:props:plan", []string{"business", "Business", "free", "(none)", "b*", "^f", "busi"}},
	{"event:props:logged_in", []string{"true", "false", "(none)", "TRUE", "t*", "e$"}},
	{"event:props:path", []string{"/missing/1", "/missing", "/missing/1*", "[13]$", "(none)"}},
	{"event:props:nothing", []string{"(none)", "x"}},
	{"visit:source", []string{"Google", "google", "Direct / None", "Hacker News", "site0", "*.example", "^site1", "lobste.rs", "o"}},
	{"visit:channel", []string{"Direct", "Referral", "direct", "ref"}},
	{"visit:referrer", []string{"google.com", "Direct / None", "t.co/*", "links$", "lobste.rs/s/a+b", "GOOGLE"}},
	{"visit:utm_medium", []string{"cpc", "(not set)", "EMAIL", "paid", "e*"}},
	{"visit:utm_source", []string{"google", "(not set)", "newsletter", "Face*", "^g"}},
	{"visit:utm_campaign", []string{"Summer Sale", "summer sale", "Frühjahr", "FRÜHJAHR", "(not set)", "campaign-1*", "-[12]$", "ale"}},
	{"visit:utm_content", []string{"banner (a)", "(not set)", "banner*", "a.$"}},
	{"visit:utm_term", []string{"web analytics", "(not set)", "web*"}},
	{"visit:device", []string{"Desktop", "Mobile", "Tablet", "(not set)", "mob", "Desk*"}},
	{"visit:browser", []string{"Chrome", "Safari", "(not set)", "chrome", "Mobile*"}},
	{"visit:browser_version", []string{"126.0", "17.5", "(not set)", "12*", "7.5"}},
	{"visit:os", []string{"Windows", "GNU/Linux", "(not set)", "ios", "*OS", "Mac"}},
	{"visit:os_version", []string{"10", "10.15", "(not set)", "1*"}},
	{"visit:country", []string{"US", "EE", "DE", "us", "A1", "^E", "E*"}},
	{"visit:region", []string{"EE-37", "US-CA", "EE", "DE-*", "ee-37"}},
	{"visit:city", []string{"588409", "2950159", "0", "2*", "88"}},
	{"visit:entry_page", []string{"/", "/blog", "/pricing", "/BLOG", "/blog*", "post-[12]$", "/docs/a+b"}},
	{"visit:exit_page", []string{"/", "/blog", "/pricing", "/Pricing", "/blog/*", "^/docs", "/über-uns"}},
}

func comparison(random *rand.Rand, dimensions []dimension) any {
	c := any1(random, dimensions...)
	operator := any1(random, "is", "is", "contains", "matches", "matches_wildcard")
	var values []string
	for range 1 + random.IntN(3) {
		value := any1(random, c.values...)
		// A pattern that Go's regexp refuses is refused as a filter too.
		if operator == "matches" && (value[0] == '*' || value == "**/post-*") {
			value = ".*"
		}
		values = append(values, value)
	}
	if random.IntN(3) == 0 {
		operator += "_not"
	}
	parts := []any{operator, c.name, values}
	if random.IntN(3) == 0 {
		parts = append(parts, map[string]bool{"case_sensitive": random.IntN(3) == 0})
	}
	return parts
}
