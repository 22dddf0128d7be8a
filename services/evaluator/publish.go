package evaluator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/clickhouse"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	publishBatch = 500
	publishWait  = 10 * time.Second // for the broker's acknowledgements of a batch

	// confirmAfter is when a published firing without a delivery row is doubted: the broker may
	// have lost it with its disk.
	confirmAfter = 10 * time.Minute
)

// publisher completes the committed firings of the owner's shards and brings them to JetStream, and the system events of
// all replicas. A crash at any point, or another replica, publishes the same id again, with the same bytes, which JetStream
// and, of firings, the dispatcher's key drop.
type publisher struct {
	store    *postgres.Store
	owner    string
	contexts contexts
	js       jetstream.JetStream
	log      *slog.Logger
	metrics  *metrics
	woken    chan struct{}
}

func newPublisher(store *postgres.Store, owner string, events *clickhouse.Events, js jetstream.JetStream, log *slog.Logger, m *metrics) *publisher {
	return &publisher{store: store, owner: owner, contexts: contexts{events, log}, js: js, log: log, metrics: m, woken: make(chan struct{}, 1)}
}

// wake makes run look at the outbox now.
func (p *publisher) wake() {
	select {
	case p.woken <- struct{}{}:
	default: // it is awake already
	}
}

// run empties the outboxes whenever it is woken, and every 5 s for what an earlier life left.
func (p *publisher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := p.publish(ctx)
		if more {
			continue
		}
		wait := 5 * time.Second
		if err != nil && ctx.Err() == nil {
			p.log.Warn("firings wait in the outbox", "error", err.Error())
			wait = time.Second
		}
		if err := p.publishSystem(ctx); err != nil && ctx.Err() == nil { // the next round is soon enough
			p.log.Warn("system events wait in the outbox", "error", err.Error())
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-p.woken:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// complete gives one batch of the outbox its context, once: what is published again has the same bytes.
func (p *publisher) complete(ctx context.Context) error {
	firings, err := p.store.Incomplete(ctx, p.owner, publishBatch)
	if err != nil || len(firings) == 0 {
		return err
	}
	if err := p.contexts.add(ctx, firings); err != nil {
		return err
	}
	return p.store.Complete(ctx, firings)
}

// publish completes one batch of the outbox, brings one to JetStream and marks what the broker has stored. It
// reports whether there may be more.
func (p *publisher) publish(ctx context.Context) (more bool, err error) {
	if err := p.complete(ctx); err != nil {
		return false, err
	}
	firings, err := p.store.Unpublished(ctx, p.owner, publishBatch)
	if err != nil || len(firings) == 0 {
		return false, err
	}
	messages := make([]*nats.Msg, len(firings))
	for i, f := range firings {
		messages[i] = stream.Encode(f.Firing)
	}
	acks, failed := p.send(ctx, messages)
	published := make([]postgres.Published, 0, len(acks))
	for i, ack := range acks {
		if ack != nil {
			published = append(published, postgres.Published{ID: firings[i].ID, Slot: firings[i].Slot, Sequence: ack.Sequence})
		}
	}
	// What the broker has is marked even if the service is stopping: it spares a repetition.
	marking, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := p.store.MarkPublished(marking, published); err != nil {
		return false, errors.Join(failed, err)
	}
	p.metrics.published.Add(float64(len(published)))
	return failed == nil && len(firings) == publishBatch, failed
}

// send publishes messages and returns the broker's acknowledgements, nil for those that failed.
func (p *publisher) send(ctx context.Context, messages []*nats.Msg) (acks []*jetstream.PubAck, failed error) {
	ctx, cancel := context.WithTimeoutCause(ctx, publishWait, errors.New("the broker did not acknowledge in time"))
	defer cancel()
	futures := make([]jetstream.PubAckFuture, 0, len(messages))
	for _, m := range messages {
		future, err := p.js.PublishMsgAsync(m)
		if err != nil {
			failed = fmt.Errorf("publish: %w", err)
			break
		}
		futures = append(futures, future)
	}
	acks = make([]*jetstream.PubAck, len(futures))
	for i, future := range futures {
		select {
		case acks[i] = <-future.Ok():
		case err := <-future.Err():
			failed = fmt.Errorf("publish: %w", err)
		case <-ctx.Done():
			failed = fmt.Errorf("publish: %w", context.Cause(ctx))
		}
	}
	return acks, failed
}

// publishSystem brings the system events in the outbox to JetStream.
func (p *publisher) publishSystem(ctx context.Context) error {
	events, err := p.store.UnpublishedSystemEvents(ctx, publishBatch)
	if err != nil || len(events) == 0 {
		return err
	}
	messages := make([]*nats.Msg, len(events))
	for i, e := range events {
		messages[i] = stream.EncodeSystem(e.ID, e.Kind, e.Payload)
	}
	acks, failed := p.send(ctx, messages)
	var published []string
	for i, ack := range acks {
		if ack != nil {
			published = append(published, events[i].ID)
		}
	}
	marking, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	return errors.Join(failed, p.store.MarkSystemEventsPublished(marking, published))
}

// confirm finds firings that the broker has lost, and returns them to the outbox. A firing is
// settled once its delivery row exists; one that still waits in the stream is left alone.
func (p *publisher) confirm(ctx context.Context) error {
	if err := p.store.ConfirmDelivered(ctx); err != nil {
		return err
	}
	doubted, err := p.store.Unconfirmed(ctx, confirmAfter, publishBatch)
	if err != nil || len(doubted) == 0 {
		return err
	}
	s, err := p.js.Stream(ctx, stream.Firings)
	if err != nil {
		return fmt.Errorf("look for lost firings: %w", err)
	}
	consumer, err := s.Consumer(ctx, stream.Dispatcher)
	if err != nil {
		return fmt.Errorf("look for lost firings: %w", err)
	}
	last, acknowledged := s.CachedInfo().State.LastSeq, consumer.CachedInfo().AckFloor.Stream
	var lost []postgres.Published
	for _, d := range doubted {
		if d.Sequence > last || d.Sequence <= acknowledged {
			lost = append(lost, d)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	p.log.Warn("published firings have no delivery and are published again", "event", "republish", "firings", len(lost))
	p.metrics.republished.Add(float64(len(lost)))
	if err := p.store.Unpublish(ctx, lost); err != nil {
		return err
	}
	p.wake()
	return nil
}

// upkeepShard is the one whose holder does the upkeep of all.
const upkeepShard = 0

// upkeep does what is not urgent: the confirmation of firings each minute; orphaned states,
// dead replicas, old system events, results of slots and partitions each hour, first of all when a replica comes to hold the shard.
func upkeep(ctx context.Context, log *slog.Logger, store *postgres.Store, p *publisher, partitions func(context.Context) error) error {
	report := func(err error) {
		if err != nil && ctx.Err() == nil {
			log.Warn("upkeep failed, it is tried again", "error", err.Error())
		}
	}
	var hourly time.Time
	for {
		leases, err := store.Leases(ctx, p.owner)
		report(err)
		if slices.ContainsFunc(leases, func(l postgres.Lease) bool { return l.Shard == upkeepShard }) {
			if time.Since(hourly) >= time.Hour {
				hourly = time.Now()
				report(partitions(ctx))
				report(store.RemoveOrphanStates(ctx))
				report(store.RemoveDeadReplicas(ctx))
				report(store.RemoveOldSystemEvents(ctx, systemRetention))
				report(store.RemoveOldSlotResults(ctx, resultsRetention))
				report(store.RemoveOldBaselines(ctx))
				report(store.RemoveUnaskedSeen(ctx))
			}
			report(p.confirm(ctx))
		}
		if !pause(ctx, time.Minute) {
			return nil
		}
	}
}
