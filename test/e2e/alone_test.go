//go:build chaos

package e2e

import (
	"strings"
	"testing"
	"time"
)

// Without a dispatcher a container that fails runs again by itself, as a further attempt of its task; when one is back the
// task is the same, with that attempt, and nothing was started in its place.
func TestContainersRunAgainWithoutDispatchers(t *testing.T) {
	c := bring(t, 1, 1)
	c.shoal("service", "create", "--name", "micro", "--replicas", "2", "--restart-delay", "1s", "--constraint", "node.hostname==w1", c.image("1.0.0"))
	c.converged("micro", 2, 30*time.Second)
	before := strings.Fields(starts(c, "w1"))
	c.on("m1", "systemctl", "stop", "shoal-dispatcher")
	id, _, _ := strings.Cut(before[0], "@")
	c.on("w1", "ctr", "-n", "shoal", "task", "kill", "-s", "SIGKILL", id)
	again := strings.TrimSuffix(id, ".0") + ".1@"
	took := until(t, "it runs again", time.Minute, func() string {
		if now := starts(c, "w1"); !strings.Contains(now, again) {
			return now
		}
		return ""
	})
	if took < 20*time.Second {
		t.Errorf("it ran again after %s: the machine was not alone for long", took)
	}
	alone := starts(c, "w1")
	c.on("m1", "systemctl", "start", "shoal-dispatcher")
	c.converged("micro", 2, 30*time.Second)
	until(t, "the attempt is reported", 20*time.Second, func() string {
		out, stderr, code := c.try("m1", "shoal", "task", "inspect", strings.TrimSuffix(id, ".0"))
		if code != 0 || !strings.Contains(out, strings.TrimSuffix(again, "@")) {
			return out + stderr
		}
		return ""
	})
	if now := starts(c, "w1"); now != alone {
		t.Errorf("after the return: %s, were %s", now, alone)
	}
}
