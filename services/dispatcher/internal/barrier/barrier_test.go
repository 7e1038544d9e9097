package barrier_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/barrier"
)

const (
	member  = "dispatcher/d1"
	settled = 3 * time.Second // the barrier's own linger has passed
)

type rig struct {
	store   *replicatest.Store
	barrier *barrier.Barrier
}

func newRig(t *testing.T, live []string, objects ...*typesv1.Object) *rig {
	t.Helper()
	env := testx.Env(t)
	store := replicatest.New(env, append(objects, state.Wrap(&typesv1.Member{
		Meta: &typesv1.Meta{Id: member}, Role: authzv1.Role_ROLE_DISPATCHER, MachineId: "d1",
	}))...)
	conn := store.Dial(t)
	view := replica.New(env, storev1.NewWatchServiceClient(conn))
	commits := commit.New(storev1.NewCommitServiceClient(conn), env.Rand)
	b := barrier.New("d1", member, env.Log, view, commits, func() []string { return live }, 2*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	g := run.NewGroup(env.Log)
	g.Go("view", view.Run)
	g.Go("barrier", b.Run)
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &rig{store: store, barrier: b}
}

func (r *rig) published() uint64 { return r.store.Snapshot().Member(member).GetAppliedRevision() }

func service(order typesv1.UpdateOrder) *typesv1.Object {
	return state.Wrap(&typesv1.Service{
		Meta: &typesv1.Meta{Id: "web"}, Spec: &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "web"}, Update: &typesv1.UpdateConfig{Order: order},
		},
	})
}

// serving is a task of slot 1 that takes traffic.
func serving(id string, slot, version uint64) *typesv1.Object {
	return state.Wrap(&typesv1.Task{
		Meta: &typesv1.Meta{Id: id}, ServiceId: "web", SpecVersion: version,
		Decided:  &typesv1.TaskDecided{Slot: slot, NodeId: "n1", Desired: typesv1.TaskState_TASK_STATE_RUNNING},
		Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING, Ready: true},
	})
}

// The scheduler keeps an old task until its start-first successor is in all tables. It hears so from the dispatcher, also
// when that is the only one: it would else wait for its patience with every task.
func TestASuccessorInAllTablesIsPublished(t *testing.T) {
	for _, live := range [][]string{nil, {"d2"}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, live, service(typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST), serving("old", 1, 1))
			mesh := r.barrier.Join("n1")
			mesh.Report(state.VersionOf(r.store.Snapshot().Version().Proto()))
			time.Sleep(settled)
			both := r.store.Put(serving("fresh", 1, 2))
			time.Sleep(time.Second)
			if got := r.published(); got >= both.Revision {
				t.Errorf("published %d, although the only meshproxy is below %d", got, both.Revision)
			}
			mesh.Report(both)
			time.Sleep(100 * time.Millisecond)
			if got := r.published(); got < both.Revision {
				t.Errorf("published %d 100 ms after the last meshproxy reported %d", got, both.Revision)
			}
		})
	}
}

// A publication is a revision that all meshproxies answer, so nothing is published that nobody waits for.
func TestNothingIsPublishedThatNobodyWaitsFor(t *testing.T) {
	for name, change := range map[string]*typesv1.Object{
		"another slot": serving("other", 2, 1),
		"a stop that this dispatcher's own agents wait for": func() *typesv1.Object {
			o := serving("old", 1, 1)
			o.GetTask().Decided.Desired = typesv1.TaskState_TASK_STATE_SHUTDOWN
			return o
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil, service(typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST), serving("old", 1, 1))
				mesh := r.barrier.Join("n1")
				time.Sleep(settled)
				mesh.Report(r.store.Put(change))
				time.Sleep(time.Second)
				if n := r.store.Commits(); n != 0 {
					t.Errorf("%d publications", n)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, service(typesv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST), serving("old", 1, 1))
		mesh := r.barrier.Join("n1")
		time.Sleep(settled)
		mesh.Report(r.store.Put(serving("fresh", 1, 2)))
		time.Sleep(time.Second)
		if n := r.store.Commits(); n != 0 {
			t.Errorf("%d publications for a stop-first service", n)
		}
	})
}
