package systemd

import (
	"strings"
	"testing"
	"time"
)

// reboots: each machine shuts down and boots by its systemd; the cluster, its service and the machine's part in both are
// back by themselves.
func reboots(t *testing.T, c *cluster) {
	for _, name := range c.Names() {
		began := time.Now()
		c.must(c.Reboot(t.Context(), name))
		booted := time.Since(began)
		c.until(name+"'s units are active", 30*time.Second, func() string {
			out, err := c.try(name, "systemctl is-active $(systemctl list-unit-files --state=enabled --no-legend 'shoal-*.service' | awk '{ print $1 }')")
			if err != nil || out == "" {
				return out
			}
			return ""
		})
		c.ready(30 * time.Second)
		c.converged("micro", 7, 40*time.Second)
		t.Logf("%s: shut down and booted after %s, everything back after %s", name, booted.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if out := c.on(name, "systemctl --failed --no-legend --plain"); out != "" {
			t.Errorf("%s: failed units after the reboot: %s", name, out)
		}
		if out := c.on(name, "journalctl -b -1 -q --no-pager -u 'shoal-*' -o cat _PID=1 2>/dev/null | grep -iE 'timed out|killing|abort' || true"); out != "" {
			t.Errorf("%s: the shutdown was not clean: %s", name, out)
		}
	}
	c.answeredByAll(7)
	// A reboot moves tasks to the machines that are up: put some on each again, for what follows.
	c.shoal("service scale micro=1")
	c.converged("micro", 1, 30*time.Second)
	c.shoal("service scale micro=7")
	c.converged("micro", 7, 30*time.Second)
	c.answeredByAll(7)
	if by := c.spread("micro"); len(by) != 3 {
		t.Errorf("tasks on %s alone", strings.Join(c.Names(), ", "))
	}
}
