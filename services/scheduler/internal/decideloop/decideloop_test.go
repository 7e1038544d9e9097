package decideloop_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/lease"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decideloop"
)

// cluster is a store with two nodes and a service of n replicas.
func cluster(env run.Env, n uint64) *replicatest.Store {
	node := func(id string) *typesv1.Object {
		return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id},
			Spec:   &typesv1.NodeSpec{Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
			Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY}})
	}
	return replicatest.New(env, state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}}), node("a"), node("b"), service(n))
}

func service(n uint64) *typesv1.Object {
	return state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "web"}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "web"},
		Task:        &typesv1.TaskSpec{Restart: &typesv1.RestartPolicy{Delay: durationpb.New(5 * time.Second)}},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: proto.Uint64(n)}}}})
}

// start runs a scheduler's parts until the test ends or stop is called.
func start(t *testing.T, store *replicatest.Store, name string, seed uint64) (stop func()) {
	t.Helper()
	env := testx.Env(t)
	env.Rand = run.NewRand(seed)
	conn := store.Dial(t)
	commits := storev1.NewCommitServiceClient(conn)
	view := replica.New(env, storev1.NewWatchServiceClient(conn), decideloop.Kinds()...)
	seat := lease.New(env, commits, view, "scheduler", identity.ID{Role: authzv1.Role_ROLE_SCHEDULER, Name: name}, 3*time.Second)
	g := run.NewGroup(env.Log)
	g.Go("replica", view.Run)
	g.Go("lease", seat.Run)
	g.Go("decide", decideloop.New(env, view, seat, commits).Run)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the scheduler ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func tasks(store *replicatest.Store) []*typesv1.Task {
	return slices.Collect(store.Snapshot().TasksOfService("web"))
}

func observe(store *replicatest.Store, task *typesv1.Task, s typesv1.TaskState) {
	next := proto.CloneOf(task)
	next.Observed = &typesv1.TaskObserved{State: s}
	store.Put(state.Wrap(next))
}

// wanted counts the live tasks of each slot.
func wanted(store *replicatest.Store) map[uint64]int {
	out := map[uint64]int{}
	for _, t := range tasks(store) {
		if t.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !state.Terminal(t.GetObserved().GetState()) {
			out[t.GetDecided().GetSlot()]++
		}
	}
	return out
}

// TestDecides: a change is decided and committed with the lease's fence, a deadline is kept in cluster time, and between
// them the loop is quiet.
func TestDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 2)
		fenced := true
		store.OnCommit(func(tx *storev1.Transaction) error {
			for _, p := range tx.GetPuts() {
				if p.GetObject().GetTask() != nil && tx.GetPreconditions()[0].GetFence().GetHolder() != "scheduler/x" {
					fenced = false
				}
			}
			return nil
		})
		start(t, store, "x", 1)
		time.Sleep(time.Second)
		if n := len(tasks(store)); n != 2 {
			t.Fatalf("%d tasks, want 2", n)
		}
		synctest.Wait()
		if !fenced {
			t.Error("a decision was committed without the fence")
		}
		for _, task := range tasks(store) {
			observe(store, task, typesv1.TaskState_TASK_STATE_RUNNING)
		}
		observe(store, tasks(store)[0], typesv1.TaskState_TASK_STATE_FAILED)
		failed := time.Now()
		var raised time.Duration
		for raised == 0 && time.Since(failed) < 20*time.Second {
			time.Sleep(10 * time.Millisecond)
			for _, task := range tasks(store) {
				if task.GetDecided().GetStartAfter() != nil && task.GetDecided().GetDesired() == typesv1.TaskState_TASK_STATE_RUNNING {
					raised = time.Since(failed)
				}
			}
		}
		if raised < 5*time.Second || raised > 5600*time.Millisecond {
			t.Errorf("the replacement was let go after %s, want 5 s to 5.6 s", raised)
		}
		before := store.Commits()
		time.Sleep(time.Minute)
		if n := store.Commits() - before; n > 62 { // the lease's renewals, one a second
			t.Errorf("%d commits in a quiet minute", n)
		}
	})
}

// TestConflict: a decision whose ground has changed is refused, and made again from the newer state.
func TestConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 2)
		conflicts := 0
		store.OnCommit(func(tx *storev1.Transaction) error {
			if len(tx.GetPuts()) > 1 && conflicts < 3 {
				conflicts++
				store.Put(service(uint64(2 + conflicts))) // scaled while the decision is on its way
			}
			return nil
		})
		start(t, store, "x", 1)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if conflicts != 3 {
			t.Fatalf("%d conflicts were made, want 3", conflicts)
		}
		if n := len(tasks(store)); n != 5 {
			t.Errorf("%d tasks, want 5", n)
		}
	})
}

// TestLostAnswer: a commit whose answer was lost is not decided again: no slot gets two tasks.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 4)
		lost := 0
		ids := map[string]int{}
		store.OnCommit(func(tx *storev1.Transaction) error {
			if len(tx.GetPuts()) > 1 {
				ids[tx.GetRequestId()]++
				if lost++; lost < 4 {
					store.LoseAnswers(1)
				}
			}
			return nil
		})
		start(t, store, "x", 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(ids) != 1 || lost != 4 {
			t.Errorf("request ids %v, want one, sent four times", ids)
		}
		for slot, n := range wanted(store) {
			if n != 1 {
				t.Errorf("slot %d has %d tasks", slot, n)
			}
		}
	})
}

// TestStandby: a standby decides nothing; when the holder stops it goes on where that one was.
func TestStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 1)
		by := map[string]int{}
		store.OnCommit(func(tx *storev1.Transaction) error {
			if tx.GetPuts()[0].GetObject().GetTask() != nil {
				by[tx.GetPreconditions()[0].GetFence().GetHolder()]++
			}
			return nil
		})
		stop := start(t, store, "x", 1)
		time.Sleep(time.Second)
		start(t, store, "y", 2)
		time.Sleep(5 * time.Second)
		observe(store, tasks(store)[0], typesv1.TaskState_TASK_STATE_FAILED)
		time.Sleep(time.Second)
		stop() // the delay of the replacement is running
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if by["scheduler/x"] != 2 || by["scheduler/y"] != 1 {
			t.Errorf("decisions by %v, want two by x and one by y", by)
		}
		if n := len(tasks(store)); n != 2 {
			t.Errorf("%d tasks, want the failed one and its replacement", n)
		}
	})
}

// deaf is a seat that believes that it holds a lease which another has taken.
type deaf struct{ changed chan struct{} }

func (d deaf) Held() (uint64, bool)     { return 1, true }
func (d deaf) Changed() <-chan struct{} { return d.changed }
func (d deaf) Fence() *storev1.Precondition {
	return &storev1.Precondition{Condition: &storev1.Precondition_Fence{
		Fence: &storev1.Fence{Lease: "scheduler", Number: 1, Holder: "scheduler/old"}}}
}

// TestPaused: a holder that wakes late commits nothing, and does not hammer the store with what it may not write.
func TestPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 3)
		store.Put(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/new", Number: 2}))
		conn := store.Dial(t)
		view := replica.New(env, storev1.NewWatchServiceClient(conn), decideloop.Kinds()...)
		loop := decideloop.New(env, view, deaf{make(chan struct{})}, storev1.NewCommitServiceClient(conn))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- view.Run(ctx) }()
		go func() { done <- loop.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		if err := fmt.Sprint(<-done, <-done); err != "<nil> <nil>" {
			t.Error(err)
		}
		if n := len(tasks(store)); n != 0 {
			t.Errorf("%d tasks were made behind the fence", n)
		}
		if n := store.Commits(); n > 3 {
			t.Errorf("%d commits in a minute", n)
		}
	})
}

// TestOutage: without a quorum it waits with growing pauses, and goes on by itself.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 1)
		start(t, store, "x", 1)
		time.Sleep(2 * time.Second)
		tries := 0
		store.OnCommit(func(tx *storev1.Transaction) error {
			if len(tx.GetPuts()) > 1 {
				tries++
				return errs.New(errs.Unavailable, "no quorum")
			}
			return nil
		})
		store.Put(service(5))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if tries < 5 || tries > 40 {
			t.Errorf("%d tries in 30 s", tries)
		}
		store.OnCommit(nil)
		time.Sleep(5 * time.Second)
		if n := len(wanted(store)); n != 5 {
			t.Errorf("%d slots after the outage, want 5", n)
		}
	})
}
