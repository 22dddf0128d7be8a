package dispatcher

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is a wait that doubles from 100 ms to 5 s, with jitter, until it is reset.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) wait(ctx context.Context) {
	b.next = min(max(2*b.next, 100*time.Millisecond), 5*time.Second)
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// tryTimeout bounds one try, so that a connection that hangs is given up for another.
const tryTimeout = 15 * time.Second

// persist tries until it works, or until ctx ends, which is false. An error that permanent
// returns true for is not tried again. The first failure and the recovery are logged.
func (d *dispatcher) persist(ctx context.Context, what string, try func(context.Context) error) bool {
	return d.persistUnless(ctx, what, nil, try) == nil
}

func (d *dispatcher) persistUnless(ctx context.Context, what string, permanent func(error) bool, try func(context.Context) error) error {
	var pause backoff
	started := time.Now()
	for tries := 1; ; tries++ {
		bounded, cancel := context.WithTimeout(ctx, tryTimeout)
		err := try(bounded)
		cancel()
		if err == nil {
			if tries > 1 {
				d.log.Info("the database works again", "doing", what, "tries", tries, "after", time.Since(started).Round(time.Millisecond).String())
			}
			return nil
		}
		if ctx.Err() != nil || permanent != nil && permanent(err) {
			return err
		}
		if tries == 1 || tries%20 == 0 {
			d.log.Warn("the database does not answer as it should: trying again", "doing", what, "error", err.Error(), "tries", tries)
		}
		d.metrics.storeErrors.Inc()
		pause.wait(ctx)
		if ctx.Err() != nil {
			return err
		}
	}
}
