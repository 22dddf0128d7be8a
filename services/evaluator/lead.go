package evaluator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

// A lease outlives three missed renewals; a replica takes over within its time to live.
const (
	leaseTTL   = 15 * time.Second
	leaseRenew = 5 * time.Second
)

// shard is the only one: one owner carries 50,000 triggers.
const shard = 0

// task is a part of the owner's work. It returns when its context ends.
type task func(context.Context) error

// lead waits for the lease and does the owner's work as long as it is held, until ctx ends.
func lead(ctx context.Context, store *postgres.Store, log *slog.Logger, metrics *metrics, work func(postgres.Lease) []task) error {
	owner := rand.Text()
	for ctx.Err() == nil {
		lease, held, err := store.AcquireLease(ctx, shard, owner, leaseTTL)
		switch {
		case err != nil:
			log.Warn("the lease cannot be acquired", "error", err.Error())
		case held:
			log.Info("lease acquired", "event", "lease", "epoch", lease.Epoch, "last_slot", lease.LastSlot)
			metrics.leaseHeld.Set(1)
			err := hold(ctx, store, lease, work(lease))
			metrics.leaseHeld.Set(0)
			if err != nil && ctx.Err() == nil {
				log.Warn("lease given up", "event", "lease", "epoch", lease.Epoch, "error", err.Error())
			}
		}
		pause(ctx, time.Second)
	}
	return nil
}

// hold runs the tasks and renews the lease beside them. All end when one fails, when the lease
// is lost, or when ctx ends; the lease is then released.
func hold(ctx context.Context, store *postgres.Store, lease postgres.Lease, tasks []task) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return renew(groupCtx, store, lease) })
	for _, t := range tasks {
		group.Go(func() error { return t(groupCtx) })
	}
	err := group.Wait()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return errors.Join(err, store.ReleaseLease(bounded, lease))
}

func renew(ctx context.Context, store *postgres.Store, lease postgres.Lease) error {
	renewed := time.Now()
	for pause(ctx, leaseRenew) {
		now, held, err := store.AcquireLease(ctx, lease.Shard, lease.Owner, leaseTTL)
		switch {
		case err != nil && time.Since(renewed) > leaseTTL:
			return fmt.Errorf("the lease ran out: %w", err)
		case err != nil: // tried again before it runs out
		case !held || now.Epoch != lease.Epoch:
			return postgres.ErrFenced
		default:
			renewed = time.Now()
		}
	}
	return nil
}

// pause waits, and reports false if the context ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
