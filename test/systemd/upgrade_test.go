package systemd

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// upgrade: apt replaces the packages of one machine after the other while requests go on. No container is restarted, and
// what ran before runs in the new version.
func upgrade(t *testing.T, c *cluster) {
	before := c.started()
	if len(before) != 7 {
		t.Fatalf("seven containers are what this test stands on: %v", before)
	}
	c.must(c.publish(t.Context(), os.Getenv(nextPackages)))
	requests := c.startLoad(c.Names()...)
	for _, name := range []string{"m1", "w1", "w2"} {
		began := time.Now()
		said := c.on(name, "%s $(dpkg-query -Wf '${Package} ' 'shoal*')", install)
		t.Logf("%s: upgraded after %s\n%s", name, time.Since(began).Round(time.Millisecond), tail(said, 3))
		c.until(name+"'s processes are of the new version", 30*time.Second, func() string { return c.oldProcesses(name) })
	}
	c.ready(30 * time.Second)
	failed, report := requests.stop()
	t.Logf("under the upgrade: %s", report)
	if failed > upgradeFailures {
		t.Errorf("%d requests failed, at most %d may", failed, upgradeFailures)
	}
	if diff := cmp.Diff(before, c.started()); diff != "" {
		t.Errorf("containers were restarted by the upgrade:\n%s", diff)
	}
	if out := c.shoal("version"); !strings.Contains(out, nextVersion) {
		t.Errorf("shoal version after the upgrade: %s", out)
	}
	c.converged("micro", 7, 10*time.Second)
	c.answeredByAll(7)
	// The cluster still takes writes, and starts what they ask for.
	c.shoal("service scale micro=8")
	c.converged("micro", 8, 30*time.Second)
}

// upgradeFailures is how many requests may fail: those under way through a meshproxy that is replaced. New ones wait.
const upgradeFailures = 3

// oldProcesses lists units of a machine whose process is not of the program that is installed, or does not run.
func (c *cluster) oldProcesses(name string) string {
	c.t.Helper()
	const script = `for unit in $(systemctl list-unit-files --state=enabled --no-legend 'shoal-*.service' | awk '{ print $1 }'); do
pid=$(systemctl show -P MainPID "$unit")
[ "$pid" != 0 ] && [ "$(systemctl is-active "$unit")" = active ] || { echo "$unit: $(systemctl is-active "$unit")"; continue; }
readlink "/proc/$pid/exe" | grep -v '(deleted)' >/dev/null || echo "$unit: an old process"
done`
	out, err := c.try(name, script)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(out)
}
