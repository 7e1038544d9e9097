//go:build chaos

package e2e

import (
	"fmt"
	"strings"
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
	create("--detach", "--name", "crash", "--replicas", fmt.Sprint(n), c.image("crash"))
	began, ended := time.Now(), 0
	// Each look is a list of all of them: a second apart, and one that is not answered in time is no fault of theirs.
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for time.Since(began) < lasts || ended < n {
		<-look.C
		if time.Since(began) > 10*time.Minute {
			t.Fatalf("%d of %d have ended", ended, n)
		}
		if time.Since(began) > lasts {
			out, _, _ := c.try("m1", "shoal", "service", "ps", "--no-trunc", "--format", "{{.CurrentState}}", "crash")
			ended = strings.Count(out, "Failed")
		}
	}
	t.Logf("%d of %d in %s; the others: %s", ended, n, time.Since(began).Round(time.Second), l.take())
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
