package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// loggers kills every logger, and not the shell that looks for them of a host's containers.
const loggers = `for p in /proc/[0-9]*; do
	if tr '\0' ' ' < "$p/cmdline" 2>/dev/null | grep -q ' [l]ogger /var/lib/shoal/'; then kill -9 "${p#/proc/}"; fi
done; true`

// Under load the agent is deprived of what it stands on: its loggers, its runtime, its journal, which is lost, or damaged, and
// all of it at once. No container is started again, what each writes is kept on, and the cluster is whole again each time.
func TestFaultsOfAMachine(t *testing.T) {
	c := bring(t, 1, 1)
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "3", "--constraint", "node.hostname==w1", c.image("1.0.0"))
	c.shoal("service", "create", "--name", "ticker", "--replicas", "2", "--constraint", "node.hostname==w1", c.image("1.0.0"), "-tick", "20ms")
	c.converged("micro", 3, 30*time.Second)
	c.converged("ticker", 2, 30*time.Second)
	settle(t, c, 30000, 3)
	before := starts(c, "w1")
	l := startLoad(t.Context(), published(c.address("m1"), 30000))
	defer l.stop()
	journal := "/var/lib/shoal/agent/journal.db"
	// The first agents that open a journal so damaged die of it: the init starts them again.
	for _, f := range []struct{ what, script string }{
		{"loggers killed", loggers},
		{"loggers killed again", loggers},
		{"journal lost", "systemctl stop shoal-agent; rm " + journal + "; systemctl start shoal-agent"},
		{"journal damaged", "systemctl stop shoal-agent; dd if=/dev/urandom of=" + journal + " bs=4096 seek=2 count=4 conv=notrunc 2>/dev/null; systemctl start shoal-agent; true"},
	} {
		l.take()
		c.on("w1", "sh", "-c", f.script)
		c.sound(f.what, before)
		t.Logf("%-21s %s", f.what+":", l.take())
	}
	for _, process := range []string{"containerd", "shoal-agent"} {
		c.must(c.lab.Kill(t.Context(), "w1", process))
	}
	c.sound("agent and runtime killed", before)
	t.Logf("%-21s %s", "agent and runtime:", l.take())

	// One container is taken away by hand: it is replaced, and it alone.
	gone, _, _ := strings.Cut(strings.Fields(before)[0], "@")
	c.on("w1", "sh", "-c", fmt.Sprintf("ctr -n shoal task kill -s 9 %[1]s; ctr -n shoal task rm %[1]s; ctr -n shoal container rm %[1]s; true", gone))
	until(t, "it is replaced", 20*time.Second, func() string {
		now := strings.Fields(starts(c, "w1"))
		for _, one := range strings.Fields(before) {
			if slices.Contains(now, one) == strings.HasPrefix(one, gone) {
				return fmt.Sprintf("%v, were %s", now, before)
			}
		}
		if len(now) != 5 {
			return fmt.Sprint(now)
		}
		return ""
	})
}

// sound waits until the cluster is whole and what both tickers write is kept, and wants no container to have been started again.
func (c *cluster) sound(what, before string) {
	c.t.Helper()
	written := func() []string {
		return strings.Fields(c.on("w1", "sh", "-c", "for d in /var/lib/shoal/agent/logs/*/; do cat $d*.log | wc -l; done"))
	}
	until(c.t, what+": the agent runs", 30*time.Second, func() string {
		if out, _, _ := c.try("w1", "systemctl", "is-active", "shoal-agent"); strings.TrimSpace(out) != "active" {
			return out
		}
		return ""
	})
	c.converged("micro", 3, 30*time.Second)
	c.converged("ticker", 2, 30*time.Second)
	was := written()
	until(c.t, what+": what is written is kept", 20*time.Second, func() string {
		more := 0
		now := written()
		for i := range now {
			if i < len(was) && now[i] != was[i] {
				more++
			}
		}
		if more < 2 {
			return fmt.Sprint(now, was)
		}
		return ""
	})
	until(c.t, what+": the machine is ready", 20*time.Second, func() string {
		if state := c.nodes()["w1"]; state != "Ready" {
			return state
		}
		return ""
	})
	if now := starts(c, "w1"); now != before {
		c.t.Errorf("%s: containers %s, were %s", what, now, before)
	}
}
