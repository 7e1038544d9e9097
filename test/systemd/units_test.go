package systemd

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// managerUnits are the units of a manager.
func managerUnits() []string {
	return []string{"ca", "store", "scheduler", "dispatcher", "gateway", "agent", "meshproxy"}
}

// exposure is the worst that `systemd-analyze security` may say of a unit. The five control processes are held to 1.5;
// deploy/systemd tells of each right that the others need.
func exposure(process string) float64 {
	switch process {
	case "agent":
		return 5.9
	case "meshproxy":
		return 2.0
	default:
		return 1.5
	}
}

// hardened: what the units say holds for the processes that run.
func hardened(t *testing.T, c *cluster) {
	for _, process := range managerUnits() {
		unit := "shoal-" + process
		pid := c.on("m1", "systemctl show -P MainPID %s", unit)
		want := unit
		if process == "agent" {
			want = "root"
		}
		if user := c.on("m1", "ps -o user:32= -p %s", pid); user != want {
			t.Errorf("%s runs as %s, want %s", unit, user, want)
		}
		status := fields(c.on("m1", "cat /proc/%s/status", pid))
		if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
			t.Errorf("%s: NoNewPrivs %s, Seccomp %s; want 1 and 2 (a filter)", unit, status["NoNewPrivs"], status["Seccomp"])
		}
		caps := c.on("m1", "systemctl show -P CapabilityBoundingSet %s", unit)
		if process != "agent" && process != "meshproxy" && (status["CapEff"] != zeroes || status["CapBnd"] != zeroes) {
			t.Errorf("%s holds capabilities: effective %s, bounding %s (%s)", unit, status["CapEff"], status["CapBnd"], caps)
		}
		said := c.on("m1", "systemd-analyze security --no-pager %s 2>/dev/null | tail -1", unit)
		score, err := strconv.ParseFloat(between(said, "service: ", " "), 64)
		if err != nil || score > exposure(process) {
			t.Errorf("%s: exposure %v, at most %v allowed (%v): %s", unit, score, exposure(process), err, said)
		}
		t.Logf("%s: user %s, exposure %.1f, capabilities %s", unit, want, score, status["CapEff"])
	}
	privateFiles(t, c)
}

const zeroes = "0000000000000000"

// privateFiles: a control process reads its own config and keys, and nobody else's.
func privateFiles(t *testing.T, c *cluster) {
	own := c.on("m1", "setpriv --reuid shoal-ca --regid shoal-ca --init-groups cat /etc/shoal/ca.yaml >/dev/null && echo well")
	if own != "well" {
		t.Errorf("shoal-ca cannot read its own config: %s", own)
	}
	for _, file := range []string{"/etc/shoal/store.yaml", "/var/lib/shoal/store", "/var/lib/shoal/gateway"} {
		out, err := c.try("m1", "setpriv --reuid shoal-ca --regid shoal-ca --init-groups find "+file+" -type f -exec head -c1 {} +")
		if err == nil {
			t.Errorf("shoal-ca can read %s: %q", file, out)
		}
	}
}

// fields reads lines of "Name: value".
func fields(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		out[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return out
}

func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	middle, _, _ := strings.Cut(rest, after)
	return middle
}

// unitsAreTended: a reload is no restart; a process that hangs is replaced; log lines have fields.
func unitsAreTended(t *testing.T, c *cluster) {
	t.Run("reload", func(t *testing.T) {
		c := c.with(t)
		for _, process := range managerUnits() {
			unit := "shoal-" + process
			before := c.on("m1", "systemctl show -P MainPID %s", unit)
			c.on("m1", "systemctl reload %s", unit)
			if after := c.on("m1", "systemctl is-active %[1]s >/dev/null && systemctl show -P MainPID %[1]s", unit); after != before {
				t.Errorf("reload %s: process %s before, %s after", unit, before, after)
			}
		}
		c.ready(10 * time.Second)
	})
	t.Run("journal", func(t *testing.T) {
		c := c.with(t)
		for _, process := range managerUnits() {
			var entry map[string]any
			line := c.on("m1", "journalctl -q -o json -n 1 -u shoal-%s SHOAL_EVENT=starting", process)
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Errorf("shoal-%s: no entry of its start in the journal: %v: %s", process, err, line)
				continue
			}
			for _, field := range []string{"MESSAGE", "PRIORITY", "SHOAL_PROCESS", "SHOAL_VERSION"} {
				if entry[field] == nil {
					t.Errorf("shoal-%s: a journal entry has no field %s: %s", process, field, line)
				}
			}
		}
	})
	t.Run("watchdog", func(t *testing.T) {
		c := c.with(t)
		for _, process := range managerUnits() {
			if out := c.on("m1", "systemctl show -P WatchdogUSec shoal-%[1]s; systemctl show -P WatchdogTimestampMonotonic shoal-%[1]s", process); strings.Contains(out, "infinity") || strings.Contains(out, "\n0") {
				t.Errorf("the watchdog of shoal-%s is off or was never fed: %s", process, out)
			}
		}
		// One that hangs is ended and replaced when it has not fed its watchdog. The gateway stands for all: one loop in
		// internal/run. The limit is shortened, so that nobody waits a minute.
		const dropIn = "/run/systemd/system/shoal-gateway.service.d"
		c.on("m1", "mkdir -p %[1]s && printf '[Service]\\nWatchdogSec=4s\\n' >%[1]s/short.conf && systemctl daemon-reload && systemctl restart shoal-gateway", dropIn)
		before := c.on("m1", "systemctl show -P MainPID shoal-gateway")
		c.on("m1", "kill -STOP %s", before)
		took := c.until("systemd has replaced the process that hangs", 30*time.Second, func() string {
			out, err := c.try("m1", "systemctl is-active shoal-gateway >/dev/null && systemctl show -P MainPID shoal-gateway")
			if err != nil || out == before {
				return fmt.Sprint(out, err)
			}
			return ""
		})
		if out := c.on("m1", "systemctl show -P NRestarts shoal-gateway"); out != "1" {
			t.Errorf("systemd restarted it %s times", out)
		}
		c.on("m1", "rm -r %s && systemctl daemon-reload && systemctl restart shoal-gateway", dropIn)
		t.Logf("a process that hangs was replaced after %s", took.Round(time.Millisecond))
		c.ready(15 * time.Second)
	})
}

// mostIdle bounds what an idle manager's processes hold together, pages that they share counted once, in kB: far above what
// is usual, so that only a leak or an accident reaches it. What is usual the log says.
const mostIdle = 200 << 10

// idleMemory tells what a manager's processes take after a minute without work, with seven containers in the cluster.
func idleMemory(t *testing.T, c *cluster) {
	c.until("a minute of rest", 2*time.Minute, afterOnce(time.Minute))
	rssSum, pssSum := 0, 0
	for _, process := range managerUnits() {
		said := fields(c.on("m1", "cat /proc/$(systemctl show -P MainPID shoal-%s)/smaps_rollup", process))
		rss, pss := kilobytes(t, said["Rss"]), kilobytes(t, said["Pss"])
		rssSum, pssSum = rssSum+rss, pssSum+pss
		t.Logf("idle %-10s Rss %5.1f MB, Pss %5.1f MB, anonymous %5.1f MB", process, mb(rss), mb(pss), mb(kilobytes(t, said["Anonymous"])))
	}
	if pssSum > mostIdle {
		t.Errorf("an idle manager takes %.1f MB, more than %.1f MB", mb(pssSum), mb(mostIdle))
	}
	t.Logf("idle all seven  Rss %5.1f MB, Pss %5.1f MB", mb(rssSum), mb(pssSum))
}

func afterOnce(d time.Duration) func() string {
	end := time.Now().Add(d)
	return func() string {
		if left := time.Until(end); left > 0 {
			return left.String()
		}
		return ""
	}
}

// kilobytes reads "12 kB". No process takes nothing.
func kilobytes(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	if err != nil || n <= 0 {
		t.Errorf("%q is no size in kB", text)
	}
	return n
}

func mb(kilobytes int) float64 { return float64(kilobytes) / 1000 * 1.024 }
