package decide_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// crowded is a cluster whose nodes are all full of tasks of the lowest class, and a service of a higher one that wants in.
func crowded(tb testing.TB, nodes, perNode int, memory int64) (*state.Snapshot, *decide.Decider) {
	tb.Helper()
	s := shape{nodes: nodes, services: 10, replicas: nodes * perNode / 10}
	snap := s.snapshot()
	txn := snap.Begin()
	cluster := proto.CloneOf(snap.Cluster())
	cluster.Spec.Scheduling = &typesv1.SchedulingConfig{Preemption: true}
	txn.Put(state.Wrap(cluster))
	for n := range snap.Nodes() {
		n = proto.CloneOf(n)
		n.Status.Description.MemoryBytes = int64(perNode) * (64 << 20)
		txn.Put(state.Wrap(n))
	}
	v := snap.Version()
	v.Revision++
	snap = txn.Commit(v, start())
	d, id := decide.NewDecider(1<<30), ids()
	for {
		p := d.Decide(snap, start(), id)
		if p.Empty() {
			break
		}
		snap = applied(snap, p)
	}
	txn = snap.Begin()
	v = snap.Version()
	v.Revision++
	high := proto.CloneOf(snap.Service(fmt.Sprintf("svc%022d", 0)))
	high.Meta = &typesv1.Meta{Id: "urgent", CreatedAt: high.GetMeta().GetCreatedAt(), Revision: v.Revision}
	high.Spec.Annotations.Name, high.Spec.Priority, high.Spec.Mode = "urgent", 10, replicas(100)
	high.Spec.Task.Resources.Reservations.MemoryBytes = memory
	txn.Put(state.Wrap(high))
	return txn.Commit(v, start()), d
}

// BenchmarkPreemption is the decision that makes room for 100 tasks of a higher class on nodes that are all full.
func BenchmarkPreemption(b *testing.B) {
	for _, nodes := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%dnodes", nodes), func(b *testing.B) {
			used := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				snap, d := crowded(b, nodes, 10, 128<<20)
				b.StartTimer()
				began := cpu()
				p := d.Decide(snap, start(), func() func() string { id := ids(); return func() string { return "u" + id() } }())
				used += cpu() - began
				if len(p.Puts) != 500 { // 100 new ones, two victims for each, and who is to follow those
					b.Fatalf("%d puts", len(p.Puts))
				}
			}
			b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// BenchmarkHopeless is the decision after a failure elsewhere while 100 tasks of a higher class wait, for whom nobody can
// make room.
func BenchmarkHopeless(b *testing.B) {
	for _, nodes := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%dnodes", nodes), func(b *testing.B) {
			snap, d := crowded(b, nodes, 10, 1<<40)
			id := ids()
			newID := func() string { return "u" + id() }
			for {
				p := d.Decide(snap, start(), newID)
				if p.Empty() {
					break
				}
				snap = applied(snap, p)
			}
			var victims []string
			for t := range snap.Tasks() {
				if t.GetDecided().GetNodeId() != "" {
					victims = append(victims, t.GetMeta().GetId())
				}
			}
			used, i := time.Duration(0), 0
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
				b.StartTimer()
				began := cpu()
				p := d.Decide(snap, start(), newID)
				used += cpu() - began
				b.StopTimer()
				snap = applied(snap, p)
				b.StartTimer()
			}
			b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}
