// Package traffic makes up believable visitors of the demo site: people who come from search
// engines, newsletters and friends, read a few pages, and sometimes sign up and buy; more by
// day than by night; and every ten minutes a post that makes the front page of Hacker News.
//
// A Generator is a pure function of its options: no clock, no I/O. Run lets it go live.
package traffic

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// Options tell which site is visited and when.
type Options struct {
	SiteID   uint64
	Hostname string
	Seed     uint64    // the same seed and times make the same rows
	Start    time.Time // the first visitor comes after it
	// Live is when somebody begins to watch: a sign-up follows within seconds, the first
	// spike within the first minute. Before it there is ordinary traffic only.
	Live time.Time
}

// What the demo triggers are set to tell apart: ordinary traffic stays below 50 visitors in
// five minutes at any hour of the day, a spike is above it within half a minute, and it is over
// before the next one comes. A test holds them to it.
const (
	OrdinaryPerMinute = 2.0 // visitors, averaged over the day
	SpikeVisitors     = 120
	SpikeEvery        = 10 * time.Minute
	SpikeThreshold    = 50
	SpikeWindow       = 5 * time.Minute

	firstSpike  = 6 * time.Second  // after Live
	spikeSpread = 20 * time.Second // mean of the exponential distribution of arrivals
	spikeLength = 75 * time.Second // nobody arrives later
)

// Generator makes rows in the order of their time.
type Generator struct {
	options Options
	random  *rand.Rand
	tracker *visit.Tracker
	pages   *rand.Zipf

	next      time.Time // the next ordinary visitor arrives
	nextSpike time.Time
	queue     queue
	queued    int
	regulars  []visit.Visitor // who may come back
}

// New makes a generator.
func New(o Options) *Generator {
	random := rand.New(rand.NewPCG(o.Seed, uint64(o.Start.Unix())))
	g := &Generator{
		options: o, random: random,
		tracker:   visit.New(o.SiteID, o.Hostname, random.Uint64(), nil),
		pages:     rand.NewZipf(random, 1.2, 1, uint64(len(posts)-1)),
		next:      o.Start,
		nextSpike: o.Live.Add(firstSpike),
	}
	g.next = g.nextArrival()
	g.welcome()
	return g
}

// Until returns the rows of everything that happens before an instant and was not returned yet.
func (g *Generator) Until(end time.Time) visit.Rows {
	for {
		at := g.earliest()
		if !at.Before(end) {
			return g.tracker.Take()
		}
		switch {
		case at.Equal(g.nextSpike):
			g.spike(at)
			g.nextSpike = at.Add(SpikeEvery)
		case at.Equal(g.next):
			g.arrive(at)
			g.next = g.nextArrival()
		default:
			step := heap.Pop(&g.queue).(step)
			g.tracker.Record(step.visitor, step.action)
		}
	}
}

func (g *Generator) earliest() time.Time {
	at := g.nextSpike
	if g.next.Before(at) {
		at = g.next
	}
	if len(g.queue) > 0 && g.queue[0].action.At.Before(at) {
		at = g.queue[0].action.At
	}
	return at
}

// nextArrival draws from a Poisson process whose rate follows the day: candidates come at the
// highest rate and are taken with the share that the hour has of it.
func (g *Generator) nextArrival() time.Time {
	const highest = OrdinaryPerMinute * (1 + daySwing)
	at := g.next
	for {
		at = at.Add(time.Duration(g.random.ExpFloat64() / highest * float64(time.Minute)))
		if g.random.Float64() < dayCurve(at)/(1+daySwing) {
			return at
		}
	}
}

// daySwing is how much busier than average the busiest hour is.
const daySwing = 0.4

// dayCurve is how busy an instant is: 1 on average, least at 3:00 UTC, most at 15:00 UTC.
func dayCurve(at time.Time) float64 {
	sinceMidnight := at.UTC().Sub(at.UTC().Truncate(24 * time.Hour))
	return 1 - daySwing*math.Cos(2*math.Pi*(sinceMidnight.Hours()-3)/24)
}

// arrive plans an ordinary visitor's whole visit.
func (g *Generator) arrive(at time.Time) {
	visitor := g.newVisitor()
	if len(g.regulars) > 20 && g.random.Float64() < 0.15 {
		visitor = g.regulars[g.random.IntN(len(g.regulars))]
	} else {
		g.regulars = append(g.regulars, visitor)
		if len(g.regulars) > 200 {
			g.regulars = g.regulars[100:]
		}
	}
	origin := pick(g.random, origins)
	j := journey{g: g, visitor: visitor, at: at, origin: origin.from}
	j.read(origin.landing(g))
	for g.random.Float64() < 0.55 {
		j.read(g.page())
	}
	switch chance := g.random.Float64(); {
	case chance < 0.15:
		j.signUp(0.4)
	case chance < 0.30:
		j.read("/pricing")
	case chance < 0.32:
		j.miss()
	}
}

// spike plans the readers of one post.
func (g *Generator) spike(at time.Time) {
	post := posts[g.random.IntN(len(posts))]
	for range SpikeVisitors {
		after := min(time.Duration(g.random.ExpFloat64()*float64(spikeSpread)), spikeLength)
		j := journey{g: g, visitor: g.newVisitor(), at: at.Add(after), origin: hackerNews}
		j.read(post)
		if g.random.Float64() < 0.2 {
			j.read(g.page())
		}
		if g.random.Float64() < 0.04 {
			j.signUp(0.3)
		}
	}
}

// welcome plans the one visit that makes sure that whoever watches sees something soon.
func (g *Generator) welcome() {
	j := journey{g: g, visitor: g.newVisitor(), at: g.options.Live, origin: visit.Origin{Source: "GitHub", Referrer: "github.com/"}, hasty: true}
	j.read("/")
	j.read("/pricing")
	j.signUp(1)
}

// step is an action to come. Steps of the same time keep the order in which they were planned.
type step struct {
	number  int
	visitor visit.Visitor
	action  visit.Action
}

func (g *Generator) plan(v visit.Visitor, a visit.Action) {
	g.queued++
	heap.Push(&g.queue, step{number: g.queued, visitor: v, action: a})
}

type queue []step

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].action.At.Equal(q[j].action.At) {
		return q[i].number < q[j].number
	}
	return q[i].action.At.Before(q[j].action.At)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(s any)   { *q = append(*q, s.(step)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
