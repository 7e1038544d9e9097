//go:build chaos

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Tasks of one machine that end as soon as they are started, again and again, leave the others alone: those beside them are not touched
// and answer, another service comes up there, and with the last of them all that they had is gone. The machine has as many blocks of
// addresses as that takes, and no two that may run have one address.
func TestTwoHundredCrashLoops(t *testing.T) { crashLoops(t, 200) }

func TestThousandCrashLoops(t *testing.T) { crashLoops(t, 1000) }

func crashLoops(t *testing.T, n int) {
	const lasts = 30 * time.Second
	c := bring(t, 1, 1).watched("m1")
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
	c.addressed("crash", "w1", n)
	create("--detach", "--name", "beside", c.image("1.0.0"))
	t.Logf("another service beside them: %s", c.converged("beside", 1, 2*time.Minute).Round(time.Millisecond))
	c.shoal("service", "rm", "beside")
	c.shoal("service", "rm", "crash")
	took := c.holds("w1", 3, "without them", 30*time.Second+time.Duration(n)*100*time.Millisecond) // containerd has a process for each
	t.Logf("gone after %s", took.Round(time.Millisecond))
	if now := starts(c, "w1"); now != before {
		t.Errorf("containers beside them: %s, were %s", now, before)
	}
}

// addressed checks what the tasks of a service have of a machine's addresses.
func (c *cluster) addressed(service, host string, n int) {
	c.t.Helper()
	const inBlock = 254
	s := c.witness.last()
	blocks := 0
	for _, b := range nodeNamed(s, host).GetBlocks() {
		if strings.HasSuffix(b, "/24") {
			blocks++
		}
	}
	holders := map[string]string{}
	for _, task := range tasksOf(s, service, true) {
		for _, a := range task.GetDecided().GetAddresses() {
			for _, address := range a.GetAddresses() {
				if other := holders[address]; other != "" {
					c.t.Errorf("%s and %s have the address %s", task.GetMeta().GetId(), other, address)
				}
				holders[address] = task.GetMeta().GetId()
			}
		}
	}
	if blocks*inBlock < n || len(holders) < n {
		c.t.Errorf("%s has %d blocks, and tasks hold %d addresses, for %d tasks", host, blocks, len(holders), n)
	}
	c.t.Logf("%d blocks, %d addresses", blocks, len(holders))
}
