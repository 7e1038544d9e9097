package e2e

import (
	"strings"
	"testing"
	"time"
)

// Under load through two machines, each process on each machine is killed in turn: no container is lost, no request fails, neither by a
// new connection nor by one that is kept open, and the cluster heals within 10 s. What a meshproxy carries itself ends with it alone.
func TestEveryProcessKilled(t *testing.T) {
	everyProcess(t, "killed", func(c *cluster, host, process string) { c.must(c.lab.Kill(t.Context(), host, process)) })
}

// everyProcess ends each process on each machine in some way, after which it is started again.
func everyProcess(t *testing.T, ended string, end func(c *cluster, host, process string)) {
	c := bring(t, 1, 2)
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "-p", "published=30001,target=8000,dataplane=userspace", "--replicas", "7", c.image("1.0.0"))
	c.converged("micro", 7, 30*time.Second)
	settle(t, c, 30000, 7)
	settle(t, c, 30001, 7)
	hosts := []string{"m1", "w1", "w2"}
	before := map[string]string{}
	for _, h := range hosts {
		before[h] = starts(c, h)
		t.Logf("%s: containers and their start times: %s", h, before[h])
	}
	doors := []string{published(c.address("w1"), 30000), published(c.address("w2"), 30000)}
	carried := []string{published(c.address("w1"), 30001), published(c.address("w2"), 30001)}
	loads := []*load{startLoad(t.Context(), doors...), startKept(t.Context(), doors...), startKept(t.Context(), carried...)}
	for _, l := range loads {
		defer l.stop()
	}
	status, err := c.lab.Status(t.Context())
	c.must(err)
	for _, h := range status.Hosts {
		for _, p := range h.Processes {
			if p.Name == "containerd" {
				continue
			}
			c.endured(loads, h.Name, p.Name, ended, func() { end(c, h.Name, p.Name) })
		}
	}
	for _, h := range hosts {
		if got := starts(c, h); got != before[h] {
			t.Errorf("containers on %s: %s, were %s", h, got, before[h])
		}
	}
}

// starts lists the running containers of a host, each with the start of its process in clock ticks since boot (proc(5),
// field 22): an id alone would not tell a container that was started again.
func starts(c *cluster, host string) string {
	c.t.Helper()
	const script = `ctr -n shoal task ls | awk 'NR > 1 { print $1, $2 }' | sort |
		while read -r id pid; do echo "$id@$(cut -d' ' -f22 "/proc/$pid/stat")"; done`
	return strings.Join(strings.Fields(c.on(host, "sh", "-c", script)), " ")
}

const healing = 10 * time.Second

// endured ends one process and waits until the cluster is whole again. Loads are by new connections, by such as are kept open, and by such
// that meshproxies carry.
func (c *cluster) endured(loads []*load, host, process, ended string, end func()) {
	c.t.Helper()
	pid, err := c.lab.PID(c.t.Context(), host, process)
	c.must(err)
	end()
	took := until(c.t, host+" "+process+" is back", healing, func() string {
		next, err := c.lab.PID(c.t.Context(), host, process)
		switch {
		case err != nil:
			return err.Error()
		case next == pid || next == 0:
			return "not running"
		}
		stdout, stderr, code := c.try("m1", "shoal", "service", "ls", "--format", "{{.Replicas}}")
		if code != 0 || stdout != "7/7\n" {
			return stdout + stderr
		}
		for name, state := range c.nodes() {
			if state != "Ready" {
				return name + " is " + state
			}
		}
		return ""
	})
	meshproxy := process == "shoal-meshproxy"
	if meshproxy {
		until(c.t, host+" carries again", 5*time.Second, func() string {
			_, err := ask(c.t.Context(), published(c.address(host), 30001))
			return words(err)
		})
	}
	got, open, carried := loads[0].take(), loads[1].take(), loads[2].take()
	c.t.Logf("%s %-17s %s: whole again after %6s; %s; on connections kept open: %s; by the meshproxy: %s", host, process, ended, took.Round(time.Millisecond), got, open, carried)
	if got.failed+open.failed > 0 || carried.failed > 0 && !meshproxy {
		c.t.Errorf("failed; the last: %v, %v, %v", got.example, open.example, carried.example)
	}
}

// Restarting every agent changes no container.
func TestAgentRestartsTouchNothing(t *testing.T) {
	c := bring(t, 1, 1)
	c.shoal("service", "create", "--name", "micro", "--replicas", "4", c.image("1.0.0"))
	before := containers(c, "m1") + "|" + containers(c, "w1")
	for _, h := range []string{"m1", "w1"} {
		c.on(h, "systemctl", "restart", "shoal-agent")
	}
	c.converged("micro", 4, 20*time.Second)
	if after := containers(c, "m1") + "|" + containers(c, "w1"); after != before {
		t.Errorf("containers changed: %s, were %s", after, before)
	}
}
