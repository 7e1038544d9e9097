package e2e

import (
	"strings"
	"testing"
	"time"
)

// leader is the host whose store leads.
func (c *cluster) leader(through string) string {
	c.t.Helper()
	stdout, _, code := c.try(through, "shoal", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
	if code != 0 {
		return ""
	}
	for line := range strings.Lines(stdout) {
		if name, status, _ := strings.Cut(strings.TrimSpace(line), " "); status == "Leader" {
			return name
		}
	}
	return ""
}

// With three managers the leader's machine is switched off: another leads, writes go on, no container elsewhere is
// touched. Switched on again, it follows.
func TestLeaderLost(t *testing.T) {
	c := bring(t, 3, 1)
	until(t, "three voters", 30*time.Second, func() string {
		out := c.shoal("node", "ls", "--format", "{{.ManagerStatus}}")
		if strings.Count(out, "Reachable") != 2 || strings.Count(out, "Leader") != 1 {
			return out
		}
		return ""
	})
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "4", c.image("1.0.0"))
	lost := c.leader("m1")
	other := "m2"
	if lost == "m2" {
		other = "m3"
	}
	// The operator's context is on m1; another manager's gateway is asked with a copy of it.
	context := c.on("m1", "sh", "-c", "cd /root/.config/shoal && tar c . | base64 -w0")
	c.on(other, "sh", "-c", "mkdir -p /root/.config/shoal && echo "+context+" | base64 -d | tar x -C /root/.config/shoal")
	before := containers(c, other)

	c.must(c.lab.PowerOff(t.Context(), lost))
	began := time.Now()
	until(t, "a write is taken", 15*time.Second, func() string {
		_, stderr, code := c.try(other, "shoal", "network", "create", "-d", "overlay", "after-the-loss")
		if code != 0 && !strings.Contains(stderr, "after-the-loss") {
			return stderr
		}
		return ""
	})
	t.Logf("leader's machine off: a write is taken again after %s (aim 3 s; Docker Swarm 5.2 s)", time.Since(began).Round(10*time.Millisecond))
	if got := containers(c, other); got != before {
		t.Errorf("containers on %s changed: %s, were %s", other, got, before)
	}
	until(t, "the lost machine's tasks run elsewhere", 30*time.Second, func() string {
		out, _, _ := c.try(other, "shoal", "service", "ls", "--format", "{{.Replicas}}")
		if strings.TrimSpace(out) != "4/4" {
			return out
		}
		return ""
	})
	c.must(c.lab.PowerOn(t.Context(), lost))
	until(t, "the machine follows", 30*time.Second, func() string {
		out, stderr, _ := c.try(other, "shoal", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		if !strings.Contains(out, lost+" Ready Reachable") {
			return out + stderr
		}
		return ""
	})
}

func containers(c *cluster, host string) string {
	c.t.Helper()
	return strings.Join(strings.Fields(c.on(host, "ctr", "-n", "shoal", "containers", "ls", "-q")), " ")
}
