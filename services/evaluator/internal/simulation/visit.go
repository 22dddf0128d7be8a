package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// What a visitor does.
const (
	viewing   = iota // a page
	acting           // a custom event that clears the bounce
	happening        // a custom event that does not: "interactive" is false
	reading          // on a page: an engagement row
)

// step is one row of a visit that is planned.
type step struct {
	kind         int
	after        time.Duration // since the visit's start, whole seconds
	name         string
	page         string
	keys, values []string // properties
	depth        uint8    // of reading, per cent; 255: not sent
	engaged      uint32   // of reading, milliseconds
	times        int      // equal rows of the second
}

// planVisit draws what a visitor does, in order of time. No pause is long enough to end the session.
func planVisit(random *rand.Rand) []step {
	var plan []step
	after := time.Duration(0)
	add := func(s step) {
		s.after, s.times = after, 1
		if random.IntN(150) == 0 { // a double click, a tracker that is included twice
			s.times = 2
		}
		plan = append(plan, s)
	}
	pages := 1
	for pages < 25 && random.Float64() < 0.45 {
		pages++
	}
	for number := range pages {
		page := pick(random, visited)
		properties := step{page: page}
		if random.IntN(3) == 0 {
			properties.keys, properties.values = []string{"logged_in"}, []string{pick(random, loggedIn)}
		}
		if number > 0 || random.IntN(25) > 0 { // some visits begin with an event that a server sends
			view := properties
			view.kind, view.name = viewing, "pageview"
			add(view)
		}
		leave := after + pause(random)
		for after < leave {
			switch random.IntN(8) {
			case 0:
				s := pick(random, actions)
				s.page = page
				if s.name == "404" {
					s.values = []string{fmt.Sprintf("/missing/%d", random.IntN(60))}
				}
				add(s)
			case 1, 2:
				s := properties
				s.kind, s.name, s.depth, s.engaged = reading, "engagement", uint8(random.IntN(101)), uint32(random.IntN(60_000))
				if random.IntN(10) == 0 {
					s.depth = 255
				}
				add(s)
			}
			after = min(leave, after+time.Duration(1+random.ExpFloat64()*30)*time.Second)
		}
	}
	if len(plan) == 0 || plan[0].kind == reading { // nothing begins with reading
		first := step{kind: viewing, name: "pageview", page: "/", times: 1}
		plan = slices.Insert(plan, 0, first)
	}
	// A visit begins when its first row does.
	for offset, i := plan[0].after, 0; i < len(plan); i++ {
		plan[i].after -= offset
	}
	return plan
}

// pause is how long somebody stays on a page: mostly some seconds, seldom nearly half an hour.
func pause(random *rand.Rand) time.Duration {
	seconds := 2 + random.ExpFloat64()*45
	if random.IntN(20) == 0 {
		seconds *= 12
	}
	return min(time.Duration(seconds)*time.Second, 28*time.Minute)
}

// profile is what the events of a visit have in common: where it comes from, and with what.
type profile struct{ plausible.Event }

func newProfile(random *rand.Rand) *profile {
	var p profile
	where, with := pick(random, places), pick(random, devices)
	p.CountryCode, p.Region, p.CityGeonameID = where.country, where.region, where.city
	p.ScreenSize, p.OS, p.OSVersion, p.Browser, p.BrowserVersion = with.size, with.os, with.osVersion, with.browser, with.version
	p.Hostname = pick(random, hostnames)
	p.arrive(random)
	return &p
}

// arrive draws where a visit comes from.
func (p *profile) arrive(random *rand.Rand) {
	from := pick(random, arrivals)
	if random.IntN(100) == 0 { // somewhere that nobody came from before
		name := fmt.Sprintf("new-%d", random.Uint32())
		from = arrival{source: name + ".example", referrer: name + ".example/post", utm: [5]string{2: name}}
	}
	p.ReferrerSource, p.Referrer, p.ClickIDParam = from.source, from.referrer, from.clickID
	p.UTMSource, p.UTMMedium, p.UTMCampaign, p.UTMContent, p.UTMTerm = from.utm[0], from.utm[1], from.utm[2], from.utm[3], from.utm[4]
}

type place struct {
	country, region string
	city            uint32
}

type device struct{ size, os, osVersion, browser, version string }

type arrival struct {
	source, referrer, clickID string
	utm                       [5]string // source, medium, campaign, content, term
}

// The lists are drawn from by their order: the first is the most frequent. They contain what a
// query may trip over: empty values, letters beyond ASCII, other cases, characters of patterns.
var (
	hostnames = skewed(1.6, "example.com", "blog.example.com", "(none)", "Example.org", "shop.example.com")
	visited   = skewed(0.9, pages()...)
	loggedIn  = skewed(1.5, "false", "true", "True", "(none)")
	places    = skewed(1,
		place{"US", "US-CA", 5391959}, place{"DE", "DE-BE", 2950159}, place{"EE", "EE-37", 588409}, place{"GB", "GB-ENG", 2643743},
		place{}, place{"FR", "FR-IDF", 2988507}, place{"EE", "EE-79", 588335}, place{"IN", "", 0}, place{"A1", "", 0}, place{"BR", "BR-SP", 3448439})
	devices = skewed(1,
		device{"Desktop", "Windows", "10", "Chrome", "126.0"}, device{"Mobile", "iOS", "17.5", "Safari", "17.5"},
		device{"Mobile", "Android", "14", "Chrome", "126.0"}, device{"Desktop", "Mac", "10.15", "Safari", "17.5"},
		device{"Desktop", "GNU/Linux", "", "Firefox", "127.0"}, device{"Tablet", "iPadOS", "17.5", "Mobile App", ""}, device{})
	arrivals = skewed(1.1, slices.Concat([]arrival{
		{}, {source: "Google", referrer: "google.com"}, {source: "Hacker News", referrer: "news.ycombinator.com"},
		{source: "Google", referrer: "google.com", clickID: "gclid", utm: [5]string{"google", "cpc", "Summer Sale", "banner (a)", "web analytics"}},
		{source: "Twitter", referrer: "t.co/abc"}, {source: "newsletter", utm: [5]string{"newsletter", "email", "Frühjahr", "", ""}},
		{source: "DuckDuckGo", referrer: "duckduckgo.com"}, {source: "Facebook", referrer: "facebook.com/groups", utm: [5]string{"facebook", "paid", "summer sale", "", ""}},
		{source: "lobste.rs", referrer: "lobste.rs/s/a+b"},
	}, strangers())...)
	// What the page's own code reports; the property path of 404 is drawn apart.
	actions = skewed(0.8,
		step{kind: happening, name: "Scroll Marker"},
		step{kind: acting, name: "Signup", keys: []string{"plan"}, values: []string{"free"}},
		step{kind: acting, name: "404", keys: []string{"path"}},
		step{kind: acting, name: "Signup", keys: []string{"plan"}, values: []string{"business"}},
		step{kind: acting, name: "Purchase", keys: []string{"plan", "seats"}, values: []string{"business", "5"}},
		step{kind: acting, name: "Purchase", keys: []string{"plan", "seats"}, values: []string{"free", "business"}},
		step{kind: acting, name: "signup"},
		step{kind: acting, name: "Purchase"})
)

// strangers are so many sources that a ranking cannot have them all.
func strangers() (list []arrival) {
	for n := range 80 {
		host := fmt.Sprintf("site%02d.example", n)
		list = append(list, arrival{source: host, referrer: host + "/links", utm: [5]string{2: fmt.Sprintf("campaign-%d", n%60)}})
	}
	return list
}

func pages() []string {
	list := []string{"/", "/pricing", "/blog", "/blog/", "/signup", "/über-uns", "/docs/a+b", "/Pricing", "/docs/x.y/z", "/blog|news"}
	for n := range 90 {
		list = append(list, fmt.Sprintf("/blog/post-%d", n))
	}
	return list
}

// choice is a list with probabilities.
type choice[T any] struct {
	items   []T
	summed  []float64
	weights float64
}

// skewed lets the k-th item be drawn k^-exponent as often as the first.
func skewed[T any](exponent float64, items ...T) choice[T] {
	c := choice[T]{items: items, summed: make([]float64, len(items))}
	for i := range items {
		c.weights += zipf(i+1, exponent)
		c.summed[i] = c.weights
	}
	return c
}

func pick[T any](random *rand.Rand, c choice[T]) T {
	return c.items[sort.SearchFloat64s(c.summed, random.Float64()*c.weights)]
}
