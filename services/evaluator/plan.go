package evaluator

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// plan collects what the triggers of a slot must know, each question once, and hands every
// trigger the answers to its own. The next slot uses its memory again.
type plan struct {
	questions []clickhouse.Question
	sites     map[int64]*plausible.Site // of questions that are not answered by ClickHouse alone
	answers   []trigger.Answer

	list  []int32 // numbers of questions, trigger by trigger
	known map[placedKey]int32
	kinds map[questionKey]int32 // what is asked, of any site and window; kept from slot to slot
}

// numbers are where in a plan's list the numbers of a trigger's questions are.
type numbers struct{ first, count int32 }

// placedKey is a question with its kind by its number: a plan of 50,000 triggers has 15,000.
type placedKey struct {
	site, from, to int64
	kind           int32
}

// mostKinds bounds the memory of what no trigger asks any more.
const mostKinds = 50_000

// questionKey is a question that can be compared.
type questionKey struct {
	site     int64
	ask      trigger.Ask
	metric   trigger.Metric
	goal     trigger.GoalKey
	filters  trigger.Filters
	from, to int64
	by       trigger.Dimension
	least    int64
}

func questionKeyOf(q clickhouse.Question) questionKey {
	return questionKey{
		site: q.SiteID, ask: q.Ask, metric: q.Metric, goal: q.Goal.Key(), filters: q.Filters,
		from: q.Window.From.Unix(), to: q.Window.To.Unix(), by: q.By, least: q.Least,
	}
}

func newPlan() *plan {
	return &plan{sites: map[int64]*plausible.Site{}, known: map[placedKey]int32{}, kinds: map[questionKey]int32{}}
}

// begin forgets the slot before.
func (p *plan) begin() {
	clear(p.questions)
	clear(p.sites)
	clear(p.known)
	p.questions, p.answers, p.list = p.questions[:0], nil, p.list[:0]
	if len(p.kinds) > mostKinds {
		clear(p.kinds)
	}
}

// ask adds a trigger's questions and returns their numbers.
func (p *plan) ask(w *watched, questions []trigger.Question) numbers {
	n := numbers{int32(len(p.list)), int32(len(questions))}
	for _, q := range questions {
		asked := clickhouse.Question{SiteID: w.SiteID, Question: q}
		of := questionKeyOf(asked)
		key := placedKey{site: of.site, from: of.from, to: of.to}
		of.site, of.from, of.to = 0, 0, 0
		kind, known := p.kinds[of]
		if !known {
			kind = int32(len(p.kinds))
			p.kinds[of] = kind
		}
		key.kind = kind
		no, known := p.known[key]
		if !known {
			no = int32(len(p.questions))
			p.known[key] = no
			p.questions = append(p.questions, asked)
			if q.Ask == trigger.AskNorm || q.Ask == trigger.AskNewcomers {
				p.sites[w.SiteID] = w.site
			}
		}
		p.list = append(p.list, no)
	}
	return n
}

// join adds a plan of other sites, and tells from where on its numbers are in the list.
func (p *plan) join(other *plan) (first int32) {
	first, before := int32(len(p.list)), int32(len(p.questions))
	p.questions = append(p.questions, other.questions...)
	for _, no := range other.list {
		p.list = append(p.list, before+no)
	}
	maps.Copy(p.sites, other.sites)
	return first
}

// asked are the questions with these numbers.
func (p *plan) asked(n numbers) []trigger.Question {
	asked := make([]trigger.Question, n.count)
	for k, no := range p.list[n.first : n.first+n.count] {
		asked[k] = p.questions[no].Question
	}
	return asked
}

// answer asks ClickHouse all questions together, and the norms and the values seen before where
// those are known.
func (p *plan) answer(ctx context.Context, e *evaluator, slot time.Time) (err error) {
	if p.answers, err = e.events.Answer(ctx, p.questions, slot, e.interval); err != nil {
		return err
	}
	statsFrom := map[int64]time.Time{}
	for i, q := range p.questions {
		switch q.Ask {
		case trigger.AskNorm:
			p.answers[i].Norm = e.norms.of(*p.sites[q.SiteID], q)
		case trigger.AskNewcomers:
			statsFrom[q.SiteID] = p.sites[q.SiteID].StatsAt
		}
	}
	if err := e.newcomers.keep(ctx, p.questions, p.answers, statsFrom); err != nil {
		return fmt.Errorf("look for what was seen before: %w", err)
	}
	return nil
}

// sample is the answers with these numbers, in the memory of others, and what ingestion lets one conclude
// from them.
func (p *plan) sample(n numbers, view sight, into []trigger.Answer) trigger.Sample {
	sample := trigger.Sample{Answers: into[:0], Sighted: view.sighted}
	for _, no := range p.list[n.first : n.first+n.count] {
		sample.Answers = append(sample.Answers, p.answers[no])
		sample.Blind = sample.Blind || blindTo(p.questions[no].Question, view.blind)
	}
	return sample
}

// blindTo tells whether nothing low can be concluded from the answer to a question. A silence is looked
// for since ingestion was sighted: only whether it is silent now counts there.
func blindTo(q trigger.Question, blind func(trigger.Window) bool) bool {
	switch q.Ask {
	case trigger.AskNumber:
		return blind(q.Window)
	case trigger.AskLast:
		return blind(trigger.Window{From: q.Window.To, To: q.Window.To})
	}
	return false
}
