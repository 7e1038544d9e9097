package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tags counts a service's running tasks by image: those of one tag, and all others.
func tags(s *state.Snapshot, service, tag string) (of, other int) {
	for _, t := range runningOf(s, service) {
		if tagOf(s, t) == tag {
			of++
		} else {
			other++
		}
	}
	return of, other
}

// turned are the numbers of new and old running tasks as they followed each other: "2/3".
func (c *cluster) turned(from *state.Snapshot, service, tag string) []string {
	return c.phases(from, func(s *state.Snapshot) string {
		of, other := tags(s, service, tag)
		return fmt.Sprintf("%d/%d", of, other)
	})
}

// atLeast checks that so many tasks ran all along, and that it came to that: the parallelism was made use of.
func (c *cluster) atLeast(from *state.Snapshot, service string, want int) {
	c.t.Helper()
	least := want + 1
	c.never(from, func(s *state.Snapshot) string {
		n := len(runningOf(s, service))
		if least = min(least, n); n < want {
			return fmt.Sprintf("%d tasks of %s run, want %d at least", n, service, want)
		}
		return ""
	})
	if least > want {
		c.t.Errorf("never fewer than %d tasks of %s ran, and %d would have been enough", least, service, want)
	}
}

func (c *cluster) updated(service string, to typesv1.UpdateState) *state.Snapshot {
	c.t.Helper()
	return c.sees(service+" comes to "+to.String(), 60*time.Second, func(s *state.Snapshot) string {
		if st := s.ServiceByName(service).GetUpdateStatus(); st.GetState() != to {
			return st.String()
		}
		return ""
	})
}

// batches: two at a time, and back three at a time, with a delay that is longer than a container needs to start.
func batches(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "batches", "--replicas", "5", "--update-parallelism", "2", "--update-delay", "4s", "--update-monitor", "1s",
		"--rollback-parallelism", "3", "--rollback-delay", "4s", "--rollback-monitor", "1s", c.image("1.0.0"))
	old := c.full("batches", 5)
	c.shoal("service", "update", "--image", c.image("1.1.0"), "batches")
	fresh := c.full("batches", 5)
	c.inOrder(c.turned(old, "batches", "1.1.0"), "0/5", "2/3", "4/1", "5/0")
	c.atLeast(old, "batches", 3)
	c.shoal("service", "rollback", "batches")
	back := c.full("batches", 5)
	c.inOrder(c.turned(fresh, "batches", "1.0.0"), "0/5", "3/2", "5/0")
	c.atLeast(fresh, "batches", 2)
	if n := len(tasksOf(back, "batches", false)); n != 15 {
		c.t.Errorf("%d tasks were made for five slots, an update and a rollback", n)
	}
}

// startFirst: while the new tasks are not healthy the old ones serve, and no more are begun; then one batch follows the other.
func startFirst(t *testing.T, c *cluster) {
	c.flags("first", "old")
	probe := func(file string) []string {
		return []string{"--health-http", "http://:8000/exists?file=/flags/" + file, "--health-interval", "200ms", "--health-retries", "1000"}
	}
	c.shoal(append(append([]string{"service", "create", "--name", "first", "--replicas", "5", "--update-parallelism", "2", "--update-order", "start-first",
		"--update-monitor", "1s", "--mount", "type=bind,source=/root/first,target=/flags"}, probe("old")...), c.image("1.0.0"))...)
	old := c.full("first", 5)
	c.shoal(append(append([]string{"service", "update", "--detach", "--image", c.image("1.1.0")}, probe("new")...), "first")...)
	held := c.sees("two new ones start", 60*time.Second, func(s *state.Snapshot) string {
		n := 0
		for _, t := range tasksOf(s, "first", true) {
			if tagOf(s, t) == "1.1.0" && t.GetObserved().GetState() == starting {
				n++
			}
		}
		return unless(fmt.Sprint(n), "2")
	})
	sick := c.after(held, 3*time.Second)
	c.kept(standing(old, "first"), standing(sick, "first"))
	if of, other := tags(sick, "first", "1.1.0"); of != 0 || other != 5 {
		t.Errorf("while the new ones are not healthy %d new and %d old ones run", of, other)
	}
	c.never(held, func(s *state.Snapshot) string {
		if s.Version().Revision > sick.Version().Revision {
			return ""
		}
		if n := len(tasksOf(s, "first", true)); n != 7 {
			return fmt.Sprintf("there are %d tasks, want 5 old and 2 new", n)
		}
		return ""
	})
	c.flags("first", "new")
	c.updated("first", typesv1.UpdateState_UPDATE_STATE_COMPLETED)
	end := c.full("first", 5)
	if of, _ := tags(end, "first", "1.1.0"); of != 5 {
		t.Errorf("%d new ones run in the end", of)
	}
	c.never(old, func(s *state.Snapshot) string {
		fresh := 0
		for _, t := range tasksOf(s, "first", true) {
			if tagOf(s, t) == "1.1.0" && t.GetObserved().GetState() < running {
				fresh++
			}
		}
		if n := len(runningOf(s, "first")); n < 5 || fresh > 2 {
			return fmt.Sprintf("%d tasks run and %d new ones are on their way, want 5 at least and 2 at most", n, fresh)
		}
		return ""
	})
}

// failedUpdate: of five slots one may fail, and two not. The second failure is of the same slot's second task, for while a slot
// has none that runs the floor lets no other be taken: so four old ones are left, where Docker Swarm leaves three.
func failedUpdate(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "bad", "--replicas", "5", "--update-parallelism", "1", "--update-max-failure-ratio", "0.25", "--update-monitor", "3s",
		"--restart-delay", "200ms", c.image("1.0.0"))
	old := c.full("bad", 5)
	c.refused([]string{"update paused", "has no such image"}, "service", "update", "--image", strings.Replace(c.image("1.0.0"), "micro:", "ghost:", 1), "bad")
	paused := c.updated("bad", typesv1.UpdateState_UPDATE_STATE_PAUSED)
	left := standing(paused, "bad")
	for id := range left {
		if tagOf(paused, paused.Task(id)) != "1.0.0" {
			delete(left, id)
		}
	}
	if len(left) != 4 {
		t.Errorf("when it paused %d of the old ones ran, want 4 of %d", len(left), len(standing(old, "bad")))
	}
	if got := c.shoal("service", "inspect", "-f", "{{.UpdateStatus.State}}", "bad"); got != "paused" {
		t.Errorf("service inspect shows %q", got)
	}
	c.shoal("service", "rollback", "bad")
	back := c.full("bad", 5)
	if of, _ := tags(back, "bad", "1.0.0"); of != 5 {
		t.Errorf("%d old ones run after the rollback", of)
	}
	c.kept(left, standing(back, "bad"))
}

// failedRollback: what the tasks need is taken away, so that an update fails, and the rollback of it too.
func failedRollback(t *testing.T, c *cluster) {
	c.flags("gone")
	c.shoal("service", "create", "--name", "worse", "--replicas", "3", "--update-failure-action", "rollback", "--restart-delay", "200ms",
		"--mount", "type=bind,source=/root/gone,target=/gone", c.image("1.0.0"))
	old := c.full("worse", 3)
	each([]string{"w1", "w2", "w3", "w4", "w5"}, func(host string) { c.on(host, "rmdir", "/root/gone") })
	c.refused([]string{"rollback paused"}, "service", "update", "--image", c.image("1.1.0"), "worse")
	end := c.updated("worse", typesv1.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED)
	if got := c.shoal("service", "inspect", "-f", "{{.UpdateStatus.State}}", "worse"); got != "rollback_paused" {
		t.Errorf("service inspect shows %q", got)
	}
	kept := 0
	for id, was := range standing(old, "worse") {
		if standing(end, "worse")[id] == was {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d of three old tasks are left, want the two that nobody had to touch", kept)
	}
	c.flags("gone")
	c.full("worse", 3)
}

// blockedUpdate: what no node can take ends by the deadline, and goes back.
func blockedUpdate(_ *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "blocked", "--replicas", "3", "--update-progress-deadline", "4s", "--update-failure-action", "rollback", c.image("1.0.0"))
	old := c.full("blocked", 3)
	c.refused([]string{"rolled back to version 1", "lack 4096 GiB of memory"}, "service", "update", "--reserve-memory", "4096g", "blocked")
	c.updated("blocked", typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED)
	back := c.full("blocked", 3)
	kept := 0
	for id, was := range standing(old, "blocked") {
		if standing(back, "blocked")[id] == was {
			kept++
		}
	}
	if kept != 2 {
		c.t.Errorf("%d of three tasks are the same after it, want the two that it did not come to", kept)
	}
}

// rebalances: a node comes to those that a service may use; its tasks move there when they are told to, new first.
func rebalances(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "even", "--replicas", "6", "--constraint", "node.labels.even==yes", c.image("1.0.0"))
	c.are("even", map[string]int{"w1": 3, "w2": 3})
	c.shoal("node", "update", "--label-add", "even=yes", "w3")
	before := c.are("even", map[string]int{"w1": 3, "w2": 3})
	c.shoal("service", "rebalance", "even")
	after := c.are("even", map[string]int{"w1": 2, "w2": 2, "w3": 2})
	c.never(before, func(s *state.Snapshot) string {
		if n := len(runningOf(s, "even")); n < 5 {
			return fmt.Sprintf("%d of 6 run", n)
		}
		return ""
	})
	moved := 0
	for id := range standing(before, "even") {
		if _, there := standing(after, "even")[id]; !there {
			moved++
		}
	}
	if moved != 2 {
		t.Errorf("%d tasks were moved, want 2", moved)
	}
	if got := c.shoal("service", "inspect", "-f", "{{.RebalanceStatus.State}} {{.RebalanceStatus.Moved}}", "even"); !strings.HasSuffix(got, " 2") {
		t.Errorf("service inspect shows %q", got)
	}
}
