package decide_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/constraint"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestAnySpecHolds drives services of every mode, with every rule of placement and of updates, through faults. After each
// decision (sim.plan) the plan was the same with and without memory, a second one is empty, desired only rises; here: what
// is placed keeps to the rules, nothing is over-committed; and in the end all comes to rest.
func TestAnySpecHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		m.command(nil, []string{"cluster", "history=2", "preemption=" + rapid.SampledFrom([]string{"on", "off"}).Draw(t, "preemption")})
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			m.command(nil, []string{"node", fmt.Sprintf("n%d", i), "memory=4G", "cpus=4", "pids=200", "disk=10G", "generic=gpu:u1+u2",
				"label.zone=" + rapid.SampledFrom([]string{"north", "south"}).Draw(t, "zone")})
		}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			drawAnyStep(t, m)
		}
		m.delete(typesv1.Kind_KIND_SERVICE, "s5") // its schedule goes on for ever
		for n := range m.s.Nodes() {
			m.command(nil, []string{"node", n.GetMeta().GetId(), "ready", "active", "stamp=true", "taint="})
		}
		m.converge(m.now.Add(50 * time.Hour))
	})
}

func drawAnyStep(t *rapid.T, m *sim) {
	service := fmt.Sprintf("s%d", rapid.IntRange(0, 5).Draw(t, "service"))
	node := fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "node"))
	switch rapid.IntRange(0, 10).Draw(t, "step") {
	case 0, 1:
		m.command(nil, append([]string{"service", service}, drawSpec(t, service)...))
	case 10:
		drawAnew(t, m)
	case 2:
		if rapid.IntRange(0, 5).Draw(t, "rarely") == 0 {
			m.delete(typesv1.Kind_KIND_SERVICE, service)
		}
	case 3:
		if m.s.Node(node) != nil {
			m.command(nil, []string{"node", node, rapid.SampledFrom([]string{"down", "suspect", "drain", "pause", "remove"}).Draw(t, "trouble"), "stamp=true"})
		}
	case 4:
		m.command(nil, []string{"node", node, "ready", "active", "stamp=true", "memory=4G", "cpus=4", "pids=200", "disk=10G", "generic=gpu:u1+u2",
			rapid.SampledFrom([]string{"taint=", "taint=x::no-schedule", "taint=x::avoid", "taint=x::no-execute", "label.zone=south"}).Draw(t, "change")})
	case 5:
		drawReport(t, m)
	case 6:
		for v := range m.s.Volumes() {
			if rapid.IntRange(0, 9).Draw(t, "given up") == 0 {
				m.delete(typesv1.Kind_KIND_VOLUME, v.GetMeta().GetId())
			}
			break
		}
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 30_000).Draw(t, "ms")) * time.Millisecond)
	case 7:
		m.settle()
		drawWish(t, m, service)
	default:
		before := m.s
		m.decide()
		m.checkPlaced(t, before)
		m.checkStarted(t, before)
		m.checkDisplaced(t, before)
		m.checkVolumes(t, before)
	}
}

// drawAnew removes a service with volumes of its slots, or makes it anew under its name: with another id it is another service,
// with the same data. Its id comes before or after that of the one before.
func drawAnew(t *rapid.T, m *sim) {
	for svc := range m.s.Services() {
		if svc.GetSpec().GetAnnotations().GetName() != "v" {
			continue
		}
		m.delete(typesv1.Kind_KIND_SERVICE, svc.GetMeta().GetId())
		if rapid.Bool().Draw(t, "for good") {
			return
		}
	}
	id := fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"a", "z"}).Draw(t, "id"), m.s.Version().Revision)
	m.command(nil, []string{"service", id, "name=v", "slot-volume=" + rapid.SampledFrom([]string{"data", "log", "data+log"}).Draw(t, "volumes"),
		fmt.Sprintf("replicas=%d", rapid.IntRange(0, 4).Draw(t, "replicas")), "disk=" + rapid.SampledFrom([]string{"0", "4G"}).Draw(t, "disk")})
}

// drawWish lets a person ask for even load, or load come and go, where a service knows of it.
func drawWish(t *rapid.T, m *sim, service string) {
	svc := m.s.Service(service)
	switch {
	case svc.GetSpec().GetReplicated() == nil || !rapid.Bool().Draw(t, "asked"):
	case svc.GetSpec().GetAutoscale() != nil:
		running, _ := state.Counts(m.s, service)
		m.command(nil, []string{"load", service, fmt.Sprintf("tasks=%d", running), fmt.Sprintf("cpu=%d", rapid.IntRange(0, 6).Draw(t, "load"))})
	default:
		m.command(nil, []string{"rebalance", fmt.Sprintf("%s=%d", service, m.ids)})
	}
}

// drawSpec is a spec of the mode that goes with the service's name: no service changes its mode.
func drawSpec(t *rapid.T, service string) []string {
	on := map[string]string{"s1": "s0", "s2": "s0+s3", "s4": "s1"}[service]
	mode := map[string]string{"s2": "global", "s3": "job", "s4": "global-job", "s5": "job"}[service]
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	out := []string{
		"image=" + pick("image", "v1", "v2", "v3"), "restart-delay=" + pick("delay", "0s", "3s"), "attempts=" + pick("attempts", "0", "2"),
		"max-delay=" + pick("max-delay", "0s", "20s"), pick("memory", "memory=0", "memory=1G", "memory=3G"), "priority=" + pick("priority", "0", "0", "-5", "10"),
	}
	out = append(out, strings.Fields(pick("placement", "", "constraint=node.labels.zone_==_north", "prefer=node.labels.zone",
		"max-replicas=1", "strategy=binpack", "tolerate=x", "far="+service, "rather-far="+service, "generic=gpu:1", "disk=4G", "slot-volume=data", "slot-volume=data+log", "slot-volume=log", "near=s0", "host-port=808"+service[1:], "host-port=any",
		"cpus=1.5", "pids=90", "platform=linux/amd64"))...)
	switch mode {
	case "":
		out = append(out, "replicas="+pick("replicas", "0", "1", "3", "6"))
		out = append(out, strings.Fields(pick("even", "", "rebalance=always", "min=1 max=4 cpu-target=50 cpus=0.5 down=10s"))...)
		fallthrough
	case "global":
		out = append(out, "parallelism="+pick("parallelism", "0", "1", "2"), "order="+pick("order", "stop-first", "start-first"))
		out = append(out, strings.Fields(pick("update", "", "monitor=5s", "monitor=5s action=rollback", "monitor=5s action=continue",
			"monitor=5s action=rollback progress=20s rollback-parallelism=2", "monitor=0s max-unavailable=2", "monitor=5s hold=true", "delay=2s"))...)
	case "job":
		out = append(out, "completions="+pick("completions", "1", "4"), "concurrent="+pick("concurrent", "1", "3"))
		fallthrough
	case "global-job":
		out = append(out, "job-deadline="+pick("deadline", "0s", "30s"))
	}
	if service == "s5" {
		out = append(out, "cron="+pick("cron", "*_*_*_*_*", "*/2_*_*_*_*"), "policy="+pick("policy", "forbid", "replace"), "catch-up="+pick("catch-up", "0s", "60s"))
		if !slices.ContainsFunc(out, func(w string) bool { return strings.HasPrefix(w, "slot-volume=") }) && rapid.Bool().Draw(t, "beside") {
			out = append(out, "policy=allow") // no two runs write to one volume
		}
	}
	out = append(out, strings.Fields(pick("after", "", "depends-on="+on))...)
	if mode != "" {
		out = append(out, "mode="+mode)
	}
	return out
}

// checkPlaced: whatever a decision has placed is where its rules let it be, and no node holds more than it has.
func (m *sim) checkPlaced(t fatal, before *state.Snapshot) {
	used, held, perNode := map[string]*typesv1.Resources{}, map[string]string{}, map[string][]uint64{}
	hold := func(what string, task *typesv1.Task) {
		if other := held[what]; other != "" {
			t.Fatalf("%s is held by %s and %s", what, other, task.GetMeta().GetId())
		}
		held[what] = task.GetMeta().GetId()
	}
	var placed []*typesv1.Task
	for task := range m.s.Tasks() {
		node := m.s.Node(task.GetDecided().GetNodeId())
		if node == nil || state.Terminal(task.GetObserved().GetState()) {
			continue
		}
		id := node.GetMeta().GetId()
		if used[id] == nil {
			used[id] = &typesv1.Resources{}
		}
		u, r, d := used[id], task.GetDecided().GetReserved(), node.GetStatus().GetDescription()
		u.MemoryBytes, u.NanoCpus, u.Pids = u.GetMemoryBytes()+r.GetMemoryBytes(), u.GetNanoCpus()+r.GetNanoCpus(), u.GetPids()+r.GetPids()
		u.DiskBytes += r.GetDiskBytes()
		if u.GetDiskBytes() > d.GetDiskBytes() || u.GetMemoryBytes() > d.GetMemoryBytes() || u.GetNanoCpus() > d.GetNanoCpus() || u.GetPids() > d.GetPids() {
			t.Fatalf("node %s, which has %v, holds %v", id, d, u)
		}
		for _, g := range task.GetDecided().GetReserved().GetGeneric() {
			hold(id+"/"+g.GetNamed(), task)
		}
		for _, p := range task.GetDecided().GetHostPorts() {
			hold(fmt.Sprintf("%s:%d", id, p.GetPublishedPort()), task)
		}
		if task.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING {
			perNode[id+task.GetServiceId()] = append(perNode[id+task.GetServiceId()], task.GetSpecVersion())
			if before.Task(task.GetMeta().GetId()).GetDecided().GetNodeId() == "" { // else the world may have changed since
				placed = append(placed, task)
			}
		}
	}
	for _, task := range placed {
		m.checkRules(t, task, perNode[task.GetDecided().GetNodeId()+task.GetServiceId()])
	}
}

// checkRules: a task that has just been placed keeps to its own spec. There are the spec versions of the service's tasks on
// its node; those of another version came by other rules.
func (m *sim) checkRules(t fatal, task *typesv1.Task, there []uint64) {
	svc, node := m.s.Service(task.GetServiceId()), m.s.Node(task.GetDecided().GetNodeId())
	spec := state.SpecOf(svc, task.GetSpecVersion())
	if limit := spec.GetPlacement().GetMaxReplicas(); limit > 0 && uint64(len(there)) > limit && slices.Max(there) == slices.Min(there) {
		t.Fatalf("%s has %d tasks on %s", task.GetServiceId(), len(there), node.GetMeta().GetId())
	}
	if node.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY || node.GetSpec().GetAvailability() != typesv1.Availability_AVAILABILITY_ACTIVE {
		t.Fatalf("%s was placed on %s, which takes no tasks", m.taskName(task), node.GetMeta().GetId())
	}
	for _, taint := range node.GetSpec().GetTaints() {
		tolerated := slices.ContainsFunc(spec.GetPlacement().GetTolerations(), func(x *typesv1.Toleration) bool { return x.GetKey() == taint.GetKey() })
		if !tolerated && taint.GetEffect() != typesv1.TaintEffect_TAINT_EFFECT_PREFER_NO_SCHEDULE {
			t.Fatalf("%s was placed on %s against %v", m.taskName(task), node.GetMeta().GetId(), taint)
		}
	}
	for _, text := range spec.GetPlacement().GetConstraints() {
		if c, err := constraint.Parse(text); err != nil || !c.Match(node) {
			t.Fatalf("%s is on %s against %s", m.taskName(task), node.GetMeta().GetId(), text)
		}
	}
}

// checkVolumes: a task that uses volumes of its slot is where they are, and none of them is written to by two tasks at once.
func (m *sim) checkVolumes(t fatal, before *state.Snapshot) {
	writers := map[string]string{}
	for task := range m.s.Tasks() {
		d, observed := task.GetDecided(), task.GetObserved().GetState()
		if d.GetNodeId() == "" || state.Terminal(observed) {
			continue
		}
		var names []string
		sources := state.SlotSources(state.SpecOf(m.s.Service(task.GetServiceId()), task.GetSpecVersion()).GetContainer())
		for _, x := range d.GetVolumes() {
			names = append(names, d.GetForNode()+"/"+x.GetVolumeId()+"/"+x.GetIncarnation())
			v := m.s.Volume(x.GetVolumeId())
			if v != nil && v.GetIncarnation() == x.GetIncarnation() && v.GetNodeId() != d.GetNodeId() {
				t.Fatalf("%s runs on %s, and its volume %s is on %s", m.taskName(task), d.GetNodeId(), x.GetVolumeId(), v.GetNodeId())
			}
		}
		if placed := before.Task(task.GetMeta().GetId()).GetDecided().GetNodeId() == ""; placed && len(d.GetVolumes()) != len(sources) {
			t.Fatalf("%s was placed with %d of its %d volumes", m.taskName(task), len(d.GetVolumes()), len(sources))
		}
		if d.GetDesired() != typesv1.TaskState_TASK_STATE_RUNNING && observed < typesv1.TaskState_TASK_STATE_STARTING {
			continue
		}
		for _, name := range names {
			if other := writers[name]; other != "" {
				t.Fatalf("%s is used by %s and %s", name, other, task.GetMeta().GetId())
			}
			writers[name] = task.GetMeta().GetId()
		}
	}
}

// checkStarted: the first tasks of a service run only once all that it depends on was healthy.
func (m *sim) checkStarted(t fatal, before *state.Snapshot) {
	for svc := range m.s.Services() {
		id := svc.GetMeta().GetId()
		runs := func(s *state.Snapshot) bool {
			for task := range s.TasksOfService(id) {
				if task.GetDecided().GetDesired() == typesv1.TaskState_TASK_STATE_RUNNING {
					return true
				}
			}
			return false
		}
		if before.Service(id).GetDependencyStatus().GetMetAt() != nil || runs(before) || !runs(m.s) {
			continue // nothing of it waits any more, or all does
		}
		for _, on := range svc.GetSpec().GetDependsOn() {
			other := before.Service(on)
			have, want := state.Counts(before, on)
			if now, asked := state.Counts(m.s, on); now >= asked {
				have, want = now, asked // healthy by this very decision: it took back the task of a machine that returned
			}
			if other != nil && !state.IsJob(other) && (want == 0 || have < want) {
				t.Fatalf("%s was started while %s has %d of %d", id, on, have, want)
			}
		}
	}
}
