package main

import (
	"cmp"
	"slices"
	"time"
)

// timeline maps the time of the log to the time of the replay.
type timeline struct {
	first, last time.Time // of the log
	begin       time.Time // of the replay
	speed       float64
}

// shortest is how long a replay takes at least, so that its rows do not all bear one second.
const shortest = time.Second

func newTimeline(hits []hit, begin time.Time, speed float64, length time.Duration) timeline {
	t := timeline{first: hits[0].at, last: hits[len(hits)-1].at, begin: begin, speed: speed}
	if t.speed == 0 {
		t.speed = t.span().Seconds() / length.Seconds()
	}
	if t.speed <= 0 {
		t.speed = 1
	}
	return t
}

func (t timeline) span() time.Duration { return max(t.last.Sub(t.first), shortest) }

func (t timeline) length() time.Duration {
	return time.Duration(float64(t.span()) / t.speed)
}

// live is when something of the log happens again.
func (t timeline) live(at time.Time) time.Time {
	return t.begin.Add(time.Duration(float64(at.Sub(t.first)) / t.speed))
}

// spread undoes what some published logs did to their times: if all requests bear the same
// minute of their hours, they are laid evenly over the hour, in their order in the log.
func spread(requests []request) {
	for _, r := range requests {
		if r.at.Minute() != requests[0].at.Minute() {
			return
		}
	}
	hours := map[time.Time][]int{}
	for i, r := range requests {
		hour := r.at.Truncate(time.Hour)
		hours[hour] = append(hours[hour], i)
	}
	if len(hours) < 2 { // a short log may well be of one minute
		return
	}
	for hour, members := range hours {
		for n, i := range members {
			requests[i].at = hour.Add(time.Hour * time.Duration(n) / time.Duration(len(members)))
		}
	}
}

func sortByTime(requests []request) {
	slices.SortStableFunc(requests, func(a, b request) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
}
