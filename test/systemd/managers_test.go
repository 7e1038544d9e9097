package systemd

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// Three managers by packages: one that leads is switched off and comes back, then all are upgraded one after another while
// services are created. Every call that a person makes again once succeeds, and no container is restarted.
func TestManagers(t *testing.T) {
	c := bring(t, "m1", "m2", "m3")
	c.tell([]step{
		{"three managers", threeManagers},
		{"10 the leader's machine dies", leaderDies},
		{"upgrade under creates", upgradeManagers},
		{"a manager leaves", managerLeaves},
	})
}

func threeManagers(t *testing.T, c *cluster) {
	var group errgroup.Group
	for _, name := range c.Names() {
		group.Go(func() error { _, err := c.try(name, install+"shoal-manager"); return err })
	}
	c.must(group.Wait())
	c.on("m1", "shoal init --advertise-addr %s", c.Address("m1"))
	token := c.shoal("join-token manager -q")
	for _, name := range []string{"m2", "m3"} {
		began := time.Now()
		c.on(name, "shoal join --token %s %s:2377", token, c.Address("m1"))
		t.Logf("%s: joined as a manager after %s", name, time.Since(began).Round(time.Millisecond))
	}
	c.votes()
	// A person types on any of them.
	context := c.on("m1", "tar -C /root/.config -c shoal | base64 -w0")
	for _, name := range []string{"m2", "m3"} {
		c.on(name, "mkdir -p /root/.config && echo %s | base64 -d | tar -C /root/.config -x", context)
	}
	c.shoal("service create --quiet --name micro -p 8000 --replicas 6 %s", c.image("1.0.0"))
	c.converged("micro", 6, 30*time.Second)
	c.answeredByAll(6)
}

// managers are the managers' states by host name, as m1, or else another one, tells them.
func (c *cluster) managers(via string) string {
	c.t.Helper()
	out, err := c.try(via, "shoal node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'")
	if err != nil {
		return err.Error()
	}
	return out
}

// votes waits until one leads and two follow.
func (c *cluster) votes() {
	c.t.Helper()
	c.until("one manager leads and two follow", 40*time.Second, func() string {
		out := c.managers("m1")
		if strings.Count(out, "Ready Reachable") != 2 || strings.Count(out, "Ready Leader") != 1 {
			return out
		}
		return ""
	})
}

func (c *cluster) leader() string {
	c.t.Helper()
	for line := range strings.Lines(c.managers("m1")) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), " Ready Leader"); ok {
			return name
		}
	}
	c.t.Fatalf("nobody leads: %s", c.managers("m1"))
	return ""
}

func leaderDies(t *testing.T, c *cluster) {
	lost := c.leader()
	names := slices.DeleteFunc(c.Names(), func(name string) bool { return name == lost })
	before := c.startedOn(names...)
	c.must(c.PowerOff(t.Context(), lost))
	took := c.until("a write is taken", 20*time.Second, func() string {
		out, err := c.try(names[0], "shoal network create -d overlay after")
		if err != nil && !strings.Contains(out, "already exists") {
			return out
		}
		return ""
	})
	t.Logf("the leader's machine switched off: a write is taken %s later", took.Round(time.Millisecond))
	after := c.startedOn(names...)
	for id, since := range before {
		if after[id] != since {
			t.Errorf("container %s on a machine that stayed on was %s, is %s", id, since, after[id])
		}
	}
	c.must(c.PowerOn(t.Context(), lost))
	c.votes()
	c.converged("micro", 6, 30*time.Second)
}

// upgradeManagers is the page's way: one manager, wait until it is back, the next.
func upgradeManagers(t *testing.T, c *cluster) {
	c.must(c.publish(t.Context(), os.Getenv(nextPackages)))
	before := c.started()
	requests := c.startLoad(c.Names()...)
	calls := c.startCreates()
	for _, name := range c.Names() {
		began := time.Now()
		c.on(name, "%s $(dpkg-query -Wf '${Package} ' 'shoal*')", install)
		c.until(name+"'s processes are of the new version", 40*time.Second, func() string { return c.oldProcesses(name) })
		c.votes()
		t.Logf("%s: upgraded and back after %s", name, time.Since(began).Round(time.Millisecond))
	}
	made, again := calls.stop()
	failed, report := requests.stop()
	t.Logf("under the upgrade of three managers: %d services created, %d of them only at the second call or later", made, again)
	t.Logf("requests through the mesh: %s", report)
	if failed > upgradeFailures {
		t.Errorf("%d requests failed, at most %d may", failed, upgradeFailures)
	}
	after := c.started()
	for id, since := range before {
		if diff := cmp.Diff(since, after[id]); diff != "" {
			t.Errorf("container %s was restarted by the upgrade:\n%s", id, diff)
		}
	}
	if n := strings.Count(c.shoal("service ls --filter name=load- -q"), "\n") + 1; n != made {
		t.Errorf("%d services of %d that were created are there", n, made)
	}
}

// creates makes one service after another, by a machine that answers, as a script does that tries again.
type creates struct {
	stopping    chan struct{}
	done        chan struct{}
	made, again int
}

func (c *cluster) startCreates() *creates {
	out := &creates{stopping: make(chan struct{}), done: make(chan struct{})}
	image := c.image("1.0.0")
	go func() {
		defer close(out.done)
		for try := 0; ; {
			via := c.Names()[try%len(c.Names())]
			said, err := c.try(via, fmt.Sprintf("shoal service create --detach --quiet --replicas 0 --name load-%d %s", out.made, image))
			if err == nil || strings.Contains(said, "already exists") {
				if try > 0 {
					out.again++
				}
				out.made++
				try = 0
			} else {
				try++
			}
			select {
			case <-out.stopping:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return out
}

// stop ends it and returns how many services were made, and how many of those not at the first call.
func (l *creates) stop() (made, again int) {
	close(l.stopping)
	<-l.done
	return l.made, l.again
}

func managerLeaves(t *testing.T, c *cluster) {
	c.on("m3", "shoal leave --force")
	c.shoal("node rm --force m3")
	c.until("two managers are left", 20*time.Second, func() string {
		out := c.managers("m1")
		if strings.Count(out, "Reachable")+strings.Count(out, "Leader") != 2 {
			return out
		}
		return ""
	})
	c.on("m3", "DEBIAN_FRONTEND=noninteractive apt-get purge -y 'shoal*'")
	if left := c.leftovers("m3"); left != "" {
		t.Errorf("left on m3 after leave and purge:\n%s", left)
	}
}
