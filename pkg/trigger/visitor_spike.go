package trigger

import "time"

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

func parseVisitorSpike(o *object) Config {
	return &VisitorSpike{
		Threshold:     o.integer("threshold", 10, 1, 1e9),
		WindowSeconds: o.integer("window_seconds", 300, shortestWindow, longestWindow),
	}
}

// Step implements Config.
func (c *VisitorSpike) Step(options Options, state State, sample Sample, slot time.Time) (State, []Occurrence) {
	return stepEpisode(options, state, sample, c.Threshold, slot, "visitor")
}
