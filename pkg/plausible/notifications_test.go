package plausible

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotifications(t *testing.T) {
	pool, directory, d := current(t)
	exec(t, pool, fmt.Sprintf(`INSERT INTO spike_notifications (site_id, type, threshold, recipients, inserted_at, updated_at) VALUES
		(%[1]d, 'spike', 50, '{a@example.com,b@example.com}', now(), now()), (%[1]d, 'drop', 3, '{}', now(), now()), (%[2]d, 'spike', 7, '{}', now(), now())`, d.SiteID, d.OtherSiteID))
	read := func(siteID int64) []Notification {
		t.Helper()
		notifications, err := directory.Notifications(t.Context(), siteID)
		require.NoError(t, err)
		return notifications
	}
	require.Equal(t, []Notification{{"drop", 3, 0}, {"spike", 50, 2}}, read(d.SiteID))
	require.Equal(t, []Notification{{"spike", 7, 0}}, read(d.OtherSiteID))
	require.Empty(t, read(999999))
}

func TestNotificationsOfOldReleases(t *testing.T) {
	pool := v2(t)
	exec(t, pool, `INSERT INTO spike_notifications (site_id, threshold, recipients) VALUES (1, 10, '{a@example.com}')`)
	for range 2 {
		directory, err := Open(t.Context(), pool, secret)
		require.NoError(t, err)
		notifications, err := directory.Notifications(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, []Notification{{"spike", 10, 1}}, notifications)
		exec(t, pool, `ALTER TABLE spike_notifications ADD COLUMN IF NOT EXISTS type varchar(255) DEFAULT 'spike'`) // v2.1.2
	}
	exec(t, pool, `DROP TABLE spike_notifications`)
	directory, err := Open(t.Context(), pool, secret)
	require.NoError(t, err)
	notifications, err := directory.Notifications(t.Context(), 1)
	require.NoError(t, err)
	require.Empty(t, notifications)
}
