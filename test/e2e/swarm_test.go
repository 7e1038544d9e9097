package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/test/harness"
)

// What people expect of a successor of Docker Swarm's orchestration, on real containers: the scenarios of
// docs/reference/scheduling.md, by their numbers there. Machines come one after another, then scenarios are told side by
// side, each with services and labels of its own, and in the end machines are emptied and lost. From the first to the last
// revision no service has more tasks running than are wanted.
func TestSwarmScenarios(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 5, NoInit: true})
	c.on("m1", "shoal", "init", "--advertise-addr", c.address("m1"), "--availability", "drain")
	began := c.watched("m1").now()
	token := c.shoal("join-token", "worker", "-q")
	c.tell([]step{
		{"28 nothing is listed as an empty list", emptyList},
		{"19, 23 and 24 tasks wait for their nodes", func(t *testing.T, c *cluster) { lateBind(t, c, token) }},
		{"19 sixty on nodes that are there", sixty},
		{"side by side", func(_ *testing.T, c *cluster) {
			c.atOnce([]step{
				{"30 an update in batches", batches},
				{"i a crash loop", crashLoop},
				{"31 start-first waits for health", startFirst},
				{"29 a job, twice", jobTwice},
				{"h a blocked update ends", blockedUpdate},
				{"32 a failed update pauses", failedUpdate},
				{"b rebalance", rebalances},
				{"22 a container goes", containerGoes},
				{"32 a failed rollback pauses", failedRollback},
				{"33 health gates", healthGates},
				{"20 scale and delete", scaleAndDelete},
				{"25 constraints", constraints},
				{"g no address is left", noAddress},
				{"28 conflicts and names", conflicts},
				{"26 a preference", preference},
				{"27 most replicas on a node", mostReplicas},
			})
		}},
		{"machines", func(_ *testing.T, c *cluster) {
			c.atOnce([]step{{"24 drain and pause", drainAndPause}, {"21 and i a node is lost", nodeLost}})
		}},
		{"24 and 25 a manager takes tasks", managerTakesTasks},
	})
	c.never(began, surplus)
}

// surplus tells of a service that shows more running tasks than are wanted.
func surplus(s *state.Snapshot) string {
	for svc := range s.Services() {
		if running, desired := state.Counts(s, svc.GetMeta().GetId()); running > desired && !scaledDown(s, svc.GetMeta().GetId(), desired) {
			return fmt.Sprintf("%s shows %d/%d", svc.GetSpec().GetAnnotations().GetName(), running, desired)
		}
	}
	return ""
}

// scaledDown says that there are tasks that have yet to be told to stop, of slots beyond the number that is wanted now.
func scaledDown(s *state.Snapshot, service string, desired uint64) bool {
	slots := map[uint64]bool{}
	for t := range s.TasksOfService(service) {
		if state.DesiredState(t) <= running {
			slots[t.GetDecided().GetSlot()] = true
		}
	}
	return uint64(len(slots)) > desired
}

func emptyList(t *testing.T, c *cluster) {
	status, body := c.curl("https://" + c.address("m1") + ":2384/v1/services")
	if status != "200" || !strings.Contains(strings.ReplaceAll(body, " ", ""), `"services":[]`) {
		t.Errorf("without services the list is %s %s", status, body)
	}
}

// lateBind has tasks wait for nodes, which come one by one; neither a drained manager nor a node that joined drained takes any.
func lateBind(t *testing.T, c *cluster, token string) {
	began := c.now()
	join := func(more ...string) func(host string) {
		return func(host string) {
			c.on(host, append(append([]string{"shoal", "join"}, more...), "--token", token, c.address("m1")+":2377")...)
		}
	}
	c.shoal("service", "create", "--detach", "--name", "sixty", "--replicas", "60", c.image("1.0.0"))
	c.shoal("service", "create", "--detach", "--name", "each", "--mode", "global", c.image("1.0.0"))
	c.waits("sixty", "no suitable node: 1 node is drained")
	each([]string{"w1", "w2"}, join())
	join("--availability", "drain")("w3")
	c.full("sixty", 60)
	bound := c.are("each", map[string]int{"w1": 1, "w2": 1})
	each([]string{"w4", "w5"}, join())
	c.are("each", map[string]int{"w1": 1, "w2": 1, "w4": 1, "w5": 1})
	c.never(began, func(s *state.Snapshot) string {
		for _, host := range []string{"m1", "w3"} {
			for t := range s.TasksOfNode(nodeNamed(s, host).GetMeta().GetId()) {
				return "a drained node has " + t.GetMeta().GetId() + " on " + host
			}
		}
		return ""
	})
	c.shoal("node", "update", "--availability", "active", "w3")
	now := c.are("each", map[string]int{"w1": 1, "w2": 1, "w3": 1, "w4": 1, "w5": 1})
	for _, service := range []string{"sixty", "each"} {
		c.kept(standing(bound, service), standing(now, service))
	}
	if n := len(standing(now, "sixty")); n != 60 {
		t.Errorf("%d of 60 run in the end", n)
	}
}

// each does something for all at once.
func each(all []string, f func(string)) {
	done := make(chan struct{})
	for _, one := range all {
		go func() { defer func() { done <- struct{}{} }(); f(one) }()
	}
	for range all {
		<-done
	}
}

// kept checks that all that stood before stands, untouched.
func (c *cluster) kept(before, after map[string]string) {
	c.t.Helper()
	if len(before) == 0 {
		c.t.Error("nothing was there to be kept")
	}
	for id, was := range before {
		if after[id] != was {
			c.t.Errorf("task %s was %q and is %q", id, was, after[id])
		}
	}
}

func sixty(_ *testing.T, c *cluster) {
	c.shoal("service", "rm", "sixty")
	c.shoal("service", "create", "--name", "more", "--replicas", "60", c.image("1.0.0"))
	c.are("more", map[string]int{"w1": 12, "w2": 12, "w3": 12, "w4": 12, "w5": 12})
	c.shoal("service", "rm", "more")
	// What comes next begins with labels that nobody changes any more.
	for host, labels := range map[string][]string{
		"w1": {"--label-add", "zone=a", "--label-add", "even=yes"}, "w2": {"--label-add", "zone=b", "--label-add", "even=yes"},
		"w3": {"--label-add", "zone=b"}, "w4": {"--label-add", "zone=b"}, "w5": {"--label-add", "zone=b"},
	} {
		c.shoal(append(append([]string{"node", "update"}, labels...), host)...)
	}
}

func drainAndPause(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "moving", "--replicas", "6", "--constraint", "node.hostname in (w4, w5)", c.image("1.0.0"))
	stay := c.are("moving", map[string]int{"w4": 3, "w5": 3})
	c.shoal("node", "update", "--availability", "drain", "w4")
	all := c.are("moving", map[string]int{"w5": 6})
	c.are("each", map[string]int{"w1": 1, "w2": 1, "w3": 1, "w5": 1})
	kept := standing(all, "moving")
	for id, where := range standing(stay, "moving") {
		if strings.Contains(where, " on w5,") && kept[id] != where {
			c.t.Errorf("%s was not on the drained node: %q is %q", id, where, kept[id])
		}
	}
	c.shoal("node", "update", "--availability", "active", "w4")
	c.shoal("service", "scale", "moving=8")
	two := c.are("moving", map[string]int{"w4": 2, "w5": 6})
	c.kept(kept, standing(two, "moving"))
	c.shoal("node", "update", "--availability", "pause", "w4")
	c.shoal("service", "scale", "moving=10")
	four := c.are("moving", map[string]int{"w4": 2, "w5": 8})
	c.kept(standing(two, "moving"), standing(four, "moving"))
	c.shoal("node", "update", "--availability", "active", "w4")
}

// nodeLost: nine tasks on three nodes; one is lost, nine run on two, and the figures never show more than nine. When it comes
// back there are nine, or what was asked for meanwhile.
func nodeLost(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "nine", "--replicas", "9", "--constraint", "node.hostname in (w1, w2, w3)", c.image("1.0.0"))
	before := c.are("nine", map[string]int{"w1": 3, "w2": 3, "w3": 3})
	c.must(c.lab.PowerOff(t.Context(), "w3"))
	after := c.sees("nine run on the other two", 60*time.Second, func(s *state.Snapshot) string {
		if got := byHost(s, "nine"); got["w1"]+got["w2"] != 9 || got["w3"] != 0 {
			return fmt.Sprint(got)
		}
		return ""
	})
	for id, was := range standing(before, "nine") {
		if now := standing(after, "nine")[id]; !strings.Contains(was, " on w3,") && now != was {
			t.Errorf("on a machine that stayed on %q became %q", was, now)
		}
	}
	if got := c.shoal("service", "ls", "--filter", "name=nine", "--format", "{{.Replicas}}"); got != "9/9" {
		t.Errorf("service ls shows %s", got)
	}
	c.shoal("service", "scale", "nine=5")
	c.sees("five run", 60*time.Second, func(s *state.Snapshot) string { return unless(fmt.Sprint(len(runningOf(s, "nine"))), "5") })
	c.must(c.lab.PowerOn(t.Context(), "w3"))
	c.sees("w3 is back", 60*time.Second, func(s *state.Snapshot) string {
		if got := byHost(s, "each")["w3"]; got != 1 {
			return fmt.Sprint(got)
		}
		return ""
	})
	c.full("nine", 5)
}

func managerTakesTasks(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--detach", "--name", "leads", "--replicas", "2", "--constraint", "node.role==manager", c.image("1.0.0"))
	c.waits("leads", "5 nodes do not meet node.role==manager")
	c.shoal("node", "update", "--availability", "active", "m1")
	c.are("leads", map[string]int{"m1": 2})
	c.shoal("service", "create", "--name", "works", "--replicas", "5", "--constraint", "node.role!=manager", c.image("1.0.0"))
	c.are("works", map[string]int{"w1": 1, "w2": 1, "w3": 1, "w4": 1, "w5": 1})
}
