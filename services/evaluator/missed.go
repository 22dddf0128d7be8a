package evaluator

import (
	"context"
	"time"

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
	*turn
	slots []trigger.Slot
	past  []trigger.Past // what was found of the slots
}

// lookBack measures what triggers missed. A slot without a gap before it asks nothing. The present is worth
// more than the past: if that takes longer than to the next slot, or fails, the slot goes on without.
func (e *evaluator) lookBack(ctx context.Context, r *round, slot time.Time) {
	gaps := e.gaps(r, slot)
	if len(gaps) == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, e.interval)
	defer cancel()
	view, doubtful := e.ingestion.view(), !e.ingestion.judges() // what stopped the evaluator may well have stopped ingestion
	p := newPlan()
	for from := slot.Add(-trigger.LongestRecall); from.Before(slot); from = from.Add(lookBackPortion) {
		p.begin()
		asked := make([][]numbers, len(gaps))
		for k, g := range gaps {
			asked[k] = e.askBack(g, p, from)
		}
		if err := p.answer(bounded, e, slot); err != nil {
			if ctx.Err() == nil {
				e.log.Warn("what was missed in a gap is not looked for", "event", "missed", "slot", slot, "triggers", len(gaps), "error", err.Error())
			}
			return
		}
		for k := range gaps {
			for i, n := range asked[k] {
				sample := p.sample(n, view, nil)
				sample.Blind = sample.Blind || doubtful
				gaps[k].past = append(gaps[k].past, trigger.Past{Slot: gaps[k].portion(from)[i], Sample: sample})
			}
		}
	}
	for _, g := range gaps {
		r.missed[g.ID] = g.past
	}
}

// askBack collects what must be known of a portion of the slots.
func (e *evaluator) askBack(g gap, p *plan, from time.Time) (asked []numbers) {
	defer e.contain(g.turn)
	setting, before := g.setting(), g.state()
	for _, s := range g.portion(from) {
		asked = append(asked, p.ask(g.watched, g.Config.Ask(setting, before, s)))
	}
	return asked
}

// gaps are those of all triggers that want to know what they missed.
func (e *evaluator) gaps(r *round, slot time.Time) (gaps []gap) {
	missed := func(t *turn, most int) []trigger.Slot {
		return trigger.Missed(r.plan.asked(t.asked), t.setting(), t.state(), t.slot(slot), most)
	}
	windows := 0
	for i := range r.turns {
		t := &r.turns[i]
		if !t.due || t.faulty || t.before == nil || slot.UnixMicro()-t.before.last <= t.interval.Microseconds() { // nearly all: none was missed
			continue
		}
		if slots := missed(t, trigger.MostRecalled); len(slots) > 0 {
			gaps = append(gaps, gap{turn: t, slots: slots})
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
