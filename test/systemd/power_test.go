package systemd

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// reboots: each machine shuts down and boots by its systemd; the cluster, its service and the machine's part in both are
// back by themselves.
func reboots(t *testing.T, c *cluster) {
	for _, name := range c.Names() {
		// A journal in memory would not outlast the machine, and what the shutdown says with it.
		c.on(name, "mkdir -p /var/log/journal && journalctl --flush")
		since, units := c.on(name, "date +%%s"), strings.Fields(c.on(name, enabledUnits))
		began := time.Now()
		c.must(c.Reboot(t.Context(), name))
		booted := time.Since(began)
		c.until(name+"'s units are active", 30*time.Second, func() string {
			out, err := c.try(name, "systemctl is-active $("+enabledUnits+")")
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
		shutDownCleanly(t, name, units, c.on(name, "journalctl --since @%s -q --no-pager -o cat _PID=1", since))
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

const enabledUnits = "systemctl list-unit-files --state=enabled --no-legend 'shoal-*.service' | awk '{ print $1 }'"

// shutDownCleanly: systemd says of each unit that it stopped, and of none that it had to be made to.
func shutDownCleanly(t *testing.T, name string, units []string, journal string) {
	t.Helper()
	if len(units) == 0 {
		t.Errorf("%s: no unit is enabled", name)
	}
	for _, unit := range units {
		if !strings.Contains(journal, "Stopped "+unit) {
			t.Errorf("%s: the journal does not say that %s stopped:\n%s", name, unit, journal)
		}
	}
	unclean := regexp.MustCompile(`(?i)timed out|killing|abort|failed`)
	for line := range strings.Lines(journal) {
		if strings.Contains(line, "shoal-") && unclean.MatchString(line) {
			t.Errorf("%s: the shutdown was not clean: %s", name, line)
		}
	}
}
