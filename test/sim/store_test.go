package sim_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/test/sim"
)

// A store with a slow disk learns late of what it has written itself: it must wait for that, and not write it again and
// again, each time putting itself further behind.
func TestStoreThatLagsAnnouncesItselfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := sim.Standard(1)
		c := sim.New(t, 11, sim.Plan{plan[0], plan[1], plan[3]})
		c.W.Net.Delay(nil, nil, time.Millisecond, 0) // a write takes some time, or a loop of them would stop the clock
		audit := sim.NewAudit(c, nobody)
		time.Sleep(time.Second)
		slow := c.Add(plan[2])
		slow.Raft.SetDelay(300 * time.Millisecond)
		before := audit.Snapshot().Version().Revision
		if err := c.Join(slow, c.ManagerToken()); err != nil {
			t.Fatal(err)
		}
		c.Until("the slow store is a manager", 30*time.Second, func() string { return c.Operator.Manager(slow.ID) })
		time.Sleep(5 * time.Second)
		// Five leases are renewed about three times in two seconds.
		if n := audit.Snapshot().Version().Revision - before; n > 100 {
			t.Errorf("%d revisions while a slow store joined, want 100 at most", n)
		}
		audit.Report(sim.Hits{})
	})
}
