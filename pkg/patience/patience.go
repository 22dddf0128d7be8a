// Package patience waits for the servers that a service needs at its start: in a stack that
// comes up as a whole, they may answer a little later.
package patience

import (
	"context"
	"fmt"
	"time"
)

// Limit is how long a server that does not answer is tried.
const Limit = 30 * time.Second

const between = 500 * time.Millisecond

// Await tries until it works, for Limit at most or until ctx ends. Its error holds the last
// answer, and how long it was tried or why it was not tried longer; the caller says which server.
func Await(ctx context.Context, try func(context.Context) error) error {
	started := time.Now()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if elapsed := time.Since(started); elapsed > Limit {
			return fmt.Errorf("retried for %s: %w", elapsed.Round(time.Second), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last answer: %w)", context.Cause(ctx), err)
		case <-time.After(between):
		}
	}
}
