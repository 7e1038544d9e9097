package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/test/sim"
)

const (
	// strides is the number of runs that together kill the active scheduler after each of its commits, but for those that
	// come while a standby takes over.
	strides = 6
	// takeover is for how long at most the death of the active scheduler leaves nothing decided.
	takeover = 3 * time.Second
)

// TestSchedulerKilledAfterCommits: whenever the active scheduler dies, also amid an update, a rollback, a restart delay, a
// job or a drain, a standby decides within 3 s, and in the end everything is as it would have been:
// nothing is done twice, and nothing is forgotten.
func TestSchedulerKilledAfterCommits(t *testing.T) {
	var undisturbed string
	t.Run("undisturbed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { undisturbed = newHandover(t, 0).story() })
	})
	t.Logf("undisturbed:\n%s", undisturbed)
	for i := range strides {
		t.Run(fmt.Sprintf("killed after commits %d, %d, …", i+1, i+1+strides), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandover(t, i+1)
				if got := h.story(); got != undisturbed {
					t.Errorf("it ends with\n%s\nand undisturbed with\n%s", got, undisturbed)
				}
				if h.kills < 5 {
					t.Errorf("the active scheduler was killed %d times only", h.kills)
				}
				t.Logf("killed %d times in %d commits; the longest handover took %s", h.kills, h.commits, h.longest)
				if h.longest > takeover {
					t.Errorf("a standby needed %s, want at most %s", h.longest, takeover)
				}
			})
		})
	}
}

// handover is a cluster with two schedulers, and somebody who kills the active one.
type handover struct {
	*sim.Cluster
	t     *testing.T
	audit *sim.Audit
	first int // the first commit after which the active one is killed; 0: never
	due   chan struct{}

	commits, kills int
	longest        time.Duration
}

func newHandover(t *testing.T, first int) *handover {
	t.Helper()
	h := &handover{t: t, first: first, due: make(chan struct{}, 1)}
	h.Cluster = sim.New(t, 41, sim.Plan{
		{Host: "m1", Roles: []authzv1.Role{caRole, storeRole, gatewayRole, dispatcherRole, schedulerRole}},
		{Host: "s1", Roles: []authzv1.Role{schedulerRole}},
		{Host: "n01", Roles: []authzv1.Role{agentRole, meshRole}}, {Host: "n02", Roles: []authzv1.Role{agentRole, meshRole}},
		{Host: "n03", Roles: []authzv1.Role{agentRole, meshRole}},
	})
	h.Ready(10 * time.Second)
	for _, m := range h.With(agentRole) {
		m.Runtime.Behave("registry.test/micro:bad", agenttest.Behaviour{RunFor: 200 * time.Millisecond, ExitCode: 1})
		m.Runtime.Behave("registry.test/job:1", agenttest.Behaviour{RunFor: time.Second})
	}
	h.audit = sim.NewAudit(h.Cluster, nobody)
	h.audit.Each(func(was *state.Snapshot, d *storev1.Delta) {
		if !decided(was, d) {
			return
		}
		if h.commits++; h.first > 0 && h.commits >= h.first && (h.commits-h.first)%strides == 0 {
			select {
			case h.due <- struct{}{}:
			default: // one is dead already
			}
		}
	})
	return h
}

// decided tells a scheduler's commits by what they write.
func decided(was *state.Snapshot, d *storev1.Delta) bool {
	for _, o := range d.GetPuts() {
		if t := o.GetTask(); t != nil && !proto.Equal(t.GetDecided(), was.Task(t.GetMeta().GetId()).GetDecided()) {
			return true
		}
		if s := o.GetService(); s != nil {
			old := was.Service(s.GetMeta().GetId())
			if !proto.Equal(s.GetUpdateStatus(), old.GetUpdateStatus()) || !proto.Equal(s.GetJobStatus(), old.GetJobStatus()) {
				return true
			}
		}
	}
	return slices.ContainsFunc(d.GetDeletes(), func(x *storev1.Delete) bool { return x.GetKind() == typesv1.Kind_KIND_TASK })
}

// assassin kills the active scheduler whenever that is due, and starts it again when another has taken over.
func (h *handover) assassin(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-h.due:
		}
		holder := h.audit.Snapshot().Lease("scheduler").GetHolder()
		victim := h.machine(holder)
		if victim == nil {
			continue // nobody decides yet
		}
		victim.Kill("scheduler")
		began := time.Now()
		for h.audit.Snapshot().Lease("scheduler").GetHolder() == holder && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		h.kills++
		h.longest = max(h.longest, time.Since(began))
		if err := victim.StartAgain("scheduler"); err != nil {
			h.t.Error(err)
		}
		for !victim.Ready("scheduler") && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second) // it has seen the other one's lease
	}
}

func (h *handover) machine(member string) *sim.Machine {
	for _, m := range h.Machines {
		if member == (identity.ID{Role: schedulerRole, Name: m.ID}).Member() {
			return m
		}
	}
	return nil
}

// story is a day in the life of three services, and what is there in the evening.
func (h *handover) story() string {
	done := make(chan struct{})
	gone := make(chan struct{})
	go func() { defer close(gone); h.assassin(done) }()
	for _, chapter := range []func(){h.deploys, h.updates, h.failsToUpdate, h.works, h.restarts, h.drains, h.scales} {
		chapter()
	}
	close(done)
	<-gone
	h.Until("exactly the wanted containers run", 30*time.Second, h.Strays)
	h.audit.Report(sim.Hits{})
	return h.evening()
}

const patience = 2 * time.Minute

func (h *handover) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *handover) deploys() {
	_, err := h.Operator.CreateService("web", 4)
	h.must(err)
	h.must(h.Operator.Update("web", func(s *typesv1.ServiceSpec) {
		s.Update = &typesv1.UpdateConfig{Parallelism: proto.Uint64(1), Monitor: durationpb.New(time.Second),
			FailureAction: typesv1.FailureAction_FAILURE_ACTION_ROLLBACK}
		s.Rollback = &typesv1.UpdateConfig{Parallelism: proto.Uint64(2), Monitor: durationpb.New(time.Second)}
	}))
	h.Operator.Converge("web", 4, patience)
}

// rolled waits until an update of web has come to an end.
func (h *handover) rolled(image string, end typesv1.UpdateState) {
	h.t.Helper()
	h.must(h.Operator.Update("web", func(s *typesv1.ServiceSpec) { s.Task.Container.Image = image }))
	h.Until(image+" is "+end.String(), patience, func() string {
		s := h.audit.Snapshot().ServiceByName("web")
		if s.GetUpdateStatus().GetState() != end || s.GetUpdateStatus().GetOfVersion() != s.GetSpecVersion() {
			return s.GetUpdateStatus().String()
		}
		return h.Operator.Wrong("web", 4)
	})
}

func (h *handover) updates() {
	h.rolled("registry.test/micro:2", typesv1.UpdateState_UPDATE_STATE_COMPLETED)
}

func (h *handover) failsToUpdate() {
	h.rolled("registry.test/micro:bad", typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED)
}

// works has a job run, five times in all and two at once.
func (h *handover) works() {
	_, err := h.Operator.Services.CreateService(h.t.Context(), &controlv1.CreateServiceRequest{Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "job"},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/job:1"}},
		Mode: &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{
			MaxConcurrent: proto.Uint64(2), TotalCompletions: proto.Uint64(5)}},
	}})
	h.must(err)
	h.Until("the job is complete", patience, func() string {
		if j := h.audit.Snapshot().ServiceByName("job").GetJobStatus(); j.GetState() != typesv1.JobState_JOB_STATE_COMPLETED {
			return j.String()
		}
		return ""
	})
}

// restarts has a container die: the slot is filled after the restart delay, whoever counts it.
func (h *handover) restarts() {
	tasks, err := h.Operator.ListTasks("web", true)
	h.must(err)
	victim := tasks[0].GetTask()
	began := time.Now()
	if !h.MachineOf(victim.GetDecided().GetNodeId()).Runtime.Kill(victim.GetObserved().GetContainerId(), 137) {
		h.t.Fatal("there is no container to kill")
	}
	h.Until("one is missed", patience, func() string {
		if h.Operator.Wrong("web", 4) == "" {
			return "nobody is"
		}
		return ""
	})
	h.Operator.Converge("web", 4, patience)
	if took := time.Since(began); took < 5*time.Second {
		h.t.Errorf("restarted after %s, want the delay of 5 s", took)
	}
}

func (h *handover) avail(node string, a typesv1.Availability) {
	got, err := h.Operator.Nodes.GetNode(h.t.Context(), &controlv1.GetNodeRequest{Node: node})
	h.must(err)
	spec := got.GetNode().GetNode().GetSpec()
	spec.Availability = a
	_, err = h.Operator.Nodes.UpdateNode(h.t.Context(), &controlv1.UpdateNodeRequest{Node: node, Version: got.GetVersion(), Spec: spec})
	h.must(err)
}

func (h *handover) drains() {
	h.avail("n01", typesv1.Availability_AVAILABILITY_DRAIN)
	h.Until("n01 is empty", patience, func() string {
		if n := len(h.Machine("n01").Runtime.Containers()); n > 0 {
			return fmt.Sprint(n, " containers")
		}
		return h.Operator.Wrong("web", 4)
	})
	h.avail("n01", typesv1.Availability_AVAILABILITY_ACTIVE)
}

func (h *handover) scales() {
	for _, n := range []uint64{9, 3} {
		h.must(h.Operator.Scale("web", n))
		h.Operator.Converge("web", n, patience)
	}
}

// evening is all that should not depend on who decided.
func (h *handover) evening() string {
	var b strings.Builder
	s := h.audit.Snapshot()
	for _, name := range []string{"job", "web"} {
		svc := s.ServiceByName(name)
		fmt.Fprintf(&b, "%s: version %d, update %s of %d, job %s\n", name, svc.GetSpecVersion(), svc.GetUpdateStatus().GetState(),
			svc.GetUpdateStatus().GetSpecVersion(), svc.GetJobStatus().GetState())
		var lines []string
		for t := range s.TasksOfService(svc.GetMeta().GetId()) {
			d := t.GetDecided()
			lines = append(lines, fmt.Sprintf("  slot %d version %d: %s, %s", d.GetSlot(), t.GetSpecVersion(), d.GetDesired(), t.GetObserved().GetState()))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, "\n") + "\n")
	}
	var spread []int
	for n := range s.Nodes() {
		live := 0
		for t := range s.TasksOfNode(n.GetMeta().GetId()) {
			if !state.Terminal(t.GetObserved().GetState()) {
				live++
			}
		}
		spread = append(spread, live)
	}
	slices.Sort(spread)
	fmt.Fprintf(&b, "tasks on the nodes: %v\ncontainers ever started: %d\n", spread, h.Starts())
	return b.String()
}
