package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// longestCatchUp bounds how far back facts are looked for after the evaluator was away.
const longestCatchUp = 24 * time.Hour

// plan collects what all triggers want to know of one slot, each question once, and answers
// each trigger's sample after one query for each kind of question.
type plan struct {
	slot       time.Time
	windows    []clickhouse.SiteWindow
	windowNo   map[clickhouse.SiteWindow]int
	conditions []clickhouse.Condition
	conditNo   map[string]int

	visitors    []int64
	conversions []clickhouse.Conversions
}

func newPlan(slot time.Time) *plan {
	return &plan{slot: slot, windowNo: map[clickhouse.SiteWindow]int{}, conditNo: map[string]int{}}
}

// question is where a trigger's answer will be: exactly one of the two numbers is not negative.
type question struct {
	window    trigger.Window
	visitors  int // index into plan.windows
	condition int // index into plan.conditions
}

// ask adds a trigger's question to the plan.
func (p *plan) ask(w watched, state trigger.State) question {
	switch config := w.Config.(type) {
	case *trigger.VisitorSpike:
		q := question{window: p.window(w, config.WindowSeconds), condition: -1}
		q.visitors = p.addWindow(w.SiteID, q.window)
		return q
	case *trigger.GoalAchieved:
		q := question{visitors: -1}
		each := config.Mode == trigger.ModeEach
		if each {
			q.window = p.sinceLastSlot(w, state)
		} else {
			q.window = p.window(w, config.WindowSeconds)
		}
		q.condition = p.addCondition(clickhouse.Condition{SiteID: w.SiteID, Goal: w.goal, From: q.window.From, Each: each})
		return q
	}
	panic(fmt.Sprintf("evaluator: no sample for %T", w.Config))
}

// window is the span before the slot, without what the site's owner reset.
func (p *plan) window(w watched, seconds int64) trigger.Window {
	return trigger.Window{From: latest(p.slot.Add(-time.Duration(seconds)*time.Second), w.site.StatsAt), To: p.slot}
}

// sinceLastSlot is the span whose conversions are not certain to be counted: since the last slot
// or the revision's birth, and the overlap before it, in which rows may have become visible late.
func (p *plan) sinceLastSlot(w watched, state trigger.State) trigger.Window {
	from := w.RevisedAt.Truncate(time.Second)
	if !state.LastSlot.IsZero() {
		from = latest(from, state.LastSlot.Add(-trigger.Overlap))
	}
	from = latest(from, p.slot.Add(-longestCatchUp))
	return trigger.Window{From: latest(from, w.site.StatsAt), To: p.slot}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b.UTC()
}

func (p *plan) addWindow(site int64, w trigger.Window) int {
	asked := clickhouse.SiteWindow{SiteID: site, From: w.From.Unix(), To: w.To.Unix()}
	if no, known := p.windowNo[asked]; known {
		return no
	}
	p.windowNo[asked] = len(p.windows)
	p.windows = append(p.windows, asked)
	return len(p.windows) - 1
}

func (p *plan) addCondition(c clickhouse.Condition) int {
	key, err := json.Marshal(c)
	if err != nil { // text, numbers and times: nothing that cannot be encoded
		panic(err)
	}
	if no, known := p.conditNo[string(key)]; known {
		return no
	}
	p.conditNo[string(key)] = len(p.conditions)
	p.conditions = append(p.conditions, c)
	return len(p.conditions) - 1
}

// query asks ClickHouse: at most one query for each kind of question, whatever the number of
// triggers.
func (p *plan) query(ctx context.Context, events *clickhouse.Events, interval time.Duration) (err error) {
	if len(p.windows) > 0 {
		if p.visitors, err = events.Visitors(ctx, p.windows, p.slot); err != nil {
			return err
		}
	}
	if len(p.conditions) > 0 {
		if p.conversions, err = events.Conversions(ctx, p.conditions, p.slot, interval); err != nil {
			return err
		}
	}
	return nil
}

// sample is the answer to a trigger's question.
func (p *plan) sample(w watched, q question) trigger.Sample {
	sample := trigger.Sample{Window: q.window}
	if q.visitors >= 0 {
		sample.Value = p.visitors[q.visitors]
		return sample
	}
	answer := p.conversions[q.condition]
	sample.Value, sample.Buckets = answer.Count, answer.Buckets
	if config, ok := w.Config.(*trigger.GoalAchieved); ok && config.Measure == trigger.MeasureVisitors {
		sample.Value = answer.Visitors
	}
	return sample
}
