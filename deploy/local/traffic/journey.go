package traffic

import (
	"strconv"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// journey plans one visit, action by action. A page is followed by the engagement that the
// tracker reports when the visitor leaves it.
type journey struct {
	g       *Generator
	visitor visit.Visitor
	at      time.Time
	origin  visit.Origin
	hasty   bool // a second for each page, for the one who is being watched
}

func (j *journey) read(path string) {
	random := j.g.random
	dwell := 4*time.Second + time.Duration(random.ExpFloat64()*float64(25*time.Second))
	dwell = min(dwell, 3*time.Minute)
	if j.hasty {
		dwell = time.Second
	}
	j.do(visit.Action{Name: visit.Pageview, Path: path})
	j.at = j.at.Add(dwell)
	// Who stays longer scrolls further; few reach the end.
	depth := 20 + random.IntN(40) + int(dwell.Seconds())
	j.do(visit.Action{
		Name: visit.Engagement, Path: path,
		ScrollDepth: uint8(min(depth, 100)), EngagementTime: dwell * 9 / 10,
	})
}

// signUp leads through the form, and with the given probability on to a purchase.
func (j *journey) signUp(buys float64) {
	random := j.g.random
	j.read("/signup")
	plan := pick(random, plans)
	j.do(visit.Action{Name: "Signup", Path: "/signup", PropKeys: []string{"method"}, PropValues: []string{pick(random, methods)}})
	if random.Float64() >= buys {
		return
	}
	j.read("/checkout")
	j.do(visit.Action{
		Name: "Purchase", Path: "/checkout",
		PropKeys:   []string{"plan", "seats"},
		PropValues: []string{plan, strconv.Itoa(1 + random.IntN(20))},
	})
}

// miss follows a dead link.
func (j *journey) miss() {
	path := pick(j.g.random, deadLinks)
	j.do(visit.Action{Name: visit.Pageview, Path: path})
	j.do(visit.Action{Name: "404", Path: path, PropKeys: []string{"path"}, PropValues: []string{path}})
}

func (j *journey) do(a visit.Action) {
	a.At, a.Origin = j.at, j.origin
	j.g.plan(j.visitor, a)
}
