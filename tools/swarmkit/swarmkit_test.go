package swarmkit_test

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/scheduler"
	"github.com/moby/swarmkit/v2/manager/state"
	"github.com/moby/swarmkit/v2/manager/state/store"
)

// BenchmarkFill places all tasks from nothing. One service of one replica each are the shapes of SwarmKit's own benchmark, in
// which no task belongs to a service. The store is in memory; its commits are part of the time, as SwarmKit has no plan
// without them.
func BenchmarkFill(b *testing.B) {
	for _, s := range []struct {
		nodes, services, replicas int
		constrained               bool
	}{{1_000, 1_000, 1, false}, {1_000, 10_000, 1, false}, {1_000, 1_000, 1, true}, {1_000, 10_000, 1, true}, {1_000, 10, 1_000, false}} {
		name := fmt.Sprintf("%dnodes/%dx%dtasks", s.nodes, s.services, s.replicas)
		if s.constrained {
			name += "/constrained"
		}
		b.Run(name, func(b *testing.B) {
			var used time.Duration
			tasks := s.services * s.replicas
			for b.Loop() {
				b.StopTimer()
				ds := filled(b, s.nodes, s.services, s.replicas, s.constrained)
				b.StartTimer()
				begun := cpu()
				place(b, ds, tasks)
				used += cpu() - begun
			}
			b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(tasks)*float64(b.N)/used.Seconds(), "tasks/cpu-s")
		})
	}
}

// place runs the scheduler until all tasks have a node.
func place(b *testing.B, ds *store.MemoryStore, tasks int) {
	b.Helper()
	defer ds.Close()
	watch, cancel := state.Watch(ds.WatchQueue(), api.EventUpdateTask{})
	defer cancel()
	s := scheduler.New(ds)
	go func() { _ = s.Run(context.Background()) }()
	for range tasks {
		<-watch
	}
	s.Stop()
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
