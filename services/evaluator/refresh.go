package evaluator

import (
	"context"
	"log/slog"
	"time"
)

// refresher repeats a refresh in the background: whenever it is woken, and a minute after a failure.
type refresher struct {
	what  string
	log   *slog.Logger
	woken chan struct{}
}

func newRefresher(what string, log *slog.Logger) refresher {
	return refresher{what: what, log: log, woken: make(chan struct{}, 1)}
}

// wake may be called from any goroutine.
func (r refresher) wake() {
	select {
	case r.woken <- struct{}{}:
	default: // it is awake already
	}
}

func (r refresher) repeat(ctx context.Context, refresh func(context.Context) error) error {
	for ctx.Err() == nil {
		var again <-chan time.Time
		if err := refresh(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("a refresh failed, it is tried again", "event", "refresh", "of", r.what, "error", err.Error())
			again = time.After(time.Minute)
		}
		select {
		case <-ctx.Done():
		case <-r.woken:
		case <-again:
		}
	}
	return nil
}
