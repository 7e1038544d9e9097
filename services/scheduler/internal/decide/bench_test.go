package decide_test

import (
	"fmt"
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
	n := 0
	return func() string { n++; return fmt.Sprintf("t%024d", n) }
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

// BenchmarkFill decides everything from nothing, in one plan: the shapes of SwarmKit's own benchmark (a service for each
// task), and services of many replicas.
func BenchmarkFill(b *testing.B) {
	for _, s := range []shape{
		{1_000, 1_000, 1, false}, {1_000, 10_000, 1, false}, {1_000, 1_000, 1, true}, {1_000, 10_000, 1, true},
		{1_000, 10, 1_000, false}, {1_000, 100, 1_000, false}, {10_000, 100, 1_000, false}, {10_000, 100, 1_000, true},
		{100_000, 100, 1_000, false}, {100_000, 1_000, 1, false},
	} {
		b.Run(s.String(), func(b *testing.B) {
			snap := s.snapshot()
			b.ReportAllocs()
			used := cpu()
			for b.Loop() {
				p := decide.NewDecider(1<<30).Decide(snap, start(), ids())
				if len(p.Puts) != s.services*s.replicas {
					b.Fatalf("%d tasks", len(p.Puts))
				}
			}
			spent := cpu() - used
			b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(s.services*s.replicas)*float64(b.N)/spent.Seconds(), "tasks/cpu-s")
		})
	}
}

// BenchmarkFillAndApply also puts the plans, as large as in the product, into the snapshot, one after the other.
func BenchmarkFillAndApply(b *testing.B) {
	s := shape{10_000, 100, 1_000, false}
	snap := s.snapshot()
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
	b.ReportMetric(float64((cpu()-used).Milliseconds())/float64(b.N), "cpu-ms/op")
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
	for _, s := range []shape{{1_000, 10, 1_000, false}, {10_000, 100, 1_000, false}, {10_000, 10, 10_000, false}, {100_000, 100, 1_000, false}} {
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
