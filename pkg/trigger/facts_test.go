package trigger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// row is an event: when it happened, and when it became visible.
type row struct {
	at, visible time.Time
	fingerprint uint64
	name        string // of rankings
}

// rows answer a config's questions as the database would at the end of their windows, each row
// being a visitor of its own.
type rows []row

func (r rows) answer(questions []Question, slot Slot) Sample {
	var sample Sample
	for _, q := range questions {
		visible := slices.DeleteFunc(slices.Clone(r), func(e row) bool {
			return e.at.Before(q.Window.From) || !e.at.Before(q.Window.To) || e.visible.After(slot.At)
		})
		var a Answer
		switch q.Ask {
		case AskNumber:
			a.Value, a.Volume = float64(len(visible)), int64(len(visible))
		case AskBuckets, AskEach:
			a.Buckets = visible.buckets(q.Window, q.Ask == AskEach)
		case AskLast:
			for _, e := range visible {
				if e.at.After(a.Last) {
					a.Last = e.at
				}
			}
		case AskRanking, AskNewcomers:
			a.Ranking = visible.ranking(q.Least)
			if q.Ask == AskNewcomers {
				a.Ranking = slices.DeleteFunc(a.Ranking, func(ranked Ranked) bool {
					return slices.ContainsFunc(r, func(e row) bool {
						return e.name == ranked.Name && e.at.Before(q.Window.From) && !e.visible.After(slot.At)
					})
				})
			}
		case AskNorm: // nothing is known yet
		}
		sample.Answers = append(sample.Answers, a)
	}
	return sample
}

func (r rows) buckets(w Window, each bool) []Bucket {
	byStart := map[time.Time]*Bucket{}
	for _, e := range r {
		start := latest(e.at.Truncate(interval), w.From)
		if byStart[start] == nil {
			byStart[start] = &Bucket{Start: start}
		}
		byStart[start].Count++
		if each {
			byStart[start].Fingerprints = append(byStart[start].Fingerprints, e.fingerprint)
		}
	}
	var buckets []Bucket
	for _, b := range byStart {
		buckets = append(buckets, *b)
	}
	slices.SortFunc(buckets, func(a, b Bucket) int { return a.Start.Compare(b.Start) })
	return buckets
}

func (r rows) ranking(least int64) []Ranked {
	visitors := map[string]int64{}
	for _, e := range r {
		visitors[e.name]++
	}
	var ranking []Ranked
	for name, n := range visitors {
		if n >= least {
			ranking = append(ranking, Ranked{name, n})
		}
	}
	slices.SortFunc(ranking, func(a, b Ranked) int {
		return cmp.Or(cmp.Compare(b.Visitors, a.Visitors), strings.Compare(a.Name, b.Name))
	})
	return ranking
}

// found is an occurrence with its slot.
type found struct {
	Occurrence
	at     time.Time
	before time.Time // the slot stepped before it
}

// replay steps a trigger through its slots, from first until one is past the end, with slots left
// out as they are drawn.
func (r rows) replay(t *rapid.T, c Config, setting Setting, first, end time.Time, gaps ...int) (all []found) {
	state := NewState(1, setting.RevisedAt)
	for at := first; ; at = at.Add(time.Duration(rapid.SampledFrom(gaps).Draw(t, "slots passed")) * interval) {
		slot, before := slotAt(at), state.LastSlot
		var occurrences []Occurrence
		state, occurrences = step(t, c, setting, state, r.answer(c.Ask(setting, state, slot), slot), slot)
		for _, o := range occurrences {
			all = append(all, found{o, at, before})
		}
		if at.After(end) {
			return all
		}
	}
}

// anyRows are up to so many rows, each visible at most Overlap late.
func anyRows(most int, at *rapid.Generator[time.Time], names ...string) *rapid.Generator[[]row] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
		happened := at.Draw(t, "at")
		late := time.Duration(rapid.IntRange(0, int(Overlap/time.Second)).Draw(t, "late")) * time.Second
		e := row{at: happened, visible: happened.Add(late), fingerprint: rapid.Uint64Range(1, 20).Draw(t, "fingerprint")}
		if len(names) > 0 {
			e.name = rapid.SampledFrom(names).Draw(t, "name")
		}
		return e
	}), 0, most)
}

// within is any second from the first instant, for so long.
func within(first time.Time, length time.Duration) *rapid.Generator[time.Time] {
	return rapid.Map(rapid.IntRange(0, int(length/time.Second)), func(n int) time.Time {
		return first.Add(time.Duration(n) * time.Second)
	})
}

func TestEveryConversionIsToldOnceHoweverLate(t *testing.T) {
	config := parsed(t, GoalAchievedType, `{"goal": {"event_name": "A"}}`)
	rapid.Check(t, func(t *rapid.T) {
		revised := within(origin, 29*time.Second).Draw(t, "revised")
		happened := rows(anyRows(60, within(origin, 400*time.Second)).Draw(t, "rows"))
		var want, got []uint64
		for _, r := range happened {
			if !r.at.Before(revised) {
				want = append(want, r.fingerprint)
			}
		}
		total := 0
		for _, o := range happened.replay(t, config, Setting{RevisedAt: revised}, origin.Add(3*interval), origin.Add(400*time.Second+Overlap+2*interval), 1, 1, 1, 2, 5, 30) {
			require.Positive(t, o.Value)
			require.Equal(t, []any{Fired, at(o.at)}, []any{o.Transition, o.Anchor})
			require.Equal(t, !o.before.IsZero() && o.at.Sub(o.before) > Overlap, o.Late)
			require.False(t, o.Window.From.Before(revised) || o.Window.To.After(o.at))
			total += int(o.Value)
			got = append(got, o.Fingerprints...)
		}
		require.Equal(t, len(want), total)
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got, "and it is these that are listed")
	})
}

// tallinn has a day of 23 hours on 29 March 2026, and one of 25 on 25 October.
func tallinn(t require.TestingT) *time.Location {
	zone, err := time.LoadLocation("Europe/Tallinn")
	require.NoError(t, err)
	return zone
}

// passing is any instant of some days, half of them near a midnight.
func passing(zone *time.Location, first time.Time, days int) *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		local := first.In(zone)
		midnight := time.Date(local.Year(), local.Month(), local.Day()+rapid.IntRange(1, days).Draw(t, "day"), 0, 0, 0, 0, zone)
		if rapid.Bool().Draw(t, "near midnight") {
			return midnight.Add(time.Duration(rapid.IntRange(-150, 150).Draw(t, "seconds")) * time.Second).UTC()
		}
		return midnight.Add(-time.Duration(rapid.IntRange(0, 24*3600).Draw(t, "seconds before")) * time.Second).UTC()
	})
}

// milestones is what each period's counter ends at, and what the first slot found there already.
func (r rows) milestones(c *PageviewMilestone, zone *time.Location, first time.Time) (ends, found map[time.Time]int64) {
	ends, found = map[time.Time]int64{}, map[time.Time]int64{}
	for _, e := range r {
		period := c.period(e.at, zone)
		ends[period]++
		if e.at.Before(first) && !e.visible.After(first) {
			found[period]++
		}
	}
	return ends, found
}

func TestEveryMilestoneIsToldOnce(t *testing.T) {
	zone := tallinn(t)
	for _, days := range []string{"2026-03-28", "2026-10-24", "2026-01-30"} {
		start, err := time.ParseInLocation(time.DateOnly, days, zone)
		require.NoError(t, err)
		start = start.UTC()
		rapid.Check(t, func(t *rapid.T) {
			period := rapid.SampledFrom([]string{allTime, month, day}).Draw(t, "period")
			series := rapid.SampledFrom([]string{`"milestones": [1, 2, 3, 5, 8, 13]`, `"every": 1`, `"every": 4`}).Draw(t, "series")
			config := parsed(t, PageviewMilestoneType, fmt.Sprintf(`{"period": %q, %s}`, period, series)).(*PageviewMilestone)
			views := rows(anyRows(40, passing(zone, start, 3)).Draw(t, "rows"))
			first := start.Add(time.Duration(rapid.IntRange(0, 30*360).Draw(t, "first slot")) * interval)
			setting := Setting{Zone: zone}
			end := start.Add(3*24*time.Hour + 2*time.Hour)
			all := views.replay(t, config, setting, first, end, 6, 6, 60, 360, 2200, 5000, 8639, 8640)
			ends, before := views.milestones(config, zone, first)

			highest := map[string]float64{}
			got := map[string]bool{}
			for _, o := range all {
				require.False(t, got[o.Anchor], "%s is told again", o.Anchor)
				got[o.Anchor] = true
				prefix := o.Anchor[:strings.LastIndex(o.Anchor, "/")]
				require.Greater(t, o.Threshold, highest[prefix], "milestones rise")
				require.LessOrEqual(t, o.Threshold, o.Value)
				highest[prefix] = o.Threshold
			}
			for start, n := range ends {
				prefix := "milestone"
				if !start.IsZero() {
					prefix += "/" + at(start)
				}
				if config.period(first.Add(-time.Nanosecond), zone).After(start) {
					require.Zero(t, highest[prefix], "of a period that was over nothing is told")
					continue
				}
				top := float64(config.highest(n))
				if top <= float64(config.highest(before[start])) {
					top = 0 // the trigger found it passed
				}
				require.Equal(t, top, highest[prefix], "period %s: %d views, %d of them found", start, n, before[start])
				for _, m := range config.Milestones {
					require.Equal(t, m <= n && m > before[start], got[fmt.Sprintf("%s/%d", prefix, m)], "period %s: %d", start, m)
				}
			}
		})
	}
}

// Rows that are deleted and counted anew lower the number, but what was told is told.
func TestMilestonesAreNotToldAgainAfterARecount(t *testing.T) {
	config := parsed(t, PageviewMilestoneType, `{"every": 10}`)
	rapid.Check(t, func(t *rapid.T) {
		state := NewState(1, origin)
		setting := Setting{}
		highest, now := 0.0, origin
		for range rapid.IntRange(2, 40).Draw(t, "slots") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 3000, 9000}).Draw(t, "slots passed")) * interval)
			if rapid.IntRange(0, 5).Draw(t, "reset?") == 0 {
				setting.StatsFrom = now.Add(-interval)
			}
			views := rapid.Int64Range(0, 100).Draw(t, "views")
			var sample Sample
			for _, q := range config.Ask(setting, state, slotAt(now)) {
				sample.Answers = append(sample.Answers, map[Ask]Answer{
					AskBuckets: {Buckets: []Bucket{{Start: now.Add(-interval), Count: views}}}, AskNumber: {Value: float64(views)}, AskNorm: {},
				}[q.Ask])
			}
			var occurrences []Occurrence
			state, occurrences = step(t, config, setting, state, sample, slotAt(now))
			for _, o := range occurrences {
				require.Greater(t, o.Threshold, highest)
				highest = o.Threshold
			}
		}
	})
}

func TestMilestonesOfASeriesAndTheirNext(t *testing.T) {
	config := parsed(t, PageviewMilestoneType, `{}`).(*PageviewMilestone)
	want := []int64{100, 200, 500, 1000, 2000, 5000, 10_000}
	for m, i := int64(0), 0; i < len(want); i++ {
		m = config.next(m)
		require.Equal(t, want[i], m)
		require.Equal(t, m, config.highest(m))
	}
	norm := flatNorm(60, 60) // an hour
	sample := func(n int64) Sample {
		return Sample{Answers: []Answer{{Buckets: []Bucket{{Start: origin, Count: n}}}, {Norm: norm}, {}}}
	}
	state, none := step(t, config, Setting{}, NewState(1, origin), sample(150), slotAt(origin.Add(interval)))
	require.Empty(t, none, "what was passed before is not told")
	require.Equal(t, 200.0, *state.Threshold)
	_, told := step(t, config, Setting{}, state, sample(1040), slotAt(origin.Add(2*interval)))
	require.Len(t, told, 1, "of a series only the highest")
	require.Equal(t, []any{"milestone/1000", 1040.0, 1000.0}, []any{told[0].Anchor, told[0].Value, told[0].Threshold})
	require.Equal(t, int64(2000), told[0].Next.Milestone)
	require.WithinDuration(t, origin.Add(16*time.Hour), *told[0].Next.ETA, time.Minute)

	// However far it jumps, this is no loop over every number in between.
	config = parsed(t, PageviewMilestoneType, `{"every": 1}`).(*PageviewMilestone)
	state, _ = step(t, config, Setting{}, NewState(1, origin), sample(1), slotAt(origin.Add(interval)))
	_, told = step(t, config, Setting{}, state, sample(1e14), slotAt(origin.Add(2*interval)))
	require.Equal(t, 1e14, told[0].Threshold)
}

func TestDaysBeginWhereTheClocksChangeAtMidnight(t *testing.T) {
	for _, name := range []string{"Europe/Tallinn", "America/Santiago", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "UTC"} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		c := &PageviewMilestone{Period: day}
		for period := c.period(origin, zone); period.Before(origin.AddDate(1, 0, 0)); {
			next := c.after(period, zone)
			require.Contains(t, []time.Duration{23 * time.Hour, 24 * time.Hour, 25 * time.Hour}, next.Sub(period), "%s %s", name, period)
			require.Equal(t, period, c.period(period, zone))
			require.Equal(t, period, c.period(next.Add(-time.Second), zone))
			period = next
		}
	}
}

func TestEachNewSourceIsToldOnce(t *testing.T) {
	config := parsed(t, NewSourceType, `{"min_visitors": 3}`)
	rapid.Check(t, func(t *rapid.T) {
		known := []string{"old", "x", "y", "z"}
		var visits rows
		visits = append(visits, row{at: origin.Add(-time.Hour), visible: origin, name: "old"})
		for _, name := range known {
			begin := within(origin, 6*time.Hour).Draw(t, "begin of "+name)
			visits = append(visits, anyRows(8, within(begin, 5*time.Minute), name).Draw(t, name)...)
		}
		told := map[string]int{}
		for _, o := range visits.replay(t, config, Setting{RevisedAt: origin}, origin, origin.Add(7*time.Hour), 6, 6, 30, 100, 1000) {
			told[o.Group.Value]++
			require.Equal(t, "value/"+o.Group.Value, o.Anchor)
		}
		for _, name := range known {
			visitors := 0
			for _, v := range visits {
				if v.name == name {
					visitors++
				}
			}
			want := 0
			if visitors >= 3 && name != "old" {
				want = 1
			}
			require.Equal(t, want, told[name], name)
		}
	})
}

func TestPathsNotFoundAreToldOneByOne(t *testing.T) {
	config := parsed(t, NotFoundBurstType, `{"threshold": 3}`)
	rapid.Check(t, func(t *rapid.T) {
		asked := rows(anyRows(80, within(origin, time.Hour), "/a", "/b", "/c").Draw(t, "rows"))
		cooldown := time.Duration(rapid.IntRange(0, 20).Draw(t, "cooldown")) * time.Minute
		setting := Setting{Options: Options{NotifyResolved: true, Cooldown: cooldown}}
		firing := map[string]*found{}
		quietFrom := map[string]time.Time{}
		all := asked.replay(t, config, setting, origin, origin.Add(2*time.Hour), 1, 3, 10, 40)
		for i, o := range all {
			path := o.Group.Value
			window := slices.DeleteFunc(slices.Clone(asked), func(e row) bool {
				return e.name != path || e.at.Before(o.at.Add(-5*time.Minute)) || !e.at.Before(o.at) || e.visible.After(o.at)
			})
			if o.Transition == Fired {
				require.Nil(t, firing[path], "fired and resolved alternate")
				require.Equal(t, float64(len(window)), o.Value)
				require.GreaterOrEqual(t, len(window), 3)
				if quiet := quietFrom[path]; !quiet.IsZero() {
					require.GreaterOrEqual(t, o.at.Sub(quiet), cooldown)
				}
				quietFrom[path], firing[path] = o.at, &all[i]
				continue
			}
			require.Less(t, len(window), 3, "missed slots resolve nothing")
			require.Equal(t, firing[path].Anchor, o.Anchor)
			firing[path] = nil
		}
		for path, open := range firing {
			require.Nil(t, open, "%s has ceased", path)
		}
	})
}

// A scan of a whole site neither grows the state without bounds nor is told of path by path for ever.
func TestBurstsAreFollowedUpToACap(t *testing.T) {
	c := parsed(t, NotFoundBurstType, `{"threshold": 1}`)
	state, told := NewState(1, origin), 0
	scan := func(slot int) Sample {
		var ranking []Ranked
		for n := range RankingCap {
			ranking = append(ranking, Ranked{fmt.Sprintf("/%d/%d", slot, n), 1})
		}
		return Sample{Answers: []Answer{{Ranking: ranking}}}
	}
	for slot := range 20 {
		var found []Occurrence
		state, found = step(t, c, Setting{}, state, scan(slot), slotAt(origin.Add(time.Duration(slot)*interval)))
		told += len(found)
	}
	require.Equal(t, mostTold, told)
	require.Len(t, state.Machine.Told, mostTold)
	later := slotAt(origin.Add(time.Hour))
	_, found := step(t, c, Setting{}, state, scan(100), later)
	require.Len(t, found, RankingCap, "when those have ceased, others are told again")
}

// Counters that began together are not all written in the same slot.
func TestCountersTakeTurnsToSettle(t *testing.T) {
	noon := time.Date(2026, 8, 3, 12, 0, 0, 0, time.UTC)
	const counters = 300
	settled := map[time.Time]int{}
	for total := range int64(counters) {
		c := &PageviewMilestone{Period: allTime}
		state := NewState(1, noon)
		state.LastSlot, state.Machine.Counters = noon, []Counter{{Total: total, Upto: noon}}
		seen := total
		for slot := (Slot{At: noon.Add(10 * time.Second), Interval: 10 * time.Second}); slot.At.Before(noon.Add(10 * time.Minute)); slot.At = slot.At.Add(slot.Interval) {
			before := state.Machine.Counters[0].Upto
			var buckets []Bucket // a page view in every slot
			for at := c.Ask(Setting{}, state, slot)[0].Window.From; at.Before(slot.At); at = at.Add(slot.Interval) {
				buckets = append(buckets, Bucket{Start: at, Count: 1})
			}
			state, _ = c.Step(Setting{}, state, Sample{Answers: []Answer{{Buckets: buckets}, {}}}, slot)
			seen++
			require.InDelta(t, seen, *state.Value, 0)
			if !state.Machine.Counters[0].Upto.Equal(before) {
				settled[slot.At]++
			}
		}
	}
	require.NotEmpty(t, settled)
	for slot, n := range settled {
		require.LessOrEqual(t, n, counters/2, slot)
	}
}
