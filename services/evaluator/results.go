package evaluator

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/postgres"
)

const (
	// resultsRetention is how long it can be asked why a trigger did not fire.
	resultsRetention = 7 * 24 * time.Hour

	// resultsRound is how often each trigger's hour is written. In every slot a part of the triggers has
	// its turn: of 50,000, with slots of 10 seconds, 1,667.
	resultsRound = 5 * time.Minute

	// resultsGap is longer than the time between two slots of any trigger that is evaluated steadily.
	resultsGap = 2 * time.Minute
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
func resultOf(state trigger.State, second uint16, step time.Duration) resultRun {
	r := resultRun{from: second, to: second, step: uint16(step / time.Second), status: uint8(max(0, slices.Index(resultStatuses, state.Status))), value: none, threshold: none}
	if state.Value != nil && state.Status != trigger.StatusInsufficient && state.Status != trigger.StatusError { // else it is of an earlier slot
		r.value = float32(*state.Value)
	}
	if state.Threshold != nil {
		r.threshold = float32(*state.Threshold)
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

// remembered is a trigger's present hour, and the last one until it is written.
type remembered struct {
	turn     uint8 // of resultsRound's slots, the one in which it is written
	present  hourResults
	finished *hourResults
}

// results remembers what came of every trigger's slots, and writes it in turns in the background. What
// is not written when a replica dies is lost: up to resultsRound of it. States and firings never are.
type results struct {
	store    *postgres.Store
	log      *slog.Logger
	interval time.Duration
	turns    int64
	woken    chan struct{}

	mu       sync.Mutex
	newest   time.Time // slot
	triggers map[string]*remembered
}

func newResults(store *postgres.Store, interval time.Duration, log *slog.Logger) *results {
	return &results{
		store: store, log: log, interval: interval, turns: max(1, min(int64(resultsRound/interval), 256)), woken: make(chan struct{}, 1), triggers: map[string]*remembered{},
	}
}

// note remembers the slot's results of the shards that were committed.
func (r *results) note(slot time.Time, committed []postgres.Lease, triggers []watched, turns []turn, after map[string]trigger.State) {
	var isCommitted [postgres.Shards]bool
	for _, l := range committed {
		isCommitted[l.Shard] = true
	}
	hour, second := slot.Unix()/hourSeconds, uint16(slot.Unix()%hourSeconds)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, w := range triggers {
		if !isCommitted[postgres.ShardOf(w.SiteID)] || !turns[i].due && w.problem == "" {
			continue
		}
		result := resultOf(after[w.ID], second, turns[i].slot.Interval)
		m := r.triggers[w.ID]
		switch {
		case m == nil:
			r.triggers[w.ID] = &remembered{turn: uint8(int64(crc32.ChecksumIEEE([]byte(w.ID))) % r.turns), present: since(hour, result)}
		case slot.Sub(m.present.upto()) > resultsGap: // another replica may have evaluated it meanwhile: what it stored is read
			m.finished, m.present = nil, since(hour, result)
		case m.present.hour != hour:
			last := m.present
			m.finished, m.present = &last, since(hour, result)
			m.present.complete = true
		default:
			m.present.add(result)
		}
	}
	r.newest = slot
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// run writes in turns until ctx ends, and then everything, within two seconds.
func (r *results) run(ctx context.Context) error {
	var written time.Time // up to which slot
	for {
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer stop()
			r.report(last, r.write(last, func(uint8) bool { return true }))
			return nil
		case <-r.woken:
		}
		r.mu.Lock()
		newest := r.newest
		r.mu.Unlock()
		first, last := written.Unix()/int64(r.interval/time.Second)+1, newest.Unix()/int64(r.interval/time.Second)
		if written.IsZero() {
			first = last
		}
		r.report(ctx, r.write(ctx, func(turn uint8) bool { // or one that was missed, because writing took long
			behind := (last - int64(turn)) % r.turns
			return last-behind >= first
		}))
		written = newest
	}
}

func (r *results) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		r.log.Warn("results of slots were not written, it is tried again in 5 minutes", "event", "results", "error", err.Error())
	}
}

// write writes the hours of the triggers whose turn it is, and forgets those of triggers that are no
// longer evaluated here.
func (r *results) write(ctx context.Context, isDue func(turn uint8) bool) error {
	due := r.due(isDue)
	if err := r.completeStored(ctx, due); err != nil {
		return err
	}
	compressor, err := flate.NewWriter(io.Discard, flate.BestCompression)
	if err != nil {
		return fmt.Errorf("compress results: %w", err)
	}
	r.mu.Lock()
	var rows []postgres.SlotResults
	for _, id := range due {
		m := r.triggers[id]
		for _, h := range []*hourResults{m.finished, &m.present} {
			if h != nil {
				rows = append(rows, postgres.SlotResults{TriggerID: id, Hour: h.start(), Upto: h.upto(), Packed: h.packed(compressor)})
			}
		}
	}
	r.mu.Unlock()
	const portion = 5000
	for some := range slices.Chunk(rows, portion) {
		if err := r.store.WriteSlotResults(ctx, some); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		m := r.triggers[row.TriggerID]
		switch {
		case m.finished != nil && m.finished.upto().Equal(row.Upto): // and no further slot was noted meanwhile
			m.finished = nil
		case m.finished == nil && r.newest.Sub(row.Upto) > 2*resultsRound:
			delete(r.triggers, row.TriggerID)
		}
	}
	return nil
}

func (r *results) due(isDue func(turn uint8) bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, m := range r.triggers {
		if isDue(m.turn) {
			ids = append(ids, id)
		}
	}
	return ids
}

// completeStored adds what a predecessor has stored of the hours in which this replica came to hold the
// triggers.
func (r *results) completeStored(ctx context.Context, ids []string) error {
	var incomplete []string
	oldest, newest := int64(math.MaxInt64), int64(0)
	r.mu.Lock()
	for _, id := range ids {
		m := r.triggers[id]
		for _, h := range []*hourResults{m.finished, &m.present} {
			if h != nil && !h.complete {
				incomplete = append(incomplete, id)
				oldest, newest = min(oldest, h.hour), max(newest, h.hour)
			}
		}
	}
	r.mu.Unlock()
	if len(incomplete) == 0 {
		return nil
	}
	rows, err := r.store.SlotResults(ctx, incomplete, time.Unix(oldest*hourSeconds, 0), time.Unix(newest*hourSeconds, 0))
	if err != nil {
		return err
	}
	stored := make(map[string]map[int64][]resultRun, len(rows))
	for _, row := range rows {
		runs, err := unpackHour(row.Packed)
		if err != nil {
			r.log.Warn("stored results of slots are replaced", "event", "results", "trigger_id", row.TriggerID, "hour", row.Hour, "error", err.Error())
		}
		if stored[row.TriggerID] == nil {
			stored[row.TriggerID] = map[int64][]resultRun{}
		}
		stored[row.TriggerID][row.Hour.Unix()/hourSeconds] = runs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range incomplete {
		m := r.triggers[id]
		for _, h := range []*hourResults{m.finished, &m.present} {
			if h != nil && !h.complete && h.hour >= oldest && h.hour <= newest {
				h.precede(stored[id][h.hour])
			}
		}
	}
	return nil
}

// known are copies of the hours of a trigger that are in memory.
func (r *results) known(id string) []hourResults {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.triggers[id]
	if m == nil {
		return nil
	}
	hours := []hourResults{m.present}
	if m.finished != nil {
		hours = append(hours, *m.finished)
	}
	for i := range hours {
		hours[i].closed = slices.Clone(hours[i].closed)
	}
	return hours
}

// between are the runs of a trigger in some hours, and the newest slot that is known of it.
func (r *results) between(ctx context.Context, id string, from, to time.Time) (byHour map[int64][]resultRun, until time.Time, err error) {
	known := r.known(id) // before the rows: what is written meanwhile is in both
	rows, err := r.store.SlotResults(ctx, []string{id}, from.Truncate(time.Hour), to)
	if err != nil {
		return nil, until, err
	}
	byHour = map[int64][]resultRun{}
	for _, row := range rows {
		if byHour[row.Hour.Unix()/hourSeconds], err = unpackHour(row.Packed); err != nil {
			return nil, until, err
		}
		until = row.Upto
	}
	for _, h := range known {
		byHour[h.hour] = spliced(byHour[h.hour], h.runs())
		if upto := h.upto(); upto.After(until) {
			until = upto
		}
	}
	return byHour, until, nil
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
