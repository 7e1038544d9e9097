package swarmkit_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/scheduler"
	"github.com/moby/swarmkit/v2/manager/state"
	"github.com/moby/swarmkit/v2/manager/state/store"
)

// limit ends a shape that takes longer: SwarmKit's scheduler does not finish each in any time that one would wait.
const limit = 90 * time.Second

// shape is a cluster to be filled from nothing, named as ours are.
type shape struct {
	nodes, services, replicas int
	constrained               bool
}

// shapes are those of SwarmKit's own benchmark, in which no task belongs to a service, and services of many replicas. One that may
// not end comes last among those of so many nodes: what still runs then is in nobody's way.
func shapes() []shape {
	return []shape{
		{1_000, 1_000, 1, false}, {1_000, 10_000, 1, false}, {1_000, 100_000, 1, false},
		{1_000, 1_000, 1, true}, {1_000, 10_000, 1, true}, {1_000, 100_000, 1, true}, {5_000, 100_000, 1, true},
		{1_000, 10, 1_000, false}, {1_000, 100, 1_000, false}, {10_000, 100, 1_000, false}, {10_000, 100, 1_000, true},
		{100_000, 100, 1_000, false}, {100_000, 1_000, 1, false}, {100_000, 100_000, 1, false},
	}
}

func (s shape) String() string {
	name := fmt.Sprintf("%dnodes/%dx%dtasks", s.nodes, s.services, s.replicas)
	if s.constrained {
		name += "/constrained"
	}
	return name
}

// BenchmarkPlaceAndApply places tasks that are there already. The store is in memory; its commits are part of the time, as SwarmKit
// has no plan without them.
func BenchmarkPlaceAndApply(b *testing.B) { each(b, place) }

// BenchmarkApply is the store's part of it: the same tasks are given nodes without a scheduler.
func BenchmarkApply(b *testing.B) { each(b, apply) }

// each measures act on each shape, which returns how many tasks have been placed.
func each(b *testing.B, act func(*testing.B, *store.MemoryStore, shape) int) {
	for _, s := range shapes() {
		b.Run(s.String(), func(b *testing.B) {
			var used time.Duration
			placed, over := 0, false
			for b.Loop() {
				if over {
					continue
				}
				b.StopTimer()
				ds := filled(b, s.nodes, s.services, s.replicas, s.constrained)
				runtime.GC()
				b.StartTimer()
				begun := cpu()
				n := act(b, ds, s)
				used, placed, over = used+cpu()-begun, placed+n, n < s.services*s.replicas
			}
			if over {
				b.Logf("after %s of CPU time %d of %d tasks have a node", used.Round(time.Second), placed, s.services*s.replicas)
			}
			b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(placed)/used.Seconds(), "tasks/cpu-s")
		})
	}
}

// place runs the scheduler until all tasks have a node. After the limit it is left alone: it stops only between two rounds.
func place(b *testing.B, ds *store.MemoryStore, s shape) int {
	b.Helper()
	watch, cancel := state.Watch(ds.WatchQueue(), api.EventUpdateTask{})
	defer cancel()
	sched := scheduler.New(ds)
	go func() { _ = sched.Run(context.Background()) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	begun := cpu()
	for placed := range s.services * s.replicas {
		for event := false; !event; {
			select {
			case <-watch:
				event = true
			case <-tick.C:
				if cpu()-begun > limit {
					return placed
				}
			}
		}
	}
	sched.Stop()
	_ = ds.Close()
	return s.services * s.replicas
}

// apply writes a node into each task, in batches as the scheduler does.
func apply(b *testing.B, ds *store.MemoryStore, s shape) int {
	b.Helper()
	defer ds.Close()
	watch, cancel := state.Watch(ds.WatchQueue(), api.EventUpdateTask{})
	defer cancel()
	tasks := s.services * s.replicas
	go func() {
		_ = ds.Batch(func(batch *store.Batch) error {
			for i := range tasks {
				if err := batch.Update(func(tx store.Tx) error {
					t := store.GetTask(tx, "task"+strconv.Itoa(i))
					t.NodeID, t.Status.State = "node"+strconv.Itoa(i%s.nodes), api.TaskStateAssigned
					return store.UpdateTask(tx, t)
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	for range tasks {
		<-watch
	}
	return tasks
}

func filled(b *testing.B, nodes, services, replicas int, constrained bool) *store.MemoryStore {
	b.Helper()
	ds := store.NewMemoryStore(nil)
	err := ds.Update(func(tx store.Tx) error {
		for i := range nodes {
			n := &api.Node{
				ID: "node" + strconv.Itoa(i), Status: api.NodeStatus{State: api.NodeStatus_READY},
				Spec:        api.NodeSpec{Annotations: api.Annotations{Name: "name" + strconv.Itoa(i), Labels: map[string]string{}}},
				Description: &api.NodeDescription{Engine: &api.EngineDescription{}},
			}
			if i%3 == 0 {
				n.Spec.Annotations.Labels["disk"] = "ssd"
			}
			if err := store.CreateNode(tx, n); err != nil {
				return err
			}
		}
		for i := range services * replicas {
			t := &api.Task{
				ID: "task" + strconv.Itoa(i), DesiredState: api.TaskStateRunning,
				Status: api.TaskStatus{State: api.TaskStatePending}, ServiceAnnotations: api.Annotations{Name: "task" + strconv.Itoa(i)},
			}
			if replicas > 1 {
				t.ServiceID, t.SpecVersion = "service"+strconv.Itoa(i/replicas), &api.Version{Index: 1}
			}
			if constrained {
				t.Spec.Placement = &api.Placement{Constraints: []string{"node.labels.disk == ssd"}}
			}
			if err := store.CreateTask(tx, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return ds
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
