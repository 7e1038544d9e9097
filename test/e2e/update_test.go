package e2e

import (
	"testing"
	"time"
)

// A rolling update under load: whatever the order, no request fails, since no machine sends a new connection to a task
// that is about to stop, or to one that does not serve yet. Nor does one on a connection that is kept open: the server says that it
// closes, and has time to.
func TestRollingUpdateLosesNoRequest(t *testing.T) {
	c := bring(t, 1, 2)
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "7", "--env", "DRAIN_MS=300", c.image("1.0.0"))
	settle(t, c, 30000, 7)
	for _, to := range []struct{ order, tag string }{{"start-first", "1.1.0"}, {"stop-first", "1.0.0"}} {
		t.Run(to.order, func(t *testing.T) {
			c := c.with(t)
			doors := []string{published(c.address("m1"), 30000), published(c.address("w1"), 30000), published(c.address("w2"), 30000)}
			l, kept := startLoad(t.Context(), doors...), startKept(t.Context(), doors...)
			began := time.Now()
			c.shoal("service", "update", "--image", c.image(to.tag), "--update-parallelism", "2", "--update-order", to.order, "micro")
			took := time.Since(began)
			l.stop()
			kept.stop()
			got, open := l.take(), kept.take()
			t.Logf("%s update of 7 replicas, two at a time: %s; %s; on connections kept open: %s", to.order, took.Round(10*time.Millisecond), got, open)
			if got.failed+open.failed > 0 {
				t.Errorf("failed; the last: %v, %v", got.example, open.example)
			}
			for range 21 {
				if a, err := ask(t.Context(), published(c.address("w1"), 30000)); err != nil || a.version != to.tag {
					t.Errorf("after the update: %+v, %v; want version %s", a, err, to.tag)
				}
			}
		})
	}
}
