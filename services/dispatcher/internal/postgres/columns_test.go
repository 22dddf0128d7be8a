package postgres

import (
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestColumns reads what was written with pgx's own reader of the format.
func TestColumns(t *testing.T) {
	column(t, pgtype.TextArrayOID, []string{"", "a", "é\n", string(make([]byte, 300))})
	column(t, pgtype.ByteaArrayOID, [][]byte{nil, {}, {0, 255}, make([]byte, 70_000)})
	column(t, pgtype.TimestamptzArrayOID, []time.Time{{}, time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC), time.Date(2026, 11, 24, 5, 0, 0, 1000, time.UTC)})
	column(t, pgtype.Int8ArrayOID, []int64{0, -1, math.MaxInt64, math.MinInt64})
	column(t, pgtype.Int4ArrayOID, []int32{0, -1, math.MaxInt32, math.MinInt32})
	column(t, pgtype.Float8ArrayOID, []float64{0, -1.5, math.Inf(1), math.SmallestNonzeroFloat64})
	column(t, pgtype.BoolArrayOID, []bool{true, false})
	assert.Panics(t, func() { appendColumn(nil, []uint8{1}) })
}

func column[V any](t *testing.T, oid uint32, values []V) {
	t.Helper()
	for _, wanted := range [][]V{values, values[:1], {}} {
		var read []V
		require.NoError(t, pgtype.NewMap().Scan(oid, pgtype.BinaryFormatCode, appendColumn(nil, wanted), &read))
		for i, v := range read {
			if at, is := any(v).(time.Time); is {
				read[i] = any(at.UTC()).(V)
			}
		}
		assert.Equal(t, wanted, read)
	}
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
