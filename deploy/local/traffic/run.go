package traffic

import (
	"context"
	"log/slog"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// held is how many rows wait for a database that does not take them; beyond it the oldest
// traffic is given up, as Plausible gives it up.
const held = 100_000

// Run inserts what the generator makes while it happens, as often as Plausible flushes. Rows
// that could not be inserted are tried again with the next.
func Run(ctx context.Context, g *Generator, insert func(context.Context, visit.Rows) error, log *slog.Logger) {
	flush := time.NewTicker(visit.FlushInterval)
	defer flush.Stop()
	var waiting visit.Rows
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-flush.C:
			fresh := g.Until(now)
			waiting.Events = append(waiting.Events, fresh.Events...)
			waiting.Sessions = append(waiting.Sessions, fresh.Sessions...)
			if waiting.Len() == 0 {
				continue
			}
			if err := insert(ctx, waiting); err != nil {
				if ctx.Err() == nil {
					log.Warn("traffic was not inserted", "rows", waiting.Len(), "error", err.Error())
				}
				if waiting.Len() > held {
					waiting = visit.Rows{}
				}
				continue
			}
			log.Debug("traffic inserted", "events", len(waiting.Events), "sessions", len(waiting.Sessions))
			waiting = visit.Rows{}
		}
	}
}
