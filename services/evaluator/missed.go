package evaluator

import (
	"context"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

const (
	// mostLookedBack bounds the windows that a slot after a gap looks back at for all triggers together: of
	// up to 277 triggers all that the longest gap can have, of more fewer for each, further apart.
	mostLookedBack = 20_000

	// lookBackPortion is how much of a gap is asked for together. A query compares the events of a site with
	// all windows of its triggers, so asking in portions is less work, although there are more queries.
	lookBackPortion = 30 * time.Minute
)

// gap is what a trigger missed while nobody evaluated it.
type gap struct {
	turn  int
	slots []trigger.Slot
	past  []trigger.Past // what was found of the slots
}

// lookBack measures what triggers missed. A slot without a gap before it asks nothing. The present is worth
// more than the past: if that takes longer than to the next slot, or fails, the slot goes on without.
func (e *evaluator) lookBack(ctx context.Context, triggers []watched, turns []turn, sites map[int64]plausible.Site, slot time.Time) {
	gaps := e.gaps(triggers, turns)
	if len(gaps) == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, e.interval)
	defer cancel()
	doubtful := !e.ingestion.judges() // what stopped the evaluator may well have stopped ingestion
	for from := slot.Add(-trigger.LongestRecall); from.Before(slot); from = from.Add(lookBackPortion) {
		p := newPlan()
		questions := make([][][]int, len(gaps))
		for k, g := range gaps {
			w := triggers[g.turn]
			for _, s := range g.portion(from) {
				questions[k] = append(questions[k], p.ask(w.SiteID, w.Config.Ask(w.setting, turns[g.turn].before, s)))
			}
		}
		if err := p.answer(bounded, e, sites, slot); err != nil {
			if ctx.Err() == nil {
				e.log.Warn("what was missed in a gap is not looked for", "event", "missed", "slot", slot, "triggers", len(gaps), "error", err.Error())
			}
			return
		}
		for k := range gaps {
			for i, s := range gaps[k].portion(from) {
				sample := p.sample(questions[k][i], e.ingestion)
				sample.Blind = sample.Blind || doubtful
				gaps[k].past = append(gaps[k].past, trigger.Past{Slot: s, Sample: sample})
			}
		}
	}
	for _, g := range gaps {
		turns[g.turn].past = g.past
	}
}

// gaps are those of all triggers that want to know what they missed.
func (e *evaluator) gaps(triggers []watched, turns []turn) (gaps []gap) {
	missed := func(i, most int) []trigger.Slot {
		return trigger.Missed(turns[i].asked, triggers[i].setting, turns[i].before, turns[i].slot, most)
	}
	windows := 0
	for i, t := range turns {
		if !t.due {
			continue
		}
		if slots := missed(i, trigger.MostRecalled); len(slots) > 0 {
			gaps = append(gaps, gap{turn: i, slots: slots})
			windows += len(slots)
		}
	}
	if windows > mostLookedBack {
		for k := range gaps {
			gaps[k].slots = missed(gaps[k].turn, mostLookedBack/len(gaps))
		}
	}
	return gaps
}

// portion is the slots of the portion that begins then.
func (g gap) portion(from time.Time) (slots []trigger.Slot) {
	for _, s := range g.slots {
		if !s.At.Before(from) && s.At.Before(from.Add(lookBackPortion)) {
			slots = append(slots, s)
		}
	}
	return slots
}
