package raftnode

import (
	"sync"
	"time"
)

// clock is cluster time. A leader starts it from its own clock or from the highest time that it has seen, whichever is
// later, and from then on it only counts: a wrong or corrected wall clock neither turns it back nor makes it jump.
type clock struct {
	now func() time.Time

	mu    sync.Mutex // guards all below
	seen  time.Time  // highest so far, of anybody
	base  time.Time  // at since, while this member leads
	since time.Time  // for durations only
	leads bool
}

// see notes a time of the log or of a leader.
func (c *clock) see(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.seen) {
		c.seen = t
	}
}

func (c *clock) lead() {
	wall := c.now().Round(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leads, c.base, c.since = true, wall, time.Now()
	if c.seen.After(wall) {
		c.base = c.seen
	}
}

func (c *clock) follow() {
	c.time()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leads = false
}

// time is cluster time now: the leader's own, or the highest that a follower has seen.
func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leads {
		if t := c.base.Add(time.Since(c.since)); t.After(c.seen) {
			c.seen = t
		}
	}
	return c.seen
}
