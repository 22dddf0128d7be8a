package evaluator

import (
	"context"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

const month = 30 * 24 * time.Hour

// suggest looks for the threshold with which the trigger would have fired about as often as is wanted, on the
// answers that the preview has fetched. A higher bar fires less often only above the middle of what is
// measured: below it, a lower one makes one long episode of several. So it is looked for from there.
func (r *rehearsal) suggest(ctx context.Context, request stream.PreviewRequest, done replayed) (*stream.SuggestedConfig, error) {
	const day = 24 * time.Hour
	period := r.to.Sub(r.from)
	field, candidates, set := thresholds(r.watched.Config, done.points)
	if len(candidates) == 0 || period < day {
		return nil, nil //nolint:nilnil // no suggestion is an answer
	}
	perMonth := func(count int) float64 { return float64(count) * float64(month) / float64(period) }
	tried := map[int]int{}
	count := func(i int) (int, error) {
		if n, known := tried[i]; known {
			return n, nil
		}
		other, err := r.run(ctx, set(candidates[i]))
		tried[i] = other.count
		return other.count, err
	}
	var failed error
	first := sort.Search(len(candidates), func(i int) bool { // the first that fires seldom enough
		n, err := count(i)
		if failed == nil {
			failed = err
		}
		return failed != nil || perMonth(n) <= request.PerMonth
	})
	if failed != nil {
		return nil, failed
	}
	best, distance := -1, math.Inf(1)
	for _, i := range []int{first, first - 1} { // of two that are equally near, the one that fires less
		if i < 0 || i >= len(candidates) {
			continue
		}
		n, err := count(i)
		if err != nil {
			return nil, err
		}
		if d := math.Abs(perMonth(n) - request.PerMonth); d < distance {
			best, distance = i, d
		}
	}
	return &stream.SuggestedConfig{Field: field, Value: candidates[best], FiringsPerMonth: math.Round(perMonth(tried[best])*10) / 10}, nil
}

// thresholds are the values of a config's one numeric threshold that come into question, from the one that fires
// most often to the one that never did, and how to set them. There are none for other configs.
func thresholds(config trigger.Config, points []stream.PreviewPoint) (field string, candidates []float64, set func(float64) trigger.Config) {
	var values []float64
	for _, p := range points {
		if p.Value != nil {
			values = append(values, *p.Value)
		}
	}
	if len(values) == 0 {
		return "", nil, nil
	}
	slices.Sort(values)
	middle := values[len(values)/2]
	values = slices.Compact(values)
	high := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v <= middle })
	low := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v >= middle })
	slices.Reverse(low)
	whole := func(list []float64, beyond float64) []float64 { // thresholds of whole numbers, from 1 up
		list = append(slices.Clone(list), beyond)
		return slices.DeleteFunc(list, func(v float64) bool { return v < 1 })
	}
	switch c := config.(type) {
	case *trigger.VisitorSpike:
		if c.Sensitivity != "" {
			return "", nil, nil
		}
		return "threshold", whole(high, values[len(values)-1]+1), func(v float64) trigger.Config { o := *c; o.Threshold = int64(v); return &o }
	case *trigger.GoalAchieved:
		if c.Mode != trigger.ModeThreshold {
			return "", nil, nil
		}
		return "threshold", whole(high, values[len(values)-1]+1), func(v float64) trigger.Config { o := *c; o.Threshold = int64(v); return &o }
	case *trigger.VisitorDrop:
		if c.Sensitivity != "" {
			return "", nil, nil
		}
		for i := range low { // fewer than the threshold fire
			low[i]++
		}
		return "threshold", whole(low, max(1, values[0])), func(v float64) trigger.Config { o := *c; o.Threshold = int64(v); return &o }
	case *trigger.MetricThreshold:
		candidates = high
		isLow := c.Operator == "<" || c.Operator == "<="
		if isLow {
			candidates = low
		}
		if c.RecoveryThreshold != nil { // it must stay on the safe side
			candidates = slices.DeleteFunc(candidates, func(v float64) bool { return isLow && v > *c.RecoveryThreshold || !isLow && v < *c.RecoveryThreshold })
		}
		return "threshold", candidates, func(v float64) trigger.Config { o := *c; o.Threshold = v; return &o }
	case *trigger.MetricChange:
		for _, percent := range []float64{5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95, 100, 125, 150, 175, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000} {
			if c.Direction != "down" || percent <= 95 {
				candidates = append(candidates, percent)
			}
		}
		return "percent", candidates, func(v float64) trigger.Config { o := *c; o.Percent = v; return &o }
	}
	return "", nil, nil
}
