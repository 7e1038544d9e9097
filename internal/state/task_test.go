package state_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func TestTaskState(t *testing.T) {
	node := &typesv1.Node{Meta: &typesv1.Meta{Id: "a"}}
	down := &typesv1.Node{Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_DOWN}}
	placed := &typesv1.TaskDecided{NodeId: "a"}
	for name, c := range map[string]struct {
		task   *typesv1.Task
		node   *typesv1.Node
		state  typesv1.TaskState
		reason string
	}{
		"just made":     {&typesv1.Task{}, nil, typesv1.TaskState_TASK_STATE_NEW, "waits for the scheduler"},
		"without place": {&typesv1.Task{Decided: &typesv1.TaskDecided{Reason: "no suitable node"}}, nil, typesv1.TaskState_TASK_STATE_PENDING, "no suitable node"},
		"with place":    {&typesv1.Task{Decided: placed}, node, typesv1.TaskState_TASK_STATE_ASSIGNED, "waits for its node to take it on"},
		"running": {&typesv1.Task{Decided: placed, Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING}},
			node, typesv1.TaskState_TASK_STATE_RUNNING, ""},
		"on a lost node": {&typesv1.Task{Decided: placed, Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING}},
			down, typesv1.TaskState_TASK_STATE_RUNNING, "its node is down"},
		"on a removed node": {&typesv1.Task{Decided: placed, Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING}},
			nil, typesv1.TaskState_TASK_STATE_ORPHANED, "its node was removed from the cluster"},
		"failed, node removed": {&typesv1.Task{Decided: placed,
			Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_FAILED, ExitCode: proto.Int32(3)}},
			nil, typesv1.TaskState_TASK_STATE_FAILED, "exit code 3"},
	} {
		if got := state.TaskState(c.task, c.node); got != c.state {
			t.Errorf("%s: state %v, want %v", name, got, c.state)
		}
		if got := state.TaskReason(c.task, c.node); got != c.reason {
			t.Errorf("%s: reason %q, want %q", name, got, c.reason)
		}
	}
}

// TestWhoeverDoesNotRunSaysWhy: in any state but running and complete, also when nobody has said a word.
func TestWhoeverDoesNotRunSaysWhy(t *testing.T) {
	node := &typesv1.Node{Meta: &typesv1.Meta{Id: "a"}, Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY}}
	for number, name := range typesv1.TaskState_name {
		task := &typesv1.Task{Decided: &typesv1.TaskDecided{NodeId: "a"}, Observed: &typesv1.TaskObserved{State: typesv1.TaskState(number)}}
		s := state.TaskState(task, node)
		silent := s == typesv1.TaskState_TASK_STATE_RUNNING || s == typesv1.TaskState_TASK_STATE_COMPLETE
		if got := state.TaskReason(task, node); (got == "") != silent {
			t.Errorf("%s says %q", name, got)
		}
	}
}

// TestAnAbandonedTaskIsShownAsToldToStop: another stands in for it, though the scheduler may still take it back.
func TestAnAbandonedTaskIsShownAsToldToStop(t *testing.T) {
	kept := &typesv1.Task{Decided: &typesv1.TaskDecided{Desired: typesv1.TaskState_TASK_STATE_RUNNING}}
	for abandoned, want := range map[bool]typesv1.TaskState{
		false: typesv1.TaskState_TASK_STATE_RUNNING, true: typesv1.TaskState_TASK_STATE_SHUTDOWN,
	} {
		kept.Decided.Abandoned = abandoned
		if got := state.DesiredState(kept); got != want {
			t.Errorf("abandoned %v: %v, want %v", abandoned, got, want)
		}
	}
}

// TestCounts: nobody is told that a task runs when it was told to stop or its node is lost, and two tasks of one slot
// are one replica (SwarmKit showed 9/7).
func TestCounts(t *testing.T) {
	txn := state.Empty().Begin()
	txn.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "up"}, Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY}}))
	txn.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "down"}, Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_DOWN}}))
	txn.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "web"}, Spec: &typesv1.ServiceSpec{
		Mode: &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: proto.Uint64(4)}}}}))
	add := func(id, node string, slot uint64, desired, observed typesv1.TaskState) {
		txn.Put(state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: id}, ServiceId: "web",
			Decided:  &typesv1.TaskDecided{Slot: slot, NodeId: node, Desired: desired},
			Observed: &typesv1.TaskObserved{State: observed}}))
	}
	const run, stop = typesv1.TaskState_TASK_STATE_RUNNING, typesv1.TaskState_TASK_STATE_SHUTDOWN
	add("old", "up", 1, run, run)
	add("new", "up", 1, run, run) // start-first, both run
	add("told", "up", 2, stop, run)
	add("lost", "down", 3, run, run)
	add("gone", "removed", 3, run, run)
	add("starts", "up", 4, run, typesv1.TaskState_TASK_STATE_STARTING)
	running, desired := state.Counts(txn.Commit(state.Version{Revision: 1}, time.Time{}), "web")
	if running != 1 || desired != 4 {
		t.Errorf("%d/%d, want 1/4", running, desired)
	}
}

func TestSpecOf(t *testing.T) {
	now, then := &typesv1.TaskSpec{ForceUpdate: 3}, &typesv1.TaskSpec{ForceUpdate: 2}
	svc := &typesv1.Service{SpecVersion: 3, Spec: &typesv1.ServiceSpec{Task: now},
		SpecHistory: []*typesv1.SpecRecord{{Version: 2, Task: then}}}
	if state.SpecOf(svc, 3) != now || state.SpecOf(svc, 2) != then || state.SpecOf(svc, 1) != nil {
		t.Error("a version gives another spec")
	}
}
