package e2e

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/dockerd"
)

// Beside a dockerd whose firewall drops what it does not know, published ports, overlays and the way out work as without it, and
// so do Docker's own containers. What somebody flushes is back within 10 s, and a machine that has left has nothing of ours.
func TestBesideDocker(t *testing.T) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("needs dockerd; on Debian: tools/make/deps deploy")
	}
	c := bring(t, 1, 2)
	image := c.image("1.0.0")
	c.shoal("network", "create", "-d", "overlay", "front")
	c.shoal("service", "create", "--name", "web", "--replicas", "3", "--network", "front", "--publish", "30000:8000", image)
	boxes := c.boxes("web")
	d, err := dockerd.On(t.Context(), c.lab, "w1")
	c.must(err)
	defer func() { c.must(d.Close()) }()
	// As Docker does where it is the one to switch forwarding on, and for bridged frames too.
	const shut = `set -e
modprobe br_netfilter 2>/dev/null || true
for t in iptables ip6tables; do $t -P FORWARD DROP; done
for s in iptables ip6tables; do echo 1 >/proc/sys/net/bridge/bridge-nf-call-$s; done`
	c.on("w1", "bash", "-c", shut)
	works := func() string {
		var wrong []string
		registry := "https://" + strings.TrimSuffix(image, "/micro:1.0.0") + "/v2/"
		for _, b := range boxes {
			if out, _, _ := c.inside(b, "curl", "-sk", "--max-time", "2", "-o", "/dev/null", "-w", "%{http_code}", registry); out != "200" {
				wrong = append(wrong, "no way out of a container on "+b.host)
			}
			for _, to := range boxes {
				if out, _, _ := c.inside(b, "curl", "-sS", "--max-time", "1", "http://"+to.network+":8000/"); !strings.Contains(out, "hostname=") {
					wrong = append(wrong, b.host+" does not reach the container on "+to.host)
				}
			}
			if fault := c.echoHTTP(c.address(b.host)); fault != "" {
				wrong = append(wrong, fault)
			}
		}
		return strings.Join(wrong, "\n")
	}
	until(t, "all works beside dockerd's firewall", 15*time.Second, works)
	if _, err := d.Docker(t.Context(), "run", "-d", "--name", "own", "-p", "31000:8000", image); err != nil {
		t.Fatal(err)
	}
	until(t, "Docker's own container answers", 10*time.Second, func() string {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "1", "http://"+c.address("w1")+":31000/").CombinedOutput()
		if err != nil {
			return string(out)
		}
		return ""
	})
	before := c.on("w1", "iptables", "-S", "DOCKER-USER")
	c.on("w1", "bash", "-c", "iptables -D FORWARD -i shoal+ -m comment --comment shoal -j ACCEPT; iptables -D FORWARD -o shoal+ -m comment --comment shoal -j ACCEPT")
	took := until(t, "what was flushed is back", 12*time.Second, func() string {
		if !strings.Contains(c.on("w1", "iptables", "-S", "FORWARD"), "-i shoal+") {
			return "not yet"
		}
		return works()
	})
	t.Logf("back after %s", took.Round(100*time.Millisecond))
	if after := c.on("w1", "iptables", "-S", "DOCKER-USER"); after != before {
		t.Errorf("Docker's chain was\n%s\nand is\n%s", before, after)
	}
	c.on("w1", "shoal", "leave")
	until(t, "nothing of ours is left in the firewall", 15*time.Second, func() string {
		if left := c.on("w1", "bash", "-c", "iptables -S; ip6tables -S; iptables -t nat -S"); strings.Contains(left, "shoal") {
			return left
		}
		return ""
	})
}

// echoHTTP asks a machine's published port 30000 some times, so that tasks of all machines are asked.
func (c *cluster) echoHTTP(address string) string {
	for range 6 {
		if out, err := exec.CommandContext(c.t.Context(), "curl", "-sS", "--max-time", "1", "http://"+address+":30000/").CombinedOutput(); err != nil {
			return "by " + address + ": " + string(out)
		}
	}
	return ""
}
