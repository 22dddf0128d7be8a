package evaluator

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// resultRun is slots in a row, step seconds apart, with the same result. Times are seconds of its hour, so
// that it has 16 bytes.
type resultRun struct {
	from, to, step   uint16
	status           uint8
	value, threshold float32 // NaN: none
}

// resultStatuses are the statuses by their numbers in what is stored: append only.
var resultStatuses = []trigger.Status{
	trigger.StatusOK, trigger.StatusPending, trigger.StatusFiring, trigger.StatusRecovering, trigger.StatusInsufficient, trigger.StatusError,
}

// resultOf is the result of one slot.
func resultOf(state *standing, second uint16, step time.Duration) resultRun {
	r := resultRun{from: second, to: second, step: uint16(step / time.Second), status: state.status, value: none, threshold: none}
	if status := resultStatuses[state.status]; !math.IsNaN(state.value) && status != trigger.StatusInsufficient && status != trigger.StatusError { // else it is of an earlier slot
		r.value = float32(state.value)
	}
	if !math.IsNaN(state.threshold) {
		r.threshold = float32(state.threshold)
	}
	return r
}

var none = float32(math.NaN())

func same(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }

// extends tells whether a slot's result only makes the run longer.
func (r resultRun) extends(next resultRun) bool {
	return next.step == r.step && next.from == r.to+r.step && next.status == r.status && same(next.value, r.value) && same(next.threshold, r.threshold)
}

// A packed run is a byte of these flags above its status, and what differs from the run before: a slot
// whose number changes by little has two bytes.
const (
	statusBits     = 7
	sameThreshold  = 1 << 3
	wholeChange    = 1 << 4 // the value differs by a whole number, which follows; else the value does
	followsAtOnce  = 1 << 5 // no slot was left out before it; else the distance follows
	isSingle       = 1 << 6 // it has one slot; else the number of further ones follows
	anotherCadence = 1 << 7 // the step follows
)

func appendRun(packed []byte, before, r resultRun) []byte {
	flags := r.status
	change := float64(r.value) - float64(before.value)
	isWhole := isCount(before.value) && isCount(r.value)
	set := func(flag uint8, holds bool) {
		if holds {
			flags |= flag
		}
	}
	set(sameThreshold, same(r.threshold, before.threshold))
	set(wholeChange, isWhole)
	set(followsAtOnce, r.from == before.to+r.step)
	set(isSingle, r.from == r.to)
	set(anotherCadence, r.step != before.step)
	packed = append(packed, flags)
	if flags&anotherCadence != 0 {
		packed = binary.AppendUvarint(packed, uint64(r.step))
	}
	if flags&followsAtOnce == 0 {
		packed = binary.AppendUvarint(packed, uint64(r.from-before.to))
	}
	if flags&isSingle == 0 {
		packed = binary.AppendUvarint(packed, uint64((r.to-r.from)/r.step))
	}
	if isWhole {
		packed = binary.AppendVarint(packed, int64(change))
	} else {
		packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(r.value))
	}
	if flags&sameThreshold == 0 {
		packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(r.threshold))
	}
	return packed
}

// isCount tells whether a number is whole, and small enough that a float32 has all its neighbours.
func isCount(x float32) bool {
	return math.Abs(float64(x)) < 1<<24 && float64(x) == math.Trunc(float64(x))
}

const hourSeconds = 3600

var errPacked = errors.New("packed results cannot be read")

func unpackRuns(packed []byte) (runs []resultRun, err error) {
	var before resultRun
	number := func() uint64 {
		n, size := binary.Uvarint(packed)
		if size <= 0 {
			err, packed = errPacked, nil
			return 0
		}
		packed = packed[size:]
		return n
	}
	float := func() float32 {
		if len(packed) < 4 {
			err, packed = errPacked, nil
			return 0
		}
		bits := binary.LittleEndian.Uint32(packed)
		packed = packed[4:]
		return math.Float32frombits(bits)
	}
	for len(packed) > 0 && err == nil {
		flags := packed[0]
		packed = packed[1:]
		r := resultRun{status: flags & statusBits, step: before.step, threshold: before.threshold}
		if flags&anotherCadence != 0 {
			r.step = uint16(number())
		}
		from := uint64(before.to) + uint64(r.step)
		if flags&followsAtOnce == 0 {
			from = uint64(before.to) + number()
		}
		to := from
		if flags&isSingle == 0 {
			to += number() * uint64(r.step)
		}
		if r.step == 0 || from >= hourSeconds || to < from || to >= hourSeconds {
			return nil, errPacked
		}
		r.from, r.to = uint16(from), uint16(to)
		if flags&wholeChange != 0 {
			change, size := binary.Varint(packed)
			if size <= 0 {
				return nil, errPacked
			}
			packed = packed[size:]
			r.value = before.value + float32(change)
		} else {
			r.value = float()
		}
		if flags&sameThreshold == 0 {
			r.threshold = float()
		}
		if int(r.status) >= len(resultStatuses) {
			return nil, errPacked
		}
		runs, before = append(runs, r), r
	}
	return runs, err
}

// hourResults is what came of a trigger's slots in one hour: closed runs, packed, and the open one.
type hourResults struct {
	hour       int64 // since 1970
	closed     []byte
	last, open resultRun
	complete   bool // what was stored before this replica came is in it
}

// since starts an hour with a slot.
func since(hour int64, r resultRun) hourResults { return hourResults{hour: hour, open: r} }

func (h *hourResults) add(r resultRun) {
	switch {
	case h.open.extends(r):
		h.open.to = r.to
	case r.from > h.open.to:
		h.closed, h.last, h.open = appendRun(h.closed, h.last, h.open), h.open, r
	}
}

// runs are all of the hour. What this replica packed itself can be read.
func (h *hourResults) runs() []resultRun {
	runs, err := unpackRuns(h.closed)
	if err != nil {
		return []resultRun{h.open}
	}
	return append(runs, h.open)
}

// precede puts stored runs before those known, as far as they are older.
func (h *hourResults) precede(stored []resultRun) {
	runs := spliced(stored, h.runs())
	h.closed, h.last, h.open = nil, resultRun{}, runs[0]
	for _, r := range runs[1:] {
		if h.open.extends(r) {
			h.open.to = r.to
			continue
		}
		h.closed, h.last, h.open = appendRun(h.closed, h.last, h.open), h.open, r
	}
	h.complete = true
}

// spliced are the stored runs before the first known one, cut where they overlap it, and the known ones.
func spliced(stored, known []resultRun) []resultRun {
	if len(known) == 0 {
		return stored
	}
	var runs []resultRun
	for _, r := range stored {
		if r.from >= known[0].from {
			break
		}
		if r.to >= known[0].from {
			r.to = r.from + (known[0].from-1-r.from)/r.step*r.step
		}
		runs = append(runs, r)
	}
	return append(runs, known...)
}

func (h *hourResults) start() time.Time { return time.Unix(h.hour*hourSeconds, 0).UTC() }

func (h *hourResults) upto() time.Time { return h.start().Add(time.Duration(h.open.to) * time.Second) }

// packed is what is stored of an hour: a byte that tells whether the rest is compressed.
func (h *hourResults) packed(compressor *flate.Writer) []byte {
	plain := appendRun(append([]byte{0}, h.closed...), h.last, h.open)
	const worthwhile = 64 // below that, compression's own bytes outweigh it
	if len(plain) < worthwhile {
		return plain
	}
	compressed := bytes.NewBuffer([]byte{1})
	compressor.Reset(compressed)
	if _, err := compressor.Write(plain[1:]); err != nil || compressor.Close() != nil || compressed.Len() >= len(plain) {
		return plain
	}
	return compressed.Bytes()
}

// longestPacked bounds what a row unpacks to: an hour has 3600 slots at most, of 15 bytes at most.
const longestPacked = 1 << 16

func unpackHour(packed []byte) ([]resultRun, error) {
	switch {
	case len(packed) == 0 || packed[0] > 1:
		return nil, errPacked
	case packed[0] == 0:
		return unpackRuns(packed[1:])
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed[1:])), longestPacked))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	}
	return unpackRuns(plain)
}

// between is the part of a run, of an hour that starts then, that lies between two times, both included.
func (r resultRun) between(hour, from, to time.Time) (run stream.ResultRun, within bool) {
	at := func(second uint16) time.Time { return hour.Add(time.Duration(second) * time.Second) }
	for r.from < r.to && at(r.from).Before(from) {
		r.from += r.step
	}
	for r.from < r.to && at(r.to).After(to) {
		r.to -= r.step
	}
	run = stream.ResultRun{From: at(r.from), To: at(r.to), StepSeconds: int(r.step), Value: shown(r.value), Threshold: shown(r.threshold), Status: resultStatuses[r.status]}
	return run, !run.From.Before(from) && !run.To.After(to)
}

// shown is a number with the digits that a float32 was made of: 0.1, and not 0.10000000149.
func shown(x float32) *float64 {
	if math.IsNaN(float64(x)) {
		return nil
	}
	n, err := strconv.ParseFloat(strconv.FormatFloat(float64(x), 'g', -1, 32), 64)
	if err != nil {
		return nil
	}
	return &n
}
