package dispatcher

import "sync"

// crew runs jobs, each at once, on goroutines that are used again: a grown stack is worth
// keeping when jobs are short and many. Whoever hands out jobs bounds their number.
type crew struct {
	jobs    chan func()
	workers sync.WaitGroup
}

func newCrew() *crew { return &crew{jobs: make(chan func())} }

// do starts the job on an idle worker, or on a new one.
func (c *crew) do(job func()) {
	select {
	case c.jobs <- job:
	default:
		c.workers.Go(func() {
			job()
			for job := range c.jobs {
				job()
			}
		})
	}
}

// wait returns when all jobs have ended and the workers are gone. No job may follow.
func (c *crew) wait() {
	close(c.jobs)
	c.workers.Wait()
}
