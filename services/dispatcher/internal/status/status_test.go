package status_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

const (
	starting = typesv1.TaskState_TASK_STATE_STARTING
	running  = typesv1.TaskState_TASK_STATE_RUNNING
	failed   = typesv1.TaskState_TASK_STATE_FAILED
)

type rig struct {
	t        *testing.T
	store    *replicatest.Store
	statuses *status.Committer
}

func newRig(t *testing.T, objects ...*typesv1.Object) *rig {
	t.Helper()
	env := testx.Env(t)
	store := replicatest.New(env, objects...)
	conn := store.Dial(t)
	view := replica.New(env, storev1.NewWatchServiceClient(conn))
	statuses := status.New("d1", env, view, commit.New(storev1.NewCommitServiceClient(conn), env.Rand))
	ctx, cancel := context.WithCancel(t.Context())
	g := run.NewGroup(env.Log)
	g.Go("view", view.Run)
	g.Go("status", statuses.Run)
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	time.Sleep(time.Second) // the replica's first snapshot
	return &rig{t: t, store: store, statuses: statuses}
}

func node(id string, number uint64) *typesv1.Object {
	return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{
		Session: &typesv1.NodeSession{DispatcherId: "d1", Number: number},
	}})
}

func task(id, nodeID string) *typesv1.Object {
	return state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: id}, Decided: &typesv1.TaskDecided{NodeId: nodeID}})
}

func saw(id string, st typesv1.TaskState, seq uint64) *dispatcherv1.TaskStatus {
	return &dispatcherv1.TaskStatus{TaskId: id, Observed: &typesv1.TaskObserved{State: st, Seq: seq}}
}

// add hands a report over and returns how often it was acknowledged.
func (r *rig) add(nodeID string, session uint64, tasks ...*dispatcherv1.TaskStatus) *atomic.Int64 {
	r.t.Helper()
	var done atomic.Int64
	err := r.statuses.Add(status.Report{NodeID: nodeID, Session: session, Tasks: tasks, Done: func() { done.Add(1) }})
	if err != nil {
		r.t.Fatal(err)
	}
	return &done
}

func (r *rig) observed(id string) *typesv1.TaskObserved {
	return r.store.Snapshot().Task(id).GetObserved()
}

// Reports of many machines that wait for the store share one commit, and of each task the latest counts.
func TestManyMachinesShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1", 1), node("n2", 1), task("t1", "n1"), task("t2", "n2"), task("t0", "n1"))
		r.store.OnCommit(func(*storev1.Transaction) error { time.Sleep(100 * time.Millisecond); return nil })
		r.add("n1", 1, saw("t0", starting, 1)) // on its way while the others come
		synctest.Wait()
		r.add("n1", 1, saw("t1", starting, 1))
		first := r.add("n1", 1, saw("t1", running, 2))
		second := r.add("n2", 1, saw("t2", running, 1))
		time.Sleep(time.Second)
		if got := r.store.Commits(); got != 2 {
			t.Errorf("%d commits, want 2", got)
		}
		if r.observed("t1").GetState() != running || r.observed("t2").GetState() != running {
			t.Errorf("t1 %v, t2 %v, want RUNNING", r.observed("t1"), r.observed("t2"))
		}
		if first.Load() != 1 || second.Load() != 1 {
			t.Errorf("acknowledged %d and %d times, want once", first.Load(), second.Load())
		}
	})
}

// What a session says that is not in force any more is dropped and not acknowledged, and holds up nobody else.
func TestFencedSessionIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1", 2), node("n2", 1), task("t1", "n1"), task("t2", "n2"))
		fenced, other := r.add("n1", 1, saw("t1", failed, 9)), r.add("n2", 1, saw("t2", running, 1))
		time.Sleep(2 * time.Second)
		if r.observed("t1") != nil || fenced.Load() != 0 {
			t.Errorf("fenced: observed %v, acknowledged %d times; want neither", r.observed("t1"), fenced.Load())
		}
		if r.observed("t2").GetState() != running || other.Load() != 1 {
			t.Errorf("the other: observed %v, acknowledged %d times", r.observed("t2"), other.Load())
		}
	})
}

// The status of a task that was deleted meanwhile, or is another machine's, is acknowledged and written nowhere.
func TestTaskThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1", 1), node("n2", 1), task("t1", "n1"), task("t2", "n2"))
		deleted := false
		r.store.OnCommit(func(*storev1.Transaction) error {
			if !deleted { // between the look and the commit
				deleted = true
				r.store.Delete(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: "t1"})
			}
			return nil
		})
		done := r.add("n1", 1, saw("t1", running, 1), saw("t2", failed, 1), saw("never", running, 1))
		time.Sleep(2 * time.Second)
		if done.Load() != 1 {
			t.Errorf("acknowledged %d times, want once", done.Load())
		}
		if r.observed("t2") != nil {
			t.Errorf("another machine's task was written: %v", r.observed("t2"))
		}
	})
}

// Observed only rises, in the order (attempt, state, seq), and nothing is written when nothing changed.
func TestObservedOnlyRises(t *testing.T) {
	for i, c := range []struct {
		has, says *typesv1.TaskObserved
		written   bool
	}{
		{nil, &typesv1.TaskObserved{State: starting, Seq: 1}, true},
		{&typesv1.TaskObserved{State: running, Seq: 5}, &typesv1.TaskObserved{State: running, Seq: 5}, false},
		{&typesv1.TaskObserved{State: running, Seq: 5}, &typesv1.TaskObserved{State: starting, Seq: 9}, false},
		{&typesv1.TaskObserved{State: running, Seq: 5}, &typesv1.TaskObserved{State: running, Seq: 4}, false},
		{&typesv1.TaskObserved{State: running, Seq: 5, Ready: true}, &typesv1.TaskObserved{State: running, Seq: 6}, true},
		{&typesv1.TaskObserved{State: failed, Seq: 5}, &typesv1.TaskObserved{State: running, Seq: 9}, false},
		{&typesv1.TaskObserved{State: failed, Seq: 5}, &typesv1.TaskObserved{State: starting, Seq: 6, Attempt: 1}, true},
		{&typesv1.TaskObserved{State: running, Seq: 5, Attempt: 2}, &typesv1.TaskObserved{State: failed, Seq: 9, Attempt: 1}, false},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, node("n1", 1), state.Wrap(&typesv1.Task{
					Meta: &typesv1.Meta{Id: "t1"}, Decided: &typesv1.TaskDecided{NodeId: "n1"}, Observed: c.has,
				}))
				done := r.add("n1", 1, &dispatcherv1.TaskStatus{TaskId: "t1", Observed: c.says})
				time.Sleep(time.Second)
				if done.Load() != 1 {
					t.Errorf("acknowledged %d times, want once", done.Load())
				}
				if written := r.store.Commits() > 0; written != c.written {
					t.Errorf("written: %t, want %t", written, c.written)
				}
			})
		})
	}
}

// A batch that is larger than a transaction may be, is written in several, and acknowledged after the last.
func TestLargeBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []*typesv1.Object{node("n1", 1)}
		var says []*dispatcherv1.TaskStatus
		for i := range 1200 {
			objects = append(objects, task(fmt.Sprintf("t%04d", i), "n1"))
			says = append(says, saw(fmt.Sprintf("t%04d", i), running, 1))
		}
		r := newRig(t, objects...)
		r.store.OnCommit(func(tx *storev1.Transaction) error {
			if len(tx.GetPuts()) > 1000 {
				t.Errorf("a transaction of %d puts", len(tx.GetPuts()))
			}
			return nil
		})
		done := r.add("n1", 1, says...)
		time.Sleep(5 * time.Second)
		if r.observed("t1199").GetState() != running || done.Load() != 1 {
			t.Errorf("the last task %v, acknowledged %d times", r.observed("t1199"), done.Load())
		}
	})
}

// One status that the store will never take holds up nobody: it is found, told and dropped.
func TestPoisonHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []*typesv1.Object{node("n1", 1)}
		var says []*dispatcherv1.TaskStatus
		for i := range 20 {
			objects = append(objects, task(fmt.Sprintf("t%02d", i), "n1"))
			says = append(says, saw(fmt.Sprintf("t%02d", i), running, 1))
		}
		r := newRig(t, objects...)
		r.store.OnCommit(func(tx *storev1.Transaction) error {
			for _, p := range tx.GetPuts() {
				if p.GetObject().GetTask().GetMeta().GetId() == "t13" {
					return errs.New(errs.Invalid, "there is something wrong with one of them")
				}
			}
			return nil
		})
		done := r.add("n1", 1, says...)
		time.Sleep(5 * time.Second)
		for _, s := range says {
			if got := r.observed(s.GetTaskId()); (got == nil) != (s.GetTaskId() == "t13") {
				t.Errorf("%s: %v", s.GetTaskId(), got)
			}
		}
		if done.Load() != 1 {
			t.Errorf("acknowledged %d times, want once", done.Load())
		}
	})
}

// A store without a leader keeps nobody from being heard: reports pile up, bounded, and are written when it is back.
func TestAddNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1", 1), task("t1", "n1"))
		r.store.SetQuorum(false)
		start := time.Now()
		var last *atomic.Int64
		for i := range 5000 {
			last = r.add("n1", 1, saw("t1", running, uint64(i+1)))
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("Add waited %s", waited)
		}
		r.store.SetQuorum(true)
		time.Sleep(10 * time.Second)
		if got := r.observed("t1").GetSeq(); got != 5000 || last.Load() != 1 {
			t.Errorf("seq %d, acknowledged %d times; want 5000, once", got, last.Load())
		}
		var full error
		r.store.SetQuorum(false)
		r.add("n1", 1, saw("t1", failed, 6000)) // the store is tried with this one while the others come
		synctest.Wait()
		for i := range 20 {
			var says []*dispatcherv1.TaskStatus
			for j := range 1000 {
				says = append(says, saw(fmt.Sprintf("x%d-%d", i, j), running, 1))
			}
			if err := r.statuses.Add(status.Report{NodeID: "n2", Session: 1, Tasks: says, Done: func() {}}); err != nil {
				full = err
			}
		}
		if !errs.Is(full, errs.Exhausted) {
			t.Errorf("20,000 statuses of one machine: %v, want exhausted", full)
		}
	})
}
