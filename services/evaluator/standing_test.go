package evaluator

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func TestAStateIsUnpackedAsItWasPacked(t *testing.T) {
	value, pending := 0.0, noon.Add(time.Second)
	for name, state := range map[string]trigger.State{
		"new": trigger.NewState(3, noon.Add(1234*time.Microsecond)),
		"of an episode": {
			Revision: 1, Status: trigger.StatusFiring, Value: &value, Since: noon, LastSlot: noon.Add(time.Minute), LastFiredAt: noon, Explanation: "It lasts.",
			Machine: trigger.Machine{Pending: &pending, Episode: &trigger.Episode{Start: noon, Peak: 7}, Told: map[string]trigger.Spell{"a": {Start: 1, Last: 2}}},
		},
		"in error": trigger.NewState(1, noon).Failed(noon, "A sentence."),
	} {
		t.Run(name, func(t *testing.T) {
			first := packed(state, nil)
			assert.Equal(t, state, first.unpacked())
			again := packed(first.unpacked(), &first)
			assert.Equal(t, first.machine, again.machine)
			assert.False(t, first.moved(again))
			assert.True(t, first.shows(again))
		})
	}
}

func TestWhatASuccessorMustKnowIsMoved(t *testing.T) {
	value := 1.0
	before := trigger.NewState(1, noon)
	for name, change := range map[string]func(*trigger.State){
		"revision": func(s *trigger.State) { s.Revision++ },
		"status":   func(s *trigger.State) { s.Status = trigger.StatusFiring },
		"since":    func(s *trigger.State) { s.Since = s.Since.Add(time.Second) },
		"fired":    func(s *trigger.State) { s.LastFiredAt = noon },
		"machine":  func(s *trigger.State) { s.Machine.Armed = true },
	} {
		first, after := packed(before, nil), before
		change(&after)
		assert.True(t, first.moved(packed(after, &first)), name)
	}
	for name, change := range map[string]func(*trigger.State){
		"value":       func(s *trigger.State) { s.Value = &value },
		"threshold":   func(s *trigger.State) { s.Threshold = &value },
		"explanation": func(s *trigger.State) { s.Explanation = "Another." },
	} {
		first, after := packed(before, nil), before
		change(&after)
		assert.False(t, first.moved(packed(after, &first)), name)
		assert.False(t, first.shows(packed(after, &first)), name)
	}
}

// Each trigger has its turn once in its cadence, and the sites' triggers of a type share the slots that there are.
func TestEveryTriggerHasItsTurn(t *testing.T) {
	e := &evaluator{interval: 10 * time.Second}
	for _, cadence := range []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute} {
		for _, of := range trigger.Types() {
			slots := map[time.Time]int{}
			for site := range int64(10 * neighbours) {
				turns := 0
				for at := noon; at.Before(noon.Add(cadence)); at = at.Add(e.interval) {
					if e.hasTurn(of, site, trigger.Slot{At: at, Interval: cadence}) {
						turns++
						slots[at]++
					}
				}
				assert.Equal(t, 1, turns, "%s of site %d each %s", of, site, cadence)
			}
			if cadence == 5*time.Minute {
				assert.Len(t, slots, 10, "three crews have thirty slots")
			}
		}
	}
}
