package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever happens to managers: as long as more than half of them are up writes go on, after an election at most; without
// them nothing changes, and what runs runs on.
func TestManagersLost(t *testing.T) {
	c := bring(t, 3, 1)
	c.threeVoters()
	c.shareContext("m2", "m3")
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "4", c.image("1.0.0"))
	settle(t, c, 30000, 4)
	c.tell([]step{
		{"the leader's store is killed", leaderKilled},
		{"a follower's machine is off", followerOff},
		{"the leader's machine is off", leaderOff},
		{"more than half are off", quorumLost},
	})
}

func leaderKilled(t *testing.T, c *cluster) {
	before := c.everyContainer()
	c.must(c.lab.Kill(t.Context(), c.leader(), "store"))
	t.Logf("the leader's store killed: a write is taken after %s", c.writes("after-kill", 10*time.Second))
	if after := c.everyContainer(); after != before {
		t.Errorf("containers changed: %s, were %s", after, before)
	}
	c.threeVoters()
}

func followerOff(t *testing.T, c *cluster) {
	leader := c.leader()
	lost := c.managerBeside(leader)
	c.via = leader
	c.must(c.lab.PowerOff(t.Context(), lost))
	took := c.writes("after-follower", 10*time.Second)
	t.Logf("a follower's machine off: a write is taken after %s", took)
	if took > time.Second {
		t.Errorf("the loss of a follower held a write for %s", took)
	}
	c.must(c.lab.PowerOn(t.Context(), lost))
	c.threeVoters()
}

// detection bounds how long a machine without news of the cluster takes to find that another one is off.
const detection = 15 * time.Second

// leaderTarget is what people may expect; Docker Swarm needs 5.2 s.
const leaderTarget = 3 * time.Second

func leaderOff(t *testing.T, c *cluster) {
	c.converged("micro", 4, 30*time.Second)
	lost := c.leader()
	c.via = c.managerBeside(lost)
	before := strings.Fields(containers(c, c.via) + " " + containers(c, "w1"))
	off := c.powerOff(lost)
	took := c.writes("after-leader", 15*time.Second) + off
	t.Logf("the leader's machine off: a write is taken after %s at most (target %s)", took.Round(10*time.Millisecond), leaderTarget)
	if took > 2*leaderTarget {
		t.Errorf("that is far from the target")
	}
	if next := c.leader(); next == lost || next == "" {
		t.Errorf("%q leads after the loss of %s", next, lost)
	}
	after := strings.Fields(containers(c, c.via) + " " + containers(c, "w1"))
	for _, id := range before {
		if !slices.Contains(after, id) {
			t.Errorf("container %s is gone from a machine that stayed on", id)
		}
	}
	full := c.fullStrength("micro", 4, lost)
	t.Logf("full strength after %s", (full + took).Round(10*time.Millisecond))
	c.must(c.lab.PowerOn(t.Context(), lost))
	until(t, "the machine follows", 30*time.Second, func() string {
		out := c.shoal("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		if !slices.Contains(lines(out), lost+" Ready Reachable") {
			return out
		}
		return ""
	})
}

func quorumLost(t *testing.T, c *cluster) {
	c.threeVoters()
	c.via = c.leader() // the hardest: it leads, and must notice
	var lost []string
	for _, host := range []string{"m1", "m2", "m3"} {
		if host != c.via {
			lost = append(lost, host)
		}
	}
	before := containers(c, c.via) + "|" + containers(c, "w1")
	for _, host := range lost {
		c.powerOff(host)
	}
	// The store that led takes nothing from the moment on that it cannot ask anybody; it says so when it has noticed.
	said := make(chan string, 2)
	for _, args := range [][]string{{"network", "create", "-d", "overlay", "never"}, {"node", "ls"}} {
		go func() {
			began := time.Now()
			_, stderr, code, err := c.lab.Exec(t.Context(), c.via, append([]string{"shoal"}, args...)...)
			if code == 1 && strings.Contains(stderr, "more than half of the managers") {
				stderr = ""
			}
			t.Logf("%s without a quorum: exit code %d after %s", args[:2], code, time.Since(began).Round(10*time.Millisecond))
			said <- stderr + words(err)
		}()
	}
	for range 2 {
		if wrong := <-said; wrong != "" {
			t.Errorf("without a quorum a call says %q, want it to contain `more than half of the managers`", wrong)
		}
	}
	if after := containers(c, c.via) + "|" + containers(c, "w1"); after != before {
		t.Errorf("containers changed: %s, were %s", after, before)
	}
	// The machines that are off stay in everybody's tables: each machine that is on finds out by itself.
	for _, host := range []string{c.via, "w1"} {
		took := until(t, host+" leads no connection to a machine that is off", detection, func() string {
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				_, err := ask(ctx, published(c.address(host), 30000))
				cancel()
				if err != nil {
					return err.Error()
				}
			}
			return ""
		})
		t.Logf("%s answers 20 of 20 after %s more", host, took.Round(10*time.Millisecond))
	}
	c.must(c.lab.PowerOn(t.Context(), lost[0]))
	t.Logf("one of two lost managers back: a write is taken after %s", c.writes("after-quorum", 30*time.Second))
	if strings.Contains(c.shoal("network", "ls"), "never") {
		t.Log("a write that was refused for want of a quorum came through later, as its outcome was not known")
	}
	c.must(c.lab.PowerOn(t.Context(), lost[1]))
	c.threeVoters()
}

// A machine alone, and a machine with the dispatcher that it was connected to: how long until its tasks run elsewhere.
func TestMachineLost(t *testing.T) {
	c := bring(t, 3, 2)
	c.threeVoters()
	c.shareContext("m2", "m3")
	const replicas = 10
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "10", c.image("1.0.0"))
	c.converged("micro", replicas, 30*time.Second)
	c.tell([]step{
		{"alone", func(t *testing.T, c *cluster) {
			c.via = c.leader()
			off := c.powerOff("w2")
			full := c.fullStrength("micro", replicas, "w2")
			t.Logf("a worker off: full strength after %s (aim 6.5 s)", (off + full).Round(10*time.Millisecond))
			c.must(c.lab.PowerOn(t.Context(), "w2"))
			until(t, "w2 is back", 20*time.Second, func() string { return unless(c.nodes()["w2"], "Ready") })
		}},
		{"with its dispatcher", func(t *testing.T, c *cluster) {
			dispatcher, leader := c.dispatcherOf("w1"), c.leader()
			c.via = leader
			if dispatcher == leader {
				c.via = c.managerBeside(leader)
			}
			off := c.powerOff("w1", dispatcher)
			full := c.fullStrength("micro", replicas, "w1", dispatcher)
			t.Logf("a worker and %s, its dispatcher, off (%s led): full strength after %s (aim 8.5 s)", dispatcher, leader, (off + full).Round(10*time.Millisecond))
		}},
	})
}

// powerOff switches machines off at once and says how long that took, for the clock runs from its beginning.
func (c *cluster) powerOff(hosts ...string) time.Duration {
	c.t.Helper()
	began := time.Now()
	done := make(chan error, len(hosts))
	for _, host := range hosts {
		go func() { done <- c.lab.PowerOff(c.t.Context(), host) }()
	}
	for range hosts {
		c.must(<-done)
	}
	return time.Since(began)
}

// fullStrength waits until n tasks run on machines other than the lost ones.
func (c *cluster) fullStrength(service string, n int, lost ...string) time.Duration {
	c.t.Helper()
	return until(c.t, "full strength", 30*time.Second, func() string {
		out, stderr, code := c.try(c.via, "shoal", "service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}", service)
		alive := 0
		for _, line := range lines(out) {
			host, state, _ := strings.Cut(line, " ")
			if strings.HasPrefix(state, "Running") && !slices.Contains(lost, host) {
				alive++
			}
		}
		if code != 0 || alive != n {
			return out + stderr
		}
		return ""
	})
}

// dispatcherOf names the machine whose dispatcher holds a host's session.
func (c *cluster) dispatcherOf(host string) string {
	c.t.Helper()
	_, body := c.curl("https://" + c.address("m1") + ":2384/v1/nodes/" + host)
	var got struct {
		Node struct {
			Node struct {
				Status struct{ Session struct{ DispatcherID string } }
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Node.Node.Status.Session.DispatcherID == "" {
		c.t.Fatalf("the session of %s: %v\n%s", host, err, body)
	}
	for _, line := range lines(c.shoal("node", "ls", "--format", "{{.ID}} {{.Hostname}}")) {
		if id, name, _ := strings.Cut(line, " "); id == got.Node.Node.Status.Session.DispatcherID {
			return name
		}
	}
	c.t.Fatalf("no machine has the dispatcher %s", got.Node.Node.Status.Session.DispatcherID)
	return ""
}

// leader is the host whose store leads.
func (c *cluster) leader() string {
	c.t.Helper()
	leader := ""
	until(c.t, "there is a leader", 15*time.Second, func() string {
		stdout, stderr, _ := c.try(c.via, "shoal", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
		for _, line := range lines(stdout) {
			if name, status, _ := strings.Cut(line, " "); status == "Leader" {
				leader = name
				return ""
			}
		}
		return stdout + stderr
	})
	return leader
}

// managerBeside is one that is not the named one.
func (c *cluster) managerBeside(host string) string {
	if host == "m2" {
		return "m3"
	}
	return "m2"
}

func (c *cluster) threeVoters() {
	c.t.Helper()
	until(c.t, "three managers vote", 30*time.Second, func() string {
		out, stderr, _ := c.try(c.via, "shoal", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		if strings.Count(out, "Ready Reachable") != 2 || strings.Count(out, "Ready Leader") != 1 {
			return out + stderr
		}
		return ""
	})
}

// writes waits until the cluster takes a write.
func (c *cluster) writes(name string, within time.Duration) time.Duration {
	c.t.Helper()
	return until(c.t, "a write is taken", within, func() string {
		_, stderr, code := c.try(c.via, "shoal", "network", "create", "-d", "overlay", name)
		if code != 0 && !strings.Contains(stderr, name+"\" already exists") { // an earlier try whose answer was lost
			return stderr
		}
		return ""
	}).Round(10 * time.Millisecond)
}

// shareContext copies the operator's context to other hosts.
func (c *cluster) shareContext(hosts ...string) {
	c.t.Helper()
	context := c.on("m1", "sh", "-c", "cd /root/.config/shoal && tar c . | base64 -w0")
	for _, host := range hosts {
		c.on(host, "sh", "-c", "mkdir -p /root/.config/shoal && echo "+context+" | base64 -d | tar x -C /root/.config/shoal")
	}
}

func (c *cluster) everyContainer() string {
	c.t.Helper()
	hosts, err := c.lab.Hosts()
	c.must(err)
	var out []string
	for _, host := range hosts {
		out = append(out, host+": "+containers(c, host))
	}
	return strings.Join(out, "; ")
}

func containers(c *cluster, host string) string {
	c.t.Helper()
	return strings.Join(strings.Fields(c.on(host, "ctr", "-n", "shoal", "containers", "ls", "-q")), " ")
}
