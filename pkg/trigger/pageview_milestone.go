package trigger

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// PageviewMilestoneType is the type of PageviewMilestone.
const PageviewMilestoneType Type = "pageview_milestone"

// PageviewMilestone fires for each milestone that the number of page views passes, once: in the
// whole life of the site, or in each month or day of its time zone. Without a list it is every so
// many page views, and without that 1, 2 and 5 times each power of ten, from 100.
type PageviewMilestone struct {
	Milestones []int64 `json:"milestones,omitempty"`
	Interval   int64   `json:"every,omitempty"`
	Period     string  `json:"period"`
	PagePath   string  `json:"page_path,omitempty"`
}

const (
	allTime = "all_time"
	month   = "month"
	day     = "day"
)

func (c *PageviewMilestone) declare(f *fields) {
	c.Milestones = f.integers("milestones", "The numbers of page views to tell, each of them.", 100, 1, 1e15)
	c.Interval = f.integer("every", "Tell every so many page views; if several are passed at once, the highest.", 0, 1, 1e15)
	c.Period = f.choice("period", "When counting begins anew, in the site's time zone.", allTime, month, day)
	c.PagePath = f.text("page_path", "Only page views of this path; * stands for any characters.", "", 2000)
	if c.Interval > 0 && len(c.Milestones) > 0 {
		if f.kept("milestones") {
			c.Milestones = nil
		} else {
			f.exclude("every", "cannot be combined with milestones")
			c.Interval = 0
		}
	}
	if c.PagePath != "" && !strings.HasPrefix(c.PagePath, "/") {
		f.refuse("page_path", "must start with /")
	}
}

// Title implements Config.
func (c *PageviewMilestone) Title(string) string {
	where := ""
	if c.PagePath != "" {
		where = " of " + c.PagePath
	}
	if c.Period != allTime {
		where += " in a " + c.Period
	}
	return "Page view milestone" + where
}

// Every implements Config.
func (c *PageviewMilestone) Every() time.Duration { return 0 }

// Counter is the page views of one period. Total is settled: rows before Upto are not read again
// before the next recount.
type Counter struct {
	Period time.Time `json:"period"` // its start; of all time zero
	Total  int64     `json:"total"`
	Upto   time.Time `json:"upto"`
	Passed int64     `json:"passed"` // the highest milestone that was passed
}

// period is the start of that which an instant belongs to.
func (c *PageviewMilestone) period(at time.Time, zone *time.Location) time.Time {
	local := at.In(zone)
	switch c.Period {
	case day:
		return midnight(local.Year(), local.Month(), local.Day(), zone)
	case month:
		return midnight(local.Year(), local.Month(), 1, zone)
	}
	return time.Time{}
}

// midnight is when a calendar day begins. Where the clocks change at midnight that is the first of
// two midnights, or one o'clock.
func midnight(year int, month time.Month, day int, zone *time.Location) time.Time {
	start := time.Date(year, month, day, 0, 0, 0, 0, zone)
	wanted := time.Date(year, month, day, 12, 0, 0, 0, zone).Day()
	if start.Day() != wanted {
		start = start.Add(time.Hour)
	} else if earlier := start.Add(-time.Hour); earlier.Day() == wanted {
		start = earlier
	}
	return start.UTC()
}

// after is the start of the period that follows the one that begins then.
func (c *PageviewMilestone) after(period time.Time, zone *time.Location) time.Time {
	local := period.In(zone)
	if c.Period == day {
		return midnight(local.Year(), local.Month(), local.Day()+1, zone)
	}
	return midnight(local.Year(), local.Month()+1, 1, zone)
}

// counting is what a slot counts: the counters that it may change, the oldest first, and where its
// buckets begin. A counter that must be counted from the beginning of its period has no Upto: only
// the last can be such.
func (c *PageviewMilestone) counting(s Setting, state State, slot Slot) (counters []Counter, from time.Time) {
	now := c.period(slot.At.Add(-time.Nanosecond), s.zone())
	today := slot.At.In(s.zone())
	stale := state.LastSlot.Before(slot.At.Add(-LongestCatchUp))
	for _, counter := range state.Machine.Counters {
		switch {
		case counter.Period.Equal(now):
			if stale || state.LastSlot.Before(midnight(today.Year(), today.Month(), today.Day(), s.zone())) || s.StatsFrom.After(state.LastSlot) {
				counter.Upto = time.Time{} // once a day it is counted anew: rows later than the overlap are found
			}
		case stale || state.LastSlot.After(c.after(counter.Period, s.zone()).Add(Overlap)):
			continue // nothing of that period can be late any more
		}
		counters = append(counters, counter)
	}
	switch {
	case len(counters) == 0 || stale && !counters[len(counters)-1].Period.Equal(now):
		counters = append(counters, Counter{Period: now})
	default: // periods that began while we were looking; a day of 23 hours can begin and end between two slots
		for last := counters[len(counters)-1].Period; last.Before(now); last = counters[len(counters)-1].Period {
			next := c.after(last, s.zone())
			counters = append(counters, Counter{Period: next, Upto: next})
		}
	}
	from = slot.At.Add(-Overlap)
	for _, counter := range counters {
		if !counter.Upto.IsZero() && counter.Upto.Before(from) {
			from = counter.Upto
		}
	}
	return counters, from.Truncate(slot.Interval)
}

// Ask implements Config.
func (c *PageviewMilestone) Ask(s Setting, state State, slot Slot) []Question {
	s.Goal = pageGoal(c.PagePath)
	counters, from := c.counting(s, state, slot)
	questions := []Question{{Ask: AskBuckets, Metric: c.metric(), Goal: s.Goal, Filters: s.Filters, Window: s.since(slot, from)}}
	if c.Period == allTime {
		questions = append(questions, s.norm(c.metric(), slot, 3600))
	}
	if current := counters[len(counters)-1]; current.Upto.IsZero() {
		window := s.since(slot, current.Period)
		window.To = latest(window.From, from)
		questions = append(questions, s.number(c.metric(), window))
	}
	return questions
}

// metric is page views: of a path they are the conversions of the goal to visit it.
func (c *PageviewMilestone) metric() Metric {
	if c.PagePath != "" {
		return Events
	}
	return Pageviews
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Step implements Config.
func (c *PageviewMilestone) Step(s Setting, state State, sample Sample, slot Slot) (State, []Occurrence) {
	first, isLate := len(state.Machine.Counters) == 0, late(state, slot)
	counters, from := c.counting(s, state, slot)
	buckets := sample.Answers[0].Buckets
	var norm *Norm
	if c.Period == allTime {
		norm = sample.Answers[1].Norm
	}
	var occurrences []Occurrence
	for i := range counters {
		counter := &counters[i]
		if counter.Upto.IsZero() {
			counter.Total, counter.Upto = int64(sample.Answers[len(sample.Answers)-1].Value), latest(counter.Period, from)
		}
		end := slot.At
		if i+1 < len(counters) {
			end = counters[i+1].Period
		}
		number := counter.Total
		for _, b := range buckets {
			if !b.Start.Before(counter.Upto) && b.Start.Before(end) {
				number += b.Count
			}
		}
		if !first && number > counter.Passed {
			window := s.since(slot, latest(counter.Period, from))
			window.To = end
			occurrences = append(occurrences, c.passed(*counter, number, window, norm, slot, isLate)...)
		}
		counter.Passed = max(counter.Passed, c.highest(number))
		c.settle(counter, buckets, end, slot)
		value := float64(number)
		state.Value = &value
	}
	state.Machine.Counters, state.LastSlot = counters, slot.At
	next := c.next(counters[len(counters)-1].Passed)
	state.Threshold = nil
	state = state.enter(StatusOK, slot.At, fmt.Sprintf("%s counted, and all milestones are passed.", count(*state.Value, "page view")))
	if next > 0 {
		threshold := float64(next)
		state.Threshold = &threshold
		state.Explanation = fmt.Sprintf("%s counted; the next milestone is %d.", count(*state.Value, "page view"), next)
	}
	if len(occurrences) > 0 {
		state.LastFiredAt = slot.At
	}
	return state, occurrences
}

// settle adds buckets that no late row can reach any more to the total. It does so once in a while,
// so that the state of a busy site is not written at every slot: after one minute, or nearly two. How long is taken from the
// total: counters that began together, at midnight, would all be written in the same slots otherwise.
func (c *PageviewMilestone) settle(counter *Counter, buckets []Bucket, end time.Time, slot Slot) {
	upto := slot.At.Add(-Overlap).Truncate(slot.Interval)
	turns := max(1, int64(time.Minute/slot.Interval))
	if upto.Sub(counter.Upto) < time.Minute+time.Duration(counter.Total%turns)*slot.Interval {
		return
	}
	for _, b := range buckets {
		if !b.Start.Before(counter.Upto) && b.Start.Before(upto) && b.Start.Before(end) {
			counter.Total += b.Count
		}
	}
	counter.Upto = upto
}

// passed are the occurrences of a counter that has grown to a number: each listed milestone, and of
// a series the highest.
func (c *PageviewMilestone) passed(counter Counter, number int64, window Window, norm *Norm, slot Slot, isLate bool) []Occurrence {
	var occurrences []Occurrence
	m := c.next(counter.Passed)
	if len(c.Milestones) == 0 {
		m = max(m, c.highest(number))
	}
	for ; m > 0 && m <= number; m = c.next(m) {
		anchor := strconv.FormatInt(m, 10)
		if !counter.Period.IsZero() {
			anchor = at(counter.Period) + "/" + anchor
		}
		o := Occurrence{
			Transition: Fired, Anchor: "milestone/" + anchor, Value: float64(number), Threshold: float64(m), Window: window, Late: isLate,
			Explanation: fmt.Sprintf("The %s page view was counted.", ordinal(m)),
		}
		if next := c.next(m); next > 0 {
			o.Next = &Next{Milestone: next, ETA: eta(norm, next-number, slot.At)}
		}
		occurrences = append(occurrences, o)
	}
	return occurrences
}

// highest is the last milestone that a number has reached; 0: none.
func (c *PageviewMilestone) highest(number int64) int64 {
	if c.Interval > 0 {
		return number / c.Interval * c.Interval
	}
	highest := int64(0)
	for m := c.next(0); m > 0 && m <= number; m = c.next(m) {
		highest = m
	}
	return highest
}

// next is the first milestone above a number; 0: there is none.
func (c *PageviewMilestone) next(above int64) int64 {
	switch {
	case len(c.Milestones) > 0:
		for _, m := range c.Milestones {
			if m > above {
				return m
			}
		}
		return 0
	case c.Interval > 0:
		return (above/c.Interval + 1) * c.Interval
	}
	for power := int64(100); power < 1e15; power *= 10 {
		for _, factor := range []int64{1, 2, 5} {
			if m := factor * power; m > above {
				return m
			}
		}
	}
	return 0
}

// eta is when so many more page views will have come at the rate of the usual week.
func eta(norm *Norm, missing int64, now time.Time) *time.Time {
	if norm == nil || norm.Days < 3 {
		return nil
	}
	perHour := float64(norm.overall().Mean)
	hours := float64(missing) / perHour
	if perHour <= 0 || math.IsInf(hours, 0) || hours > 10*365*24 {
		return nil
	}
	then := now.Add(time.Duration(hours * float64(time.Hour))).Truncate(time.Minute)
	return &then
}

func ordinal(n int64) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return strconv.FormatInt(n, 10) + suffix
}
