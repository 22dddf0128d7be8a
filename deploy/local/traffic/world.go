package traffic

import (
	"math/rand/v2"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// posts are the blog, the most read first: each is read about as much as Zipf says.
var posts = []string{
	"/blog/we-moved-our-analytics-to-one-server",
	"/blog/webhooks-that-do-not-lose-messages",
	"/blog/cookieless-and-still-useful",
	"/blog/clickhouse-for-small-teams",
	"/blog/what-a-unique-visitor-is",
	"/blog/reading-your-own-access-log",
	"/blog/how-we-price",
	"/blog/five-years-bootstrapped",
	"/blog/rss-is-alive",
	"/blog/the-weekly-report-nobody-reads",
}

// sections are the pages besides the blog, with how often each is looked at.
var sections = weighted[string]{
	{30, "/"}, {14, "/pricing"}, {12, "/features"}, {9, "/docs"}, {7, "/docs/install"}, {5, "/docs/goals"},
	{4, "/docs/api"}, {5, "/blog"}, {4, "/changelog"}, {3, "/about"}, {2, "/customers"}, {1, "/imprint"},
}

var (
	deadLinks = weighted[string]{{3, "/old-docs/setup"}, {2, "/blog/2019/draft"}, {1, "/wp-login.php"}}
	plans     = weighted[string]{{5, "personal"}, {4, "business"}, {1, "enterprise"}}
	methods   = weighted[string]{{6, "email"}, {3, "google"}, {2, "github"}}
)

var hackerNews = visit.Origin{Source: "Hacker News", Referrer: "news.ycombinator.com/"}

// origin is where visitors come from and where such visitors land.
type origin struct {
	from    visit.Origin
	landing func(*Generator) string
}

var origins = weighted[origin]{
	{34, origin{visit.Origin{}, anywhere}},
	{28, origin{visit.Origin{Source: "Google", Referrer: "google.com/"}, search}},
	{6, origin{visit.Origin{Source: "DuckDuckGo", Referrer: "duckduckgo.com/"}, search}},
	{4, origin{visit.Origin{Source: "Bing", Referrer: "bing.com/"}, search}},
	{8, origin{visit.Origin{Source: "GitHub", Referrer: "github.com/"}, at("/docs")}},
	{4, origin{hackerNews, blog}},
	{4, origin{visit.Origin{Source: "Reddit", Referrer: "reddit.com/r/selfhosted"}, blog}},
	{3, origin{visit.Origin{Source: "Mastodon", Referrer: "fosstodon.org/"}, blog}},
	{6, origin{visit.Origin{Source: "newsletter", UTMSource: "newsletter", UTMMedium: "email", UTMCampaign: "monthly-digest"}, blog}},
	{3, origin{visit.Origin{Source: "devweekly", UTMSource: "devweekly", UTMMedium: "email", UTMCampaign: "issue-214"}, at("/features")}},
}

func (g *Generator) page() string {
	if g.random.Float64() < 0.3 {
		return g.post()
	}
	return pick(g.random, sections)
}

func (g *Generator) post() string { return posts[g.pages.Uint64()] }

func anywhere(g *Generator) string { return pick(g.random, sections) }
func blog(g *Generator) string     { return g.post() }
func search(g *Generator) string {
	if g.random.Float64() < 0.6 {
		return g.post()
	}
	return pick(g.random, sections)
}
func at(path string) func(*Generator) string { return func(*Generator) string { return path } }

type place struct {
	country, region string
	city            uint32
}

var places = weighted[place]{
	{14, place{"US", "US-CA", 5391959}}, {12, place{"US", "US-NY", 5128581}}, {6, place{"US", "US-TX", 4671654}},
	{8, place{"DE", "DE-BE", 2950159}}, {5, place{"DE", "DE-BY", 2867714}}, {10, place{"GB", "GB-ENG", 2643743}},
	{7, place{"FR", "FR-IDF", 2988507}}, {6, place{"EE", "EE-37", 588409}}, {4, place{"EE", "EE-79", 588335}},
	{6, place{"IN", "IN-KA", 1277333}}, {5, place{"CA", "CA-ON", 6167865}}, {5, place{"NL", "NL-NH", 2759794}},
	{4, place{"BR", "BR-SP", 3448439}}, {4, place{"JP", "JP-13", 1850147}}, {2, place{}},
}

type device struct{ screen, os, osVersion, browser, browserVersion string }

var devices = weighted[device]{
	{24, device{"Desktop", "Windows", "10", "Chrome", "144.0"}},
	{14, device{"Desktop", "Mac", "10.15", "Chrome", "144.0"}},
	{10, device{"Desktop", "Mac", "10.15", "Safari", "26.1"}},
	{8, device{"Desktop", "GNU/Linux", "", "Firefox", "145.0"}},
	{5, device{"Desktop", "Windows", "10", "Firefox", "145.0"}},
	{5, device{"Desktop", "Windows", "10", "Microsoft Edge", "143.0"}},
	{18, device{"Mobile", "iOS", "26.1", "Safari", "26.1"}},
	{13, device{"Mobile", "Android", "16", "Chrome", "144.0"}},
	{3, device{"Tablet", "iOS", "26.1", "Safari", "26.1"}},
}

func (g *Generator) newVisitor() visit.Visitor {
	p, d := pick(g.random, places), pick(g.random, devices)
	return visit.Visitor{
		ID: g.random.Uint64(), Country: p.country, Region: p.region, City: p.city,
		Device: d.screen, OS: d.os, OSVersion: d.osVersion, Browser: d.browser, BrowserVersion: d.browserVersion,
	}
}

// weighted is a choice with how often each is taken.
type weighted[T any] []struct {
	weight int
	choice T
}

func pick[T any](random *rand.Rand, from weighted[T]) T {
	total := 0
	for _, option := range from {
		total += option.weight
	}
	n := random.IntN(total)
	for _, option := range from {
		if n -= option.weight; n < 0 {
			return option.choice
		}
	}
	panic("unreachable: the weights add up to the total")
}
