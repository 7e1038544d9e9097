package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// nothingLeft: when the last service and network are gone, a machine in the cluster has its own empty frame alone, and
// one that has left has nothing of ours.
func nothingLeft(t *testing.T, c *cluster) {
	for _, host := range []string{"m1", "w2"} {
		until(t, "the frame alone is left on "+host, 15*time.Second, func() string { return strings.Join(c.beyondFrame(host), "\n") })
	}
	until(t, "nothing of ours is left on w1", 15*time.Second, func() string { return strings.Join(c.ours("w1"), "\n") })
}

// beyondFrame lists what a machine without any task has no use for.
func (c *cluster) beyondFrame(host string) []string {
	c.t.Helper()
	left := c.ofContainers(host)
	for _, name := range c.links(host) {
		if name != "shoal0" && name != "shoal-mesh" {
			left = append(left, "interface "+name)
		}
	}
	// The skeleton: our chains, and sets and maps of which only those that tell of peers have elements.
	for _, name := range []string{"ports", "bound", "turns", "backends", "hairpins", "returns"} {
		for _, family := range []string{"4", "6"} {
			kind := "map"
			if name == "hairpins" || name == "returns" {
				kind = "set"
			}
			if out := c.on(host, "nft", "list", kind, "inet", "shoal", name+family); strings.Contains(out, "elements") {
				left = append(left, "elements of "+out)
			}
		}
	}
	port := regexp.MustCompile(`\b30000\b`) // a mark such as 0x23000000 is none
	for line := range strings.Lines(c.on(host, "nft", "list", "table", "inet", "shoal")) {
		if port.MatchString(line) || strings.Contains(line, "chain turn") {
			left = append(left, "rule "+strings.TrimSpace(line))
		}
	}
	tables := lines(c.on(host, "nft", "list", "tables"))
	slices.Sort(tables)
	if !slices.Equal(tables, []string{"table bridge shoal", "table inet shoal", "table inet shoal-quota", "table netdev shoal"}) {
		left = append(left, "tables "+strings.Join(tables, ", "))
	}
	// No tunnel leads to the machine that has left.
	for _, line := range lines(c.on(host, "bridge", "fdb", "show")) {
		if strings.Contains(line, "dst "+c.address("w1")) {
			left = append(left, "forwarding entry "+line)
		}
	}
	if strings.Contains(c.on(host, "ss", "-Hltun"), ":30000") {
		left = append(left, "a listener on port 30000")
	}
	return left
}

// ours lists whatever of shoal is on a machine that is in no cluster.
func (c *cluster) ours(host string) []string {
	c.t.Helper()
	left := c.ofContainers(host)
	for _, name := range c.links(host) {
		left = append(left, "interface "+name)
	}
	for _, probe := range []struct{ what, command string }{
		{"table", "nft list tables | grep shoal"},
		{"route", "ip route show table all | grep shoal"},
		{"policy rule", "(ip rule; ip -6 rule) | grep -v 'lookup \\(local\\|main\\|default\\)'"},
		{"configuration", "ls -A /etc/shoal"},
		{"certificate or key", "find /var/lib/shoal -name '*.pem*'"},
		{"process folder", "find /var/lib/shoal -mindepth 1 -type d"},
		{"unit", "systemctl list-units | grep shoal- | grep -v 'inactive *disabled'"},
	} {
		out, _, _ := c.try(host, "sh", "-c", probe.command)
		for _, line := range lines(out) {
			left = append(left, probe.what+" "+line)
		}
	}
	status, err := c.lab.Status(c.t.Context())
	c.must(err)
	for _, h := range status.Hosts {
		for _, p := range h.Processes {
			if h.Name == host && p.PID != 0 && strings.HasPrefix(p.Name, "shoal-") {
				left = append(left, "process "+p.Name)
			}
		}
	}
	return left
}

// ofContainers lists what containers leave when they are not removed wholly. Images stay: they are a cache.
func (c *cluster) ofContainers(host string) []string {
	c.t.Helper()
	var left []string
	for _, probe := range []struct{ what, command string }{
		{"container", "ctr -n shoal containers ls -q"},
		{"running container", "ctr -n shoal task ls -q"},
		{"writable snapshot", "ctr -n shoal snapshots ls | grep Active"},
		{"lease", "ctr -n shoal leases ls -q"},
		{"mount", "grep -E 'shoal/(netns|userns|containers|volumes)|containerd.*shoal' /proc/self/mountinfo"},
		{"file", "find /run/shoal/netns /run/shoal/userns /run/shoal/containers -mindepth 1 2>/dev/null"},
		{"control group", "find /sys/fs/cgroup -maxdepth 4 -type d -path '*shoal*/*' 2>/dev/null | grep -E '/[0-9a-z]{25}'"},
		{"shim", "ps ax | grep -v grep | grep 'containerd-shim.*-namespace shoal'"},
	} {
		out, _, _ := c.try(host, "sh", "-c", probe.command)
		for _, line := range lines(out) {
			left = append(left, probe.what+" "+line)
		}
	}
	return left
}

// residue lists what the outer machine has of a lab.
func residue(lab *harness.Lab) []string {
	var left []string
	for _, pattern := range []string{lab.Dir(), "/sys/class/net/" + lab.ID(), "/sys/fs/cgroup/shoal-lab-" + lab.ID(), "/sys/fs/cgroup/*/shoal-lab-" + lab.ID()} {
		found, _ := filepath.Glob(pattern) // the pattern is well-formed
		left = append(left, found...)
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/mountinfo"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			// What ends meanwhile is none.
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), lab.Dir()) {
				left = append(left, file)
			}
		}
	}
	return left
}

// links lists the interfaces that are ours by their name.
func (c *cluster) links(host string) []string {
	c.t.Helper()
	var out []string
	for _, line := range lines(c.on(host, "ip", "-br", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		if strings.HasPrefix(name, "shoal") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func lines(text string) []string {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
