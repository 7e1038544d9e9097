package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFullDisk: a machine whose disk is full runs on what runs, answers all requests, says what is wrong wherever one looks, also when
// its agent is killed meanwhile; and with room again it does what it was told, pulls, and keeps what its containers write.
func TestFullDisk(t *testing.T) {
	c := bring(t, 1, 1)
	c.must(c.lab.Disk(t.Context(), "w1", 96<<20))
	until(t, "w1 is ready", 30*time.Second, func() string { return unless(c.nodes()["w1"], "Ready") })
	c.shoal("service", "create", "--name", "steady", "-p", "8000", "--replicas", "2", "--constraint", "node.hostname==w1", c.image("1.0.0"))
	c.shoal("service", "create", "--name", "ticker", "--constraint", "node.hostname==w1", c.image("1.0.0"), "-tick", "20ms")
	c.converged("ticker", 1, 30*time.Second)
	settle(t, c, 30000, 2)
	before := starts(c, "w1")
	l := startLoad(t.Context(), published(c.address("m1"), 30000))
	defer l.stop()

	// As full as it gets: what dd could not write whole is rounded up by the last bytes.
	c.on("w1", "sh", "-c", "dd if=/dev/zero of=/var/lib/shoal/ballast bs=64k 2>/dev/null; dd if=/dev/zero bs=512 >> /var/lib/shoal/ballast 2>/dev/null; true")
	// Journalling: it is stopped what must stop, and what is new is told. Pulling: there is no room for another image.
	c.shoal("service", "scale", "--detach", "steady=3")
	c.shoal("service", "create", "--detach", "--name", "other", "--restart-delay", "1s", "--constraint", "node.hostname==w1", c.image("1.1.0"))
	c.says("other", "no space left on device")
	c.must(c.lab.Kill(t.Context(), "w1", "shoal-agent"))
	until(t, "doctor says it", 30*time.Second, func() string {
		said, _, _ := c.try("w1", "shoal", "doctor")
		if !strings.Contains(said, "disk of data") || !strings.Contains(said, " % full, ") {
			return said
		}
		return ""
	})
	until(t, "the cluster knows it", 30*time.Second, func() string {
		if free := c.freeOf("w1"); free > 4<<20 {
			return fmt.Sprintf("%d bytes are free", free)
		}
		return ""
	})
	until(t, "the agent says it", 10*time.Second, func() string {
		if log := c.on("w1", "sh", "-c", "cat /var/log/shoal-agent.log"); !strings.Contains(log, "a disk is full") {
			return "it does not"
		}
		return ""
	})
	for _, one := range strings.Fields(before) {
		if now := starts(c, "w1"); !strings.Contains(" "+now+" ", " "+one+" ") {
			t.Errorf("on the full disk there are %s, were %s", now, before)
		}
	}

	c.on("w1", "rm", "/var/lib/shoal/ballast")
	c.converged("steady", 3, time.Minute)
	c.converged("other", 1, time.Minute)
	c.converged("ticker", 1, 10*time.Second)
	was := c.shoal("service", "logs", "--tail", "1", "ticker")
	until(t, "what is written is kept again", 20*time.Second, func() string {
		if now := c.shoal("service", "logs", "--tail", "1", "ticker"); now == was {
			return now
		}
		return ""
	})
	for _, one := range strings.Fields(before) {
		if now := starts(c, "w1"); !strings.Contains(" "+now+" ", " "+one+" ") {
			t.Errorf("with room again there are %s, were %s", now, before)
		}
	}
	t.Logf("meanwhile: %s", l.take())
}

// freeOf is what node inspect shows of the disk of the agent's data.
func (c *cluster) freeOf(host string) int64 {
	c.t.Helper()
	var all []struct {
		Description struct {
			Disks []struct {
				Name        string
				Total, Free int64
			}
		}
	}
	if err := json.Unmarshal([]byte(c.shoal("node", "inspect", host)), &all); err != nil || len(all) != 1 {
		c.t.Fatalf("node inspect: %v, %+v", err, all)
	}
	for _, d := range all[0].Description.Disks {
		if d.Name == "data" && d.Total > 0 {
			return d.Free
		}
	}
	return 1 << 60
}
