package sim_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/test/sim"
)

// swarm is a cluster of three nodes in which the scenarios of docs/reference/scheduling.md are told.
type swarm struct {
	*sim.Cluster
	t *testing.T
	o *sim.Operator
}

const crashing = "registry.test/micro:bad"

// What people expect of a successor of Docker Swarm's orchestration, each scenario by its number in the table "Scenarios and
// their tests" of docs/reference/scheduling.md. The rules themselves have scripts; here real processes follow them.
func TestSwarmScenarios(t *testing.T) {
	told, names := map[bool][]func(s *swarm){}, map[bool]string{}
	for _, tell := range []struct {
		name  string
		does  func(s *swarm)
		twice bool // a slot may have two live tasks
	}{
		{"19 late bind", lateBind, false},
		{"20 scale and delete", scaleAndDelete, false},
		{"22 container gone", containerGone, false},
		{"24 pause", pauses, false},
		{"25 label appears", labelAppears, false},
		{"26 spread preference", preference, false},
		{"27 most replicas on a node", mostReplicas, false},
		{"28 conflicts and names", conflicts, false},
		{"29 replicated job", replicatedJob, false},
		{"30 update in batches", batches, false},
		{"31 and 33 health gates", healthGates, true},
		{"32 failed update pauses", failedUpdate, false},
		{"b rebalance", rebalances, true},
		{"g no address left", noAddress, false},
		{"h blocked update", blockedUpdate, false},
		{"i crash loop", crashLoop, false},
		{"21 node loss", nodeLoss, false},
	} {
		told[tell.twice] = append(told[tell.twice], tell.does)
		names[tell.twice] += " " + tell.name + ";"
	}
	for twice, all := range told {
		t.Run(names[twice], func(t *testing.T) { synctest.Test(t, func(t *testing.T) { tellAll(t, all, twice) }) })
	}
}

// tellAll tells scenarios one after another on one cluster, which is empty and whole at the begin of each.
func tellAll(t *testing.T, all []func(s *swarm), twice bool) {
	c := sim.New(t, 1, sim.Standard(3))
	c.Ready(10 * time.Second)
	for _, m := range c.Machines[3:] {
		m.Runtime.Behave(crashing, agenttest.Behaviour{RunFor: 200 * time.Millisecond, ExitCode: 1})
	}
	s := &swarm{Cluster: c, t: t, o: c.Operator}
	if !twice { // else one starts first: the audit wants one live task in a slot
		audit := sim.NewAudit(c, only("n03"))
		defer audit.Report(sim.Hits{})
	}
	for _, tell := range all {
		tell(s)
		c.Until("exactly the wanted containers run", 30*time.Second, c.Strays)
		s.clear()
	}
}

// clear takes all services away and lets every node take tasks.
func (s *swarm) clear() {
	s.t.Helper()
	list, err := s.o.Services.ListServices(s.ctx(), &controlv1.ListServicesRequest{})
	s.must(err)
	for _, l := range list.GetServices() {
		_, err := s.o.Services.DeleteService(s.ctx(), &controlv1.DeleteServiceRequest{Service: l.GetService().GetMeta().GetId()})
		s.must(err)
	}
	s.Until("nothing runs any more", 30*time.Second, func() string {
		for _, m := range s.Machines[3:] {
			for _, k := range m.Runtime.Containers() {
				if k.Running {
					return m.Name + " runs " + k.TaskID
				}
			}
		}
		return ""
	})
	for _, m := range s.Machines[3:] {
		s.node(m.Name, func(n *typesv1.NodeSpec) { n.Availability = typesv1.Availability_AVAILABILITY_ACTIVE })
	}
}

func (s *swarm) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *swarm) ctx() context.Context { return s.t.Context() }

// create makes a replicated service whose spec is changed first.
func (s *swarm) create(name string, replicas uint64, change func(*typesv1.ServiceSpec)) error {
	spec := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name},
		Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/micro:1.0.0"},
			Restart: &typesv1.RestartPolicy{Delay: durationpb.New(time.Second)}},
		Mode: &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &replicas}},
	}
	if change != nil {
		change(spec)
	}
	_, err := s.o.Services.CreateService(s.ctx(), &controlv1.CreateServiceRequest{Spec: spec})
	return err
}

// up makes it and waits until it runs.
func (s *swarm) up(name string, replicas uint64, change func(*typesv1.ServiceSpec)) {
	s.t.Helper()
	s.must(s.create(name, replicas, change))
	s.o.Converge(name, replicas, 20*time.Second)
}

// on counts the running tasks of a service by machine.
func (s *swarm) on(name string) map[string]int {
	s.t.Helper()
	tasks, err := s.o.ListTasks(name, true)
	s.must(err)
	out := map[string]int{}
	for _, t := range tasks {
		out[t.GetNodeHostname()]++
	}
	return out
}

func (s *swarm) placed(name string, want map[string]int) {
	s.t.Helper()
	s.Until(name+" is where it should be", 30*time.Second, func() string {
		if got := s.on(name); !maps.Equal(got, want) {
			return fmt.Sprint(got)
		}
		return ""
	})
}

// waits wants a task of a service that does not run to say why.
func (s *swarm) waits(name, why string) {
	s.t.Helper()
	s.Until("a task of "+name+" says why it waits", 20*time.Second, func() string {
		tasks, err := s.o.ListTasks(name, false)
		s.must(err)
		said := ""
		for _, t := range tasks {
			if t.GetState() < typesv1.TaskState_TASK_STATE_RUNNING {
				said += t.GetReason() + "; "
			}
		}
		if !strings.Contains(said, why) {
			return "it says " + said
		}
		return ""
	})
}

func (s *swarm) node(name string, change func(*typesv1.NodeSpec)) {
	s.t.Helper()
	got, err := s.o.Nodes.GetNode(s.ctx(), &controlv1.GetNodeRequest{Node: name})
	s.must(err)
	n := got.GetNode().GetNode()
	change(n.GetSpec())
	_, err = s.o.Nodes.UpdateNode(s.ctx(), &controlv1.UpdateNodeRequest{Node: name, Version: got.GetVersion(), Spec: n.GetSpec()})
	s.must(err)
}

func (s *swarm) label(node, key, value string) {
	s.node(node, func(n *typesv1.NodeSpec) {
		if n.Annotations == nil {
			n.Annotations = &typesv1.Annotations{}
		}
		if n.Annotations.Labels == nil {
			n.Annotations.Labels = map[string]string{}
		}
		n.Annotations.Labels[key] = value
	})
}

func (s *swarm) service(name string) *typesv1.Service {
	s.t.Helper()
	got, err := s.o.Services.GetService(s.ctx(), &controlv1.GetServiceRequest{Service: name})
	s.must(err)
	return got.GetService()
}

func lateBind(s *swarm) {
	for _, m := range s.Machines[3:] {
		s.node(m.Name, func(n *typesv1.NodeSpec) { n.Availability = typesv1.Availability_AVAILABILITY_DRAIN })
	}
	s.must(s.create("sixty", 60, nil))
	s.waits("sixty", "3 nodes are drained")
	for _, m := range s.Machines[3:] {
		s.node(m.Name, func(n *typesv1.NodeSpec) { n.Availability = typesv1.Availability_AVAILABILITY_ACTIVE })
	}
	s.o.Converge("sixty", 60, 30*time.Second)
}

func scaleAndDelete(s *swarm) {
	s.up("web", 2, nil)
	before := s.o.TaskIDs("web")
	s.must(s.o.Scale("web", 5))
	s.o.Converge("web", 5, 20*time.Second)
	for _, id := range before {
		if !slices.Contains(s.o.TaskIDs("web"), id) {
			s.t.Errorf("task %s did not survive scaling up", id)
		}
	}
	_, err := s.o.Services.DeleteService(s.ctx(), &controlv1.DeleteServiceRequest{Service: "web"})
	s.must(err)
	s.Until("no container is left", 20*time.Second, func() string {
		for _, m := range s.Machines[3:] {
			if all := m.Runtime.Containers(); len(all) > 0 {
				return fmt.Sprint(m.Name, all)
			}
		}
		return ""
	})
}

func nodeLoss(s *swarm) {
	s.up("web", 9, nil)
	s.placed("web", map[string]int{"n01": 3, "n02": 3, "n03": 3})
	s.Machine("n03").PowerOff()
	s.Until("nine run on the other two, and never more are shown", 30*time.Second, func() string {
		resp, err := s.o.Services.GetService(s.ctx(), &controlv1.GetServiceRequest{Service: "web"})
		s.must(err)
		if k := resp.GetCounts(); k.GetRunning() > k.GetDesired() {
			s.t.Errorf("%d of %d are shown", k.GetRunning(), k.GetDesired())
		}
		if got := s.on("web"); got["n01"]+got["n02"] != 9 {
			return fmt.Sprint(got)
		}
		return ""
	})
	s.must(s.o.Scale("web", 5))
	s.o.Converge("web", 5, 20*time.Second)
}

func containerGone(s *swarm) {
	s.up("web", 5, nil)
	before := s.o.TaskIDs("web")
	n01 := s.Machine("n01")
	gone := n01.Runtime.Containers()[0]
	n01.Runtime.Delete(gone.ID)
	s.Until("it is replaced", 30*time.Second, func() string {
		if slices.Contains(s.o.TaskIDs("web"), gone.TaskID) {
			return "still taken for running"
		}
		return s.o.Wrong("web", 5)
	})
	kept := slices.DeleteFunc(s.o.TaskIDs("web"), func(id string) bool { return !slices.Contains(before, id) })
	if len(kept) != 4 {
		s.t.Errorf("%d of the other tasks are the same, want 4", len(kept))
	}
}

func pauses(s *swarm) {
	s.up("web", 3, nil)
	s.node("n01", func(n *typesv1.NodeSpec) { n.Availability = typesv1.Availability_AVAILABILITY_PAUSE })
	s.must(s.o.Scale("web", 9))
	s.placed("web", map[string]int{"n01": 1, "n02": 4, "n03": 4})
}

func labelAppears(s *swarm) {
	where := func(text string) func(*typesv1.ServiceSpec) {
		return func(spec *typesv1.ServiceSpec) { spec.Task.Placement = &typesv1.Placement{Constraints: []string{text}} }
	}
	s.must(s.create("fast", 2, where("node.labels.disk == ssd")))
	s.waits("fast", "3 nodes do not meet node.labels.disk == ssd")
	s.label("n02", "disk", "ssd")
	s.placed("fast", map[string]int{"n02": 2})
	s.up("slow", 4, where("node.labels.disk != ssd"))
	s.placed("slow", map[string]int{"n01": 2, "n03": 2})
}

func preference(s *swarm) {
	s.label("n01", "zone", "a")
	s.label("n02", "zone", "b")
	s.label("n03", "zone", "b")
	s.up("web", 8, func(spec *typesv1.ServiceSpec) {
		spec.Task.Placement = &typesv1.Placement{Preferences: []*typesv1.PlacementPreference{{Spread: "node.labels.zone"}}}
	})
	s.placed("web", map[string]int{"n01": 4, "n02": 2, "n03": 2})
}

func mostReplicas(s *swarm) {
	s.must(s.create("web", 4, func(spec *typesv1.ServiceSpec) { spec.Task.Placement = &typesv1.Placement{MaxReplicas: 1} }))
	s.placed("web", map[string]int{"n01": 1, "n02": 1, "n03": 1})
	s.waits("web", "3 nodes have a task of the service already")
}

func conflicts(s *swarm) {
	s.up("web", 1, nil)
	if err := s.create("web", 1, nil); !errs.Is(err, errs.Exists) {
		s.t.Errorf("the same name twice: %v", err)
	}
	stale, err := s.o.Services.GetService(s.ctx(), &controlv1.GetServiceRequest{Service: "web"})
	s.must(err)
	s.must(s.o.Update("web", func(spec *typesv1.ServiceSpec) { spec.Mode = two() }))
	_, err = s.o.Services.UpdateService(s.ctx(), &controlv1.UpdateServiceRequest{
		Service: stale.GetService().GetMeta().GetId(), Version: stale.GetVersion(), Spec: stale.GetService().GetSpec()})
	if !errs.Is(err, errs.Conflict) {
		s.t.Errorf("a stale version: %v", err)
	}
	s.o.Converge("web", 2, 20*time.Second)
}

func two() *typesv1.ServiceSpec_Replicated {
	return &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: proto.Uint64(2)}}
}
