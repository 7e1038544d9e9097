package sim_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// small is a cluster of the standard managers and a few nodes, with a service of twice as many replicas.
func small(t *testing.T, seed uint64, nodes int) *sim.Cluster {
	t.Helper()
	c := sim.New(t, seed, sim.Standard(nodes))
	serve(t, c, uint64(2*nodes))
	return c
}

func serve(t *testing.T, c *sim.Cluster, replicas uint64) {
	t.Helper()
	c.Ready(10 * time.Second)
	if _, err := c.Operator.CreateService("web", replicas); err != nil {
		t.Fatal(err)
	}
	c.Operator.Converge("web", replicas, 10*time.Second)
}

func nobody(string) bool { return false }

// whole wants the service as it was, exactly its containers, and a cluster that takes writes.
func whole(t *testing.T, c *sim.Cluster, replicas uint64, within time.Duration) {
	t.Helper()
	t.Logf("ready again after %s", c.Ready(within))
	t.Logf("converged %s later", c.Operator.Converge("web", replicas, within))
	c.Until("exactly the wanted containers run", within, c.Strays)
	if err := c.Operator.CreateNetwork("after"); err != nil {
		t.Errorf("a write: %v", err)
	}
}

// fresh wants every certificate of every machine to be valid for a while.
func fresh(t *testing.T, c *sim.Cluster, within time.Duration) {
	t.Helper()
	took := c.Until("every certificate is renewed", within, func() string {
		for _, m := range c.Machines {
			for _, r := range m.Roles {
				if until := m.NotAfter(t, r); until.Before(m.Now().Add(24 * time.Hour)) {
					return m.Name + ": " + r.String() + " until " + until.String()
				}
			}
		}
		return ""
	})
	t.Logf("all certificates are renewed after %s", took)
}

// Everything is off for five days, so that every leaf (72 h) has run out: it comes back without a person, and what the
// power cut has ended is replaced.
func TestFiveDaysOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(t, 1, 4)
		before := c.Operator.TaskIDs("web")
		for _, m := range c.Machines {
			m.PowerOff()
		}
		c.Operator.Leave()
		time.Sleep(5 * 24 * time.Hour)
		for _, m := range c.Machines {
			m.Restart()
		}
		c.Operator.SitDown()
		whole(t, c, 8, 3*time.Minute)
		fresh(t, c, 5*time.Minute)
		for _, id := range c.Operator.TaskIDs("web") {
			if slices.Contains(before, id) {
				t.Errorf("task %s has outlived the power cut of its machine", id)
			}
		}
	})
}

// All processes are away for five days and the containers run on: none is touched when the processes come back.
func TestFiveDaysWithoutProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(t, 2, 4)
		before, starts := c.Operator.TaskIDs("web"), c.Starts()
		for _, m := range c.Machines {
			m.KillAll()
		}
		c.Operator.Leave()
		time.Sleep(5 * 24 * time.Hour)
		c.StartAll(0, c.Machines...)
		c.Operator.SitDown()
		whole(t, c, 8, 3*time.Minute)
		fresh(t, c, 5*time.Minute)
		if diff := cmp.Diff(before, c.Operator.TaskIDs("web")); diff != "" {
			t.Errorf("tasks before and after:\n%s", diff)
		}
		if again := c.Starts(); again != starts {
			t.Errorf("%d containers were started", again-starts)
		}
	})
}

// The managers' processes are away for an hour: no container is stopped or started, then or afterwards, and every connection to a
// published port of the other machines is answered.
func TestControlPlaneOffForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(t, 3, 2)
		audit := sim.NewAudit(c, nobody)
		before, starts := c.Operator.TaskIDs("web"), c.Starts()
		nodes := slices.DeleteFunc(c.With(authzv1.Role_ROLE_AGENT), func(m *sim.Machine) bool { return slices.Contains(m.Roles, authzv1.Role_ROLE_STORE) })
		for _, m := range nodes {
			heard := map[string]bool{}
			c.Until("all tasks are in its tables", 10*time.Second, func() string {
				if task, err := c.Ask(m, "30000"); err == nil {
					heard[task] = true
				}
				if len(heard) < len(before) {
					return fmt.Sprintf("%s: answers came from %v", m.Name, heard)
				}
				return ""
			})
		}
		for _, m := range c.With(authzv1.Role_ROLE_STORE) {
			m.KillAll()
		}
		for range 60 {
			time.Sleep(time.Minute)
			for _, m := range nodes {
				if task, err := c.Ask(m, "30000"); err != nil || !slices.Contains(before, task) {
					t.Errorf("%s: %q, %v", m.Name, task, err)
				}
			}
		}
		running(t, c, before)
		c.StartAll(0, c.With(authzv1.Role_ROLE_STORE)...)
		whole(t, c, 4, time.Minute)
		time.Sleep(30 * time.Second)
		running(t, c, before)
		if again := c.Starts(); again != starts {
			t.Errorf("%d containers were started", again-starts)
		}
		audit.Report(sim.Hits{})
	})
}

// running wants each task's container to run somewhere.
func running(t *testing.T, c *sim.Cluster, tasks []string) {
	t.Helper()
	for _, id := range tasks {
		if !slices.ContainsFunc(c.Machines, func(m *sim.Machine) bool { return m.Runs(id) }) {
			t.Errorf("the container of task %s does not run", id)
		}
	}
}

// Processes may start in any order, on all machines, however long one waits for another.
func TestAnyStartOrder(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			c := small(t, 10+seed, 3)
			before, starts := c.Operator.TaskIDs("web"), c.Starts()
			for _, m := range c.Machines {
				m.KillAll()
			}
			time.Sleep(time.Second)
			c.StartAll(time.Duration(seed)*300*time.Millisecond, c.Machines...)
			whole(t, c, 6, time.Minute)
			if seed == 0 { // with gaps, a machine may be taken for down before its agent is started
				if diff := cmp.Diff(before, c.Operator.TaskIDs("web")); diff != "" || c.Starts() != starts {
					t.Errorf("%d containers were started; tasks before and after:\n%s", c.Starts()-starts, diff)
				}
			}
		})
	}
}
