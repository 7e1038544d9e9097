package sim_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// drained waits until a process says that it has handed over all.
func drained(t *testing.T, c *sim.Cluster, member string) time.Duration {
	t.Helper()
	return c.Until(member+" is drained", 15*time.Second, func() string {
		m, err := c.Operator.Member(member)
		switch {
		case err != nil:
			return err.Error()
		case !m.GetMember().GetStatus().GetDrained():
			return "not yet: " + m.GetMember().GetStatus().String()
		}
		return ""
	})
}

// A dispatcher that is drained hands all its machines over: each is elsewhere before it would count as silent, nothing
// starts, and nobody comes back until it is active again.
func TestDispatcherDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 12, apart())
		serve(t, c, 8)
		audit, starts := sim.NewAudit(c, nobody), c.Starts()
		time.Sleep(time.Second)
		since, d1 := nodesSince(audit), c.Machine("d1")
		c.Until("d1 has its share", 30*time.Second, func() string {
			if sessionWith(c, audit, d1) == nil {
				return "it has none"
			}
			return ""
		})
		if err := c.Operator.Drain("dispatcher/"+d1.ID, true, false); err != nil {
			t.Fatal(err)
		}
		t.Logf("drained after %s", drained(t, c, "dispatcher/"+d1.ID))
		time.Sleep(10 * time.Second)
		if m := sessionWith(c, audit, d1); m != nil {
			t.Errorf("%s is with the drained dispatcher", m.Name)
		}
		if now := nodesSince(audit); now != since {
			t.Errorf("a machine was not READY all the time: %s, was %s", now, since)
		}
		if again := c.Starts(); again != starts {
			t.Errorf("%d containers were started", again-starts)
		}
		if err := c.Operator.Drain("dispatcher/"+d1.ID, false, false); err != nil {
			t.Fatal(err)
		}
		c.Until("d1 gets its share again", 30*time.Second, func() string {
			if sessionWith(c, audit, d1) == nil {
				return "it has none"
			}
			return ""
		})
		if now := nodesSince(audit); now != since {
			t.Errorf("a machine was not READY all the time: %s, was %s", now, since)
		}
		audit.Report(sim.Hits{})
	})
}

// nodesSince tells since when each machine is in its state.
func nodesSince(a *sim.Audit) string {
	var out []string
	for n := range a.Snapshot().Nodes() {
		out = append(out, n.GetMeta().GetId()+" "+n.GetStatus().GetState().String()+" "+n.GetStatus().GetSince().String())
	}
	return strings.Join(out, ", ")
}

// A new dispatcher gets its share of the machines by itself, some at a time, and none of them is missed meanwhile.
func TestNewDispatcherGetsItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := sim.Plan{{Host: "m1", Roles: []authzv1.Role{caRole, storeRole, gatewayRole, schedulerRole, dispatcherRole}}}
		for _, name := range []string{"n01", "n02", "n03", "n04", "n05", "n06"} {
			plan = append(plan, sim.Place{Host: name, Roles: []authzv1.Role{agentRole, meshRole}})
		}
		c := sim.New(t, 13, plan)
		serve(t, c, 6)
		audit, starts := sim.NewAudit(c, nobody), c.Starts()
		time.Sleep(time.Second)
		since := nodesSince(audit)
		next := c.Add(sim.Place{Host: "d9", Roles: []authzv1.Role{dispatcherRole}})
		if err := c.Join(next, c.ManagerToken()); err != nil {
			t.Fatal(err)
		}
		load := func() (n int) {
			for node := range audit.Snapshot().Nodes() {
				if node.GetStatus().GetSession().GetDispatcherId() == next.ID {
					n++
				}
			}
			return n
		}
		took := c.Until("it has half of the machines", time.Minute, func() string {
			if n := load(); n != 3 {
				return fmt.Sprint("it has ", n)
			}
			return ""
		})
		t.Logf("after %s", took)
		if took < 3*time.Second {
			t.Errorf("all came within %s: a stampede", took)
		}
		time.Sleep(time.Minute)
		if n := load(); n != 3 {
			t.Errorf("it has %d machines a minute later: they do not stay", n)
		}
		if now := nodesSince(audit); now != since {
			t.Errorf("a machine was not READY all the time: %s, was %s", now, since)
		}
		if again := c.Starts(); again != starts {
			t.Errorf("%d containers were started", again-starts)
		}
		audit.Report(sim.Hits{})
	})
}

// A scheduler that is drained gives its lease back at once: another decides within a second, not after the lease's life.
func TestSchedulerDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 14, apart())
		serve(t, c, 4)
		audit := sim.NewAudit(c, nobody)
		time.Sleep(time.Second)
		holder := audit.Snapshot().Lease("scheduler").GetHolder()
		if err := c.Operator.Drain(holder, true, false); err != nil {
			t.Fatal(err)
		}
		took := c.Until("another holds the lease", 5*time.Second, func() string {
			if h := audit.Snapshot().Lease("scheduler").GetHolder(); h == "" || h == holder {
				return "not yet: " + h
			}
			return ""
		})
		t.Logf("after %s", took)
		if took > time.Second {
			t.Errorf("that is not at once")
		}
		drained(t, c, holder)
		if err := c.Operator.Scale("web", 8); err != nil {
			t.Fatal(err)
		}
		c.Operator.Converge("web", 8, 10*time.Second)
		other := audit.Snapshot().Lease("scheduler").GetHolder()
		if err := c.Operator.Drain(other, true, false); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "no other scheduler") {
			t.Errorf("drain the last one: %v", err)
		}
		audit.Report(sim.Hits{})
	})
}

// The last gateway answers on although it is drained by force: else nobody could take that back.
func TestLastGatewayDrainedByForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 18, sim.Plan{{Host: "m1", Roles: []authzv1.Role{caRole, storeRole, gatewayRole, schedulerRole, dispatcherRole}}})
		gateway := "gateway/" + c.Machines[0].ID
		if err := c.Operator.Drain(gateway, true, false); !errs.Is(err, errs.Precondition) {
			t.Errorf("drained without force: %v", err)
		}
		if err := c.Operator.Drain(gateway, true, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := c.Operator.Drain(gateway, false, false); err != nil {
			t.Errorf("active again: %v", err)
		}
	})
}

// A leader that is drained passes the leadership on and is not given it back; calls go on.
func TestLeaderDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 15, apart())
		serve(t, c, 4)
		lead := c.Operator.Leader()
		c.Until("another store says that it is well", 10*time.Second, func() string {
			if err := c.Operator.Drain("store/"+lead.ID, true, false); err != nil {
				return err.Error()
			}
			return ""
		})
		t.Logf("drained after %s", drained(t, c, "store/"+lead.ID))
		for range 20 {
			time.Sleep(500 * time.Millisecond)
			if now := c.Operator.Leader(); now == nil || now == lead {
				t.Fatalf("%v leads", now)
			}
		}
		if err := c.Operator.Scale("web", 6); err != nil {
			t.Error(err)
		}
		c.Operator.Converge("web", 6, 10*time.Second)
	})
}

// What was removed is refused with the certificate that it had, and comes back with a new one, by a token, on the same
// machine.
func TestRemovedMemberJoinsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 16, apart())
		serve(t, c, 4)
		audit, d1 := sim.NewAudit(c, nobody), c.Machine("d1")
		member := "dispatcher/" + d1.ID
		c.Until("another dispatcher says that it is well", 10*time.Second, func() string {
			if err := c.Operator.Drain(member, true, false); err != nil {
				return err.Error()
			}
			return ""
		})
		drained(t, c, member)
		if err := c.Operator.RemoveMember(member, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // it lives on, and would announce itself
		if m := audit.Snapshot().Member(member); m != nil {
			t.Errorf("the removed member is back: %v", m)
		}
		refused := func(when string) {
			t.Helper()
			if err := c.Call(d1, dispatcherRole, c.Machine("m1"), "2381", storeRole); !errs.Is(err, errs.Denied) && !errs.Is(err, errs.Unavailable) {
				t.Errorf("%s: the store answers the removed dispatcher: %v", when, err)
			}
		}
		refused("after the removal")
		old := keepIdentity(t, d1, "dispatcher")
		if err := d1.Stop("dispatcher"); err != nil {
			t.Fatal(err)
		}
		if err := c.Join(d1, c.ManagerToken()); err != nil {
			t.Fatal(err)
		}
		c.Until("it is back, and gets its share", 30*time.Second, func() string {
			if sessionWith(c, audit, d1) == nil {
				return "no machine yet"
			}
			return ""
		})
		if err := c.Call(d1, dispatcherRole, c.Machine("m1"), "2381", storeRole); errs.Is(err, errs.Denied) || errs.Is(err, errs.Unavailable) {
			t.Errorf("the new certificate is refused: %v", err)
		}
		old()
		refused("with the old certificate after it came back")
		audit.Report(sim.Hits{})
	})
}

// keepIdentity remembers a process's certificate; the function puts it back on the disk.
func keepIdentity(t *testing.T, m *sim.Machine, process string) func() {
	t.Helper()
	kept := map[string][]byte{}
	dir := "/var/lib/shoal/" + process + "/identity/"
	for _, name := range []string{"cert.pem", "key.pem"} {
		data, err := m.Disk.Files().Read(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		kept[name] = data
	}
	return func() {
		t.Helper()
		for name, data := range kept {
			if err := m.Disk.Files().Write(dir+name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A store that joins as a learner stays one, serves its watchers, and votes when it is promoted; demoted, it copies on.
// The loss of a vote that the quorum needs is refused.
func TestLearnerPromotedAndDemoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 17, sim.Plan{
			{Host: "m1", Roles: []authzv1.Role{caRole, storeRole, gatewayRole, schedulerRole, dispatcherRole}},
			{Host: "n01", Roles: []authzv1.Role{agentRole, meshRole}},
		})
		l := c.Add(sim.Place{Host: "l1", Roles: []authzv1.Role{storeRole}})
		l.Learner = true
		if err := c.Join(l, c.ManagerToken()); err != nil {
			t.Fatal(err)
		}
		store := "store/" + l.ID
		raft := func() *typesv1.RaftMember {
			m, err := c.Operator.Member(store)
			if err != nil {
				t.Fatal(err)
			}
			return m.GetMember().GetRaft()
		}
		await := func(what string, is func(*typesv1.RaftMember) bool) {
			t.Helper()
			c.Until(what, 20*time.Second, func() string {
				if r := raft(); !is(r) {
					return "not yet: " + r.String()
				}
				return ""
			})
		}
		learner := func(r *typesv1.RaftMember) bool { return r.GetId() != 0 && r.GetLearner() && !r.GetVoter() }
		await("it is a learner", learner)
		time.Sleep(time.Minute)
		if r := raft(); !learner(r) {
			t.Errorf("a minute later it is %s", r)
		}
		if err := c.Operator.Vote(store, true); err != nil {
			t.Fatal(err)
		}
		await("it votes", func(r *typesv1.RaftMember) bool { return r.GetVoter() && !r.GetLearner() })
		l.PowerOff()
		time.Sleep(5 * time.Second)
		l.Boot()
		c.StartAll(0, l)
		await("it votes after a power cut", func(r *typesv1.RaftMember) bool { return r.GetVoter() })
		time.Sleep(5 * time.Second)
		if err := c.Operator.Vote(store, false); err != nil {
			t.Fatal(err)
		}
		await("it is a learner again", learner)
		if err := c.Operator.Vote("store/"+c.Machines[0].ID, false); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "join another store") {
			t.Errorf("demote the last voter: %v", err)
		}
		if err := c.Operator.RemoveMember("store/"+c.Machines[0].ID, true); !errs.Is(err, errs.Precondition) {
			t.Errorf("remove the last voter by force: %v", err)
		}
		if err := c.Operator.RemoveMember(store, false); err != nil {
			t.Errorf("remove the learner: %v", err)
		}
	})
}
