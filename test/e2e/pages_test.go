package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/pages"
)

// hosts runs a page's scripts on a lab's hosts, and those of "outside" on the machine that the lab is on.
type hosts struct{ lab *harness.Lab }

// exitError is a script's exit code other than 0.
type exitError struct {
	code int
	said string
}

func (e exitError) Error() string { return "exit code " + strconv.Itoa(e.code) + " " + e.said }

// ExitCode is what package pages asks for.
func (e exitError) ExitCode() int { return e.code }

func (h hosts) Run(ctx context.Context, host, script string) (string, error) {
	if host == "outside" {
		out, err := exec.CommandContext(ctx, "bash", "-c", script).Output()
		return string(out), err
	}
	stdout, stderr, code, err := h.lab.Exec(ctx, host, "bash", "-c", script)
	if err == nil && code != 0 {
		err = exitError{code, stderr}
	}
	return stdout, err
}

// bareHosts makes hosts m1 to m<n> without a cluster.
func bareHosts(t *testing.T, n int) *cluster {
	t.Helper()
	return bringWith(t, harness.Options{Managers: n, NoInit: true})
}

// form makes a cluster of a manager on m1 and workers.
func (c *cluster) form(workers ...string) {
	c.t.Helper()
	c.on("m1", "shoal", "init", "--advertise-addr", c.address("m1"))
	token := c.shoal("join-token", "worker", "-q")
	for _, host := range workers {
		c.on(host, "shoal", "join", "--token", token, c.address("m1")+":2377")
	}
}

// follow runs a page of docs/operations on a lab's hosts m1, m2, …; after is called after each of its scripts, and may be
// nil.
func (c *cluster) follow(name string, after func(b pages.Block, printed string) error) {
	c.t.Helper()
	page, err := pages.Load(filepath.Join(root(c.t), "docs/operations", name))
	if err != nil {
		c.t.Fatal(err)
	}
	vars := map[string]string{"IMAGE": c.image("1.0.0")}
	names, err := c.lab.Hosts()
	c.must(err)
	for i, host := range names {
		vars[fmt.Sprintf("M%d", i+1)] = c.address(host)
	}
	nobody := netip.MustParseAddr(c.address("m1")).As4()
	nobody[3] = 2 // so that the machine outside is no administrator's
	vars["ADMINS"] = netip.AddrFrom4(nobody).String()
	if err := page.Run(c.t.Context(), hosts{c.lab}, pages.Options{Vars: vars, Log: c.t.Logf, Limit: 2 * time.Minute, After: after}); err != nil {
		c.t.Fatal(err)
	}
}

// The firewall of the page lets the cluster work, and keeps strangers out. Every process on the workers begins anew behind
// it, because it lets connections live that were there before.
func TestFirewallPage(t *testing.T) {
	c := bareHosts(t, 3)
	c.form("m2", "m3")
	hosts := 0
	c.follow("firewall.md", func(b pages.Block, _ string) error {
		if !strings.Contains(b.Text, "nft -f") {
			return nil
		}
		if hosts++; hosts == len(b.Hosts) {
			c.on("m1", "systemctl", "restart", "shoal-gateway", "shoal-dispatcher", "shoal-scheduler")
			for _, host := range []string{"m2", "m3"} {
				c.on(host, "systemctl", "restart", "shoal-agent", "shoal-meshproxy")
			}
		}
		return nil
	})
}

// What the page shows of a published port in the kernel is there, and the administrator's chain has the first word.
func TestNetworkPage(t *testing.T) {
	c := bareHosts(t, 2)
	c.form("m2")
	c.follow("network.md", nil)
}

// Machines and single roles are added and removed as the page says: m4 is off when it says so. In the end the machines are
// bare that it says to be.
func TestMachinesPage(t *testing.T) {
	c := bareHosts(t, 5)
	c.form()
	c.follow("machines.md", func(b pages.Block, _ string) error {
		switch {
		case strings.Contains(b.Text, "shoal node rm m2"):
			return c.lab.PowerOff(t.Context(), "m4")
		case strings.Contains(b.Text, "shoal node rm --force m4"):
			return c.lab.PowerOn(t.Context(), "m4")
		}
		return nil
	})
	for _, host := range []string{"m2", "m3", "m4"} {
		if left := c.ours(host); len(left) > 0 {
			t.Errorf("on %s is left: %s", host, strings.Join(left, ", "))
		}
	}
}
