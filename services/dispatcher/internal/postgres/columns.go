package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// withColumns calls use with a connection and the columns as parameters of its statements.
//
// The columns of a batch are megabytes in a second. pgx would box every value and let a new buffer
// grow for every batch: nearly half of all that the dispatcher allocated.
func (s *Store) withColumns(ctx context.Context, columns []any, use func(conn *pgx.Conn, parameters [][]byte) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	buffer := columnBuffers.Get().(*[]byte)
	defer columnBuffers.Put(buffer)
	*buffer = (*buffer)[:0]
	ends := make([]int, len(columns))
	for i, column := range columns {
		*buffer = appendColumn(*buffer, column)
		ends[i] = len(*buffer)
	}
	parameters, start := make([][]byte, len(columns)), 0
	for i, end := range ends {
		parameters[i], start = (*buffer)[start:end], end
	}
	return use(conn.Conn(), parameters)
}

var (
	columnBuffers = sync.Pool{New: func() any { return new([]byte) }}
	binaryFormat  = []int16{pgtype.BinaryFormatCode} // of all parameters
	bigEndian     = binary.BigEndian
)

// appendColumn appends an array in Postgres' binary format.
func appendColumn(b []byte, column any) []byte {
	switch values := column.(type) {
	case []string:
		return appendArray(b, pgtype.TextOID, values, func(b []byte, v string) []byte { return append(bigEndian.AppendUint32(b, uint32(len(v))), v...) })
	case [][]byte:
		return appendArray(b, pgtype.ByteaOID, values, func(b []byte, v []byte) []byte {
			if v == nil {
				return bigEndian.AppendUint32(b, null)
			}
			return append(bigEndian.AppendUint32(b, uint32(len(v))), v...)
		})
	case []time.Time:
		return appendArray(b, pgtype.TimestamptzOID, values, func(b []byte, v time.Time) []byte { return append8(b, uint64(v.UnixMicro()-epoch)) })
	case []int64:
		return appendArray(b, pgtype.Int8OID, values, func(b []byte, v int64) []byte { return append8(b, uint64(v)) })
	case []float64:
		return appendArray(b, pgtype.Float8OID, values, func(b []byte, v float64) []byte { return append8(b, math.Float64bits(v)) })
	case []int32:
		return appendArray(b, pgtype.Int4OID, values, func(b []byte, v int32) []byte { return bigEndian.AppendUint32(bigEndian.AppendUint32(b, 4), uint32(v)) })
	case []bool:
		return appendArray(b, pgtype.BoolOID, values, func(b []byte, v bool) []byte {
			b = bigEndian.AppendUint32(b, 1)
			if v {
				return append(b, 1)
			}
			return append(b, 0)
		})
	}
	panic(fmt.Sprintf("postgres: a column of %T", column))
}

const null = math.MaxUint32 // the length that says so

// epoch is Postgres', 2000-01-01, in microseconds.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func append8(b []byte, value uint64) []byte {
	return bigEndian.AppendUint64(bigEndian.AppendUint32(b, 8), value)
}

func appendArray[V any](b []byte, elements uint32, values []V, appendValue func([]byte, V) []byte) []byte {
	dimensions := min(len(values), 1)
	b = bigEndian.AppendUint32(b, uint32(dimensions))
	b = bigEndian.AppendUint32(b, 1) // there may be nulls
	b = bigEndian.AppendUint32(b, elements)
	if dimensions == 0 {
		return b
	}
	b = bigEndian.AppendUint32(b, uint32(len(values)))
	b = bigEndian.AppendUint32(b, 1) // the first one's index
	for _, value := range values {
		b = appendValue(b, value)
	}
	return b
}
