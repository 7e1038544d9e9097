package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/test/harness"
)

// fingerprint is all that shoal could change on a host: files with mode, owner and content, the context folder, units, links,
// tables, containers. Logs and what containerd keeps for itself are left out, and so is what time alone changes.
func (c *cluster) fingerprint(host string) string {
	c.t.Helper()
	var all strings.Builder
	for _, command := range []string{
		"find /etc/shoal /var/lib/shoal /run/shoal /root/.config -printf '%p %y %m %u:%g\n' 2>/dev/null | sort",
		"find /etc/shoal /root/.config /var/lib/shoal -type f ! -path '*/raft/*' ! -name '*.db' ! -name '*.pb' ! -name directory.json -exec sha256sum {} + 2>/dev/null | sort",
		"systemctl list-units | sed 's/ pid .*//'",
		"ip -br link | awk '{print $1}' | grep shoal | sort",
		"nft list tables | grep shoal",
		"timeout 1 ctr -n shoal containers ls -q",
	} {
		out, _, _ := c.try(host, "sh", "-c", command)
		fmt.Fprintf(&all, "$ %s\n%s", command, out)
	}
	return all.String()
}

// refusedAt runs a command that must fail with exit code 1, say all of the texts in one go, and change nothing on the host.
func (c *cluster) refusedAt(host string, texts []string, args ...string) {
	c.t.Helper()
	before := c.fingerprint(host)
	stdout, stderr, code := c.try(host, args...)
	if code != 1 {
		c.t.Errorf("%s: exit code %d, want 1\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	for _, text := range texts {
		if !strings.Contains(stderr, text) {
			c.t.Errorf("%s: says %q, want it to contain %q", strings.Join(args, " "), stderr, text)
		}
	}
	if diff := cmp.Diff(lines(before), lines(c.fingerprint(host))); diff != "" {
		c.t.Errorf("%s: changed the machine: %s", strings.Join(args, " "), diff)
	}
	c.t.Logf("%s", strings.TrimSpace(stderr))
}

// listener takes a port on a host until it is killed, and returns its process id.
func (c *cluster) listener(host, address string) string {
	c.t.Helper()
	pid := c.on(host, "sh", "-c", `perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => $ARGV[0], Listen => 1) or die; sleep 600' `+address+` >/dev/null 2>&1 & echo $!`)
	until(c.t, address+" is taken", 5*time.Second, func() string {
		return unless(fmt.Sprint(strings.Contains(c.on(host, "ss", "-Hltn"), address)), "true")
	})
	return pid
}

// settled waits until a host that has just joined has what follows by itself.
func (c *cluster) settled(host string) {
	c.t.Helper()
	until(c.t, host+" is settled", 15*time.Second, func() string {
		_, _, code := c.try(host, "sh", "-c", "ip link show shoal0 && ls /var/lib/shoal/meshproxy/tables.pb")
		return unless(fmt.Sprint(code), "0")
	})
}

// Whatever is wrong with a machine or a command, it is told, and the machine is as it was: m1 begins a cluster, w1 stays
// bare to the end, and w2 is in the cluster.
func TestBadInputChangesNothing(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 2, NoInit: true})
	address := c.address("m1")
	initHere := func(host string) []string { return []string{"shoal", "init", "--advertise-addr", c.address(host)} }
	c.tell([]step{
		{"no containerd", func(_ *testing.T, c *cluster) {
			c.on("w1", "systemctl", "stop", "containerd")
			c.refusedAt("w1", []string{"containerd", "systemctl"}, initHere("w1")...)
			c.on("w1", "systemctl", "start", "containerd")
		}},
		{"a taken port", func(_ *testing.T, c *cluster) {
			pid := c.listener("w1", "0.0.0.0:2384")
			c.refusedAt("w1", []string{"port 2384", "shoal-gateway needs it"}, initHere("w1")...)
			c.on("w1", "kill", pid)
		}},
		{"unknown config keys, all at once", func(_ *testing.T, c *cluster) {
			c.on("w1", "sh", "-c", "echo 'no_such_key: 1' > /etc/shoal/agent.yaml; echo 'nor_this: 1' > /etc/shoal/store.yaml")
			c.refusedAt("w1", []string{"no_such_key", "nor_this"}, initHere("w1")...)
			c.on("w1", "rm", "/etc/shoal/agent.yaml", "/etc/shoal/store.yaml")
		}},
		{"an address of nobody", func(_ *testing.T, c *cluster) {
			c.refusedAt("w1", []string{"192.0.2.9 is not an address of this machine"}, "shoal", "init", "--advertise-addr", "192.0.2.9")
		}},
		{"init twice", func(_ *testing.T, c *cluster) {
			c.on("m1", initHere("m1")...)
			c.settled("m1")
			c.refusedAt("m1", []string{"already part of a cluster"}, initHere("m1")...)
		}},
		{"join twice", func(_ *testing.T, c *cluster) {
			token := c.shoal("join-token", "worker", "-q")
			c.on("w2", "shoal", "join", "--token", token, address)
			c.settled("w2")
			c.refusedAt("w2", []string{"already part of a cluster"}, "shoal", "join", "--token", token, address)
			c.refusedAt("w2", []string{"meshproxy, agent already", "nothing to add"}, "shoal", "join", "--roles", "agent,meshproxy", "--token", token, address)
		}},
		{"roles that the token does not allow", func(_ *testing.T, c *cluster) {
			token := c.shoal("join-token", "worker", "-q")
			for _, host := range []string{"w1", "w2"} {
				c.refusedAt(host, []string{"this token lets in workers"}, "shoal", "join", "--roles", "dispatcher,gateway", "--token", token, address)
			}
			c.refusedAt("w1", []string{`"nonsense" is none of`, `"agnet" is none of`}, "shoal", "join", "--roles", "nonsense,agnet", "--token", token, address)
		}},
		{"wrong modes on a key", func(_ *testing.T, c *cluster) {
			key := "/var/lib/shoal/agent/identity/key.pem"
			c.on("w2", "chmod", "644", key)
			c.refusedAt("w2", []string{key, "0644", "chmod 600"}, "shoal", "join", "--roles", "gateway", "--token", c.shoal("join-token", "manager", "-q"), address)
			_, stderr, code := c.try("w2", "systemctl", "restart", "shoal-agent")
			if code == 0 || !strings.Contains(stderr, key) {
				c.t.Errorf("the agent started with a key that others can read: %s", stderr)
			}
			c.on("w2", "chmod", "600", key)
			c.on("w2", "systemctl", "restart", "shoal-agent")
		}},
		{"a machine of another cluster", func(_ *testing.T, c *cluster) {
			token := c.shoal("join-token", "worker", "-q")
			c.on("w1", initHere("w1")...)
			c.settled("w1")
			c.refusedAt("w1", []string{"already part of a cluster"}, "shoal", "join", "--token", token, address)
			c.refusedAt("w1", []string{"belongs to another cluster"}, "shoal", "join", "--roles", "agent,gateway", "--token", token, address)
			c.on("w1", "shoal", "node", "reset", "--yes")
			c.on("w1", "rm", "-r", "/root/.config/shoal")
			if left := c.ours("w1"); len(left) > 0 {
				c.t.Errorf("after node reset is left: %s", strings.Join(left, "\n"))
			}
		}},
		{"a disk that is full", fullDisk},
	})
}

// A disk that is full is seen before anything is made, and one that fills up meanwhile leaves nothing behind.
func fullDisk(_ *testing.T, c *cluster) {
	c.must(c.lab.Disk(c.t.Context(), "w1", 64<<20))
	fill := func(left string) string {
		return "fallocate -l $(( $(df --output=avail -B1 /var/lib/shoal | tail -1) - (" + left + " << 20) )) /var/lib/containerd/fill" + left
	}
	c.on("w1", "sh", "-c", fill("8"))
	c.refusedAt("w1", []string{"disk", "are left for /var/lib/shoal", "df -h"}, "shoal", "init", "--advertise-addr", c.address("w1"))
	c.on("w1", "sh", "-c", "rm /var/lib/containerd/fill8; "+fill("28"))
	// Once the first file is written, the rest of the disk goes to somebody else.
	c.on("w1", "sh", "-c", "(until [ -e /etc/shoal/ca.yaml ]; do :; done; "+fill("0")+"; dd if=/dev/zero of=/var/lib/containerd/fillup bs=4k) >/dev/null 2>&1 &")
	c.refusedAt("w1", []string{"no space left on device"}, "shoal", "init", "--advertise-addr", c.address("w1"))
	c.on("w1", "sh", "-c", "rm /var/lib/containerd/fill*")
	if left := c.ours("w1"); len(left) > 0 {
		c.t.Errorf("after a full disk is left: %s", strings.Join(left, "\n"))
	}
	c.on("w1", "shoal", "init", "--advertise-addr", c.address("w1"))
}
