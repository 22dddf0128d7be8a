package postgres

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCopiedRowsAreTheSame as those that the statement for all other batches writes.
func TestCopiedRowsAreTheSame(t *testing.T) {
	t.Parallel()
	var outcomes []Outcome
	for _, status := range []Status{Waiting, Delivered, Dead, Cancelled, Gathering} {
		o := fresh("msg_"+string(status), "wh_1")
		o.Status, o.LastError, o.Attempt = status, "é", attempt(500)
		if status != Waiting {
			o.NextAttemptAt = time.Time{}
		}
		bare := o
		bare.ID, bare.TriggerID, bare.TraceContext, bare.LastError, bare.NextAttemptAt, bare.Attempt = o.ID+"_bare", "", "", "", time.Time{}, nil
		outcomes = append(outcomes, o, bare)
	}
	large := fresh("msg_large", "wh_1")
	large.Slot, large.SiteID, large.Payload = time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC), -1, make([]byte, 200_000)
	large.Attempt = &Attempt{StartedAt: time.Now(), Duration: -time.Second, RequestHeaders: "{}", Timings: "{}"}
	outcomes = append(outcomes, large)

	copied, inserted := newFixtureHere(t), newFixtureHere(t)
	require.NoError(t, copied.copyNew(t.Context(), outcomes))
	var settled int
	require.NoError(t, inserted.pool.QueryRow(t.Context(), recordSQL, arguments(outcomes, nil)...).Scan(&settled))
	require.Equal(t, len(outcomes), settled)
	rows := func(f fixture) []string {
		found, err := f.pool.Query(t.Context(), `
			SELECT to_jsonb(d) - 'created_at' - 'finished_at' || jsonb_build_object('finished_with_it', finished_at = created_at)
			FROM deliveries d UNION ALL SELECT to_jsonb(a) FROM attempts a ORDER BY 1`)
		require.NoError(t, err)
		documents, err := pgx.CollectRows(found, pgx.RowTo[string])
		require.NoError(t, err)
		return documents
	}
	assert.Len(t, rows(copied), len(outcomes)+6)
	assert.Equal(t, rows(inserted), rows(copied))
}

// TestRecordSomeTwice: rows that are new are written beside one that is not.
func TestRecordSomeTwice(t *testing.T) {
	f := newFixture(t)
	known, added := fresh("msg_1", "wh_1"), fresh("msg_2", "wh_1")
	known.Attempt, added.Attempt = attempt(500), attempt(500)
	require.Equal(t, 1, f.record(known))
	require.Equal(t, 1, f.record(known, added))
	assert.Equal(t, 2, value[int](f, "SELECT count(*) FROM deliveries WHERE attempts = 1"))
	assert.Equal(t, 2, value[int](f, "SELECT count(*) FROM attempts"))
}

// TestRefusedCopyLeavesNothing, neither rows nor a connection that cannot be used.
func TestRefusedCopyLeavesNothing(t *testing.T) {
	f := newFixture(t)
	good, bad := fresh("msg_1", "wh_1"), fresh("msg_2", "wh_1")
	good.Attempt, bad.Attempt = attempt(200), attempt(200)
	bad.Attempt.ResponseBody = "\x00"
	_, err := f.Record(t.Context(), []Outcome{good, bad}, nil)
	require.True(t, IsDataError(err), "%v", err)
	assert.Zero(t, value[int](f, "SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM attempts)"))
	assert.Equal(t, 1, f.record(good))
	assert.EqualValues(t, 1, f.pool.Stat().NewConnsCount(), "the same connection as at first")
}

// TestBrokenCopyKeepsItsBuffer: what is still being read for a connection that broke is not written to for
// the next one. It is the race detector that would tell.
func TestBrokenCopyKeepsItsBuffer(t *testing.T) {
	f := newFixture(t)
	config := f.pool.Config()
	var breaks atomic.Bool
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &breaking{TCPConn: conn.(*net.TCPConn), breaks: &breaks, closed: make(chan struct{})}, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	store := New(pool)
	const rounds = 20
	for n := range rounds {
		o := fresh(fmt.Sprintf("msg_%d", n), "wh_1")
		o.Payload = make([]byte, 1<<20)
		breaks.Store(true)
		_, err := store.Record(t.Context(), []Outcome{o}, nil)
		require.Error(t, err)
		breaks.Store(false)
		_, err = store.Record(t.Context(), []Outcome{o}, nil)
		require.NoError(t, err)
	}
	assert.Equal(t, rounds, value[int](f, "SELECT count(*) FROM deliveries"))
}

// breaking is a connection that brings nothing more from the server once a part of a copy was written to
// it. Whoever writes goes on when it was closed, as one that was not scheduled meanwhile.
type breaking struct {
	*net.TCPConn
	breaks  *atomic.Bool
	closing sync.Once
	closed  chan struct{}
}

func (b *breaking) Write(p []byte) (int, error) {
	n, err := b.TCPConn.Write(p)
	if b.breaks.Load() && len(p) > 10_000 {
		_ = b.CloseRead()
		<-b.closed
	}
	return n, err
}

func (b *breaking) Close() error {
	b.closing.Do(func() { close(b.closed) })
	return b.TCPConn.Close()
}
