package plausible

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Event is a row of events_v2, of the columns that every release has and those that
// v3.0 added. Of the rest a new row of Community Edition has nothing to tell.
type Event struct {
	Timestamp      time.Time `ch:"timestamp"` // whole seconds, UTC
	Name           string    `ch:"name"`      // pageview, engagement, or a custom event's
	SiteID         uint64    `ch:"site_id"`
	UserID         uint64    `ch:"user_id"`
	SessionID      uint64    `ch:"session_id"`
	Hostname       string    `ch:"hostname"`
	Pathname       string    `ch:"pathname"`
	Referrer       string    `ch:"referrer"`
	ReferrerSource string    `ch:"referrer_source"` // empty: direct
	CountryCode    string    `ch:"country_code"`    // two letters; empty: unknown, stored as two NUL bytes
	ScreenSize     string    `ch:"screen_size"`     // Mobile, Tablet, Desktop or empty
	OS             string    `ch:"operating_system"`
	OSVersion      string    `ch:"operating_system_version"`
	Browser        string    `ch:"browser"`
	BrowserVersion string    `ch:"browser_version"`
	UTMMedium      string    `ch:"utm_medium"`
	UTMSource      string    `ch:"utm_source"`
	UTMCampaign    string    `ch:"utm_campaign"`
	UTMContent     string    `ch:"utm_content"`
	UTMTerm        string    `ch:"utm_term"`
	Region         string    `ch:"subdivision1_code"` // ISO 3166-2, like EE-37
	CityGeonameID  uint32    `ch:"city_geoname_id"`   // 0: unknown
	PropKeys       []string  `ch:"meta.key"`          // as long as PropValues
	PropValues     []string  `ch:"meta.value"`
	ClickIDParam   string    `ch:"click_id_param"`
	ScrollDepth    uint8     `ch:"scroll_depth"`    // per cent on engagement rows, 255: not sent; 0 on others
	EngagementTime uint32    `ch:"engagement_time"` // milliseconds
}

const insertEvents = `INSERT INTO events_v2 (timestamp, name, site_id, user_id, session_id, hostname, pathname,
	referrer, referrer_source, country_code, screen_size, operating_system, operating_system_version, browser,
	browser_version, utm_medium, utm_source, utm_campaign, utm_content, utm_term, subdivision1_code,
	city_geoname_id, meta.key, meta.value, click_id_param, scroll_depth, engagement_time)`

// InsertEvents writes the events in one batch. Empty hostnames and paths are filled
// as Plausible fills them.
func InsertEvents(ctx context.Context, conn driver.Conn, events []Event) error {
	return insert(ctx, conn, insertEvents, events, func(e Event) any {
		if e.Hostname == "" {
			e.Hostname = "(none)"
		}
		if e.Pathname == "" {
			e.Pathname = "/"
		}
		return &e
	})
}

// Session is a row of sessions_v2: one state of a visit. The visit's next state
// comes with a row that takes this one back, the same with Sign -1.
type Session struct {
	SessionID        uint64    `ch:"session_id"`
	Sign             int8      `ch:"sign"` // 1, or -1 to take a row back
	SiteID           uint64    `ch:"site_id"`
	UserID           uint64    `ch:"user_id"`
	Hostname         string    `ch:"hostname"`
	Timestamp        time.Time `ch:"timestamp"` // of the latest event; whole seconds, UTC
	Start            time.Time `ch:"start"`     // the same in all rows of a visit
	IsBounce         bool      `ch:"is_bounce"`
	EntryPage        string    `ch:"entry_page"`
	ExitPage         string    `ch:"exit_page"`
	ExitPageHostname string    `ch:"exit_page_hostname"`
	Pageviews        int32     `ch:"pageviews"`
	Events           int32     `ch:"events"` // the version of the state, from 1
	Duration         uint32    `ch:"duration"`
	Referrer         string    `ch:"referrer"`
	ReferrerSource   string    `ch:"referrer_source"`
	CountryCode      string    `ch:"country_code"`
	ScreenSize       string    `ch:"screen_size"`
	OS               string    `ch:"operating_system"`
	OSVersion        string    `ch:"operating_system_version"`
	Browser          string    `ch:"browser"`
	BrowserVersion   string    `ch:"browser_version"`
	UTMMedium        string    `ch:"utm_medium"`
	UTMSource        string    `ch:"utm_source"`
	UTMCampaign      string    `ch:"utm_campaign"`
	UTMContent       string    `ch:"utm_content"`
	UTMTerm          string    `ch:"utm_term"`
	Region           string    `ch:"subdivision1_code"`
	CityGeonameID    uint32    `ch:"city_geoname_id"`
	EntryPropKeys    []string  `ch:"entry_meta.key"`
	EntryPropValues  []string  `ch:"entry_meta.value"`
	ClickIDParam     string    `ch:"click_id_param"`
}

const insertSessions = `INSERT INTO sessions_v2 (session_id, sign, site_id, user_id, hostname, timestamp, start,
	is_bounce, entry_page, exit_page, exit_page_hostname, pageviews, events, duration, referrer, referrer_source,
	country_code, screen_size, operating_system, operating_system_version, browser, browser_version, utm_medium,
	utm_source, utm_campaign, utm_content, utm_term, subdivision1_code, city_geoname_id, entry_meta.key,
	entry_meta.value, click_id_param)`

// InsertSessions writes the rows in one batch. A Sign of 0 means 1.
func InsertSessions(ctx context.Context, conn driver.Conn, sessions []Session) error {
	return insert(ctx, conn, insertSessions, sessions, func(s Session) any {
		if s.Sign == 0 {
			s.Sign = 1
		}
		return &s
	})
}

func insert[Row any](ctx context.Context, conn driver.Conn, statement string, rows []Row, prepare func(Row) any) error {
	if len(rows) == 0 {
		return nil
	}
	batch, err := conn.PrepareBatch(ctx, statement)
	if err != nil {
		return fmt.Errorf("insert %d rows: %w", len(rows), err)
	}
	defer batch.Close()
	for _, r := range rows {
		if err := batch.AppendStruct(prepare(r)); err != nil {
			return fmt.Errorf("insert %d rows: %w", len(rows), err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert %d rows: %w", len(rows), err)
	}
	return nil
}
