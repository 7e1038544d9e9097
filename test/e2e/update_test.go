package e2e

import (
	"fmt"
	"testing"
	"time"
)

// A service is changed under load, by ports that the kernel carries and by those that the meshproxy does. Whatever the change, no request
// fails, since no machine sends a new connection to a task that is about to stop, or to one that does not serve yet. Nor does one on a
// connection that is kept open: the server says that it closes, and has time to.
func TestRollingUpdateLosesNoRequest(t *testing.T) {
	c := bring(t, 1, 2)
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "-p", "published=30001,target=8000,dataplane=userspace", "--replicas", "7",
		"--env", "DRAIN_MS=300", c.image("1.0.0"))
	settle(t, c, 30000, 7)
	settle(t, c, 30001, 7)
	updated := func(order, tag string) func(t *testing.T, c *cluster) {
		return func(t *testing.T, c *cluster) {
			c.underAllLoads(func() {
				c.shoal("service", "update", "--image", c.image(tag), "--update-parallelism", "2", "--update-order", order, "micro")
			})
			for range 21 {
				if a, err := ask(t.Context(), published(c.address("w1"), 30000)); err != nil || a.version != tag {
					t.Errorf("after the update: %+v, %v; want version %s", a, err, tag)
				}
			}
		}
	}
	c.tell([]step{
		{"start-first", updated("start-first", "1.1.0")},
		{"stop-first", updated("stop-first", "1.0.0")},
		{"drain", func(_ *testing.T, c *cluster) {
			c.underAllLoads(func() {
				c.shoal("node", "update", "--availability", "drain", "w1")
				until(c.t, "w1 is empty, and the others have seven tasks", 30*time.Second, func() string {
					if by := c.spread("micro"); by["w1"] > 0 || by["m1"]+by["w2"] != 7 {
						return fmt.Sprint(by)
					}
					return ""
				})
				c.converged("micro", 7, 30*time.Second)
			})
			c.shoal("node", "update", "--availability", "active", "w1")
		}},
		{"rebalance", func(t *testing.T, c *cluster) {
			c.underAllLoads(func() { c.shoal("service", "rebalance", "micro") })
			if by := c.spread("micro"); by["w1"] < 2 {
				t.Errorf("after it the tasks are on %v", by)
			}
		}},
		{"scale", func(_ *testing.T, c *cluster) {
			c.underAllLoads(func() {
				c.shoal("service", "scale", "micro=2")
				c.shoal("service", "scale", "micro=20")
				c.shoal("service", "scale", "micro=2")
			})
		}},
	})
}

// underAllLoads does something while micro is asked on every machine by both of its ports, by new connections and by such as are kept
// open, and wants no request to fail.
func (c *cluster) underAllLoads(do func()) {
	c.t.Helper()
	var doors, carried []string
	for _, host := range []string{"m1", "w1", "w2"} {
		doors, carried = append(doors, published(c.address(host), 30000)), append(carried, published(c.address(host), 30001))
	}
	ctx := c.t.Context()
	loads := []struct {
		by string
		*load
	}{
		{"the kernel", startLoad(ctx, doors...)}, {"the kernel, kept open", startKept(ctx, doors...)},
		{"the meshproxy", startLoad(ctx, carried...)}, {"the meshproxy, kept open", startKept(ctx, carried...)},
	}
	began := time.Now()
	do()
	took := time.Since(began)
	for _, l := range loads {
		l.stop()
		got := l.take()
		c.t.Logf("%s by %s: %s", took.Round(10*time.Millisecond), l.by, got)
		if got.failed > 0 {
			c.t.Errorf("failed by %s; the last: %v", l.by, got.example)
		}
	}
}
