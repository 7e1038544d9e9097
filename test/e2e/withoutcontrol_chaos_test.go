//go:build chaos

package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// withoutControl stops every process of the control plane for a while, under load by published ports and by a virtual address from a
// container: no request fails, and afterwards the tasks are the same. The yardstick are the container's answers to
// itself, in which nothing of ours has a part: where they fail or take long, it is the laboratory that stood still.
func (c *cluster) withoutControl(alone time.Duration, caller box) {
	c.t.Helper()
	before := c.tasks("web", true)
	space := c.space(caller.host, caller.pid)
	outside := startLoad(c.t.Context(), published(c.address("m1"), 30101), published(c.address("w1"), 30101), published(c.address("w2"), 30101))
	defer outside.stop()
	inside, yardstick := startEchoes(space, published(c.vip("web"), 8001)), startEchoes(space, published("127.0.0.1", 8001))
	control := []string{"gateway", "scheduler", "dispatcher", "ca", "store"}
	for _, process := range control {
		c.on("m1", "systemctl", "stop", "shoal-"+process)
	}
	<-time.After(alone)
	byPort := outside.take()
	for _, process := range slices.Backward(control) { // all stand on the store
		c.on("m1", "systemctl", "start", "shoal-"+process)
	}
	c.converged("web", len(before), 30*time.Second)
	back := outside.take()
	failed := byPort.failed + back.failed + inside.end() + yardstick.end()
	said := fmt.Sprintf("%s without a control plane: by ports %s (%v); with one again: %s (%v); by the virtual address %s; the yardstick: %s",
		alone, byPort, byPort.example, back, back.example, inside, yardstick)
	if c.t.Log(said); failed > 0 {
		c.t.Error("requests failed")
	}
	c.sameTasks("web", before)
}

// echoes are asked for again and again in a network, one after the other.
type echoes struct {
	stop  atomic.Bool
	ended chan error

	// To be read after the end.
	asked, failed int
	slowest       time.Duration
	first         error
}

func startEchoes(space, address string) *echoes {
	e := &echoes{ended: make(chan error, 1)}
	go func() {
		e.ended <- within(space, func() error {
			tick := time.NewTicker(loadPeriod)
			defer tick.Stop()
			for ; !e.stop.Load(); <-tick.C {
				began := time.Now()
				if err := echo("tcp", address); err != nil {
					e.failed++
					e.first = cmp.Or(e.first, err)
				}
				e.asked++
				e.slowest = max(e.slowest, time.Since(began))
			}
			return nil
		})
	}()
	return e
}

// end is how many have failed.
func (e *echoes) end() int {
	e.stop.Store(true)
	if err := <-e.ended; err != nil {
		e.failed++
		e.first = err
	}
	return e.failed
}

func (e *echoes) String() string {
	return fmt.Sprintf("%d requests, %d failed (%v), the slowest took %s", e.asked, e.failed, e.first, e.slowest.Round(time.Millisecond))
}
