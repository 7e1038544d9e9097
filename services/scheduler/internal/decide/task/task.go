// Package task answers what a task is at this moment: wanted, running, over, given up.
//
// It owns these words and the form of a changed copy; it knows no rule. It is pure.
package task

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// The states that a decision names.
const (
	Ready    = typesv1.TaskState_TASK_STATE_READY
	Running  = typesv1.TaskState_TASK_STATE_RUNNING
	Complete = typesv1.TaskState_TASK_STATE_COMPLETE
	Shutdown = typesv1.TaskState_TASK_STATE_SHUTDOWN
	Remove   = typesv1.TaskState_TASK_STATE_REMOVE
)

// Created is the cluster time of a task's creation, zero for one made in this plan.
func Created(t *typesv1.Task) time.Time { return TimeOf(t.GetMeta().GetCreatedAt()) }

// Fresh reports whether a task was made in this plan.
func Fresh(t *typesv1.Task) bool { return t.GetMeta().GetCreatedAt() == nil }

// TimeOf is a cluster time as objects have it; none is zero.
func TimeOf(ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	return ts.AsTime()
}

// Dead reports whether a task has ended for good, as observed.
func Dead(t *typesv1.Task) bool { return state.Terminal(t.GetObserved().GetState()) }

// Runs reports whether a task was seen running and is wanted.
func Runs(t *typesv1.Task) bool { return book.Wanted(t) && t.GetObserved().GetState() == Running }

// Abandoned reports whether a task is on a lost node and has been given up, but would be taken back if the node came back
// soon: it is wanted, and yet no part of what its slot has.
func Abandoned(t *typesv1.Task) bool { return t.GetDecided().GetAbandoned() }

// Wanted reports whether a task counts as what its slot has.
func Wanted(t *typesv1.Task) bool { return book.Wanted(t) && !Abandoned(t) }

// NotRestarted begins the reason of a task that has ended and fills its slot for good. It is judged once: the words are how
// a later decision knows.
const NotRestarted = "not restarted: "

// FilledForGood reports whether a dead task fills its slot.
func FilledForGood(t *typesv1.Task) bool {
	return strings.HasPrefix(t.GetDecided().GetReason(), NotRestarted)
}

// AnyWanted reports whether a slot has a task that is wanted.
func AnyWanted(s *book.Slot) bool { return slices.ContainsFunc(s.Tasks, Wanted) }

// AnyAlive reports whether a slot has a task that is wanted and has not ended.
func AnyAlive(s *book.Slot) bool {
	return slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return Wanted(t) && !Dead(t) })
}

// NeverPlaced reports whether all that a slot has ever had is a task that waits for a place: it cannot be missed.
func NeverPlaced(s *book.Slot) bool {
	return !slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return t.GetDecided().GetNodeId() != "" })
}

// PendingOnly reports whether none of the tasks has a node: a replacement takes nothing away.
func PendingOnly(tasks []*typesv1.Task) bool {
	return !slices.ContainsFunc(tasks, func(t *typesv1.Task) bool { return t.GetDecided().GetNodeId() != "" })
}

// Copy makes a task whose decided half may be changed; all else it shares with t, for objects never change. What a newer
// scheduler has decided beside stays.
func Copy(t *typesv1.Task) *typesv1.Task {
	d := t.GetDecided()
	next := &typesv1.Task{Meta: t.GetMeta(), ServiceId: t.GetServiceId(), SpecVersion: t.GetSpecVersion(), Observed: t.GetObserved(),
		Decided: &typesv1.TaskDecided{
			Desired: d.GetDesired(), Slot: d.GetSlot(), NodeId: d.GetNodeId(), Addresses: d.GetAddresses(), Reason: d.GetReason(),
			Since: d.GetSince(), StartAfter: d.GetStartAfter(), OrphanAfter: d.GetOrphanAfter(), Abandoned: d.GetAbandoned(),
			Iteration: d.GetIteration(), Reserved: d.GetReserved(), Failures: d.GetFailures(), ForNode: d.GetForNode(),
			RunningAt: d.GetRunningAt(), HostPorts: d.GetHostPorts(), AwaitedNodeId: d.GetAwaitedNodeId(),
			MovedFrom: d.GetMovedFrom(), Volumes: d.GetVolumes(),
		}}
	if d != nil && state.Newer(d) {
		next.GetDecided().ProtoReflect().SetUnknown(d.ProtoReflect().GetUnknown())
	}
	return next
}

// Same reports whether two decisions of one task are equal in what may change.
func Same(a, b *typesv1.TaskDecided) bool {
	return a.GetDesired() == b.GetDesired() && a.GetNodeId() == b.GetNodeId() && a.GetReason() == b.GetReason() &&
		a.GetAbandoned() == b.GetAbandoned() && a.GetOrphanAfter() == b.GetOrphanAfter() && a.GetRunningAt() == b.GetRunningAt() &&
		a.GetStartAfter() == b.GetStartAfter() && a.GetAwaitedNodeId() == b.GetAwaitedNodeId()
}
