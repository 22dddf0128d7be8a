package clickhouse

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

func TestRhythmHasTheMinutesOfAllSites(t *testing.T) {
	b := newBench(t)
	minute := time.Now().UTC().Add(-time.Hour).Truncate(time.Minute)
	event := func(second int, site uint64) plausible.Event {
		return plausible.Event{Timestamp: minute.Add(time.Duration(second) * time.Second), Name: "pageview", SiteID: site, UserID: 1, SessionID: 1}
	}
	rhythm := func(after int) ([]Beat, int) {
		t.Helper()
		beats, sites, err := b.Rhythm(t.Context(), minute.Add(time.Duration(after)*time.Second))
		require.NoError(t, err)
		return beats, sites
	}
	beats, sites := rhythm(-60)
	assert.Empty(t, beats)
	assert.Zero(t, sites)

	b.insert(event(0, 1), event(20, 2), event(59, 1), event(300, 3), event(-86400, 4), event(86400, 5)) // the last by a wrong clock
	at := func(second int) time.Time { return minute.Add(time.Duration(second) * time.Second) }
	beats, sites = rhythm(-60)
	assert.Equal(t, []Beat{{at(0), at(59)}, {at(300), at(300)}}, beats)
	assert.Equal(t, 3, sites)
	beats, sites = rhythm(0)
	assert.Equal(t, []Beat{{at(20), at(59)}, {at(300), at(300)}}, beats, "what is at the instant itself is not after it")
	assert.Equal(t, 3, sites)
	beats, sites = rhythm(299)
	assert.Equal(t, []Beat{{at(300), at(300)}}, beats)
	assert.Equal(t, 1, sites)
	beats, sites = rhythm(-2 * 86400)
	assert.Len(t, beats, 3)
	assert.Equal(t, 4, sites)
}
