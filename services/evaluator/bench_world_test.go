package evaluator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// The world of the benchmark: so many event rows of so many sites, whose sizes follow Zipf's law, in
// the days before its present. A fifth of the rows are custom events of 8 names and engagement rows;
// a visit has four rows.
const (
	worldRows  = 20_000_000
	worldSites = 1000
	worldDays  = 10
	freshSpan  = time.Hour        // at the end, which was written as Plausible flushes
	flush      = 10 * time.Second // an INSERT each
	perFlush   = worldRows * int(flush/time.Second) / (worldDays * 24 * 3600) / 4 * 4
)

// eventsOfWorld makes rows of numbers: of the interval from the first to the last second.
const eventsOfWorld = `
	INSERT INTO events_v2 (timestamp, name, site_id, user_id, session_id, hostname, pathname, referrer_source, country_code, screen_size, browser, operating_system, ` + "`meta.key`, `meta.value`" + `, scroll_depth)
	SELECT toDateTime(%[1]d + cityHash64(n, 1) %% %[2]d) AS at,
	       multiIf(kind < 80, 'pageview', kind < 90, 'engagement', kind < 92, '404', concat('Goal ', toString(kind %% 8))) AS name,
	       toUInt64(1 + floor(pow(%[3]d, cityHash64(visit, 2) %% 1000000 / 1000000.))) AS site,
	       cityHash64(visit %% 3000000, site, toDate(at)) AS user, cityHash64(visit) AS session,
	       'example.com', concat('/page/', toString(cityHash64(n, 3) %% 200)),
	       ['', '', 'Google', 'Bing', 'Hacker News', 'Reddit', 'DuckDuckGo'][1 + visit %% 7],
	       ['DE', 'US', 'FR', 'EE', 'GB'][1 + visit %% 5], ['Desktop', 'Mobile', 'Tablet'][1 + visit %% 3], 'Firefox', 'Linux',
	       if(kind >= 90, ['plan'], []), if(kind >= 90, [toString(visit %% 3)], []),
	       if(name = 'engagement', toUInt8(n %% 101), 0)
	FROM (SELECT number AS n, intDiv(number, 4) AS visit, cityHash64(number, 4) %% 100 AS kind FROM numbers(%[4]d, %[5]d))`

const sessionsOfWorld = `
	INSERT INTO sessions_v2 (session_id, sign, site_id, user_id, hostname, timestamp, start, is_bounce, entry_page, exit_page, pageviews, events, duration, referrer_source, country_code)
	SELECT cityHash64(visit), 1, toUInt64(1 + floor(pow(%[3]d, cityHash64(visit, 2) %% 1000000 / 1000000.))) AS site,
	       cityHash64(visit, site), 'example.com', start + duration AS timestamp, toDateTime(%[1]d + cityHash64(visit, 1) %% %[2]d) AS start, visit %% 2,
	       concat('/page/', toString(visit %% 200)), concat('/page/', toString(visit %% 190)), 3, 3, toUInt32(visit %% 300) AS duration,
	       ['', '', 'Google', 'Bing', 'Hacker News', 'Reddit', 'DuckDuckGo'][1 + visit %% 7], ['DE', 'US', 'FR', 'EE', 'GB'][1 + visit %% 5]
	FROM (SELECT number AS visit FROM numbers(%[4]d, %[5]d))`

// world is what ClickHouse has of the sites. It lives: time passes in it, and rows are flushed.
type world struct {
	conn    driver.Conn
	written time.Time
	rows    int
}

// newWorld writes the world before its present: the days in one part each, the last hour in flushes
// that ClickHouse merges as it sees fit.
func newWorld(t testing.TB, url string, present time.Time) *world {
	t.Helper()
	conn, err := fixture.Open(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	w := &world{conn: conn, written: present.Add(-worldDays * 24 * time.Hour)}
	for fresh := present.Add(-freshSpan); w.written.Before(fresh); {
		to := w.written.Add(24 * time.Hour)
		if to.After(fresh) {
			to = fresh
		}
		w.write(t, to, perFlush*int(to.Sub(w.written)/flush))
	}
	w.optimize(t)
	w.flush(t, present)
	return w
}

// flush lets the rows arrive that happen until then.
func (w *world) flush(t testing.TB, until time.Time) {
	t.Helper()
	for w.written.Before(until) {
		w.write(t, w.written.Add(flush), perFlush)
	}
	w.awaitMerges(t)
}

// awaitMerges waits until ClickHouse has merged what it wants to. Between two slots of an evaluator it has ten seconds for
// that; slots that follow one another at once would all share the two cores with merges.
func (w *world) awaitMerges(t testing.TB) {
	t.Helper()
	for quiet := 0; quiet < 5; quiet++ { // a merge begins a moment after the rows came that it is for
		var merges uint64
		require.NoError(t, w.conn.QueryRow(t.Context(), "SELECT count() FROM system.merges").Scan(&merges))
		if merges > 0 {
			quiet = -1
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) write(t testing.TB, to time.Time, rows int) {
	t.Helper()
	seconds := int(to.Sub(w.written).Seconds())
	w.run(t, fmt.Sprintf(eventsOfWorld, w.written.Unix(), seconds, worldSites, w.rows, rows))
	w.run(t, fmt.Sprintf(sessionsOfWorld, w.written.Unix(), seconds, worldSites, w.rows/4, rows/4))
	w.rows, w.written = w.rows+rows, to
}

// optimize brings everything into one part for each month, the worst for queries of the last minutes:
// within a part time is no key.
func (w *world) optimize(t testing.TB) {
	t.Helper()
	w.run(t, "OPTIMIZE TABLE events_v2 FINAL")
	w.run(t, "OPTIMIZE TABLE sessions_v2 FINAL")
}

func (w *world) run(t testing.TB, statement string) {
	t.Helper()
	require.NoError(t, w.conn.Exec(t.Context(), strings.TrimSpace(statement)))
}

// parts is in how many parts the events lie.
func (w *world) parts(t testing.TB) (n uint64) {
	t.Helper()
	require.NoError(t, w.conn.QueryRow(t.Context(), "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events_v2'").Scan(&n))
	return n
}
