package sim_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// spread is the least and the most live tasks of a service on a hollow node.
func spread(t *testing.T, c *sim.Cluster, service string) (least, most int) {
	t.Helper()
	tasks, err := c.Operator.ListTasks(service, true)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]int{}
	for _, n := range c.With(authzv1.Role_ROLE_AGENT) {
		by[n.Name] = 0
	}
	for _, task := range tasks {
		by[task.GetNodeHostname()]++
	}
	least = len(tasks)
	for _, n := range by {
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

// The story in virtual time: steps 1 to 10 of the main job with 20 hollow nodes.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Steps 1 and 2: init and join.
		c := sim.New(t, 1, sim.Standard(20))
		o := c.Operator
		c.Ready(10 * time.Second)
		audit := sim.NewAudit(c, only("n03"))
		// Steps 3 to 5: a network, and a service with the first free port.
		if err := o.CreateNetwork("micro-net"); err != nil {
			t.Fatal(err)
		}
		svc, err := o.CreateService("micro", 1, "micro-net")
		if err != nil {
			t.Fatal(err)
		}
		if port := svc.GetEndpoint().GetPorts()[0].GetPublishedPort(); port != 30000 {
			t.Errorf("published port %d, want 30000", port)
		}
		t.Logf("first replica: %s", o.Converge("micro", 1, 10*time.Second))
		first, err := o.ListTasks("micro", true)
		if err != nil {
			t.Fatal(err)
		}
		// Step 7: scale; the first container stays.
		if err := o.Scale("micro", 60); err != nil {
			t.Fatal(err)
		}
		t.Logf("1 to 60: %s", o.Converge("micro", 60, 20*time.Second))
		if least, most := spread(t, c, "micro"); most-least > 1 {
			t.Errorf("spread from %d to %d, want a difference of 1 at most", least, most)
		}
		kept := c.MachineOf(first[0].GetTask().GetDecided().GetNodeId())
		if !kept.Runs(first[0].GetTask().GetMeta().GetId()) {
			t.Error("the first container did not survive scaling up")
		}
		everyMachineAnswers(t, c)
		containerDies(t, c)
		machineDies(t, c)
		leaderDies(t, c)
		c.Until("exactly the wanted containers run", 10*time.Second, c.Strays)
		audit.Agree(10 * time.Second)
		audit.Report(sim.Hits{})
	})
}

// Step 6: the published port answers on every machine, and all tasks take their turns.
func everyMachineAnswers(t *testing.T, c *sim.Cluster) {
	t.Helper()
	live, answers := c.Operator.TaskIDs("micro"), map[string]int{}
	for _, m := range c.With(authzv1.Role_ROLE_MESHPROXY) {
		own := map[string]bool{}
		for range len(live) {
			c.Until("an answer", 5*time.Second, func() string {
				task, err := c.Ask(m, "30000")
				if err != nil {
					return m.Name + ": " + err.Error()
				}
				answers[task]++
				own[task] = true
				return ""
			})
		}
		if len(own) != len(live) {
			t.Errorf("%d of %d tasks answer on %s", len(own), len(live), m.Name)
		}
	}
	for task, n := range answers {
		if !slices.Contains(live, task) || n != len(c.With(authzv1.Role_ROLE_MESHPROXY)) {
			t.Errorf("task %s has answered %d times, want one of %d on each machine", task, n, len(live))
		}
	}
}

// Step 8: a container dies behind shoal's back; the slot is filled again after the restart delay.
func containerDies(t *testing.T, c *sim.Cluster) {
	t.Helper()
	o := c.Operator
	tasks, err := o.ListTasks("micro", true)
	if err != nil {
		t.Fatal(err)
	}
	victim := tasks[7].GetTask()
	m := c.MachineOf(victim.GetDecided().GetNodeId())
	if !m.Runtime.Kill(victim.GetObserved().GetContainerId(), 137) {
		t.Fatalf("%s has no container %s", m.Name, victim.GetObserved().GetContainerId())
	}
	c.Until("one is missed", 5*time.Second, func() string {
		if o.Wrong("micro", 60) == "" {
			return "nobody is"
		}
		return ""
	})
	if took := o.Converge("micro", 60, 15*time.Second); took < 4*time.Second {
		t.Errorf("replaced after %s, want the restart delay of 5 s", took)
	}
	all, err := o.ListTasks("micro", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range all {
		if task.GetTask().GetMeta().GetId() == victim.GetMeta().GetId() {
			if got := task.GetTask().GetObserved().GetExitCode(); got != 137 {
				t.Errorf("the dead task shows exit code %d, want 137", got)
			}
			return
		}
	}
	t.Error("the dead task is not in the history")
}

// Step 9: a machine dies; its tasks run elsewhere within seconds.
func machineDies(t *testing.T, c *sim.Cluster) {
	t.Helper()
	o, lost := c.Operator, c.Machine("n03")
	lost.PowerOff()
	down := c.Until("n03 is down", 10*time.Second, func() string {
		if s := o.NodeState("n03"); s != typesv1.NodeState_NODE_STATE_DOWN {
			return s.String()
		}
		return ""
	})
	full := o.Converge("micro", 60, 10*time.Second)
	t.Logf("machine lost: down after %s, full strength %s later", down, full)
	if down+full > 8*time.Second {
		t.Errorf("full strength after %s, want 8 s at most", down+full)
	}
	lost.Restart()
	c.Until("n03 is back", 10*time.Second, func() string {
		if s := o.NodeState("n03"); s != typesv1.NodeState_NODE_STATE_READY {
			return s.String()
		}
		return ""
	})
	o.Converge("micro", 60, 10*time.Second)
}

// Step 10: the leader's machine dies; another leads, writes go on, nobody else's containers are touched.
func leaderDies(t *testing.T, c *sim.Cluster) {
	t.Helper()
	o := c.Operator
	lost := o.Leader()
	if lost == nil {
		t.Fatal("no leader")
	}
	if lost.Name == "m1" { // the gateway that the operator uses stays
		lost.Kill("store")
		t.Logf("the leader is on m1: its store alone is killed")
	} else {
		lost.PowerOff()
	}
	starts := c.Starts()
	took := c.Until("a write is taken", 10*time.Second, func() string {
		if err := o.CreateNetwork("after-the-loss"); err != nil && !sim.Exists(err) {
			return err.Error()
		}
		return ""
	})
	t.Logf("leader lost: a write is taken after %s", took)
	if took > 3*time.Second {
		t.Errorf("a write is taken after %s, want 3 s at most", took)
	}
	time.Sleep(20 * time.Second)
	if again := c.Starts(); again != starts {
		t.Errorf("%d containers were started for the loss of a leader", again-starts)
	}
	if lost.Name == "m1" {
		if err := lost.StartAgain("store"); err != nil {
			t.Fatal(err)
		}
	} else {
		lost.Restart()
	}
	c.Until("it follows", 20*time.Second, func() string { return o.Manager(lost.ID) })
	o.Converge("micro", 60, 10*time.Second)
}
