package decide_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// TestAnyHistoryConverges drives the scheduler through any sequence of what people, machines and containers do. On the
// way (sim.change, sim.decide) no claim is held twice, desired only rises, every decision is idempotent; after each step
// no slot has two live tasks but in a start-first update; in the end all converges, within a bound, spread evenly and placed.
func TestAnyHistoryConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		m.command(nil, []string{"cluster", "machine-network=10.128.0.0/20", "machine-network6=fd00::/48"})
		m.command(nil, []string{"network", "front", "subnet=10.0.0.0/24"})
		for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
			m.command(nil, []string{"node", fmt.Sprintf("n%d", i)})
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			drawStep(t, m)
		}
		m.decide()
		m.checkSlots(t)
		for range rapid.IntRange(1, 25).Draw(t, "more steps") {
			drawStep(t, m)
		}
		for n := range m.s.Nodes() {
			m.command(nil, []string{"node", n.GetMeta().GetId(), "ready", "active"})
		}
		m.converge(m.now.Add(48 * time.Hour))
		if m.rounds > 60 { // an update of nine slots, one after another, takes eighteen, deadlines a few more
			t.Fatalf("it took %d decisions to come to rest", m.rounds)
		}
		m.checkConverged(t)
	})
}

func drawStep(t *rapid.T, m *sim) {
	service := fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "service"))
	node := fmt.Sprintf("n%d", rapid.IntRange(0, 4).Draw(t, "node"))
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 0:
		m.command(nil, []string{"service", service, fmt.Sprintf("replicas=%d", rapid.IntRange(0, 7).Draw(t, "replicas")),
			"networks=front", "restart-delay=" + rapid.SampledFrom([]string{"0s", "5s"}).Draw(t, "delay"),
			"order=" + rapid.SampledFrom([]string{"stop-first", "start-first"}).Draw(t, "order"),
			fmt.Sprintf("parallelism=%d", rapid.IntRange(0, 2).Draw(t, "parallelism"))})
	case 1:
		if m.s.Service(service) != nil {
			m.command(nil, []string{"scale", fmt.Sprintf("%s=%d", service, rapid.IntRange(0, 9).Draw(t, "scale"))})
		}
	case 2:
		if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
			m.delete(typesv1.Kind_KIND_SERVICE, service)
		}
	case 3:
		m.command(nil, []string{"node", node, rapid.SampledFrom([]string{"down", "suspect", "drain", "pause"}).Draw(t, "trouble")})
	case 4:
		m.command(nil, []string{"node", node, "ready", "active"})
	case 5:
		drawReport(t, m)
	case 6:
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 10_000).Draw(t, "ms")) * time.Millisecond)
	case 7:
		m.settle()
	default:
		m.decide()
	}
}

// drawReport lets one task that its agent knows go one way or the other.
func drawReport(t *rapid.T, m *sim) {
	var open []*typesv1.Task
	for task := range m.s.Tasks() {
		n := m.s.Node(task.GetDecided().GetNodeId())
		if n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY && !state.Terminal(task.GetObserved().GetState()) {
			open = append(open, task)
		}
	}
	if len(open) == 0 {
		return
	}
	task := rapid.SampledFrom(open).Draw(t, "task")
	next := rapid.SampledFrom([]typesv1.TaskState{
		typesv1.TaskState_TASK_STATE_READY, typesv1.TaskState_TASK_STATE_RUNNING, typesv1.TaskState_TASK_STATE_COMPLETE,
		typesv1.TaskState_TASK_STATE_FAILED, typesv1.TaskState_TASK_STATE_REJECTED,
	}).Draw(t, "state")
	begun := next == typesv1.TaskState_TASK_STATE_RUNNING && task.GetDecided().GetDesired() != typesv1.TaskState_TASK_STATE_RUNNING
	if next > task.GetObserved().GetState() && !begun { // no agent starts what it was not told to
		m.observe(task, next, proto.Int32(1), "")
	}
}

// checkSlots: at most one task of a slot is wanted and alive, or two while one takes over from the other; apart from one
// whose node was lost, and one that leaves a drained node.
func (m *sim) checkSlots(t fatal) {
	type versions map[uint64]int
	slots := map[string]versions{}
	for task := range m.s.Tasks() {
		if task.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !state.Terminal(task.GetObserved().GetState()) &&
			!task.GetDecided().GetAbandoned() &&
			m.s.Node(task.GetDecided().GetNodeId()).GetSpec().GetAvailability() != typesv1.Availability_AVAILABILITY_DRAIN {
			name := m.taskName(task)
			if slots[name] == nil {
				slots[name] = versions{}
			}
			slots[name][task.GetSpecVersion()]++
		}
	}
	for name, v := range slots {
		if len(v) > 2 || slices.Max(slices.Collect(maps.Values(v))) > 2 {
			t.Fatalf("slot %s has live tasks of the versions %v", name, v)
		}
	}
}

func (m *sim) checkConverged(t fatal) {
	for svc := range m.s.Services() {
		id := svc.GetMeta().GetId()
		have, want := state.Counts(m.s, id)
		if have != want {
			t.Fatalf("service %s has %d of %d", id, have, want)
		}
		for task := range m.s.TasksOfService(id) {
			if task.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !isOf(svc, task.GetSpecVersion()) {
				t.Fatalf("a task of %s is of version %d, not %d", id, task.GetSpecVersion(), svc.GetSpecVersion())
			}
		}
		if st := svc.GetUpdateStatus(); st.GetState() == typesv1.UpdateState_UPDATE_STATE_UPDATING {
			t.Fatalf("the update of %s never ends", id)
		}
	}
	for task := range m.s.Tasks() {
		if m.s.Service(task.GetServiceId()) == nil {
			t.Fatalf("task %s of a removed service is still there", task.GetMeta().GetId())
		}
	}
}

// isOf reports whether a version is the service's present one, a copy of it, or differs only in where tasks may run.
func isOf(svc *typesv1.Service, version uint64) bool {
	i := slices.IndexFunc(svc.GetSpecHistory(), func(r *typesv1.SpecRecord) bool { return r.GetVersion() == version })
	if i < 0 {
		return version == svc.GetSpecVersion()
	}
	then, now := svc.GetSpecHistory()[i], svc.GetSpec().GetTask()
	if bytes.Equal(then.GetHash(), svc.GetSpecHash()) {
		return true
	}
	there := proto.CloneOf(then.GetTask())
	there.Placement = now.GetPlacement()
	return !proto.Equal(then.GetTask().GetPlacement(), now.GetPlacement()) && proto.Equal(there, now)
}

// TestSpread: a service scaled from nothing on nodes that take tasks differs by at most one between any two of them,
// however many nodes there are and whatever else runs there.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		for i := range rapid.IntRange(1, 12).Draw(t, "nodes") {
			m.command(nil, []string{"node", fmt.Sprintf("n%02d", i)})
		}
		m.command(nil, []string{"service", "other", fmt.Sprintf("replicas=%d", rapid.IntRange(0, 20).Draw(t, "others"))})
		m.converge(m.now)
		for range rapid.IntRange(1, 4).Draw(t, "scalings") {
			n := rapid.IntRange(0, 40).Draw(t, "replicas")
			if m.s.Service("web") == nil {
				m.command(nil, []string{"service", "web", "replicas=0"})
			}
			m.command(nil, []string{"scale", fmt.Sprintf("web=%d", n)})
			m.converge(m.now)
			counts := slices.Collect(maps.Values(m.spread("web")))
			if low, high := slices.Min(counts), slices.Max(counts); high-low > 1 {
				t.Fatalf("scaled to %d: %v", n, m.spread("web"))
			}
		}
	})
}

// TestRestsOn: what a plan rests on is in its preconditions: the lost node whose tasks it gives up, and the nodes and the
// service of new tasks. Letting a task go rests on nothing.
func TestRestsOn(t *testing.T) {
	m := newSim(t)
	m.command(nil, []string{"node", "a"})
	m.command(nil, []string{"node", "b"})
	m.command(nil, []string{"service", "web", "replicas=2", "restart-delay=1s"})
	check := func(when string, want ...string) {
		t.Helper()
		var got []string
		p := decide.Decide(m.s, m.now, m.newID)
		for _, c := range p.Preconditions {
			got = append(got, c.GetUnchanged().GetId())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: rests on %v, want %v", when, got, want)
		}
		m.apply(p)
		m.settle()
	}
	check("creation", "a", "b", "web")
	m.command(nil, []string{"node", "b", "down"})
	check("loss", "a", "b", "web")
	m.observe(m.slot("web", 1)[0], typesv1.TaskState_TASK_STATE_FAILED, nil, "")
	check("restart", "a", "web")
	m.now = m.now.Add(time.Second)
	check("release")
	m.command(nil, []string{"scale", "web=1"})
	check("removal", "web")
}

// TestLarge: ten thousand tasks on a hundred nodes are decided well below a second of processor time a plan.
func TestLarge(t *testing.T) {
	m := newSim(t)
	for i := range 100 {
		m.command(nil, []string{"node", fmt.Sprintf("n%03d", i), "memory=1000G"})
	}
	for i := range 20 {
		m.command(nil, []string{"service", fmt.Sprintf("s%02d", i), "replicas=500", "memory=1M"})
	}
	var worst time.Duration
	plans := 0
	for more := true; more; plans++ {
		used := cpu()
		p := decide.Decide(m.s, m.now, m.newID)
		worst = max(worst, cpu()-used)
		m.apply(p)
		more = p.More
	}
	if n := m.s.Count(typesv1.Kind_KIND_TASK); n != 10_000 {
		t.Fatalf("%d tasks", n)
	}
	t.Logf("%d plans, the slowest took %s", plans, worst)
	if worst > 2*time.Second { // about 40 ms when nothing else runs
		t.Errorf("a plan took %s", worst)
	}
}
