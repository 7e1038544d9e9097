package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	starting = typesv1.TaskState_TASK_STATE_STARTING
	running  = typesv1.TaskState_TASK_STATE_RUNNING
	complete = typesv1.TaskState_TASK_STATE_COMPLETE
	failed   = typesv1.TaskState_TASK_STATE_FAILED
)

// begun are the times at which the processes of a service's containers began, in clock ticks since boot (proc(5), field 22).
func (c *cluster) begun(s *state.Snapshot, service string) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, t := range runningOf(s, service) {
		host := state.Hostname(s.Node(t.GetDecided().GetNodeId()))
		out[t.GetObserved().GetContainerId()] = c.on(host, "cut", "-d ", "-f22", fmt.Sprintf("/proc/%d/stat", t.GetObserved().GetPid()))
	}
	return out
}

func scaleAndDelete(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "twenty", "--replicas", "2", c.image("1.0.0"))
	two := c.full("twenty", 2)
	before := c.begun(two, "twenty")
	c.shoal("service", "scale", "twenty=5")
	five := c.full("twenty", 5)
	c.kept(before, c.begun(five, "twenty"))
	c.kept(standing(two, "twenty"), standing(five, "twenty"))
	if n := len(tasksOf(five, "twenty", false)); n != 5 {
		t.Errorf("%d tasks were made for five slots", n)
	}
	ids := slices.Collect(maps.Keys(c.begun(five, "twenty")))
	c.shoal("service", "rm", "twenty")
	for _, host := range []string{"w1", "w2", "w3", "w4", "w5"} {
		until(t, "no container of it is on "+host, 30*time.Second, func() string {
			left := strings.Fields(containers(c, host))
			return strings.Join(slices.DeleteFunc(left, func(id string) bool { return !slices.Contains(ids, id) }), " ")
		})
	}
}

// containerGoes takes containers away in the ways that there are beside us: exactly that one is replaced each time.
func containerGoes(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "five", "--replicas", "5", "--restart-delay", "500ms", c.image("1.0.0"))
	for _, way := range []struct{ name, script string }{
		{"stopped", "ctr -n shoal task kill -s TERM $1"},
		{"killed", "ctr -n shoal task kill -s KILL $1"},
		{"its process killed", "kill -9 $2"},
		{"removed", "ctr -n shoal task rm -f $1; ctr -n shoal container rm $1; true"},
	} {
		before := c.full("five", 5)
		victim := runningOf(before, "five")[0]
		o := victim.GetObserved()
		c.on(state.Hostname(before.Node(victim.GetDecided().GetNodeId())), "sh", "-c", way.script, "sh", o.GetContainerId(), fmt.Sprint(o.GetPid()))
		after := c.sees("it is replaced after it was "+way.name, 60*time.Second, func(s *state.Snapshot) string {
			if _, still := standing(s, "five")[victim.GetMeta().GetId()]; still {
				return "it is taken for running"
			}
			return whole("five", 5)(s)
		})
		others := standing(before, "five")
		delete(others, victim.GetMeta().GetId())
		c.kept(others, standing(after, "five"))
		c.never(before, func(s *state.Snapshot) string {
			if n := len(runningOf(s, "five")); n < 4 {
				return fmt.Sprintf("%d of 5 run when one was %s", n, way.name)
			}
			return ""
		})
		slot := victim.GetDecided().GetSlot()
		for t := range after.TasksOfSlot(victim.GetServiceId(), slot) {
			if t.GetMeta().GetId() == victim.GetMeta().GetId() && !state.Terminal(t.GetObserved().GetState()) {
				c.t.Errorf("the one that was %s shows %s", way.name, t.GetObserved().GetState())
			}
		}
	}
}

func constraints(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--detach", "--name", "fast", "--replicas", "2", "--constraint", "node.labels.disk==ssd", c.image("1.0.0"))
	c.waits("fast", "5 nodes do not meet node.labels.disk==ssd")
	c.shoal("node", "update", "--label-add", "disk=ssd", "w2")
	c.are("fast", map[string]int{"w2": 2})
	c.shoal("service", "create", "--name", "slow", "--replicas", "4", "--constraint", "node.labels.disk!=ssd", c.image("1.0.0"))
	c.are("slow", map[string]int{"w1": 1, "w3": 1, "w4": 1, "w5": 1})
}

// preference: one node is zone a, four are zone b; each zone gets half.
func preference(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "zones", "--replicas", "8", "--placement-pref", "spread=node.labels.zone", c.image("1.0.0"))
	c.are("zones", map[string]int{"w1": 4, "w2": 1, "w3": 1, "w4": 1, "w5": 1})
}

func mostReplicas(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--detach", "--name", "capped", "--replicas", "2", "--replicas-max-per-node", "1", "--constraint", "node.hostname==w1", c.image("1.0.0"))
	c.waits("capped", "1 node has a task of the service already")
	c.sees("the other runs", 60*time.Second, func(s *state.Snapshot) string { return unless(fmt.Sprint(byHost(s, "capped")), "map[w1:1]") })
}

func conflicts(t *testing.T, c *cluster) {
	id := c.shoal("service", "create", "--name", "name", c.image("1.0.0"))
	c.refused([]string{`"name" is taken`}, "service", "create", "--name", "name", c.image("1.0.0"))
	gateway := "https://" + c.address("m1") + ":2384/v1/services/"
	var got struct {
		Service struct{ Spec map[string]any }
		Version map[string]any
	}
	_, body := c.curl(gateway + "name")
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"name", id} {
		c.shoal("service", "update", "--label-add", "by="+target, target)
		if by := c.shoal("service", "inspect", "-f", "{{.Spec.Labels.by}}", "name"); by != target {
			t.Errorf("an update of %s has set %q", target, by)
		}
	}
	stale, err := json.Marshal(map[string]any{"version": got.Version, "spec": got.Service.Spec})
	c.must(err)
	if status, body := c.curl("-X", "PUT", "-d", string(stale), gateway+"name"); status != "409" || !strings.Contains(body, "update out of sequence") {
		t.Errorf("a stale version: %s %s, want 409 update out of sequence", status, body)
	}
	if by := c.shoal("service", "inspect", "-f", "{{.Spec.Labels.by}}", id); by != id {
		t.Errorf("the refused update has left %q", by)
	}
	c.full("name", 1)
}

func jobTwice(t *testing.T, c *cluster) {
	began := c.now()
	row := func(name string) string {
		return c.shoal("service", "ls", "--filter", "name="+name, "--format", "{{.Mode}} {{.Replicas}}")
	}
	// The image's program ends with 0 when it is asked for help.
	c.shoal("service", "create", "--name", "seven", "--mode", "replicated-job", "--replicas", "7", "--max-concurrent", "2", c.image("1.0.0"), "-h")
	if got := row("seven"); got != "replicated job 0/2 (7/7 completed)" {
		t.Errorf("service ls shows %q", got)
	}
	c.shoal("service", "update", "--force", "seven")
	done := c.sees("the second run is complete", 60*time.Second, func(s *state.Snapshot) string {
		if j := s.ServiceByName("seven").GetJobStatus(); j.GetIteration() != 2 || j.GetState() != typesv1.JobState_JOB_STATE_COMPLETED {
			return j.String()
		}
		return ""
	})
	if got := row("seven"); got != "replicated job 0/2 (7/7 completed)" {
		t.Errorf("after the second run service ls shows %q", got)
	}
	slots := map[uint64]int{} // completed tasks by run
	for _, task := range tasksOf(done, "seven", false) {
		if task.GetObserved().GetState() == complete {
			slots[task.GetDecided().GetIteration()]++
		}
	}
	if slots[2] != 7 {
		t.Errorf("complete by run: %v, want 7 of the second", slots)
	}
	most := 0
	c.never(began, func(s *state.Snapshot) string {
		n := len(tasksOf(s, "seven", true))
		if most = max(most, n); n > 2 {
			return fmt.Sprintf("%d tasks of the job are active", n)
		}
		return ""
	})
	if most != 2 {
		t.Errorf("at most %d at once, want 2", most)
	}
	c.shoal("service", "create", "--detach", "--name", "endless", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2", c.image("1.0.0"))
	c.sees("two of it run", 60*time.Second, func(s *state.Snapshot) string { return unless(fmt.Sprint(len(runningOf(s, "endless"))), "2") })
	if got := row("endless"); got != "replicated job 2/2 (0/3 completed)" {
		t.Errorf("while it runs service ls shows %q", got)
	}
	c.shoal("service", "rm", "endless")
}

// flags makes a folder on each worker, with files in it, for containers whose health they decide.
func (c *cluster) flags(folder string, files ...string) {
	c.t.Helper()
	each([]string{"w1", "w2", "w3", "w4", "w5"}, func(host string) {
		c.on(host, "mkdir", "-p", "/root/"+folder)
		for _, f := range files {
			c.on(host, "touch", "/root/"+folder+"/"+f)
		}
	})
}

// after waits until the cluster's clock is some time further.
func (c *cluster) after(s *state.Snapshot, d time.Duration) *state.Snapshot {
	c.t.Helper()
	return c.sees("cluster time goes on", d+30*time.Second, func(now *state.Snapshot) string {
		if passed := now.ClusterTime().Sub(s.ClusterTime()); passed < d {
			return passed.String()
		}
		return ""
	})
}

// healthGates: one that was never healthy goes on starting; one that is not any more fails and says why, although its process
// ends with 0.
func healthGates(t *testing.T, c *cluster) {
	c.flags("gates", "well")
	create := func(name, file string, more ...string) {
		c.shoal(append(append([]string{"service", "create", "--detach", "--name", name, "--mount", "type=bind,source=/root/gates,target=/flags",
			"--health-http", "http://:8000/exists?file=/flags/" + file, "--health-interval", "200ms"}, more...), c.image("1.0.0"))...)
	}
	create("never", "none", "--health-retries", "1000")
	create("ill", "well", "--restart-condition", "none")
	begun := c.sees("one starts", 60*time.Second, func(s *state.Snapshot) string {
		for _, t := range tasksOf(s, "never", true) {
			return unless(t.GetObserved().GetState().String(), starting.String())
		}
		return "none is there"
	})
	well := c.full("ill", 1)
	task := runningOf(well, "ill")[0]
	c.on(state.Hostname(well.Node(task.GetDecided().GetNodeId())), "rm", "/root/gates/well")
	c.sees("the other fails", 60*time.Second, func(s *state.Snapshot) string {
		return unless(s.Task(task.GetMeta().GetId()).GetObserved().GetState().String(), failed.String())
	})
	got := c.inspectTask(task.GetMeta().GetId())
	if got.Status.State != "failed" || got.Status.ContainerStatus.ExitCode != 0 || !strings.Contains(got.Status.Err, "unhealthy: failed 3 times in a row") {
		t.Errorf("the task that became unhealthy: %+v, want failed with exit code 0, by its health check", got.Status)
	}
	c.after(begun, 3*time.Second)
	c.never(begun, func(s *state.Snapshot) string {
		all := tasksOf(s, "never", false)
		if len(all) != 1 || all[0].GetObserved().GetState() != starting {
			return fmt.Sprintf("of the one that was never healthy there are %v", all)
		}
		return ""
	})
	if rows := c.tasks("never", false); len(rows) != 1 || !strings.HasPrefix(rows[0].CurrentState, "Starting") || !strings.Contains(rows[0].Error, "health check") {
		t.Errorf("the task that was never healthy: %+v", rows)
	}
	c.shoal("service", "rm", "never", "ill")
}

// crashLoop has a service and a job fail again and again: as many records are kept as were asked for.
func crashLoop(_ *testing.T, c *cluster) {
	const (
		limit  = 5 // of the cluster, for each slot
		ofJob  = 3
		rounds = 8
	)
	began := c.now()
	c.shoal("service", "create", "--detach", "--name", "loop", "--replicas", "2", "--restart-delay", "100ms", c.image("crash"))
	c.shoal("service", "create", "--detach", "--name", "loopjob", "--mode", "replicated-job", "--history-limit", fmt.Sprint(ofJob), "--restart-delay", "100ms", c.image("crash"))
	ended := func(s *state.Snapshot, name string) map[string]bool {
		out := map[string]bool{}
		for _, t := range tasksOf(s, name, false) {
			if state.Terminal(t.GetObserved().GetState()) && t.GetDecided().GetDesired() > running {
				out[t.GetMeta().GetId()] = true
			}
		}
		return out
	}
	times := map[string]map[string]bool{} // ids of ended tasks by slot
	c.sees("each slot has failed many times", 90*time.Second, func(s *state.Snapshot) string {
		for _, name := range []string{"loop", "loopjob"} {
			for id := range ended(s, name) {
				slot := fmt.Sprintf("%s.%d", name, s.Task(id).GetDecided().GetSlot())
				if times[slot] == nil {
					times[slot] = map[string]bool{}
				}
				times[slot][id] = true
			}
		}
		often := 0
		for _, seen := range times {
			if len(seen) >= rounds {
				often++
			}
		}
		return unless(fmt.Sprint(often), "3") // two of the service, one of the job
	})
	most := map[string]int{}
	c.never(began, func(s *state.Snapshot) string {
		for name, want := range map[string]int{"loop": 2 * limit, "loopjob": ofJob} {
			n := len(ended(s, name))
			if most[name] = max(most[name], n); n > want {
				return fmt.Sprintf("%d ended tasks of %s are remembered, want %d at most", n, name, want)
			}
		}
		return ""
	})
	if most["loop"] != 2*limit || most["loopjob"] != ofJob {
		c.t.Errorf("at most %v ended tasks were remembered, want %d and %d", most, 2*limit, ofJob)
	}
	c.shoal("service", "rm", "loop", "loopjob")
}

func noAddress(_ *testing.T, c *cluster) {
	c.shoal("network", "create", "-d", "overlay", "--subnet", "10.99.0.0/29", "tiny")
	c.shoal("service", "create", "--detach", "--name", "crowd", "--replicas", "12", "--network", "tiny", c.image("1.0.0"))
	c.waits("crowd", "network tiny")
	c.shoal("service", "scale", "crowd=3")
	c.full("crowd", 3)
}
