package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// The second half of the story, steps 7 to 12, with three managers, so that one may die: the service is scaled, loses a
// container, a machine and a manager, is rolled out and back, and moves. Whoever decides or remembers is killed in the midst of
// it, each time that something is half done; what comes of it is the same.
func TestStoryUnderFaults(t *testing.T) {
	c := bring(t, 3, 2)
	c.threeVoters()
	c.shareContext("m2", "m3")
	c.watched("m1", "m2", "m3")
	began := c.now()
	c.shoal("network", "create", "-d", "overlay", "micro-net")
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "1", "--network", "micro-net", "--restart-delay", "4s", c.image("1.0.0"))
	c.tell([]step{
		{"07 scale", scaledToSeven},
		{"08 a container dies, and the scheduler while its successor waits", containerAndScheduler},
		{"09 a machine dies", workerLost},
		{"10 a manager dies", managerLost},
		{"11 roll, and who leads is killed", func(t *testing.T, c *cluster) {
			rolls(t, c, "1.1.0", typesv1.UpdateState_UPDATE_STATE_COMPLETED, "service", "update", "--detach", "--image", c.image("1.1.0"), "--update-parallelism", "2", "--update-order", "start-first", "--update-monitor", "1s",
				"--rollback-parallelism", "2", "--rollback-order", "start-first", "--rollback-monitor", "1s")
		}},
		{"11 back, and who leads is killed", func(t *testing.T, c *cluster) {
			rolls(t, c, "1.0.0", typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, "service", "rollback", "--detach")
		}},
		{"12 drain and return", drainsAndReturns},
	})
	c.never(began, surplus)
}

func scaledToSeven(t *testing.T, c *cluster) {
	one := c.full("micro", 1)
	c.shoal("service", "scale", "micro=7")
	seven := c.full("micro", 7)
	c.kept(standing(one, "micro"), standing(seven, "micro"))
	if got := slices.Sorted(maps.Values(byHost(seven, "micro"))); !slices.Equal(got, []int{1, 1, 1, 2, 2}) {
		t.Errorf("seven tasks on five machines: %v", got)
	}
	settle(t, c, 30000, 7)
}

// active is the host whose scheduler decides.
func (c *cluster) active() string {
	c.t.Helper()
	s := c.sees("a scheduler decides", 20*time.Second, func(s *state.Snapshot) string {
		if s.Lease("scheduler").GetHolder() == "" {
			return "none does"
		}
		return ""
	})
	_, machine, _ := strings.Cut(s.Lease("scheduler").GetHolder(), "/")
	return state.Hostname(s.Node(machine))
}

// killActive kills the scheduler that decides, and waits for another or the same one anew.
func (c *cluster) killActive() {
	c.t.Helper()
	number := c.now().Lease("scheduler").GetNumber()
	host := c.active()
	c.must(c.lab.Kill(c.t.Context(), host, "scheduler"))
	s := c.sees("a scheduler takes over", 20*time.Second, func(s *state.Snapshot) string {
		if l := s.Lease("scheduler"); l.GetNumber() == number {
			return l.String()
		}
		return ""
	})
	c.t.Logf("the scheduler of %s was killed; %s took over", host, s.Lease("scheduler").GetHolder())
}

// killLeader kills the store that leads.
func (c *cluster) killLeader() {
	c.t.Helper()
	host := c.leader()
	c.must(c.lab.Kill(c.t.Context(), host, "store"))
	c.t.Logf("the store of %s, which led, was killed", host)
}

// slots checks what a service has come to: one running task of the tag in each slot, and so many made since a moment.
func (c *cluster) slots(service, tag string, n, made int, since *state.Snapshot) {
	c.t.Helper()
	end := c.full(service, n)
	by := map[uint64]string{}
	for _, t := range runningOf(end, service) {
		by[t.GetDecided().GetSlot()] += tagOf(end, t)
	}
	for slot := range n {
		if by[uint64(slot)+1] != tag {
			c.t.Errorf("slot %d has %q, want %s", slot+1, by[uint64(slot)+1], tag)
		}
	}
	fresh := map[string]bool{}
	for _, s := range c.witness.from(since) {
		for _, t := range tasksOf(s, service, false) {
			if since.Task(t.GetMeta().GetId()) == nil {
				fresh[t.GetMeta().GetId()] = true
			}
		}
	}
	if len(fresh) != made {
		c.t.Errorf("%d tasks of %s were made, want %d", len(fresh), service, made)
	}
}

func containerAndScheduler(t *testing.T, c *cluster) {
	before := c.full("micro", 7)
	victim := runningOf(before, "micro")[0]
	host := state.Hostname(before.Node(victim.GetDecided().GetNodeId()))
	c.on(host, "ctr", "-n", "shoal", "task", "kill", "-s", "KILL", victim.GetObserved().GetContainerId())
	delayed := c.sees("its successor waits for the restart delay", 20*time.Second, func(s *state.Snapshot) string {
		for task := range s.TasksOfSlot(victim.GetServiceId(), victim.GetDecided().GetSlot()) {
			if task.GetDecided().GetStartAfter() != nil && task.GetMeta().GetId() != victim.GetMeta().GetId() {
				return ""
			}
		}
		return "there is none yet"
	})
	c.killActive()
	c.slots("micro", "1.0.0", 7, 1, before)
	c.inOrder(c.phases(before, func(s *state.Snapshot) string { return fmt.Sprint(len(runningOf(s, "micro"))) }), "7", "6", "7")
	after := c.now()
	others := standing(before, "micro")
	delete(others, victim.GetMeta().GetId())
	c.kept(others, standing(after, "micro"))
	for _, task := range runningOf(after, "micro") {
		if task.GetDecided().GetSlot() == victim.GetDecided().GetSlot() {
			// Both clocks are this machine's.
			if waited := task.GetObserved().GetAt().AsTime().Sub(delayed.Task(victim.GetMeta().GetId()).GetObserved().GetAt().AsTime()); waited < 4*time.Second {
				t.Errorf("the successor runs %s after the end, although the restart delay is 4 s", waited)
			}
		}
	}
	dead := c.inspectTask(victim.GetMeta().GetId())
	if dead.Status.ContainerStatus.ExitCode != 137 || !strings.Contains(dead.Status.Err, "137") {
		t.Errorf("the dead task shows %+v, want exit code 137", dead.Status)
	}
}

// away waits until a service's seven tasks run elsewhere, and those that were elsewhere before are untouched.
func (c *cluster) away(before *state.Snapshot, service, host string, n int) *state.Snapshot {
	c.t.Helper()
	after := c.sees(fmt.Sprintf("%d tasks run on other machines than %s", n, host), 60*time.Second, func(s *state.Snapshot) string {
		by := byHost(s, service)
		if total := len(runningOf(s, service)); by[host] != 0 || total != n {
			return fmt.Sprint(by)
		}
		return ""
	})
	others := standing(before, service)
	maps.DeleteFunc(others, func(_, where string) bool { return strings.Contains(where, " on "+host+",") })
	c.kept(others, standing(after, service))
	return after
}

func workerLost(t *testing.T, c *cluster) {
	before := c.full("micro", 7)
	began := time.Now()
	c.must(c.lab.PowerOff(t.Context(), "w2"))
	c.away(before, "micro", "w2", 7)
	t.Logf("full strength after %s", time.Since(began).Round(10*time.Millisecond))
	if got := c.nodes()["w2"]; got != "Down" {
		t.Errorf("w2 is %s", got)
	}
	if got := c.shoal("service", "ls", "--format", "{{.Replicas}}"); got != "7/7" {
		t.Errorf("service ls shows %s", got)
	}
	c.must(c.lab.PowerOn(t.Context(), "w2"))
	until(t, "w2 is back", 20*time.Second, func() string { return unless(c.nodes()["w2"], "Ready") })
	c.full("micro", 7)
}

func managerLost(t *testing.T, c *cluster) {
	before := c.full("micro", 7)
	lost := c.leader()
	c.via = c.managerBeside(lost)
	c.must(c.lab.PowerOff(t.Context(), lost))
	t.Logf("the leader's machine off: a write is taken after %s", c.writes("while-away", 15*time.Second))
	c.away(before, "micro", lost, 7)
	c.must(c.lab.PowerOn(t.Context(), lost))
	until(t, "it follows", 30*time.Second, func() string {
		out := c.shoal("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		if !slices.Contains(lines(out), lost+" Ready Reachable") {
			return out
		}
		return ""
	})
	c.full("micro", 7)
	c.threeVoters()
}

// rolls moves seven tasks to another version, two at a time, under load through two machines, and kills the store that leads
// and the scheduler that decides while it is half done: not a request fails, nothing is made twice and nothing forgotten.
func rolls(t *testing.T, c *cluster, tag string, end typesv1.UpdateState, args ...string) {
	before := c.full("micro", 7)
	settle(t, c, 30000, 7)
	l := startLoad(t.Context(), published(c.address("w1"), 30000), published(c.address("w2"), 30000))
	defer l.stop()
	c.shoal(append(args, "micro")...)
	half := func(n int) {
		c.sees(fmt.Sprintf("%d new ones run", n), 60*time.Second, func(s *state.Snapshot) string {
			if of, other := tags(s, "micro", tag); of < n {
				return fmt.Sprintf("%d/%d", of, other)
			}
			return ""
		})
	}
	half(1)
	c.killLeader()
	half(3)
	c.killActive()
	c.updated("micro", end)
	c.slots("micro", tag, 7, 7, before)
	l.stop()
	if got := l.take(); got.failed > 0 {
		t.Errorf("%s; the last that failed: %v", got, got.example)
	}
	c.never(before, func(s *state.Snapshot) string {
		if n := len(runningOf(s, "micro")); n < 7 {
			return fmt.Sprintf("%d tasks run although new ones start first", n)
		}
		return ""
	})
	c.threeVoters()
}

func drainsAndReturns(t *testing.T, c *cluster) {
	before := c.full("micro", 7)
	host := "m2"
	if byHost(before, "micro")[host] == 0 {
		t.Fatalf("nothing is on %s: %v", host, byHost(before, "micro"))
	}
	c.shoal("node", "update", "--availability", "drain", host)
	c.away(before, "micro", host, 7)
	c.full("micro", 7)
	c.shoal("node", "update", "--availability", "active", host)
	c.shoal("service", "update", "--force", "micro")
	if got := byHost(c.full("micro", 7), "micro"); got[host] == 0 {
		t.Errorf("after the forced update nothing is on %s: %v", host, got)
	}
	// New ones that start beside old ones do not come out even; this does.
	c.shoal("service", "rebalance", "micro")
	c.sees("seven tasks are even on five machines", 60*time.Second, func(s *state.Snapshot) string {
		by := byHost(s, "micro")
		if got := slices.Sorted(maps.Values(by)); !slices.Equal(got, []int{1, 1, 1, 2, 2}) {
			return fmt.Sprint(by)
		}
		return whole("micro", 7)(s)
	})
}
