package trigger

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// flatNorm is a norm of eight weeks that is the same at every hour.
func flatNorm(mean, variance float32) *Norm {
	n := &Norm{Days: 56}
	for h := range n.Hours {
		n.Hours[h] = Usual{Samples: 288, Mean: mean, Variance: variance}
	}
	return n
}

// answers gives each question its kind's answer.
func answers(questions []Question, value func(Question) Answer) Sample {
	var s Sample
	for _, q := range questions {
		s.Answers = append(s.Answers, value(q))
	}
	return s
}

// stays steps a config through slots of the same kind until something is told, at most so many.
func stays(t require.TestingT, c Config, setting Setting, state State, slot Slot, most int, answer func(Question) Answer, blind bool) (State, []Occurrence, Slot) {
	var told []Occurrence
	for range most {
		sample := answers(c.Ask(setting, state, slot), answer)
		sample.Blind = blind
		state, told = step(t, c, setting, state, sample, slot)
		if len(told) > 0 {
			break
		}
		slot.At = slot.At.Add(interval)
	}
	return state, told, slot
}

func visitors(n float64, norm *Norm) func(Question) Answer {
	return func(q Question) Answer {
		if q.Ask == AskNorm {
			return Answer{Norm: norm}
		}
		return Answer{Value: n, Volume: int64(n)}
	}
}

func TestVisitorsCannotStayAwayWhereNobodyWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := parsed(t, VisitorDropType, rapid.SampledFrom([]string{`{}`, `{"threshold": 5}`, `{"threshold": 5, "sensitivity": "high"}`}).Draw(t, "config"))
		norm := rapid.SampledFrom([]*Norm{nil, flatNorm(100, 200)}).Draw(t, "norm")
		state, told, slot := stays(t, config, Setting{}, NewState(1, origin), slotAt(origin), 5, visitors(0, norm), false)
		require.Empty(t, told)
		require.Equal(t, StatusOK, state.Status)

		// The other way round: somebody was, and a norm says that nobody now is unusual.
		state, told, slot = stays(t, config, Setting{}, state, slot, 1, visitors(40, norm), false)
		require.Empty(t, told)
		blind, told, _ := stays(t, config, Setting{}, state, slot, 3, visitors(0, flatNorm(100, 200)), true)
		require.Empty(t, told, "ingestion itself was silent")
		require.Equal(t, StatusInsufficient, blind.Status)
		reset, told, _ := stays(t, config, Setting{StatsFrom: slot.At.Add(-time.Minute)}, state, slot, 3, visitors(0, flatNorm(100, 200)), false)
		require.Empty(t, told, "the window is cut short")
		require.Equal(t, StatusInsufficient, reset.Status)
		fired, told, slot := stays(t, config, Setting{}, state, slot, 3, visitors(0, flatNorm(100, 200)), false)
		require.Len(t, told, 1)
		still, told, _ := stays(t, config, Setting{Options: Options{NotifyResolved: true}}, fired, slot, 3, visitors(0, flatNorm(100, 200)), true)
		require.Empty(t, told)
		require.Equal(t, StatusFiring, still.Status, "the episode is neither ended nor told again")
	})
}

func TestFewVisitorsWhereFewAreUsual(t *testing.T) {
	config := parsed(t, VisitorDropType, `{"threshold": 10, "window_seconds": 3600, "sensitivity": "medium"}`)
	armed := State{Machine: Machine{Armed: true}}
	for _, c := range []struct {
		norm *Norm
		want Status
	}{{flatNorm(8, 8), StatusOK}, {flatNorm(100, 100), StatusFiring}, {flatNorm(100, 5000), StatusOK}, {nil, StatusInsufficient}} {
		state, _, _ := stays(t, config, Setting{}, armed, slotAt(origin), 1, visitors(3, c.norm), false)
		require.Equal(t, c.want, state.Status)
	}
}

// silent answers as a site whose last event was then.
func silent(last time.Time, norm *Norm) func(Question) Answer {
	return func(q Question) Answer {
		if q.Ask == AskNorm {
			return Answer{Norm: norm}
		}
		if last.Before(q.Window.From) {
			return Answer{}
		}
		return Answer{Last: last}
	}
}

func TestTrackingFallsSilent(t *testing.T) {
	for config, after := range map[string]time.Duration{
		`{"minutes": 15}`:           15 * time.Minute,
		`{}`:                        5 * time.Minute, // of 100 visitors in 5 minutes; but never sooner
		`{"sensitivity": "high"}`:   5 * time.Minute, //
		`{"sensitivity": "low"}`:    5 * time.Minute, //
		`{"for_seconds": 60}`:       6 * time.Minute, //
		`{"minutes": 1440}`:         1440 * time.Minute,
		`{"minutes":1}`:             time.Minute,
		`{"keep_firing_seconds":9}`: 5 * time.Minute,
	} {
		c := parsed(t, TrackingSilenceType, config)
		_, told, slot := stays(t, c, Setting{}, NewState(1, origin), slotAt(origin.Add(interval)), 10_000, silent(origin, flatNorm(100, 100)), false)
		require.Len(t, told, 1, config)
		require.Equal(t, origin.Add(after), slot.At, config)
		_, told, _ = stays(t, c, Setting{}, NewState(1, origin), slotAt(origin.Add(interval)), 200, silent(origin, flatNorm(100, 100)), true)
		require.Empty(t, told, "ingestion itself was silent")
	}

	// With 1 visitor in 5 minutes none for 20.7 times as long has a probability of 1e-9.
	auto := parsed(t, TrackingSilenceType, `{}`)
	state, told, slot := stays(t, auto, Setting{}, NewState(1, origin), slotAt(origin.Add(interval)), 10_000, silent(origin, flatNorm(1, 1)), false)
	require.Len(t, told, 1)
	require.WithinDuration(t, origin.Add(time.Duration(-math.Log(1e-9)*5*float64(time.Minute))), slot.At, interval)
	require.Equal(t, origin, told[0].Window.From)

	state, told, _ = stays(t, auto, Setting{Options: Options{NotifyResolved: true}}, state, slotAt(slot.At.Add(interval)), 2, silent(slot.At, flatNorm(1, 1)), false)
	require.Len(t, told, 1)
	require.Equal(t, Resolved, told[0].Transition)
	require.Equal(t, StatusOK, state.Status)

	for _, c := range []struct {
		setting Setting
		answer  func(Question) Answer
	}{
		{Setting{}, silent(time.Time{}, flatNorm(100, 100))},                              // never any event
		{Setting{StatsFrom: origin.Add(time.Second)}, silent(origin, flatNorm(100, 100))}, // none since the reset
		{Setting{}, silent(origin, nil)},                                                  // no history
	} {
		state, told, _ := stays(t, auto, c.setting, NewState(1, origin), slotAt(origin.Add(interval)), 200, c.answer, false)
		require.Empty(t, told)
		require.Equal(t, StatusInsufficient, state.Status)
	}
}

// What is remembered of the newest event is coarse, but the silence is measured exactly.
func TestSilenceIsMeasuredFromTheLastEvent(t *testing.T) {
	config := parsed(t, TrackingSilenceType, `{"minutes": 3}`)
	rapid.Check(t, func(t *rapid.T) {
		events := rows(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
			at := within(origin, time.Hour).Draw(t, "at")
			return row{at: at, visible: at}
		}), 1, 40).Draw(t, "events"))
		state := NewState(1, origin)
		for now := origin.Add(interval); now.Before(origin.Add(time.Hour)); now = now.Add(interval * time.Duration(rapid.IntRange(1, 4).Draw(t, "slots passed"))) {
			state, _ = step(t, config, Setting{}, state, events.answer(config.Ask(Setting{}, state, slotAt(now)), slotAt(now)), slotAt(now))
			var last time.Time
			for _, e := range events {
				if e.at.Before(now) && e.at.After(last) {
					last = e.at
				}
			}
			want := StatusInsufficient
			if !last.IsZero() {
				want = StatusOK
				if now.Sub(last) >= 3*time.Minute {
					want = StatusFiring
				}
			}
			got := state.Status
			if got == StatusRecovering { // of an episode that came soon after another
				got = StatusOK
			}
			require.Equal(t, want, got, "%s after %s", now, last)
		}
	})
}

func TestAGoalFallsSilent(t *testing.T) {
	config := parsed(t, GoalSilenceType, `{"goal": {"event_name": "Order"}}`)
	goal := &Goal{EventName: "Order"}
	setting := Setting{Goal: goal, Options: Options{NotifyResolved: true}}
	answer := func(coming float64, last time.Time, converting, all *Norm) func(Question) Answer {
		return func(q Question) Answer {
			switch {
			case q.Ask == AskLast:
				require.Equal(t, goal, q.Goal)
				return Answer{Last: last}
			case q.Ask == AskNorm && q.Goal != nil:
				return Answer{Norm: converting}
			case q.Ask == AskNorm:
				return Answer{Norm: all}
			}
			require.Nil(t, q.Goal)
			return Answer{Value: coming}
		}
	}
	fifth, all := flatNorm(20, 20), flatNorm(100, 100)
	limit := math.Ceil(math.Log(1e-9) / math.Log(0.8)) // visitors without an order, of whom a fifth orders
	for _, c := range []struct {
		coming          float64
		converting, all *Norm
		want            Status
	}{
		{limit - 1, fifth, all, StatusOK}, {limit, fifth, all, StatusFiring}, {limit, nil, all, StatusInsufficient}, {limit, fifth, nil, StatusInsufficient},
		{1e6, flatNorm(0.0003, 0.0003), all, StatusInsufficient}, {1e6, all, all, StatusInsufficient}, {0, fifth, all, StatusOK},
	} {
		state, told, _ := stays(t, config, setting, NewState(1, origin), slotAt(origin), 1, answer(c.coming, time.Time{}, c.converting, c.all), false)
		require.Equal(t, c.want, state.Status)
		require.Equal(t, c.want == StatusFiring, len(told) == 1)
		if c.want == StatusFiring {
			_, told, _ := stays(t, config, setting, state, slotAt(origin.Add(interval)), 1, answer(c.coming, origin, c.converting, c.all), false)
			require.Len(t, told, 1)
			require.Equal(t, Resolved, told[0].Transition, "a conversion ends it")
		}
	}
}

func TestChangesAreOfWhatCanBeCompared(t *testing.T) {
	previous := func(raw string) Config { return parsed(t, MetricChangeType, raw) }
	for _, c := range []struct {
		config      Config
		now, before float64
		blind       bool
		want        Status
	}{
		{previous(`{}`), 30, 20, false, StatusFiring}, // +50 %
		{previous(`{}`), 29, 20, false, StatusOK},
		{previous(`{}`), 10, 20, false, StatusFiring}, // -50 %
		{previous(`{}`), 10, 20, true, StatusInsufficient},
		{previous(`{}`), 20, 20, true, StatusOK},
		{previous(`{}`), 1000, 19, false, StatusInsufficient}, // the baseline is below min_volume
		{previous(`{}`), 1000, 0, false, StatusInsufficient},
		{previous(`{"min_volume": 1}`), 1000, 0, false, StatusInsufficient}, // of nothing there is no per cent
		{previous(`{"direction": "up"}`), 0, 20, false, StatusOK},
		{previous(`{"direction": "down"}`), 100, 20, false, StatusOK},
		{previous(`{"direction": "down", "percent": 100}`), 0, 20, false, StatusFiring},
		{previous(`{"metric": "bounce_rate"}`), 60, 30, false, StatusFiring},
		{previous(`{"metric": "bounce_rate", "min_volume": 50}`), 60, 30, false, StatusInsufficient},
	} {
		n := 0
		answer := func(Question) Answer {
			n++
			return []Answer{{Value: c.now, Volume: int64(c.now)}, {Value: c.before, Volume: int64(c.before)}}[n-1]
		}
		state, _, _ := stays(t, c.config, Setting{}, NewState(1, origin), slotAt(origin), 1, answer, c.blind)
		require.Equal(t, c.want, state.Status, "%s: %v after %v", mustJSON(c.config), c.now, c.before)
	}
	state, _, _ := stays(t, previous(`{}`), Setting{StatsFrom: origin.Add(-90 * time.Minute)}, NewState(1, origin), slotAt(origin), 1, visitors(100, nil), false)
	require.Equal(t, StatusInsufficient, state.Status, "the stats begin within the window before")
}

// The hour of the week is that of the clock on the wall, on both sides of a change of clocks.
func TestChangesAreComparedWithTheHourOfTheWeek(t *testing.T) {
	zone := tallinn(t)
	config := parsed(t, MetricChangeType, `{"baseline": "same_hour_of_week"}`)
	norm := flatNorm(20, 20)
	norm.Hours[9].Mean = 100 // Mondays from 9 to 10
	for _, monday := range []string{"2026-03-23 09:30", "2026-03-30 09:30", "2026-10-19 09:30", "2026-10-26 09:30"} {
		slot, err := time.ParseInLocation("2006-01-02 15:04", monday, zone)
		require.NoError(t, err)
		state, _, _ := stays(t, config, Setting{Zone: zone}, NewState(1, slot), slotAt(slot.UTC()), 1, visitors(100, norm), false)
		require.Equal(t, StatusOK, state.Status, monday)
		state, _, _ = stays(t, config, Setting{Zone: zone}, NewState(1, slot), slotAt(slot.Add(time.Hour).UTC()), 1, visitors(100, norm), false)
		require.Equal(t, StatusFiring, state.Status, monday)
	}
	state, _, _ := stays(t, config, Setting{Zone: zone}, NewState(1, origin), slotAt(origin), 1, visitors(100, nil), false)
	require.Equal(t, StatusInsufficient, state.Status)
}
