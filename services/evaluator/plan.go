package evaluator

import (
	"context"
	"fmt"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
)

// plan collects what the triggers of a slot must know, each question once, and hands every
// trigger the answers to its own.
type plan struct {
	questions []clickhouse.Question
	numbers   map[questionKey]int
	answers   []trigger.Answer
}

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

func newPlan() *plan { return &plan{numbers: map[questionKey]int{}} }

// ask adds a trigger's questions and returns their numbers.
func (p *plan) ask(site int64, questions []trigger.Question) []int {
	numbers := make([]int, len(questions))
	for i, q := range questions {
		asked := clickhouse.Question{SiteID: site, Question: q}
		key := questionKeyOf(asked)
		no, known := p.numbers[key]
		if !known {
			no = len(p.questions)
			p.numbers[key] = no
			p.questions = append(p.questions, asked)
		}
		numbers[i] = no
	}
	return numbers
}

// answer asks ClickHouse all questions together, and the norms and the values seen before where
// those are known.
func (p *plan) answer(ctx context.Context, e *evaluator, sites map[int64]plausible.Site, slot time.Time) (err error) {
	if p.answers, err = e.events.Answer(ctx, p.questions, slot, e.interval); err != nil {
		return err
	}
	statsFrom := map[int64]time.Time{}
	for i, q := range p.questions {
		switch q.Ask {
		case trigger.AskNorm:
			p.answers[i].Norm = e.norms.of(sites[q.SiteID], q)
		case trigger.AskNewcomers:
			statsFrom[q.SiteID] = sites[q.SiteID].StatsAt
		}
	}
	if err := e.newcomers.keep(ctx, p.questions, p.answers, statsFrom); err != nil {
		return fmt.Errorf("look for what was seen before: %w", err)
	}
	return nil
}

// sample is the answers with these numbers, and what ingestion lets one conclude from them.
func (p *plan) sample(numbers []int, i *ingestion) trigger.Sample {
	sample := trigger.Sample{Answers: make([]trigger.Answer, len(numbers)), Sighted: i.sighted()}
	for k, no := range numbers {
		sample.Answers[k] = p.answers[no]
		sample.Blind = sample.Blind || blindTo(p.questions[no].Question, i.blind)
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
