package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// dataOf is the file that a slot's task finds in its volume, read from inside its container.
func (c *cluster) dataOf(row taskRow) string {
	c.t.Helper()
	pid := strings.TrimSpace(c.shoal("task", "inspect", "-f", "{{.Status.ContainerStatus.PID}}", row.ID))
	out, _, _ := c.try(row.Node, "cat", "/proc/"+pid+"/root/data/slot")
	return strings.TrimSpace(out)
}

// ownData wants each slot's task to find what its slot has written, on the node where it did.
func (c *cluster) ownData(when string, homes map[string]string) {
	c.t.Helper()
	rows := c.tasks("db", true)
	for _, row := range rows {
		if got := c.dataOf(row); got != row.Name || homes[row.Name] != row.Node {
			c.t.Errorf("%s: %s on %s finds %q; its volume is on %s", when, row.Name, row.Node, got, homes[row.Name])
		}
	}
	if len(rows) != 3 {
		c.t.Errorf("%s: %d tasks", when, len(rows))
	}
}

// Each slot of a service with volumes of its own finds its own data again: after its container was killed, after it was scaled away
// and back, and after its machine was off, for which it waits. `volume ls` tells where all are.
func TestSlotVolumes(t *testing.T) {
	c := bring(t, 1, 2)
	c.shoal("service", "create", "--name", "db", "--replicas", "3", "--restart-delay", "100ms",
		"--mount", "source=data,target=/data,scope=slot", c.image("1.0.0"))
	c.converged("db", 3, 30*time.Second)
	homes := map[string]string{}
	for _, row := range c.tasks("db", true) {
		homes[row.Name] = row.Node
		c.on("m1", "sh", "-c", fmt.Sprintf("echo %s >/tmp/slot && shoal cp /tmp/slot %s:/data/slot && rm /tmp/slot", row.Name, row.Name))
	}
	c.ownData("at first", homes)
	list := c.shoal("volume", "ls", "--format", "{{.Name}} {{.Node}} {{.UsedBy}} {{.Status}}.")
	for name, node := range homes {
		if want := fmt.Sprintf("%s.data %s %s .", name, node, name); !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	c.refused([]string{"in use by task db.2"}, "volume", "rm", "--force", "db.2.data")

	victim := c.tasks("db", true)[1]
	pid := strings.TrimSpace(c.shoal("task", "inspect", "-f", "{{.Status.ContainerStatus.PID}}", victim.ID))
	c.on(victim.Node, "kill", "-9", pid)
	until(t, "it is replaced", 20*time.Second, func() string {
		if rows := c.tasks("db", true); len(rows) != 3 || rows[1].ID == victim.ID {
			return fmt.Sprint(rows)
		}
		return ""
	})
	c.ownData("after a kill", homes)

	c.shoal("service", "scale", "db=1")
	c.converged("db", 1, 30*time.Second)
	c.shoal("service", "scale", "db=3")
	c.converged("db", 3, 30*time.Second)
	c.ownData("scaled down and up", homes)

	var off, lost string
	for name, node := range homes {
		if node == "w2" {
			off, lost = node, name
		}
	}
	before := c.tasks("db", true)
	c.must(c.lab.PowerOff(t.Context(), off))
	until(t, "its slot says why it waits", 20*time.Second, func() string {
		out := c.shoal("service", "ps", "--no-trunc", "db")
		if strings.Contains(out, "its volume "+lost+".data is on "+off+", which is down") {
			return ""
		}
		return out
	})
	_, stderr, _ := c.try("m1", "shoal", "volume", "ls")
	if !strings.Contains(stderr, off+" can't be asked") {
		t.Errorf("volume ls while %s is off: %s", off, stderr)
	}
	c.must(c.lab.PowerOn(t.Context(), off))
	until(t, "its container, which died with it, is replaced", 60*time.Second, func() string {
		rows := c.tasks("db", true)
		for i, row := range rows {
			if row.Name == lost && len(rows) == len(before) && row.ID != before[i].ID {
				return ""
			}
		}
		return fmt.Sprint(rows)
	})
	c.converged("db", 3, 60*time.Second)
	c.ownData("after the power cut", homes)

	c.shoal("service", "rm", "db")
	until(t, "what nobody will ask for again is removed", 30*time.Second, func() string {
		c.try("m1", "shoal", "volume", "prune", "--force")
		return c.shoal("volume", "ls", "-q")
	})
	for _, host := range []string{"m1", "w1", "w2"} {
		if left := c.on(host, "sh", "-c", "ls -A /var/lib/shoal/agent/volumes/named"); left != "" {
			t.Errorf("left on %s: %s", host, left)
		}
	}
}
