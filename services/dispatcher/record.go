package dispatcher

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
)

const (
	// maxBatch and linger bound a batch: whichever comes first. The linger delays the
	// acknowledgement, never a request.
	maxBatch = 500
	linger   = 10 * time.Millisecond
	// enough is when a batch is not waited for any longer: what gathered during the last
	// commit has lingered already.
	enough = 250
)

// outcome is what is to be recorded of a delivery.
type outcome struct {
	delivery  *delivery
	status    postgres.Status
	next      time.Time // of a waiting one; zero: it is held
	lastError string
	attempt   *postgres.Attempt
	health    *postgres.Health
}

func (o outcome) row() postgres.Outcome {
	row := postgres.Outcome{
		Delivery: o.delivery.Delivery, Stored: o.delivery.claim != nil,
		Status: o.status, NextAttemptAt: o.next, Attempt: o.attempt,
	}
	row.LastError = o.lastError
	return row
}

// record hands an outcome to the recorder. If it has no room before the process has to end, the
// delivery is left to somebody else.
func (d *dispatcher) record(dl *delivery, o outcome) {
	o.delivery = dl
	select {
	case d.recorder.in <- o:
	default:
		select {
		case d.recorder.in <- o:
		case <-d.work.Done():
			d.putDown(dl)
			return
		}
	}
	if dl.claim == nil {
		d.places.give(1)
	}
}

// recorder writes outcomes in batches, one statement each, and settles their messages after
// the commit. There is one writer: while it commits, the next batch gathers.
type recorder struct {
	*dispatcher
	in     chan outcome // closing it is what ends the recorder, after the last batch
	ctx    context.Context
	giveUp context.CancelFunc // ends its patience with a database that is away
}

// newRecorder: so many outcomes can wait for a commit without holding up who made them. A commit takes
// 100 ms now and then, as when a checkpoint writes; meanwhile the requests go on.
func newRecorder(d *dispatcher, capacity int) *recorder {
	ctx, cancel := context.WithCancel(context.Background())
	return &recorder{dispatcher: d, in: make(chan outcome, capacity), ctx: ctx, giveUp: cancel}
}

func (r *recorder) run() {
	defer r.giveUp()
	batch := make([]outcome, 0, maxBatch)
	for first := range r.in {
		batch = r.gather(append(batch[:0], first))
		r.commit(batch)
		clear(batch) // payloads are not kept alive
	}
}

// gather adds to the batch until it is full, its first outcome has waited long enough, or
// there will be no more.
func (r *recorder) gather(batch []outcome) []outcome {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for len(batch) < maxBatch {
		var o outcome
		open := false
		select {
		case o, open = <-r.in:
		default:
			if len(batch) >= enough {
				return batch
			}
			select {
			case o, open = <-r.in:
			case <-timer.C:
			}
		}
		if !open { // there will be no more, or it was long enough
			return batch
		}
		batch = append(batch, o)
	}
	return batch
}

// commit writes a batch, however long that takes, and settles it. What cannot be written
// before the process has to end is left unacknowledged: it comes again.
func (r *recorder) commit(batch []outcome) {
	if r.beforeCommit != nil && !r.beforeCommit(batch) {
		return
	}
	r.metrics.batchRows.Observe(float64(len(batch)))
	rows := make([]postgres.Outcome, len(batch))
	for i, o := range batch {
		rows[i] = o.row()
	}
	err := r.write(rows, healthOf(batch))
	if postgres.IsDataError(err) {
		r.log.Error("Postgres refuses a batch, so its rows are written one by one", "rows", len(rows), "error", err.Error())
		r.writeEach(batch, rows)
		return
	}
	if err != nil {
		r.log.Error("outcomes were not recorded before the stop: they will be sent again", "rows", len(rows), "error", err.Error())
		return
	}
	r.settleAll(batch)
}

// settleAll settles what is committed, and tells of it whom it concerns.
func (r *recorder) settleAll(batch []outcome) {
	var held []string
	changed := map[string][]string{}
	for _, o := range batch {
		r.settle(o.delivery)
		changed[o.delivery.WebhookID] = append(changed[o.delivery.WebhookID], o.delivery.ID)
		switch {
		case o.status == postgres.Gathering:
			r.gatherings.look(o.delivery.WebhookID, gatherPause)
		case o.status == postgres.Waiting && o.next.IsZero():
			held = append(held, o.delivery.WebhookID)
		}
		if h := o.health; h != nil && (h.Opens || h.Closes) {
			r.circuitChanged(h)
		}
	}
	if len(held) > 0 {
		r.backlog.add(held...)
		wake(r.mayGo)
	}
	for webhookID, ids := range changed {
		r.announce(webhookID, ids...)
	}
}

// announce tells those who watch a webhook which of its deliveries changed in what was committed; without any
// named, that its list is to be read again.
func (d *dispatcher) announce(webhookID string, ids ...string) {
	if err := stream.AnnounceDeliveries(d.nc, webhookID, ids); err != nil {
		d.log.Debug("deliveries were not announced: who watches sees them later", "webhook_id", webhookID, "error", err.Error())
	}
}

func (r *recorder) write(rows []postgres.Outcome, health []postgres.Health) error {
	return r.persistUnless(r.ctx, "record outcomes", postgres.IsDataError, func(ctx context.Context) error {
		settled, err := r.store.Record(ctx, rows, health)
		if stale := len(rows) - settled; err == nil && stale > 0 {
			// Another dispatcher was first, or our own commit was not heard of.
			r.metrics.stale.Add(float64(stale))
		}
		return err
	})
}

// writeEach finds the row that Postgres refuses, and writes it without what its receiver sent.
// If even that is refused, the message is terminated: it would only be sent again, for ever.
func (r *recorder) writeEach(batch []outcome, rows []postgres.Outcome) {
	for i, o := range batch {
		row, health := rows[i:i+1], healthOf(batch[i:i+1])
		err := r.write(row, health)
		if postgres.IsDataError(err) {
			r.log.Error("Postgres refuses an outcome", "delivery_id", o.delivery.ID, "error", err.Error())
			err = r.write([]postgres.Outcome{row[0].Minimal()}, health)
		}
		switch {
		case err == nil:
			r.settleAll(batch[i : i+1])
		case postgres.IsDataError(err):
			r.metrics.terminated.Inc()
			r.log.Error("an outcome is lost", "delivery_id", o.delivery.ID, "webhook_id", o.delivery.WebhookID, "error", err.Error())
			for _, m := range r.inFlight.remove(o.delivery) {
				_ = m.TermWithReason("its outcome cannot be recorded")
			}
			r.settle(o.delivery)
		}
	}
}

// healthOf is the last change of each webhook in the batch, sorted by webhook.
func healthOf(batch []outcome) []postgres.Health {
	var last map[string]postgres.Health
	for _, o := range batch {
		if o.health == nil {
			continue
		}
		if last == nil {
			last = map[string]postgres.Health{}
		}
		change := *o.health
		before := last[change.WebhookID]
		if change.Disable == "" {
			change.Disable = before.Disable
		}
		if !change.FailedAt.IsZero() {
			change.Closes = change.Closes || before.Closes
			change.Opens, change.AtLeast = change.Opens || before.Opens, max(change.AtLeast, before.AtLeast)
		}
		last[change.WebhookID] = change
	}
	health := make([]postgres.Health, 0, len(last))
	for _, id := range slices.Sorted(maps.Keys(last)) {
		health = append(health, last[id])
	}
	return health
}
