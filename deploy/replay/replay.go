package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// hit is a request that Plausible would have counted.
type hit struct {
	at      time.Time // in the log
	visitor visit.Visitor
	action  visit.Action
}

// plan is what of a log is replayed.
type replayPlan struct {
	hits    []hit
	summary summary
}

func plan(requests []request) replayPlan {
	p := replayPlan{summary: summary{requests: len(requests), skipped: map[string]int{}}}
	if len(requests) == 0 {
		return p
	}
	requests = slices.Clone(requests)
	spread(requests)
	sortByTime(requests)
	own := ownHost(requests)
	for _, r := range requests {
		t, miss, why := judge(r)
		if why != "" {
			p.summary.skipped[why]++
			continue
		}
		h := hit{at: r.at, visitor: device(r.agent), action: visit.Action{
			At: r.at, Name: visit.Pageview, Path: t.path, Origin: origin(r, t, own),
		}}
		h.visitor.ID = visitorID(r)
		p.summary.pages++
		if miss {
			p.summary.pages--
			p.summary.misses++
			h.action.Name = "404"
			h.action.PropKeys, h.action.PropValues = []string{"path"}, []string{t.path}
		}
		p.hits = append(p.hits, h)
	}
	return p
}

// visitorID is one for a client and its browser on one day, as Plausible's is.
func visitorID(r request) uint64 {
	sum := fnv.New64a()
	_, _ = fmt.Fprintf(sum, "%s|%s|%s", r.at.Format(time.DateOnly), r.client, r.agent) // a hash takes everything
	return sum.Sum64()
}

// play lets the hits happen and returns how many rows were inserted.
func play(ctx context.Context, t timeline, hits []hit, tracker *visit.Tracker, insert func(context.Context, visit.Rows) error) (inserted int, err error) {
	flush := time.NewTicker(min(visit.FlushInterval, max(t.length()/2, 100*time.Millisecond)))
	defer flush.Stop()
	for len(hits) > 0 {
		select {
		case <-ctx.Done():
			return inserted, nil
		case now := <-flush.C:
			for len(hits) > 0 && t.live(hits[0].at).Before(now) {
				tracker.Record(hits[0].visitor, hits[0].action)
				hits = hits[1:]
			}
			rows := tracker.Take()
			if err := insert(ctx, rows); err != nil {
				return inserted, err
			}
			inserted += rows.Len()
		}
	}
	return inserted, nil
}

// summary says what became of the log's lines.
type summary struct {
	requests, bad int
	pages, misses int
	skipped       map[string]int // by reason
	inserted      int            // rows
}

func (s summary) String() string {
	var text strings.Builder
	line := func(n int, what string) { fmt.Fprintf(&text, "%7d  %s\n", n, what) }
	line(s.requests+s.bad, "lines")
	line(s.pages, "page views")
	line(s.misses, "404s")
	for _, reason := range slices.Sorted(maps.Keys(s.skipped)) {
		line(s.skipped[reason], "skipped: "+reason)
	}
	if s.bad > 0 {
		line(s.bad, "skipped: not in combined format")
	}
	line(s.inserted, "rows inserted, of events and of sessions")
	return text.String()
}
