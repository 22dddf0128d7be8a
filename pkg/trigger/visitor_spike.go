package trigger

import (
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// VisitorSpike fires when the unique visitors of the window reach the threshold.
type VisitorSpike struct {
	Threshold     int64 `json:"threshold"`
	WindowSeconds int64 `json:"window_seconds"`
}

// The shortest and the longest window of raw events, in seconds.
const (
	shortestWindow = 60
	longestWindow  = 24 * 60 * 60
)

func parseVisitorSpike(o *strict.Object) Config {
	return &VisitorSpike{
		Threshold:     o.Integer("threshold", 10, 1, 1e9),
		WindowSeconds: o.Integer("window_seconds", 300, shortestWindow, longestWindow),
	}
}

// Step implements Config.
func (c *VisitorSpike) Step(options Options, state State, sample Sample, slot time.Time) (State, []Occurrence) {
	return stepEpisode(options, state, sample, c.Threshold, slot, "visitor")
}
