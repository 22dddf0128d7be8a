package evaluator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	fixture "github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// A quarter of an hour of conversions, each visible after up to two minutes, with pauses and
// restarts of the evaluator: each is counted once and listed once, whatever the slots saw.
func TestEveryConversionIsCountedOnceHoweverLate(t *testing.T) {
	const delay = 15 // seconds after which a slot is evaluated
	for seed := range uint64(2) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			b := newBench(t)
			id := b.trigger(trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`)

			type row struct {
				event   fixture.Event
				visible int // second
			}
			var rows []row
			happened := map[time.Time]int{}
			for n := range uint64(300) {
				second := random.IntN(900)
				e := b.event("Signup", second, n/3) // some equal rows within a second
				happened[e.Timestamp]++
				rows = append(rows, row{e, second + random.IntN(int(trigger.Overlap.Seconds())+1)})
			}
			slices.SortFunc(rows, func(a, b row) int { return a.visible - b.visible })

			listed, counted := map[time.Time]int{}, 0.0
			for second := 0; second <= 1080; second += 10 {
				visible := 0
				for visible < len(rows) && rows[visible].visible <= second+delay {
					visible++
				}
				if visible > 0 {
					events := make([]fixture.Event, visible)
					for i := range events {
						events[i] = rows[i].event
					}
					b.insert(events...)
					rows = rows[visible:]
				}
				switch random.IntN(10) {
				case 0:
					b.start()
				case 1:
					continue // this slot is missed
				}
				for _, m := range b.slot(second) {
					counted += m.Data.Value
					assert.Len(t, m.Data.Conversions, min(10, int(m.Data.Value)))
					if m.Data.Value <= 10 {
						for _, c := range m.Data.Conversions {
							listed[c.Time]++
						}
					}
					assert.Equal(t, id, m.Data.Trigger.ID)
				}
			}
			assert.Empty(t, rows)
			assert.Equal(t, 300.0, counted)
			for at, n := range listed {
				assert.LessOrEqual(t, n, happened[at], "listed more often than it happened: %s", at)
			}
		})
	}
}
