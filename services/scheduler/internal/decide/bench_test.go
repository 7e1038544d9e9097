package decide_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// shape is a cluster to be filled from nothing.
type shape struct {
	nodes, services, replicas int
	constrained               bool // a third of the nodes has the label that every service asks for
}

func (s shape) String() string {
	name := fmt.Sprintf("%dnodes/%dx%dtasks", s.nodes, s.services, s.replicas)
	if s.constrained {
		name += "/constrained"
	}
	return name
}

func (s shape) snapshot() *state.Snapshot {
	txn := state.Empty().Begin()
	at := timestamppb.New(start())
	txn.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster", CreatedAt: at}, Spec: &typesv1.ClusterSpec{TaskHistoryLimit: 5}}))
	for i := range s.nodes {
		n := &typesv1.Node{Meta: &typesv1.Meta{Id: fmt.Sprintf("node%021d", i), CreatedAt: at, Revision: 1},
			Spec: &typesv1.NodeSpec{Availability: typesv1.Availability_AVAILABILITY_ACTIVE, Annotations: &typesv1.Annotations{}},
			Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY, Description: &typesv1.NodeDescription{
				Platform: &typesv1.Platform{Os: "linux", Architecture: "amd64"}, NanoCpus: 64e9, MemoryBytes: 256 << 30}},
			Blocks: []string{}}
		if i%3 == 0 {
			n.Spec.Annotations.Labels = map[string]string{"disk": "ssd"}
		}
		txn.Put(state.Wrap(n))
	}
	for i := range s.services {
		spec := &typesv1.TaskSpec{Resources: &typesv1.ResourceRequirements{Reservations: &typesv1.Resources{NanoCpus: 1e8, MemoryBytes: 64 << 20}}}
		if s.constrained {
			spec.Placement = &typesv1.Placement{Constraints: []string{"node.labels.disk == ssd"}}
		}
		txn.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: fmt.Sprintf("svc%022d", i), CreatedAt: at, Revision: 1}, SpecVersion: 1,
			Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: fmt.Sprintf("s%d", i)}, Task: spec, Mode: replicas(uint64(s.replicas)),
				Update: &typesv1.UpdateConfig{Parallelism: proto.Uint64(1)}}}))
	}
	return txn.Commit(state.Version{EpochNumber: 1, Revision: 1}, start())
}

// ids are as long as the real ones and cost next to nothing.
func ids() func() string {
	digits := []byte("t000000000000000000000000")
	return func() string {
		i := len(digits) - 1
		for ; digits[i] == '9'; i-- {
			digits[i] = '0'
		}
		digits[i]++
		return string(digits)
	}
}

// applied is the snapshot after a plan, with every new task running.
func applied(s *state.Snapshot, p decide.Plan) *state.Snapshot {
	txn := s.Begin()
	v := s.Version()
	v.Revision++
	at := timestamppb.New(start())
	for _, put := range p.Puts {
		if t := put.GetObject().GetTask(); t != nil {
			t.Meta.CreatedAt, t.Meta.UpdatedAt, t.Meta.Revision = at, at, v.Revision
			t.Observed = &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING, Ready: true}
		}
		txn.Put(put.GetObject())
	}
	for _, d := range p.Deletes {
		txn.Delete(state.Key{Kind: d.GetKind(), ID: d.GetId()})
	}
	return txn.Commit(v, start())
}

// pending is the same cluster with all tasks there and none placed yet, as SwarmKit's benchmark begins.
func (s shape) pending() *state.Snapshot {
	snap, at, i := s.snapshot(), timestamppb.New(start()), 0
	txn, id := snap.Begin(), ids()
	for svc := range snap.Services() {
		for slot := range s.replicas {
			i++
			txn.Put(state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: id(), CreatedAt: at, UpdatedAt: at, Revision: 1}, ServiceId: svc.GetMeta().GetId(), SpecVersion: 1,
				Decided: &typesv1.TaskDecided{Desired: typesv1.TaskState_TASK_STATE_RUNNING, Slot: uint64(slot + 1), Since: at, Reason: "no suitable node: 1 node is paused"}}))
		}
	}
	return txn.Commit(state.Version{EpochNumber: 1, Revision: 2}, start())
}

// shapes are those of SwarmKit's own benchmark, in which each task has a specification of its own, and services of many replicas.
func shapes() []shape {
	return []shape{
		{1_000, 1_000, 1, false}, {1_000, 10_000, 1, false}, {1_000, 100_000, 1, false},
		{1_000, 1_000, 1, true}, {1_000, 10_000, 1, true}, {1_000, 100_000, 1, true}, {5_000, 100_000, 1, true},
		{100_000, 1_000, 1, false}, {100_000, 100_000, 1, false},
		{1_000, 10, 1_000, false}, {1_000, 100, 1_000, false}, {10_000, 100, 1_000, false}, {10_000, 100, 1_000, true},
		{100_000, 100, 1_000, false}, {100_000, 100, 1_000, true},
	}
}

// figures tells what so many runs have used.
func (s shape) figures(b *testing.B, spent time.Duration) {
	b.Helper()
	b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(s.services*s.replicas)*float64(b.N)/spent.Seconds(), "tasks/cpu-s")
}

// BenchmarkFill decides everything from nothing, in one plan: it makes the tasks and places them.
func BenchmarkFill(b *testing.B) { inOnePlan(b, shape.snapshot) }

// BenchmarkPlace decides everything from nothing, in one plan, of tasks that are there already.
func BenchmarkPlace(b *testing.B) { inOnePlan(b, shape.pending) }

func inOnePlan(b *testing.B, snapshot func(shape) *state.Snapshot) {
	for _, s := range shapes() {
		b.Run(s.String(), func(b *testing.B) {
			snap := snapshot(s)
			runtime.GC()
			b.ReportAllocs()
			used := cpu()
			for b.Loop() {
				p := decide.NewDecider(1<<30).Decide(snap, start(), ids())
				if len(p.Puts) != s.services*s.replicas {
					b.Fatalf("%d tasks", len(p.Puts))
				}
			}
			s.figures(b, cpu()-used)
		})
	}
}

// BenchmarkFillAndApply also puts the plans, as large as in the product, into the snapshot, one after the other.
func BenchmarkFillAndApply(b *testing.B) { andApply(b, shape.snapshot) }

// BenchmarkPlaceAndApply does so with tasks that are there already: what SwarmKit's scheduler does with its store.
func BenchmarkPlaceAndApply(b *testing.B) { andApply(b, shape.pending) }

func andApply(b *testing.B, snapshot func(shape) *state.Snapshot) {
	for _, s := range shapes() {
		b.Run(s.String(), func(b *testing.B) {
			snap := snapshot(s)
			runtime.GC()
			used := cpu()
			for b.Loop() {
				d, now, id := decide.NewDecider(decide.Batch), snap, ids()
				for {
					p := d.Decide(now, start(), id)
					if p.Empty() {
						break
					}
					now = applied(now, p)
				}
				if n := now.Count(typesv1.Kind_KIND_TASK); n != s.services*s.replicas {
					b.Fatalf("%d tasks", n)
				}
			}
			s.figures(b, cpu()-used)
		})
	}
}

// settled is a cluster in which all runs, and a decider that has seen it.
func settled(b *testing.B, s shape) (*state.Snapshot, *decide.Decider) {
	d, snap := decide.NewDecider(1<<30), s.snapshot()
	id := ids()
	for {
		p := d.Decide(snap, start(), id)
		if p.Empty() {
			return snap, d
		}
		snap = applied(snap, p)
	}
}

// BenchmarkOneFailure is the decision after one task of a settled cluster has failed, and the one that finds nothing more.
func BenchmarkOneFailure(b *testing.B) {
	for _, s := range []shape{{1_000, 10, 1_000, false}, {10_000, 100, 1_000, false}, {10_000, 10, 10_000, false}, {10_000, 100_000, 1, false}, {100_000, 100, 1_000, false}} {
		b.Run(s.String(), func(b *testing.B) {
			snap, d := settled(b, s)
			var victims []string
			for t := range snap.Tasks() {
				victims = append(victims, t.GetMeta().GetId())
			}
			id, i := ids(), 0
			newID := func() string { return "n" + id() }
			var spent time.Duration
			for b.Loop() {
				b.StopTimer()
				failed := proto.CloneOf(snap.Task(victims[i*7919%len(victims)]))
				i++
				failed.Observed.State = typesv1.TaskState_TASK_STATE_FAILED
				txn := snap.Begin()
				v := snap.Version()
				v.Revision++
				txn.Put(state.Wrap(failed))
				snap = txn.Commit(v, start())
				used := cpu()
				b.StartTimer()
				p := d.Decide(snap, start(), newID)
				if len(p.Puts) != 2 {
					b.Fatalf("%d puts", len(p.Puts))
				}
				b.StopTimer()
				spent += cpu() - used
				snap = applied(snap, p)
				if i == len(victims) {
					b.Fatal("no task is left")
				}
				used = cpu()
				b.StartTimer()
				if p := d.Decide(snap, start(), newID); !p.Empty() {
					b.Fatalf("then %d puts", len(p.Puts))
				}
				b.StopTimer()
				spent += cpu() - used
				b.StartTimer()
			}
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// cpu is the processor time that this process has used: wall time says little where others work too.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
