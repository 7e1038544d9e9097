package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// A machine's containerd is replaced by the next one under load, machine by machine, as a person does it: new programs in the old
// ones' place, and a restart. No container is started again and no request fails; what ran before can be entered, read, updated and
// taken away by the new one.
func TestContainerdUpgraded(t *testing.T) {
	next := os.Getenv(otherContainerd)
	if next == "" {
		t.Skip("needs the containerd to change to: make test-containerd2")
	}
	c := bringWith(t, harness.Options{Managers: 1, Workers: 1, Containerd: "/usr/bin"})
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "4", "--env", "DRAIN_MS=300", c.image("1.0.0"))
	c.converged("micro", 4, 30*time.Second)
	settle(t, c, 30000, 4)
	hosts := []string{"m1", "w1"}
	before := map[string]string{}
	for _, h := range hosts {
		before[h] = starts(c, h)
	}
	doors := []string{published(c.address("m1"), 30000), published(c.address("w1"), 30000)}
	l, kept := startLoad(t.Context(), doors...), startKept(t.Context(), doors...)
	defer l.stop()
	defer kept.stop()
	const version = `ctr version | awk '/^Server:/ { s = 1 } s && /Version:/ { print $2 }'`
	for _, h := range hosts {
		old := c.on(h, "sh", "-c", version)
		for _, program := range []string{"containerd", "containerd-shim-runc-v2"} {
			c.on(h, "mount", "--bind", filepath.Join(next, program), "/usr/bin/"+program)
		}
		c.on(h, "systemctl", "restart", "containerd")
		if now := c.on(h, "sh", "-c", version); now == old || now == "" {
			t.Fatalf("%s has containerd %q, had %q", h, now, old)
		}
		if got := starts(c, h); got != before[h] {
			t.Errorf("containers on %s: %s, were %s", h, got, before[h])
		}
	}
	c.must(c.lab.Kill(t.Context(), "w1", "containerd")) // and the new one's own death
	c.must(c.lab.Kill(t.Context(), "w1", "agent"))
	until(t, "its agent sees what ran", healing, func() string {
		stdout, stderr, code := c.try("m1", "shoal", "service", "ls", "--format", "{{.Replicas}}")
		if code != 0 || stdout != "4/4\n" || starts(c, "w1") != before["w1"] {
			return stdout + stderr
		}
		return ""
	})
	until(t, "all logs are read, of what the old one started too", healing, func() string {
		if said := c.shoal("service", "logs", "micro"); strings.Count(said, "listens on 8000") != 4 {
			return said
		}
		return ""
	})
	c.shoal("service", "update", "--image", c.image("1.1.0"), "micro")
	c.converged("micro", 4, time.Minute)
	got, open := l.take(), kept.take()
	t.Logf("%s; on connections kept open: %s", got, open)
	if got.failed+open.failed > 0 {
		t.Errorf("failed; the last: %v, %v", got.example, open.example)
	}
	c.shoal("service", "rm", "micro")
	for _, h := range hosts {
		until(t, "nothing is left on "+h, 20*time.Second, func() string { return starts(c, h) })
	}
}
