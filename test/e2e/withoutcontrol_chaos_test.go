//go:build chaos

package e2e

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// withoutControl stops every process of the control plane for a while, under load by published ports and by a virtual address from a
// container: no request fails, and afterwards the tasks are the same.
func (c *cluster) withoutControl(alone time.Duration, caller box) {
	c.t.Helper()
	before := c.tasks("web", true)
	space, vip := c.space(caller.host, caller.pid), c.vip("web")
	outside := startLoad(c.t.Context(), published(c.address("m1"), 30101), published(c.address("w1"), 30101), published(c.address("w2"), 30101))
	defer outside.stop()
	var asked, failed atomic.Int64
	var end, ended = make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- within(space, func() (first error) {
			for tick := time.NewTicker(loadPeriod); ; {
				select {
				case <-end:
					tick.Stop()
					return first
				case <-tick.C:
				}
				asked.Add(1)
				if err := echo("tcp", published(vip, 8001)); err != nil {
					failed.Add(1)
					first = cmp.Or(first, err)
				}
			}
		})
	}()
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
	close(end)
	if err := <-ended; err != nil || failed.Load() > 0 || byPort.failed+back.failed > 0 {
		c.t.Errorf("without a control plane: by ports %s (%v); with one again: %s (%v); by the virtual address %d failed of %d (%v)",
			byPort, byPort.example, back, back.example, failed.Load(), asked.Load(), err)
	}
	c.t.Logf("%s without a control plane: by ports %s; with one again: %s; by the virtual address %d, %d failed", alone, byPort, back, asked.Load(), failed.Load())
	c.sameTasks("web", before)
}
