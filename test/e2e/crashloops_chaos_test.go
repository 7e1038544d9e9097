//go:build chaos

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// Tasks of one machine that end as soon as they are started, again and again, leave the others alone: those beside them are not touched
// and answer, another service comes up there, and with the last of them all that they had is gone.
func TestTwoHundredCrashLoops(t *testing.T) { crashLoops(t, 200) }

func TestThousandCrashLoops(t *testing.T) { crashLoops(t, 1000) }

func crashLoops(t *testing.T, n int) {
	const lasts = 30 * time.Second
	c := bring(t, 1, 1)
	on := []string{"--constraint", "node.hostname==w1"}
	create := func(args ...string) { c.shoal(append(append([]string{"service", "create"}, on...), args...)...) }
	create("--name", "steady", "-p", "8000", "--replicas", "3", c.image("1.0.0"))
	settle(t, c, 30000, 3)
	before := starts(c, "w1")
	l := startLoad(t.Context(), published(c.address("m1"), 30000))
	defer l.stop()
	create("--detach", "--name", "crash", "--restart-delay", "1s", "--replicas", fmt.Sprint(n), c.image("crash"))
	began := time.Now()
	until(t, "they crash and crash", 5*time.Minute, func() string {
		if time.Since(began) < lasts {
			return "not for long enough"
		}
		if ended := len(c.ended("crash", "Failed")); ended < n {
			return fmt.Sprintf("%d have ended", ended)
		}
		return ""
	})
	t.Logf("%d of %d in %s; the others: %s", len(c.ended("crash", "Failed")), n, time.Since(began).Round(time.Second), l.take())
	create("--detach", "--name", "beside", c.image("1.0.0"))
	t.Logf("another service beside them: %s", c.converged("beside", 1, 2*time.Minute).Round(time.Millisecond))
	c.shoal("service", "rm", "beside")
	c.shoal("service", "rm", "crash")
	took := c.holds("w1", 3, "without them")
	t.Logf("gone after %s", took.Round(time.Millisecond))
	if now := starts(c, "w1"); now != before {
		t.Errorf("containers beside them: %s, were %s", now, before)
	}
}
