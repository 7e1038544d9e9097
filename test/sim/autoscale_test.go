package sim_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/test/sim"
)

// TestLoadRisesAndFalls: what containers use goes from their counters by way of agents, dispatchers and the store to the
// scheduler; the number of tasks follows it, up at once and down after the window.
func TestLoadRisesAndFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 1, sim.Standard(3))
		o := c.Operator
		c.Ready(10 * time.Second)
		if _, err := o.CreateService("burst", 1); err != nil {
			t.Fatal(err)
		}
		o.Converge("burst", 1, 10*time.Second)
		tasks, err := o.ListTasks("burst", true)
		if err != nil {
			t.Fatal(err)
		}
		use := func(cpus float64) {
			for _, m := range c.With(authzv1.Role_ROLE_AGENT) {
				m.Runtime.Use(tasks[0].GetImage(), agenttest.Use{CPUs: cpus, Memory: 64 << 20})
			}
		}
		use(0.9)
		if err := o.Update("burst", func(s *typesv1.ServiceSpec) {
			s.Task.Resources = &typesv1.ResourceRequirements{Limits: &typesv1.Resources{NanoCpus: 1e9}}
			s.Autoscale = &typesv1.Autoscale{Min: 1, Max: 4, CpuPercent: 50, DownWindow: durationpb.New(time.Minute)}
		}); err != nil {
			t.Fatal(err)
		}
		tasksAre := func(n int) func() string {
			return func() string {
				if list, err := o.ListTasks("burst", true); err != nil || len(list) != n {
					return fmt.Sprintf("%d tasks, %v", len(list), err)
				}
				return ""
			}
		}
		t.Logf("up to the most: %s", c.Until("four tasks", 3*time.Minute, tasksAre(4)))
		if err := o.Scale("burst", 3); err == nil {
			t.Error("scaled by hand although it follows its load")
		}
		use(0.1)
		down := time.Now()
		c.Until("fewer tasks", 5*time.Minute, func() string {
			if list, err := o.ListTasks("burst", true); err != nil || len(list) >= 4 {
				return fmt.Sprintf("%d tasks, %v", len(list), err)
			}
			return ""
		})
		if waited := time.Since(down); waited < time.Minute {
			t.Errorf("fewer tasks after %s, before the window of a minute", waited)
		}
		t.Logf("down to the fewest: %s", c.Until("one task", 10*time.Minute, tasksAre(1)))
		time.Sleep(3 * time.Minute)
		if why := tasksAre(1)(); why != "" {
			t.Errorf("under a load that stays as it is: %s", why)
		}
	})
}

// TestConnectionsRiseAndFall: connections to a published port, by whichever machine, are counted there and lead by way of
// agents, dispatchers and the store to as many tasks as they call for; when they end there are fewer.
func TestConnectionsRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 3, sim.Standard(3))
		o := c.Operator
		c.Ready(10 * time.Second)
		svc, err := o.CreateService("burst", 1)
		if err != nil {
			t.Fatal(err)
		}
		o.Converge("burst", 1, 10*time.Second)
		if err := o.Update("burst", func(s *typesv1.ServiceSpec) {
			s.Autoscale = &typesv1.Autoscale{Min: 1, Max: 9, Connections: 6, DownWindow: durationpb.New(20 * time.Second)}
		}); err != nil {
			t.Fatal(err)
		}
		port := fmt.Sprint(svc.GetEndpoint().GetPorts()[0].GetPublishedPort())
		machines := c.With(authzv1.Role_ROLE_AGENT)
		c.Until("the port answers on all machines", 10*time.Second, func() string {
			for _, m := range machines {
				if _, err := c.Ask(m, port); err != nil {
					return err.Error()
				}
			}
			return ""
		})
		asked, failed := 0, 0
		tasksAre := func(n int, asking bool) func() string {
			return func() string {
				if asking { // which Until does 20 times a second
					asked++
					if _, err := c.Ask(machines[asked%len(machines)], port); err != nil {
						failed++
					}
				}
				if list, err := o.ListTasks("burst", true); err != nil || len(list) != n {
					return fmt.Sprintf("%d tasks, %v", len(list), err)
				}
				return ""
			}
		}
		t.Logf("up: %s", c.Until("more tasks", 3*time.Minute, tasksAre(4, true)))
		before := asked
		c.Until("a minute has passed", 2*time.Minute, func() string {
			if why := tasksAre(4, true)(); why != "" {
				t.Fatalf("under a load that stays as it is: %s", why)
			}
			if asked-before < 20*60 {
				return "not yet"
			}
			return ""
		})
		if failed > 0 {
			t.Errorf("%d of %d connections failed", failed, asked)
		}
		t.Logf("down to the fewest: %s", c.Until("one task", 10*time.Minute, tasksAre(1, false)))
	})
}
