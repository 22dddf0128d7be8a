package trigger

import (
	"time"
)

// Metric is a number of a site's analytics, computed as Plausible's dashboard does.
type Metric string

// The metrics. With a goal, visitors and events are those of its conversions.
const (
	Visitors       Metric = "visitors"        // unique visitors, without those of engagement rows alone
	Visits         Metric = "visits"          // sessions with an event in the window
	Pageviews      Metric = "pageviews"       //
	Events         Metric = "events"          // everything but engagement rows; with a goal, its conversions
	ConversionRate Metric = "conversion_rate" // per cent of the visitors who reached the goal
	BounceRate     Metric = "bounce_rate"     // per cent of the visits
	VisitDuration  Metric = "visit_duration"  // seconds, mean
	ViewsPerVisit  Metric = "views_per_visit" // mean
)

// OfSessions tells whether the metric is computed from visits and not from events.
func (m Metric) OfSessions() bool {
	return m == BounceRate || m == VisitDuration || m == ViewsPerVisit
}

// additive tells whether the metric counts something, so that nothing happening is 0.
func (m Metric) additive() bool {
	return m == Visitors || m == Visits || m == Pageviews || m == Events
}

// Dimension is what a ranking is by.
type Dimension string

// The dimensions of rankings.
const (
	BySource    Dimension = "source"
	ByReferrer  Dimension = "referrer"
	ByCampaign  Dimension = "utm_campaign"
	ByCountry   Dimension = "country"
	ByEntryPage Dimension = "entry_page"
	ByPage      Dimension = "page" // the property "path" of an event that has it, else its page
)

// Ask is the kind of a question.
type Ask uint8

// The kinds of questions. Each is answered for all triggers together.
const (
	AskNumber    Ask = iota // Metric over Window: Answer.Value and Volume
	AskBuckets              // matching events of Window by slot interval: Answer.Buckets
	AskEach                 // as AskBuckets, with fingerprints to tell the conversions apart
	AskLast                 // the newest matching event of Window: Answer.Last
	AskRanking              // values of By with the most visitors in Window, those with at least Least: Answer.Ranking
	AskNewcomers            // as AskRanking, only values that the site has never seen before Window
	AskNorm                 // what Metric usually is over Window's length at each hour of the week: Answer.Norm
)

// Question is what a step must know of its slot. Equal questions are asked once.
type Question struct {
	Ask     Ask
	Metric  Metric
	Goal    *Goal // resolved: without an id; nil: any event
	Filters Filters
	Window  Window
	By      Dimension
	Least   int64
}

// Answer is the answer to a Question.
type Answer struct {
	Value   float64 // of an empty window 0, as on the dashboard
	Volume  int64   // how many visitors or visits Value rests on
	Buckets []Bucket
	Last    time.Time // zero: none
	Ranking []Ranked  // most visitors first
	More    int       // values beyond the ranking's cap
	Norm    *Norm     // nil: not known yet
}

// RankingCap is how many values a ranking has at most.
const RankingCap = 50

// Sample is what was measured for one trigger and one slot.
type Sample struct {
	Answers []Answer // to the questions that the config asked, in their order
	// Blind tells that ingestion itself was silent in a part of the windows: no site had events.
	// Nothing low can be concluded from them.
	Blind bool
	// Sighted is since when ingestion works without an outage; zero: for as long as is known. A
	// silence is the site's own only since then.
	Sighted time.Time
}

// Window is a span of time, half-open: From belongs to it, To does not.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Bucket is the matching events of one slot interval.
type Bucket struct {
	Start        time.Time `json:"start"`
	Count        int64     `json:"count"`
	Fingerprints []uint64  `json:"fingerprints,omitempty"` // of up to FingerprintCap of its conversions
}

// FingerprintCap is how many conversions of a bucket are told apart. A firing lists up to 10;
// beyond the cap the number stays exact and only the listed examples may repeat.
const FingerprintCap = 64

// Slot is the instant for which a trigger is evaluated. Between two of its slots lies Interval,
// or more, if slots were missed.
type Slot struct {
	At       time.Time
	Interval time.Duration
}

// Setting is what surrounds a trigger: its owner's options, and what Plausible says of its site
// and goal.
type Setting struct {
	Options
	Goal      *Goal          // of the config, resolved; nil: it has none
	Zone      *time.Location // of the site; nil is UTC
	StatsFrom time.Time      // rows older than this do not count: stats were reset
	RevisedAt time.Time      // events before it are none of this revision's
}

// back is the window of so many seconds before the slot, without what the site's owner reset.
func (s Setting) back(slot Slot, seconds int64) Window {
	return s.since(slot, slot.At.Add(-time.Duration(seconds)*time.Second))
}

func (s Setting) since(slot Slot, from time.Time) Window {
	if from.Before(s.StatsFrom) {
		from = s.StatsFrom
	}
	if from.After(slot.At) {
		from = slot.At
	}
	return Window{From: from.UTC(), To: slot.At}
}

func (s Setting) zone() *time.Location {
	if s.Zone == nil {
		return time.UTC
	}
	return s.Zone
}

// number is the question for a metric over a window.
func (s Setting) number(metric Metric, window Window) Question {
	return Question{Ask: AskNumber, Metric: metric, Goal: s.Goal, Filters: s.Filters, Window: window}
}

// norm is the question for what a metric usually is over so many seconds.
func (s Setting) norm(metric Metric, slot Slot, seconds int64) Question {
	window := Window{From: slot.At.Add(-time.Duration(seconds) * time.Second), To: slot.At}
	return Question{Ask: AskNorm, Metric: metric, Goal: s.Goal, Filters: s.Filters, Window: window}
}
