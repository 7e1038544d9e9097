package systemd

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// purge: on a machine that has left, removing the packages leaves nothing; on one that has not, containers run on, and the
// packages say what stays and how to remove it.
func purge(t *testing.T, c *cluster) {
	const purgeAll = "DEBIAN_FRONTEND=noninteractive apt-get purge -y 'shoal*'"
	t.Run("after leave", func(t *testing.T) {
		c := c.with(t)
		c.on("w1", "shoal leave")
		c.on("w1", purgeAll)
		if left := c.leftovers("w1"); left != "" {
			t.Errorf("left on w1 after leave and purge:\n%s", left)
		}
	})
	t.Run("without leave", func(t *testing.T) {
		c := c.with(t)
		c.converged("micro", 8, 30*time.Second) // what ran on w1 has moved
		before := c.startedOn("w2")
		if len(before) == 0 {
			t.Fatal("a container on w2 is what this test stands on")
		}
		said := c.on("w2", purgeAll)
		if diff := cmp.Diff(before, c.startedOn("w2")); diff != "" {
			t.Errorf("containers before and after purge:\n%s", diff)
		}
		for _, want := range []string{"/var/lib/shoal/agent", "/etc/shoal", "rm -r", "shoal leave --force"} {
			if !strings.Contains(said, want) {
				t.Errorf("purge does not tell about %q: %s", want, said)
			}
		}
		if out := c.on("w2", "ls /usr/bin/shoal* /lib/systemd/system/shoal* 2>/dev/null || true"); out != "" {
			t.Errorf("purge left files of the packages: %s", out)
		}
		// What it says works: installed again, the machine takes itself out, and then nothing is left.
		c.on("w2", install+"shoal-node && shoal leave --force && "+purgeAll)
		c.until("no container is left on w2", 20*time.Second, func() string { return c.on("w2", "ctr -n shoal task ls -q") })
		if left := c.leftovers("w2"); left != "" {
			t.Errorf("left on w2 after leave --force and purge:\n%s", left)
		}
	})
}

// leftovers lists what is ours on a machine.
func (c *cluster) leftovers(name string) string {
	c.t.Helper()
	const script = `
ls -d /etc/shoal /var/lib/shoal/* /run/shoal/* /etc/systemd/system/*/shoal* /usr/bin/shoal* /lib/systemd/system/shoal* \
	/usr/lib/sysusers.d/shoal* /usr/lib/tmpfiles.d/shoal* /usr/share/bash-completion/completions/shoal 2>/dev/null
ctr -n shoal containers ls -q
ip -br link | grep -o '^shoal[^ ]*'
if command -v nft >/dev/null; then nft list tables | grep shoal; fi
ip rule | grep -v 'lookup \(local\|main\|default\)'
systemctl list-units --all --no-legend 'shoal*'
ps -eo args | grep -v grep | grep '^/usr/bin/shoal'
dpkg -l 'shoal*' 2>/dev/null | grep '^[a-z][a-z] *shoal' | grep -v '^un'
true`
	return c.on(name, "%s", script)
}
