package clickhouse

import "github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"

// Samples is how many windows of its length the Cells of a question have in an hour; 0: it has no
// cells.
func (e *Events) Samples(q Question) int {
	if q.Metric.OfSessions() || q.Metric == trigger.ConversionRate || e.Lacks(q.Question) != "" {
		return 0
	}
	return samplesOf(seconds(q.Window.To) - min(seconds(q.Window.From), seconds(q.Window.To)))
}
