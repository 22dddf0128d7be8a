package trigger

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The usual is 28 visitors in 5 minutes and 16 in the companion of 2.
func TestASpikeIsSeenInEitherWindow(t *testing.T) {
	config := parsed(t, VisitorSpikeType, `{}`)
	long, short := flatNorm(28, 36), flatNorm(16, 19)
	answer := func(in5, in2 float64, short *Norm) func(Question) Answer {
		return func(q Question) Answer {
			isShort := q.Window.To.Sub(q.Window.From) == 2*time.Minute
			switch {
			case q.Ask == AskNorm && isShort:
				return Answer{Norm: short}
			case q.Ask == AskNorm:
				return Answer{Norm: long}
			case isShort:
				return Answer{Value: in2}
			}
			return Answer{Value: in5}
		}
	}
	var running *Episode
	for _, c := range []struct {
		in5, in2 float64
		short    *Norm
		want     Status
		value    float64
	}{
		{40, 24, short, StatusOK, 40},
		{50, 40, nil, StatusOK, 50},         // of the short window nothing is known
		{50, 40, short, StatusFiring, 40},   // the short one is first,
		{70, 40, short, StatusFiring, 70},   // and the long one follows
		{30, 30, short, StatusFiring, 30},   // halfway back the episode goes on,
		{50, 16, short, StatusFiring, 50},   // by either
		{30, 20, short, StatusOK, 30},       // back at the usual it ends
		{9, 9, flatNorm(1, 1), StatusOK, 9}, // fewer than the threshold are no spike, however unusual
	} {
		state := State{Machine: Machine{Episode: running}}
		state, told, _ := stays(t, config, Setting{}, state, slotAt(origin), 1, answer(c.in5, c.in2, c.short), false)
		require.Equal(t, []any{c.want, c.value}, []any{state.Status, *state.Value}, "%v and %v", c.in5, c.in2)
		if len(told) > 0 {
			require.Equal(t, []any{40.0, 16.0, 2 * time.Minute}, []any{told[0].Value, *told[0].Baseline, told[0].Window.To.Sub(told[0].Window.From)})
			require.Greater(t, told[0].Value, told[0].Threshold)
		}
		running = state.Machine.Episode
	}

	for raw, questions := range map[string]int{
		`{}`: 4, `{"window_seconds": 900}`: 4, `{"window_seconds": 60}`: 2, `{"window_seconds": 3600}`: 2, `{"threshold": 5}`: 1, `{"threshold": 5, "sensitivity": "low"}`: 4,
	} {
		require.Len(t, parsed(t, VisitorSpikeType, raw).Ask(Setting{}, State{}, slotAt(origin)), questions, raw)
	}
	state, told, _ := stays(t, config, Setting{}, NewState(1, origin), slotAt(origin), 1, visitors(12, nil), false)
	require.Len(t, told, 1, "without any history the threshold decides alone")
	require.Equal(t, StatusFiring, state.Status)
}
