package evaluator

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// The world of the benchmark: so many event rows of so many sites, whose sizes follow Zipf's law,
// in the days before its present. A fifth of the rows are custom events of 8 names and engagement
// rows; a visit has four rows.
const (
	worldRows  = 20_000_000
	worldSites = 1000
	worldDays  = 10
	freshSpan  = time.Hour        // at the end, which lies in parts as Plausible flushes them
	flush      = 10 * time.Second // a part each
	ahead      = 30 * time.Minute // rows after the present, for the slots that come
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

// fillWorld writes the world before and around its present, the last hour in small parts.
func fillWorld(t testing.TB, url string, present time.Time) {
	ctx := t.Context()
	conn, err := fixture.Open(url)
	require.NoError(t, err)
	defer conn.Close()
	run := func(statement string) {
		t.Helper()
		require.NoError(t, conn.Exec(ctx, strings.TrimSpace(statement)))
	}
	const span = worldDays * 24 * time.Hour
	perSecond := float64(worldRows) / span.Seconds()
	first, fresh := present.Add(ahead-span), present.Add(-freshSpan)
	made := 0
	write := func(from, to time.Time, rows int) {
		seconds := int(to.Sub(from).Seconds())
		run(fmt.Sprintf(eventsOfWorld, from.Unix(), seconds, worldSites, made, rows))
		run(fmt.Sprintf(sessionsOfWorld, from.Unix(), seconds, worldSites, made/4, rows/4))
		made += rows
	}
	for from := first; from.Before(fresh); from = from.Add(24 * time.Hour) {
		to := from.Add(24 * time.Hour)
		if to.After(fresh) {
			to = fresh
		}
		write(from, to, int(perSecond*to.Sub(from).Seconds())/4*4)
	}
	for _, table := range []string{"events_v2", "sessions_v2"} {
		run("OPTIMIZE TABLE " + table + " FINAL")
		run("SYSTEM STOP MERGES " + table)
	}
	for from := fresh; from.Before(present.Add(ahead)); from = from.Add(flush) {
		write(from, from.Add(flush), int(perSecond*flush.Seconds())/4*4)
	}
}

// mergeWorld brings everything into one part for each month.
func mergeWorld(ctx context.Context, t testing.TB, url string) {
	conn, err := fixture.Open(url)
	require.NoError(t, err)
	defer conn.Close()
	for _, table := range []string{"events_v2", "sessions_v2"} {
		require.NoError(t, conn.Exec(ctx, "SYSTEM START MERGES "+table))
		require.NoError(t, conn.Exec(ctx, "OPTIMIZE TABLE "+table+" FINAL"))
	}
}
