package dispatcher

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

// TestOutcomesWithoutRoomGoBack: a stop does not wait for a recorder that a database which is away holds up.
func TestOutcomesWithoutRoomGoBack(t *testing.T) {
	work, end := context.WithCancel(t.Context())
	d := &dispatcher{work: work, inFlight: newInFlight(), places: newPlaces(2)}
	d.recorder = newRecorder(d, 1)
	fired, second := &delivery{Delivery: postgres.Delivery{ID: "msg_1"}}, &delivery{Delivery: postgres.Delivery{ID: "msg_2"}}
	claimed := &delivery{Delivery: postgres.Delivery{ID: "msg_3"}, claim: &postgres.Claim{Delivery: postgres.Delivery{ID: "msg_3"}}}
	for _, dl := range []*delivery{fired, second, claimed} {
		d.inFlight.add(dl)
	}
	assert.Equal(t, 2, d.places.takeAll(t.Context(), 2))
	end()
	d.record(fired, outcome{status: postgres.Delivered})
	d.record(second, outcome{status: postgres.Delivered})
	d.record(claimed, outcome{status: postgres.Delivered})

	assert.Equal(t, fired, (<-d.recorder.in).delivery, "room is used, also at the end")
	assert.Equal(t, []postgres.Claim{*claimed.claim}, d.abandoned)
	assert.Zero(t, d.places.taken())
	assert.Equal(t, 1, d.inFlight.size(), "what is to be recorded is still ours")
}
