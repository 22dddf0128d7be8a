package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// A state's next version finds room in its page, so that no index has to be written.
func TestStatesAreUpdatedInPlace(t *testing.T) {
	store, pool := openStore(t)
	leases := take(t, store, "a", Shards)
	states := make([]State, 2000)
	for slot := range 2 {
		for i := range states {
			value := float64(i + slot)
			states[i] = State{TriggerID: fmt.Sprintf("tr_%05d", i), SiteID: int64(i), State: trigger.NewState(1, noon)}
			states[i].Status, states[i].Value, states[i].LastSlot = trigger.StatusOK, &value, noon.Add(time.Duration(slot)*10*time.Second)
			states[i].Explanation = fmt.Sprintf("%d visitors in 5 minutes, below the threshold of 50000", i+slot)
		}
		_, err := store.Commit(t.Context(), Result{Leases: leases, Slot: noon.Add(time.Duration(slot) * 10 * time.Second), States: states})
		require.NoError(t, err)
	}
	var updated, inPlace int
	require.Eventually(t, func() bool { // its statistics come a moment later
		err := pool.QueryRow(t.Context(), "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'trigger_states'").Scan(&updated, &inPlace)
		return err == nil && updated >= len(states)
	}, 30*time.Second, 50*time.Millisecond)
	assert.Greater(t, inPlace, len(states)*9/10)
}
