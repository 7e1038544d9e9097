package load_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/load"
)

const self = "d1"

type rig struct {
	*load.Keeper
	store *replicatest.Store
}

func newRig(t *testing.T, objects ...*typesv1.Object) *rig {
	t.Helper()
	env := testx.Env(t)
	store := replicatest.New(env, objects...)
	conn := store.Dial(t)
	view := replica.New(env, storev1.NewWatchServiceClient(conn))
	k := load.New(self, env, view, commit.New(storev1.NewCommitServiceClient(conn), env.Rand))
	ctx, cancel := context.WithCancel(t.Context())
	g := run.NewGroup(env.Log)
	g.Go("view", view.Run)
	g.Go("load", k.Run)
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &rig{k, store}
}

func (r *rig) report(t *testing.T, node string, tasks ...*dispatcherv1.TaskUsage) {
	t.Helper()
	if err := r.Report(node, &dispatcherv1.UsageReport{Tasks: tasks}); err != nil {
		t.Fatal(err)
	}
}

func service(id string, follows bool) *typesv1.Object {
	s := &typesv1.Service{Meta: &typesv1.Meta{Id: id}, Spec: &typesv1.ServiceSpec{}}
	if follows {
		s.Spec.Autoscale = &typesv1.Autoscale{Max: 9}
	}
	return state.Wrap(s)
}

func node(id, dispatcher string) *typesv1.Object {
	return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{
		State: typesv1.NodeState_NODE_STATE_READY, Session: &typesv1.NodeSession{DispatcherId: dispatcher},
	}})
}

func task(id, service, node string) *typesv1.Object {
	return state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: id}, ServiceId: service,
		Decided:  &typesv1.TaskDecided{NodeId: node, Desired: typesv1.TaskState_TASK_STATE_RUNNING},
		Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING}})
}

func uses(id string, cpus, memory int64) *dispatcherv1.TaskUsage {
	return &dispatcherv1.TaskUsage{TaskId: id, NanoCpus: cpus * 1e9, MemoryBytes: memory << 20}
}

// What counts are the tasks of services that follow their load, on the machines whose session is here; nobody's word is taken
// for a task that is elsewhere.
func TestSum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, service("web", true), service("still", false), node("a", self), node("b", self), node("c", "d2"),
			task("t1", "web", "a"), task("t2", "web", "b"), task("t3", "web", "c"), task("t4", "still", "a"))
		r.report(t, "a", uses("t1", 1, 100), uses("t4", 7, 700), uses("t2", 50, 50), uses("nobody", 1, 1))
		r.report(t, "b", uses("t2", 2, 50))
		r.report(t, "c", uses("t3", 4, 50))
		time.Sleep(15 * time.Second)
		want := []*typesv1.ServiceLoad{{ServiceId: "web", Tasks: 2, NanoCpus: 3e9, MemoryBytes: 150 << 20}}
		if diff := cmp.Diff(want, r.store.Snapshot().Load(self).GetServices(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		// A machine that has told nothing for a while counts no more, and then there is nothing to tell.
		time.Sleep(time.Minute)
		if l := r.store.Snapshot().Load(self); len(l.GetServices()) != 0 {
			t.Errorf("old figures are told: %v", l)
		}
		commits := r.store.Commits()
		time.Sleep(10 * time.Minute)
		if n := r.store.Commits() - commits; n != 0 {
			t.Errorf("%d commits of nothing", n)
		}
		tooMany := make([]*dispatcherv1.TaskUsage, 1001)
		if err := r.Report("a", &dispatcherv1.UsageReport{Tasks: tooMany}); !errs.Is(err, errs.Invalid) {
			t.Errorf("1001 tasks: %v", err)
		}
	})
}

// counts says that a machine's mesh was asked, and what it led.
func (r *rig) counts(t *testing.T, node string, services ...*dispatcherv1.ServiceUsage) {
	t.Helper()
	if err := r.Report(node, &dispatcherv1.UsageReport{Counted: true, Services: services}); err != nil {
		t.Fatal(err)
	}
}

// Connections are counted for services that scale by them, also where there were none; a machine whose mesh was not asked is
// not counted, so that nobody takes its silence for no load.
func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		by := func(id string, connections uint32) *typesv1.Object {
			return state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: id}, Spec: &typesv1.ServiceSpec{Autoscale: &typesv1.Autoscale{Max: 9, Connections: connections}}})
		}
		r := newRig(t, by("web", 50), by("idle", 50), by("busy", 0), service("still", false), node("a", self), node("b", self), node("c", self), node("d", "d2"))
		leads := func(id string, milli int64) *dispatcherv1.ServiceUsage {
			return &dispatcherv1.ServiceUsage{ServiceId: id, MilliConnections: milli}
		}
		r.counts(t, "a", leads("web", 40_000), leads("busy", 9), leads("still", 9), leads("nobody", 9))
		r.counts(t, "b", leads("web", 2_500), leads("web", -1<<62))
		r.report(t, "c")
		r.counts(t, "d", leads("web", 1_000_000))
		time.Sleep(15 * time.Second)
		want := []*typesv1.ServiceLoad{{ServiceId: "idle", Machines: 2}, {ServiceId: "web", Machines: 2, MilliConnections: 40_000}}
		if diff := cmp.Diff(want, r.store.Snapshot().Load(self).GetServices(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if err := r.Report("a", &dispatcherv1.UsageReport{Services: make([]*dispatcherv1.ServiceUsage, 1001)}); !errs.Is(err, errs.Invalid) {
			t.Errorf("1001 services: %v", err)
		}
	})
}

// Writes grow neither with machines nor with small changes: at most one in 10 s, one in 30 s while figures are much the same.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []*typesv1.Object{service("web", true)}
		for i := range 50 {
			objects = append(objects, node(fmt.Sprintf("n%d", i), self), task(fmt.Sprintf("t%d", i), "web", fmt.Sprintf("n%d", i)))
		}
		r := newRig(t, objects...)
		during := func(what string, least, most int, cpus func(second int) int64) {
			t.Helper()
			before := r.store.Commits()
			for s := range 300 {
				for i := range 50 {
					r.report(t, fmt.Sprintf("n%d", i), uses(fmt.Sprintf("t%d", i), cpus(s), 100))
				}
				time.Sleep(time.Second)
			}
			if n := r.store.Commits() - before; n < least || n > most {
				t.Errorf("%s: %d commits in 300 s, want %d to %d", what, n, least, most)
			}
		}
		during("steady", 8, 13, func(int) int64 { return 1 })
		during("rising", 25, 34, func(s int) int64 { return int64(1 + s*s/100) })
	})
}
