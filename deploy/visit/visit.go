// Package visit turns what visitors do into the rows that Plausible's ingestion writes of it:
// an event for each action, and for each change of a visit the session row that takes the old
// state back together with the one that holds the new state.
//
// It is pure: no clock, no database. The local stack's traffic and the replay of access logs
// share it, so that both look to the services like a real Plausible.
package visit

import (
	"math/rand/v2"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// Tracker keeps the live visits of one site and collects the rows.
type Tracker struct {
	siteID   uint64
	hostname string
	random   *rand.Rand // numbers the visits
	stamp    func(time.Time) time.Time
	live     map[uint64]*visit
	rows     Rows
	recorded int
}

// Rows are what is to be inserted.
type Rows struct {
	Events   []plausible.Event
	Sessions []plausible.Session
}

// Len is how many rows there are in all.
func (r Rows) Len() int { return len(r.Events) + len(r.Sessions) }

// Visitor is who does something, as far as Plausible can tell.
type Visitor struct {
	ID             uint64
	Country        string // two letters; empty: unknown
	Region         string // ISO 3166-2
	City           uint32 // GeoNames id
	Device         string // Mobile, Tablet, Desktop or empty
	OS, OSVersion  string
	Browser        string
	BrowserVersion string
}

// Origin is where a visit comes from. The zero value is a direct visit.
type Origin struct {
	Referrer    string // host and path, no scheme
	Source      string
	UTMMedium   string
	UTMSource   string
	UTMCampaign string
}

// Action is one thing that a visitor does.
type Action struct {
	At             time.Time
	Name           string // Pageview, Engagement, or a custom event's name
	Path           string
	Origin         Origin // counts only where the action begins a visit
	PropKeys       []string
	PropValues     []string
	ScrollDepth    uint8 // engagement: per cent
	EngagementTime time.Duration
}

// The event names that Plausible reserves.
const (
	Pageview   = "pageview"
	Engagement = "engagement"
)

// New tracks the visits to a site. stamp says which time stands in the rows of an action, where
// that is not the action's own; it may be nil. Seconds are all that Plausible keeps of a time.
func New(siteID uint64, hostname string, seed uint64, stamp func(time.Time) time.Time) *Tracker {
	if stamp == nil {
		stamp = func(t time.Time) time.Time { return t }
	}
	return &Tracker{
		siteID: siteID, hostname: hostname, stamp: stamp,
		random: rand.New(rand.NewPCG(seed, 0)),
		live:   map[uint64]*visit{},
	}
}

// Record notes an action. Actions come in the order of their time.
func (t *Tracker) Record(v Visitor, a Action) {
	t.forget(a.At)
	running := t.live[v.ID]
	if running != nil && running.over(a.At) {
		running = nil
	}
	if a.Name == Engagement {
		if running == nil {
			return // Plausible drops it too: there is no visit that it belongs to
		}
		running.seen = a.At
		t.rows.Events = append(t.rows.Events, t.event(running, a))
		return
	}
	if running == nil {
		running = t.begin(v, a)
		t.live[v.ID] = running
	} else {
		before := running.state
		before.Sign = -1
		t.rows.Sessions = append(t.rows.Sessions, before)
		running.advance(a, t.second(a.At))
	}
	running.seen = a.At
	t.rows.Sessions = append(t.rows.Sessions, running.state)
	t.rows.Events = append(t.rows.Events, t.event(running, a))
}

// Take returns the rows since the last call.
func (t *Tracker) Take() Rows {
	rows := t.rows
	t.rows = Rows{}
	return rows
}

// visit is a visit that may go on.
type visit struct {
	state plausible.Session // the newest, Sign 1
	seen  time.Time         // the latest action, in visitors' time
}

// gap is how long a visitor may be idle within one visit. Plausible counts whole minutes.
const gap = 30 * time.Minute

func (v *visit) over(at time.Time) bool { return at.Sub(v.seen).Truncate(time.Minute) > gap }

func (t *Tracker) begin(v Visitor, a Action) *visit {
	at := t.second(a.At)
	begun := &visit{state: plausible.Session{
		SessionID: t.random.Uint64(), Sign: 1, SiteID: t.siteID, UserID: v.ID, Hostname: t.hostname,
		Timestamp: at, Start: at, IsBounce: true, Events: 1,
		Referrer: a.Origin.Referrer, ReferrerSource: a.Origin.Source,
		UTMMedium: a.Origin.UTMMedium, UTMSource: a.Origin.UTMSource, UTMCampaign: a.Origin.UTMCampaign,
		CountryCode: v.Country, Region: v.Region, CityGeonameID: v.City,
		ScreenSize: v.Device, OS: v.OS, OSVersion: v.OSVersion, Browser: v.Browser, BrowserVersion: v.BrowserVersion,
		EntryPropKeys: a.PropKeys, EntryPropValues: a.PropValues,
	}}
	begun.enter(a)
	return begun
}

func (v *visit) advance(a Action, at time.Time) {
	v.state.Events++
	v.state.Timestamp = at
	v.state.Duration = uint32(max(0, at.Sub(v.state.Start)) / time.Second)
	v.enter(a)
}

// enter counts what the action means for the visit's pages and its bounce. A visit bounces
// until a second page or an event other than a page view.
func (v *visit) enter(a Action) {
	if a.Name != Pageview {
		v.state.IsBounce = false
		return
	}
	if v.state.Pageviews == 0 {
		v.state.EntryPage = a.Path
	}
	v.state.Pageviews++
	v.state.ExitPage, v.state.ExitPageHostname = a.Path, v.state.Hostname
	if v.state.Pageviews > 1 {
		v.state.IsBounce = false
	}
}

// event is the action's row. Where the visitor came from is the visit's, in every row of it.
func (t *Tracker) event(v *visit, a Action) plausible.Event {
	s := v.state
	return plausible.Event{
		Timestamp: t.second(a.At), Name: a.Name, SiteID: s.SiteID, UserID: s.UserID, SessionID: s.SessionID,
		Hostname: s.Hostname, Pathname: a.Path, Referrer: s.Referrer, ReferrerSource: s.ReferrerSource,
		UTMMedium: s.UTMMedium, UTMSource: s.UTMSource, UTMCampaign: s.UTMCampaign,
		CountryCode: s.CountryCode, Region: s.Region, CityGeonameID: s.CityGeonameID,
		ScreenSize: s.ScreenSize, OS: s.OS, OSVersion: s.OSVersion, Browser: s.Browser, BrowserVersion: s.BrowserVersion,
		PropKeys: a.PropKeys, PropValues: a.PropValues,
		ScrollDepth: a.ScrollDepth, EngagementTime: uint32(a.EngagementTime / time.Millisecond),
	}
}

func (t *Tracker) second(at time.Time) time.Time { return t.stamp(at).UTC().Truncate(time.Second) }

// forget drops visits that cannot go on, every now and then.
func (t *Tracker) forget(now time.Time) {
	if t.recorded++; t.recorded%1000 != 0 {
		return
	}
	for id, v := range t.live {
		if v.over(now) {
			delete(t.live, id)
		}
	}
}
