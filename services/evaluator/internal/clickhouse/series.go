package clickhouse

import (
	"context"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// seriesDays is how far back a series reaches.
const seriesDays = 7

// Series measures consecutive windows of each question's own length, of which the last is its own:
// up to so many points, oldest first, of the last seriesDays. There is none for metrics of sessions
// and for questions that are not for a number.
func (e *Events) Series(ctx context.Context, questions []Question, points int) ([][]trigger.Point, error) {
	if len(questions) == 0 {
		return nil, nil
	}
	var parts [][2]part
	var counts []int
	err := e.withoutBroken(ctx, questions, func() error {
		p := &plan{events: e, slot: latest(questions)}
		parts, counts = p.placeSeries(questions, points)
		return p.run(ctx)
	})
	if err != nil {
		return nil, err
	}
	series := make([][]trigger.Point, len(questions))
	for i, q := range questions {
		if counts[i] == 0 {
			continue
		}
		first := parts[i][0].batch.windows[parts[i][0].no]
		series[i] = make([]trigger.Point, counts[i])
		values, bases := spread(parts[i][0], wantsOf(q), counts[i]), spread(parts[i][1], wantVisitors, counts[i])
		for k := range series[i] {
			value := values[k]
			if q.Metric == trigger.ConversionRate && bases[k] > 0 {
				value = rounded(100*value/bases[k], 2)
			}
			series[i][k] = trigger.Point{At: instant(first.from + uint32(k+1)*first.step), Value: value}
		}
	}
	return series, nil
}

// placeSeries tells the points of each question, too.
func (p *plan) placeSeries(questions []Question, points int) (parts [][2]part, counts []int) {
	parts, counts = make([][2]part, len(questions)), make([]int, len(questions))
	for i, q := range questions {
		to := seconds(q.Window.To)
		length := to - min(seconds(q.Window.From), to)
		if q.Ask != trigger.AskNumber || q.Metric.OfSessions() || length == 0 || p.events.Lacks(q.Question) != "" {
			continue
		}
		counts[i] = min(points, int(seriesDays*24*3600/length))
		if counts[i] == 0 {
			continue
		}
		w := window{from: to - uint32(counts[i])*length, to: to, step: length, phase: to % length}
		parts[i][0] = p.placeNumber(q, w, wantsOf(q))
		if q.Metric == trigger.ConversionRate {
			parts[i][1] = p.placeNumber(p.events.everybody(q), w, wantVisitors)
		}
	}
	return parts, counts
}

// spread is the values of all buckets of a window, those without events too.
func spread(p part, wants uint8, buckets int) []float64 {
	values := make([]float64, buckets)
	if p.batch != nil {
		w := p.batch.windows[p.no]
		for _, m := range p.result().buckets {
			values[(m.start-w.from)/w.step] = float64(m.count(wants))
		}
	}
	return values
}
