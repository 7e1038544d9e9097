package sim_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/errs"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

const (
	caRole         = authzv1.Role_ROLE_CA
	storeRole      = authzv1.Role_ROLE_STORE
	schedulerRole  = authzv1.Role_ROLE_SCHEDULER
	dispatcherRole = authzv1.Role_ROLE_DISPATCHER
	gatewayRole    = authzv1.Role_ROLE_GATEWAY
	agentRole      = authzv1.Role_ROLE_AGENT
	meshRole       = authzv1.Role_ROLE_MESHPROXY
)

// apart is a plan with each scheduler and each dispatcher on a host of its own, so that a fault hits it alone.
func apart() sim.Plan {
	return sim.Plan{
		{Host: "m1", Roles: []authzv1.Role{caRole, storeRole, gatewayRole, schedulerRole, dispatcherRole}},
		{Host: "m2", Roles: []authzv1.Role{storeRole}}, {Host: "m3", Roles: []authzv1.Role{storeRole}},
		{Host: "s1", Roles: []authzv1.Role{schedulerRole}},
		{Host: "d1", Roles: []authzv1.Role{dispatcherRole}}, {Host: "d2", Roles: []authzv1.Role{dispatcherRole}},
		{Host: "n01", Roles: []authzv1.Role{agentRole, meshRole}}, {Host: "n02", Roles: []authzv1.Role{agentRole, meshRole}},
		{Host: "n03", Roles: []authzv1.Role{agentRole, meshRole}}, {Host: "n04", Roles: []authzv1.Role{agentRole, meshRole}},
	}
}

// only touches machines by name.
func only(names ...string) func(string) bool {
	return func(host string) bool { return slices.Contains(names, host) }
}

// sessionWith finds a node whose session is with the dispatcher on a machine.
func sessionWith(c *sim.Cluster, a *sim.Audit, dispatcher *sim.Machine) *sim.Machine {
	for n := range a.Snapshot().Nodes() {
		if n.GetStatus().GetSession().GetDispatcherId() == dispatcher.ID {
			if m := c.MachineOf(n.GetMeta().GetId()); slices.Contains(m.Roles, agentRole) {
				return m
			}
		}
	}
	return nil
}

// A machine and the dispatcher that it was connected to lose power in the same moment: it is found dead in time, and
// replaced; nobody else is.
func TestMachineDiesWithItsDispatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 4, apart())
		serve(t, c, 8)
		victims := map[string]bool{}
		audit := sim.NewAudit(c, func(host string) bool { return victims[host] })
		c.Until("a session with d1 or d2", 30*time.Second, func() string {
			if sessionWith(c, audit, c.Machine("d1")) == nil && sessionWith(c, audit, c.Machine("d2")) == nil {
				return "none yet"
			}
			return ""
		})
		dispatcher := c.Machine("d1")
		if sessionWith(c, audit, dispatcher) == nil {
			dispatcher = c.Machine("d2")
		}
		node := sessionWith(c, audit, dispatcher)
		victims[node.Name], victims[dispatcher.Name] = true, true
		dispatcher.PowerOff()
		node.PowerOff()
		down := c.Until("the machine is down", 10*time.Second, func() string {
			if s := c.Operator.NodeState(node.ID); s != typesv1.NodeState_NODE_STATE_DOWN {
				return s.String()
			}
			return ""
		})
		full := c.Operator.Converge("web", 8, 10*time.Second)
		t.Logf("down after %s, full strength %s later", down, full)
		if down+full > 8500*time.Millisecond {
			t.Errorf("full strength after %s, want 8.5 s at most", down+full)
		}
		audit.Report(sim.Hits{})
	})
}

// One of several dispatchers is killed: its machines go to another, and none is taken for down.
func TestDispatcherKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 5, apart())
		serve(t, c, 8)
		audit, starts := sim.NewAudit(c, nobody), c.Starts()
		time.Sleep(time.Second)
		lost := c.Machine("d1")
		if sessionWith(c, audit, lost) == nil {
			lost = c.Machine("d2")
		}
		lost.Kill("dispatcher")
		took := c.Until("its machines have moved", 5*time.Second, func() string {
			if m := sessionWith(c, audit, lost); m != nil {
				return m.Name + " has not"
			}
			return ""
		})
		t.Logf("all sessions moved within %s", took)
		time.Sleep(20 * time.Second)
		if again := c.Starts(); again != starts {
			t.Errorf("%d containers were started", again-starts)
		}
		audit.Report(sim.Hits{})
	})
}

// A scheduler that holds the lease is paused, another takes over, and the first wakes: it decides nothing any more.
func TestPausedSchedulerIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 6, apart())
		serve(t, c, 4)
		m1, s1 := c.Machine("m1"), c.Machine("s1")
		m1.Kill("scheduler") // so that s1's holds the lease
		audit := sim.NewAudit(c, nobody)
		holder := func(want *sim.Machine) {
			t.Helper()
			c.Until(want.Name+" holds the lease", 15*time.Second, func() string {
				if h := audit.Snapshot().Lease("scheduler").GetHolder(); !strings.HasSuffix(h, want.ID) {
					return h + " does"
				}
				return ""
			})
		}
		holder(s1)
		if err := m1.StartAgain("scheduler"); err != nil {
			t.Fatal(err)
		}
		m1.Await(t, "scheduler", time.Minute)
		number := audit.Snapshot().Lease("scheduler").GetNumber()
		s1.Pause()
		if err := c.Operator.Scale("web", 12); err != nil {
			t.Fatal(err)
		}
		holder(m1)
		c.Operator.Converge("web", 12, 15*time.Second)
		if err := c.Operator.Scale("web", 16); err != nil {
			t.Fatal(err)
		}
		s1.Resume() // with decisions under way
		c.Operator.Converge("web", 16, 15*time.Second)
		time.Sleep(30 * time.Second)
		c.Until("exactly the wanted containers run", time.Second, c.Strays)
		if starts := c.Starts(); starts != 16 {
			t.Errorf("%d containers were started for 16 replicas", starts)
		}
		if l := audit.Snapshot().Lease("scheduler"); l.GetNumber() != number+1 {
			t.Errorf("the lease went from number %d to %d, want one change of hands", number, l.GetNumber())
		}
		audit.Report(sim.Hits{})
	})
}

// Agents are killed and start again: they take their containers over and start nothing.
func TestAgentsKilledAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(t, 7, 4)
		audit := sim.NewAudit(c, nobody)
		before, starts := c.Operator.TaskIDs("web"), c.Starts()
		for range 3 {
			for _, m := range c.With(agentRole) {
				m.Kill("agent")
				time.Sleep(time.Second)
				if err := m.StartAgain("agent"); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(20 * time.Second)
		c.Operator.Converge("web", 8, time.Second)
		if diff := cmp.Diff(before, c.Operator.TaskIDs("web")); diff != "" || c.Starts() != starts {
			t.Errorf("%d containers were started; tasks before and after:\n%s", c.Starts()-starts, diff)
		}
		c.Until("exactly the wanted containers run", time.Second, c.Strays)
		audit.Report(sim.Hits{})
	})
}

// What a join refuses leaves nothing behind: the same machine joins at once when all is right.
func TestJoinIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 8, sim.Standard(1))
		good := c.WorkerToken()
		m := c.Add(sim.Place{Host: "new", Roles: []authzv1.Role{agentRole, meshRole}})
		refused := func(why, token string, words ...string) {
			t.Helper()
			err := c.Join(m, token)
			for _, w := range words {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%s: got %v, want a refusal with %q", why, err, w)
				}
			}
			if names, _ := m.Disk.Files().List("/var/lib/shoal/agent/identity"); slices.Contains(names, "cert.pem") {
				t.Errorf("%s: the machine has a certificate", why)
			}
		}
		m.SetClock(time.Hour)
		refused("clock an hour ahead", good, "2000-01-01T00:", "2000-01-01T01:", "clock")
		m.SetClock(-time.Hour)
		refused("clock an hour behind", good, "2000-01-01T00:", "1999-12-31T23:", "clock")
		m.SetClock(0)
		refused("malformed token", "SWMTKN-nonsense", "token")
		rotated, err := c.Operator.Rotate()
		if err != nil {
			t.Fatal(err)
		}
		refused("rotated token", good, "token")
		if err := c.Join(m, rotated); err != nil {
			t.Errorf("join with the new token: %v", err)
		}
		c.Ready(10 * time.Second) // the one that joined with the old token, too
		time.Sleep(10 * time.Second)
		c.Ready(time.Millisecond)
	})
}

// A machine that was removed is refused everywhere, although its processes live and have certificates.
func TestRemovedMachineIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(t, 9, 3)
		gone := c.Machine("n03")
		c.W.Net.Isolate("n03")
		c.Until("n03 is down", 10*time.Second, func() string {
			if s := c.Operator.NodeState(gone.ID); s != typesv1.NodeState_NODE_STATE_DOWN {
				return s.String()
			}
			return ""
		})
		if err := c.Operator.RemoveNode(gone.ID); err != nil {
			t.Fatal(err)
		}
		c.W.Net.Heal("n03")
		time.Sleep(5 * time.Second)
		for _, try := range []struct {
			port string
			role authzv1.Role
			from authzv1.Role
			on   string
		}{
			{"2377", caRole, agentRole, "m1"}, {"2377", caRole, meshRole, "m2"},
			{"2383", dispatcherRole, agentRole, "m1"}, {"2383", dispatcherRole, meshRole, "m2"},
			{"2385", meshRole, meshRole, "n01"}, {"2385", meshRole, agentRole, "n02"},
		} {
			err := c.Call(gone, try.from, c.Machine(try.on), try.port, try.role)
			if err == nil || !errs.Is(err, errs.Denied) && !errs.Is(err, errs.Unavailable) {
				t.Errorf("%s of the removed machine at %s on %s: %v", try.from, try.role, try.on, err)
			}
			if err := c.Call(c.Machine("n01"), try.from, c.Machine(try.on), try.port, try.role); errs.Is(err, errs.Unavailable) {
				t.Errorf("%s of a good machine at %s on %s: %v", try.from, try.role, try.on, err)
			}
		}
		c.Operator.Converge("web", 6, 10*time.Second)
		if s := c.Operator.NodeState(gone.ID); s == typesv1.NodeState_NODE_STATE_READY {
			t.Error("the removed machine is READY")
		}
	})
}

// Ten days by every machine's clock: all certificates are renewed several times, no machine misses a beat and no call fails.
func TestCertificatesRenewUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := apart()
		c := sim.New(t, 10, sim.Plan{plan[0], plan[6]}) // one of each: days are dear
		serve(t, c, 2)
		starts, first := c.Starts(), c.Machines[0].NotAfter(t, storeRole)
		for day := time.Duration(0); day < 10*24*time.Hour; day += 60 * time.Hour {
			for _, m := range c.Machines { // all clocks together: hours of beats would show nothing more
				m.SetClock(day)
			}
			c.W.Host("desk").SetClock(day)
			for range 11 { // a process looks at its clock every ten minutes
				time.Sleep(time.Minute)
				for _, m := range c.With(agentRole) {
					if wrong := c.Operator.Unready(m.ID); wrong != "" {
						t.Fatalf("at %s: %s: %s", c.Machines[0].Now(), m.Name, wrong)
					}
				}
			}
		}
		fresh(t, c, time.Minute)
		if now := c.Machines[0].NotAfter(t, storeRole); now.Sub(first) < 7*24*time.Hour {
			t.Errorf("the store's certificate ran until %s at first, and %s now", first, now)
		}
		if again := c.Starts(); again != starts {
			t.Errorf("%d containers were started", again-starts)
		}
		for _, m := range c.Machines {
			for _, bad := range []string{"call refused", "NODE_STATE_SUSPECT", "NODE_STATE_DOWN"} {
				if strings.Contains(m.Log(), bad) {
					t.Errorf("the log of %s has %q", m.Name, bad)
				}
			}
		}
	})
}
