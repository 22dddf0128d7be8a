// Package simulation makes up the traffic of sites and knows, from definitions alone, what the
// analytics of that traffic are. Tests hold the evaluator's queries against it, benchmarks take
// their rows from it. It shares no code with the evaluator: what both got wrong in one place
// would look right. Nothing but tests and benchmarks imports it.
package simulation

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// Scenario says what traffic to make up. The same scenario makes the same rows.
type Scenario struct {
	Seed     uint64
	From, To time.Time // visits begin in this half-open span; the last ones outlast it by up to some hours
	Sites    int       // their ids count from 1
	// Visitors is how many unique visitors the first site has within 5 minutes, on the average of its
	// week. Site k has Visitors / k^Skew of them: Zipf's law.
	Visitors float64
	Skew     float64          // 0: all sites are equally busy; 1 is usual
	Zones    []*time.Location // site k lives by the (k-1)th, and around again; none: UTC
	Changes  []Change
	// Late is the share of rows that become visible 7 to 120 seconds after their time; the others
	// take less than 7. Negative: none. 0 stands for usualLate.
	Late float64
}

// Change is what happens to a site besides its usual week.
type Change struct {
	SiteID   int64     // 0: all sites
	From, To time.Time // whole minutes, half-open
	// Factor multiplies the number of visits that begin. With 0 the site is silent: also the visits
	// that are under way leave no rows, as when ingestion is down.
	Factor float64
	Source string // where the visits beyond the usual come from; empty: as usual
}

// Traffic is all rows of a scenario, in the order in which they become visible.
type Traffic struct {
	Events   []Row
	Sessions []SessionRow
}

// Row is a row of events_v2, and when a query first sees it: never before its timestamp.
type Row struct {
	plausible.Event
	VisibleAt time.Time
}

// SessionRow is a row of sessions_v2, and when a query first sees it. A row that takes a state back
// becomes visible together with the next state.
type SessionRow struct {
	plausible.Session
	VisibleAt time.Time
}

// Visible is the traffic that a query sees at the time.
func (t Traffic) Visible(at time.Time) Traffic {
	events, _ := slices.BinarySearchFunc(t.Events, at, func(r Row, at time.Time) int { return afterwards(r.VisibleAt, at) })
	sessions, _ := slices.BinarySearchFunc(t.Sessions, at, func(r SessionRow, at time.Time) int { return afterwards(r.VisibleAt, at) })
	return Traffic{Events: t.Events[:events], Sessions: t.Sessions[:sessions]}
}

// afterwards orders what is visible at the time before what is not, and nothing as equal, so that
// a search ends behind all rows of the time itself.
func afterwards(visible, at time.Time) int {
	if visible.After(at) {
		return 1
	}
	return -1
}

// Fixtures are the rows as plausible.InsertEvents and plausible.InsertSessions take them.
func (t Traffic) Fixtures() ([]plausible.Event, []plausible.Session) {
	events, sessions := make([]plausible.Event, len(t.Events)), make([]plausible.Session, len(t.Sessions))
	for i := range t.Events {
		events[i] = t.Events[i].Event
	}
	for i := range t.Sessions {
		sessions[i] = t.Sessions[i].Session
	}
	return events, sessions
}

// Zone is the time zone of a site.
func (s Scenario) Zone(siteID int64) *time.Location {
	if len(s.Zones) == 0 {
		return time.UTC
	}
	return s.Zones[int(siteID-1)%len(s.Zones)]
}

const (
	usualLate   = 0.01
	usualDelay  = 7 * time.Second   // flush interval and insertion
	latest      = 120 * time.Second // after which no row becomes visible any more
	sessionGap  = 30 * time.Minute  // the pause that ends a session
	currentSpan = 5 * time.Minute   // of Plausible's current visitors
)

// Generate makes up the traffic. A site's rows do not depend on how many other sites there are.
func Generate(s Scenario) Traffic {
	var events pile[Row]
	var sessions pile[SessionRow]
	perVisit := meanWindows()
	for no := range s.Sites {
		id := int64(no + 1)
		site := &site{
			Scenario: s, id: id, zone: s.Zone(id), events: &events, sessions: &sessions,
			random: rand.New(rand.NewPCG(s.Seed, uint64(id))),
			rate:   s.Visitors * zipf(no+1, s.Skew) / perVisit / currentSpan.Minutes(),
		}
		site.run()
	}
	return Traffic{
		Events:   events.arranged(func(r *Row) time.Time { return r.VisibleAt }),
		Sessions: sessions.arranged(func(r *SessionRow) time.Time { return r.VisibleAt }),
	}
}

// pile collects rows. They are large, with many pointers: most of the time would go into moving them
// while one list grows, and while it is sorted.
type pile[R any] struct{ layers [][]R }

func (p *pile[R]) add(row R) {
	const rows = 4096
	top := len(p.layers) - 1
	if top < 0 || len(p.layers[top]) == rows {
		p.layers = append(p.layers, make([]R, 0, rows))
		top++
	}
	p.layers[top] = append(p.layers[top], row)
}

// arranged is the rows in order of time, those of the same as they were added.
func (p *pile[R]) arranged(at func(*R) time.Time) []R {
	type place struct {
		nanos int64
		row   *R
	}
	var places []place
	for _, layer := range p.layers {
		for i := range layer {
			places = append(places, place{at(&layer[i]).UnixNano(), &layer[i]})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.nanos, b.nanos) })
	sorted := make([]R, len(places))
	for i, p := range places {
		sorted[i] = *p.row
	}
	return sorted
}

// meanWindows is in how many 5-minute windows that tile time a visit is counted, in the mean: so
// many times more visitors are counted in one than visits begin in it.
func meanWindows() float64 {
	const visits = 20_000 // for an error below 1 %
	random := rand.New(rand.NewPCG(1, 2))
	var covered time.Duration
	for range visits {
		last := -currentSpan
		for _, step := range planVisit(random) {
			if step.kind == reading {
				continue
			}
			covered += min(step.after-last, currentSpan)
			last = step.after
		}
	}
	return float64(covered) / float64(visits) / float64(currentSpan)
}

// weekShape is how busy an hour of the local week is, from Monday 00:00, with a mean of 1.
var weekShape = func() (shape [7 * 24]float64) {
	byDay := [7]float64{1.1, 1.15, 1.15, 1.1, 1, 0.7, 0.8}
	var sum float64
	for h := range shape {
		// quietest at 4, busiest at 16 o'clock
		shape[h] = byDay[h/24] * (1 - 0.8*math.Cos(float64(h%24-4)*math.Pi/12))
		sum += shape[h]
	}
	for h := range shape {
		shape[h] *= float64(len(shape)) / sum
	}
	return shape
}()

func localHour(at time.Time, zone *time.Location) int {
	local := at.In(zone)
	sinceMonday := (int(local.Weekday()) + 6) % 7
	return sinceMonday*24 + local.Hour()
}

// person is somebody who may come back. Plausible knows them by another user_id every UTC day.
type person struct {
	number  uint64
	profile *profile
	present time.Time // until when another visit would go on with the same session
}

// site makes up the rows of one site.
type site struct {
	Scenario
	id       int64
	zone     *time.Location
	rate     float64 // visits that begin in a minute, in the mean
	random   *rand.Rand
	people   [512]person // the latest, around
	visits   uint64
	events   *pile[Row]
	sessions *pile[SessionRow]
}

func (s *site) run() {
	for minute := s.From; minute.Before(s.To); minute = minute.Add(time.Minute) {
		usual := s.rate * weekShape[localHour(minute, s.zone)]
		factor, extra := 1.0, ""
		for _, c := range s.Changes {
			if s.touches(c, minute) {
				factor *= c.Factor
				extra = cmp.Or(c.Source, extra)
			}
		}
		s.begin(minute, usual*min(factor, 1), "")
		s.begin(minute, usual*(max(factor, 1)-1), extra)
	}
}

func (s *site) touches(c Change, at time.Time) bool {
	return (c.SiteID == 0 || c.SiteID == s.id) && !at.Before(c.From) && at.Before(c.To)
}

func (s *site) silent(at time.Time) bool {
	return slices.ContainsFunc(s.Changes, func(c Change) bool { return c.Factor == 0 && s.touches(c, at) })
}

// begin lets visits begin within a minute, a Poisson number of the mean.
func (s *site) begin(minute time.Time, mean float64, source string) {
	for range poisson(s.random, mean) {
		s.visit(minute.Add(time.Duration(s.random.IntN(60))*time.Second), source)
	}
}

// poisson draws by Knuth's product, in portions whose exponential does not vanish.
func poisson(random *rand.Rand, mean float64) int {
	n := 0
	for ; mean > 0; mean -= 30 {
		for left := math.Exp(-min(mean, 30)) / random.Float64(); left < 1; left /= random.Float64() {
			n++
		}
	}
	return n
}

// visit writes the rows of one visit.
func (s *site) visit(start time.Time, source string) {
	plan := planVisit(s.random)
	who := s.visitor(start, source != "")
	who.present = start.Add(plan[len(plan)-1].after + sessionGap + time.Minute)
	look := *who.profile
	if s.random.IntN(3) == 0 { // who comes back does not always come the same way
		look.arrive(s.random)
	}
	if source != "" {
		look.ReferrerSource, look.Referrer, look.UTMCampaign, look.UTMMedium, look.UTMSource = source, "", "", "", ""
	}
	session := session{site: s, event: look.Event, who: who.number}
	session.event.SiteID = uint64(s.id)
	for _, step := range plan {
		at := start.Add(step.after)
		if !s.silent(at) {
			session.write(at, step)
		}
	}
}

// visitor is who begins a visit: mostly somebody new.
func (s *site) visitor(at time.Time, stranger bool) *person {
	if known := &s.people[s.random.IntN(len(s.people))]; !stranger && known.profile != nil && known.present.Before(at) && s.random.IntN(4) == 0 {
		return known
	}
	p := &s.people[s.visits%uint64(len(s.people))]
	s.visits++
	*p = person{number: s.visits, profile: newProfile(s.random)}
	return p
}

// identity mixes numbers to a user_id of all 64 bits, by the finaliser of SplitMix64.
func identity(numbers ...uint64) uint64 {
	var h uint64
	for _, n := range numbers {
		h += n + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// delay is how long a row stays invisible.
func (s *site) delay() time.Duration {
	late := s.Late
	if late == 0 {
		late = usualLate
	}
	from, to := time.Duration(0), usualDelay
	if s.random.Float64() < late {
		from, to = usualDelay, latest
	}
	return from + time.Duration(s.random.Int64N(int64(to-from)))
}

// session follows a visit's state as Plausible's ingestion keeps it.
type session struct {
	*site
	event   plausible.Event // what all events of the visit have in common
	who     uint64
	state   *plausible.Session // nil before the first event
	last    time.Time          // row of the session
	visible time.Time          // of the latest state: one buffer keeps them in order
}

// renew begins a session. Its rows keep the user_id of their first one's day, also past midnight.
func (s *session) renew(at time.Time) {
	s.state = nil
	s.event.SessionID = s.random.Uint64()
	s.event.UserID = identity(s.Seed, uint64(s.id), s.who, uint64(at.Unix()/86400))
}

func (s *session) write(at time.Time, step step) {
	if at.Sub(s.last) > sessionGap { // also of the first row, and after a silence
		s.renew(at)
	}
	if step.kind == reading && s.state == nil {
		return // the visit began in a silence: Plausible knows no session of it
	}
	s.last = at
	event := s.event
	event.Timestamp, event.Name, event.Pathname = at, step.name, step.page
	event.PropKeys, event.PropValues = step.keys, step.values
	event.ScrollDepth, event.EngagementTime = step.depth, step.engaged
	for range step.times {
		s.events.add(Row{event, at.Add(s.delay())})
		if step.kind != reading {
			s.advance(event, step)
		}
	}
}

// advance takes the visit's state back and writes the next one.
func (s *session) advance(e plausible.Event, step step) {
	next := plausible.Session{
		SessionID: e.SessionID, SiteID: e.SiteID, UserID: e.UserID, Hostname: e.Hostname, Start: e.Timestamp, IsBounce: true,
		Referrer: e.Referrer, ReferrerSource: e.ReferrerSource, CountryCode: e.CountryCode, ScreenSize: e.ScreenSize,
		OS: e.OS, OSVersion: e.OSVersion, Browser: e.Browser, BrowserVersion: e.BrowserVersion,
		UTMMedium: e.UTMMedium, UTMSource: e.UTMSource, UTMCampaign: e.UTMCampaign, UTMContent: e.UTMContent, UTMTerm: e.UTMTerm,
		Region: e.Region, CityGeonameID: e.CityGeonameID, EntryPropKeys: e.PropKeys, EntryPropValues: e.PropValues, ClickIDParam: e.ClickIDParam,
	}
	visible := e.Timestamp.Add(s.delay())
	if visible.Before(s.visible) {
		visible = s.visible
	}
	s.visible = visible
	if s.state != nil {
		next = *s.state
		taken := next
		taken.Sign = -1
		s.sessions.add(SessionRow{taken, visible})
	}
	next.Sign, next.Timestamp = 1, e.Timestamp
	next.Events++
	next.Duration = uint32(next.Timestamp.Sub(next.Start) / time.Second)
	switch step.kind {
	case viewing:
		next.Pageviews++
		if next.EntryPage == "" {
			next.EntryPage = e.Pathname
		}
		next.ExitPage, next.ExitPageHostname = e.Pathname, e.Hostname
		if next.Pageviews > 1 {
			next.IsBounce = false
		}
	case acting:
		next.IsBounce = false
	}
	s.sessions.add(SessionRow{next, visible})
	s.state = &next
}

// zipf is the weight of the k-th most frequent.
func zipf(k int, exponent float64) float64 { return math.Pow(float64(k), -exponent) }
