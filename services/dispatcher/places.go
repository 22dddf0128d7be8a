package dispatcher

import (
	"context"
	"sync/atomic"
	"time"
)

// places is a bounded number of something, taken and given back.
type places struct{ free chan struct{} }

func newPlaces(n int) *places {
	p := &places{free: make(chan struct{}, n)}
	p.give(n)
	return p
}

// take waits for one place; false means that ctx ended.
func (p *places) take(ctx context.Context) bool {
	select {
	case <-p.free:
		return true
	default:
	}
	select {
	case <-p.free:
		return true
	case <-ctx.Done():
		return false
	}
}

// takeAll waits for so many places at least and takes all that are free by then. 0 means that ctx ended.
func (p *places) takeAll(ctx context.Context, least int) int {
	n := 0
	for ; n < least; n++ {
		if !p.take(ctx) {
			p.give(n)
			return 0
		}
	}
	for {
		select {
		case <-p.free:
			n++
		default:
			return n
		}
	}
}

func (p *places) give(n int) {
	for range n {
		p.free <- struct{}{}
	}
}

// taken is how many are in use.
func (p *places) taken() int { return cap(p.free) - len(p.free) }

// clock remembers when something happened last.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now()               { c.nanos.Store(time.Now().UnixNano()) }
func (c *clock) ago() time.Duration { return time.Duration(time.Now().UnixNano() - c.nanos.Load()) }
