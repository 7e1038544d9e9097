package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Step 8 goes on: what every task has written is shown with its name, and a command runs inside one on each machine.
func logsAndExec(t *testing.T, c *cluster) {
	logs := c.shoal("service", "logs", "micro")
	for _, row := range c.tasks("micro", true) {
		want := fmt.Sprintf("%s.%s@%s    | micro ", row.Name, row.ID[:12], row.Node)
		if !slices.ContainsFunc(strings.Split(logs, "\n"), func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("no line begins with %q:\n%s", want, logs)
		}
		if out, stderr, code := c.try("m1", "shoal", "exec", row.Name, "/micro", "-crash"); code != 1 || !strings.Contains(stderr, "crashes on purpose") {
			t.Errorf("exec in %s on %s: exit code %d\n%s%s", row.Name, row.Node, code, out, stderr)
		}
	}
	// A slot's name would mean those of its tasks that have ended, too.
	if lines := strings.Split(c.shoal("logs", "--raw", "--tail", "1", c.tasks("micro", true)[0].ID), "\n"); len(lines) != 1 || !strings.HasPrefix(lines[0], "micro ") {
		t.Errorf("the last line of one task: %q", lines)
	}
}

// ticks are the numbered lines of a task, each of which must follow the one before.
func ticks(t *testing.T, c *cluster) int {
	t.Helper()
	lines := strings.Split(c.shoal("service", "logs", "--raw", "ticker"), "\n")
	for i, l := range lines {
		if want := fmt.Sprintf("tick %d", i); l != want {
			t.Fatalf("line %d is %q, want %q", i, l, want)
		}
	}
	return len(lines)
}

// A container writes while its agent is dead, and goes on: not a line is lost, and none of them waits. When the machine goes
// off, its logs are missed by name, at once. Files, figures and processes of the container can be had while it is on.
func TestOutputOutlivesTheAgent(t *testing.T) {
	c := bring(t, 1, 1)
	c.shoal("service", "create", "--name", "ticker", "--constraint", "node.hostname==w1", c.image("1.0.0"), "-tick", "2ms")
	c.converged("ticker", 1, 20*time.Second)
	before := starts(c, "w1")

	c.on("w1", "systemctl", "stop", "shoal-agent") // it stays dead until it is started
	first := c.on("w1", "sh", "-c", "cat /var/lib/shoal/agent/logs/*/*.log | wc -l")
	until(t, "it has written on without an agent", 10*time.Second, func() string {
		if now := c.on("w1", "sh", "-c", "cat /var/lib/shoal/agent/logs/*/*.log | wc -l"); len(now) < len(first) || now <= first && len(now) == len(first) {
			return now + " lines, were " + first
		}
		return ""
	})
	c.on("w1", "systemctl", "start", "shoal-agent")
	c.must(c.lab.Kill(t.Context(), "w1", "shoal-agent"))
	until(t, "its log can be read again", 20*time.Second, func() string {
		if _, stderr, code := c.try("m1", "shoal", "service", "logs", "--tail", "1", "ticker"); code != 0 || stderr != "" {
			return stderr
		}
		return ""
	})
	n := ticks(t, c)
	if more := ticks(t, c); more <= n || n < 500 {
		t.Errorf("%d lines, then %d", n, more)
	}
	if after := starts(c, "w1"); after != before {
		t.Errorf("containers: %s, were %s", after, before)
	}

	c.on("m1", "sh", "-c", "mkdir -p /tmp/in/sub && echo hello > /tmp/in/sub/file && shoal cp /tmp/in ticker.1:/dev/shm && "+
		"shoal cp ticker.1:/dev/shm/in /tmp/out && cmp /tmp/in/sub/file /tmp/out/sub/file && rm -r /tmp/in /tmp/out")
	if got := strings.Fields(c.shoal("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}}", "ticker")); len(got) != 3 || got[0] != "ticker.1" || got[1] == "0.00%" {
		t.Errorf("stats: %v", got)
	}
	if got := c.shoal("top", "--format", "{{.CMD}}", "ticker"); got != "/micro -tick 2ms" {
		t.Errorf("top: %q", got)
	}
	if _, _, code := c.try("m1", "shoal", "exec", "ticker.1", "/nothing"); code != 127 {
		t.Errorf("a program that is not there: exit code %d", code)
	}

	c.must(c.lab.PowerOff(t.Context(), "w1"))
	began := time.Now()
	_, stderr, code := c.try("m1", "shoal", "service", "logs", "ticker")
	if took := time.Since(began); code != 0 || !strings.Contains(stderr, "log of ticker.1 on w1 is missing: ") || took > 12*time.Second {
		t.Errorf("a machine that is off: exit code %d after %s: %s", code, took, stderr)
	}
}
