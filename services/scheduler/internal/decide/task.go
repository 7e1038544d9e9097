package decide

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

const (
	ready    = typesv1.TaskState_TASK_STATE_READY
	running  = typesv1.TaskState_TASK_STATE_RUNNING
	complete = typesv1.TaskState_TASK_STATE_COMPLETE
	shutdown = typesv1.TaskState_TASK_STATE_SHUTDOWN
	remove   = typesv1.TaskState_TASK_STATE_REMOVE
)

// created is the cluster time of a task's creation, zero for one made in this plan.
func created(t *typesv1.Task) time.Time { return timeOf(t.GetMeta().GetCreatedAt()) }

// fresh reports whether a task was made in this plan.
func fresh(t *typesv1.Task) bool { return t.GetMeta().GetCreatedAt() == nil }

func timeOf(ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	return ts.AsTime()
}

// dead reports whether a task has ended for good, as observed.
func dead(t *typesv1.Task) bool { return state.Terminal(t.GetObserved().GetState()) }

// runs reports whether a task was seen running and is wanted.
func runs(t *typesv1.Task) bool { return book.Wanted(t) && t.GetObserved().GetState() == running }

// lost reports whether a task's node is down or no longer in the cluster.
func (w *work) lost(t *typesv1.Task) bool {
	id := t.GetDecided().GetNodeId()
	if id == "" {
		return false
	}
	n := w.book.Node(id)
	return n == nil || n.Down()
}

// abandoned reports whether a task is on a lost node and has been given up, but would be taken back if the node came back
// soon: it is wanted, and yet no part of what its slot has.
func abandoned(t *typesv1.Task) bool { return t.GetDecided().GetAbandoned() }

// wanted reports whether a task counts as what its slot has.
func wanted(t *typesv1.Task) bool { return book.Wanted(t) && !abandoned(t) }

// gone reports whether nothing of a task can run any more, or nobody can ever say so.
func (w *work) gone(t *typesv1.Task) bool {
	id := t.GetDecided().GetNodeId()
	if dead(t) || id == "" || w.book.Node(id) == nil {
		return true
	}
	after := timeOf(t.GetDecided().GetOrphanAfter())
	return !after.IsZero() && w.lost(t) && !w.now.Before(after)
}

// copyTask makes a task whose decided half may be changed; all else it shares with t, for objects never change.
func copyTask(t *typesv1.Task) *typesv1.Task {
	d := t.GetDecided()
	return &typesv1.Task{Meta: t.GetMeta(), ServiceId: t.GetServiceId(), SpecVersion: t.GetSpecVersion(), Observed: t.GetObserved(),
		Decided: &typesv1.TaskDecided{
			Desired: d.GetDesired(), Slot: d.GetSlot(), NodeId: d.GetNodeId(), Addresses: d.GetAddresses(), Reason: d.GetReason(),
			Since: d.GetSince(), StartAfter: d.GetStartAfter(), OrphanAfter: d.GetOrphanAfter(), Abandoned: d.GetAbandoned(),
			Iteration: d.GetIteration(), Reserved: d.GetReserved(), Failures: d.GetFailures(), ForNode: d.GetForNode(),
			RunningAt: d.GetRunningAt(), HostPorts: d.GetHostPorts(),
		}}
}

// same reports whether two decisions of one task are equal in what may change.
func same(a, b *typesv1.TaskDecided) bool {
	return a.GetDesired() == b.GetDesired() && a.GetNodeId() == b.GetNodeId() && a.GetReason() == b.GetReason() &&
		a.GetAbandoned() == b.GetAbandoned() && a.GetOrphanAfter() == b.GetOrphanAfter() && a.GetRunningAt() == b.GetRunningAt() &&
		a.GetStartAfter() == b.GetStartAfter()
}

// change makes a changed copy of a task. It is no change when f leaves everything as it was.
func (v *visit) change(t *typesv1.Task, f func(d *typesv1.TaskDecided)) *typesv1.Task {
	next := copyTask(t)
	d := next.GetDecided()
	f(d)
	if d.GetReason() != t.GetDecided().GetReason() {
		d.Since = v.w.stamp
	}
	if same(d, t.GetDecided()) {
		return t
	}
	v.w.putTask(t, next, state.Wrap(next), nil)
	v.accounted(t, next)
	return next
}

// raise lifts a task's desired state, never lowers it.
func (v *visit) raise(t *typesv1.Task, desired typesv1.TaskState, reason string) *typesv1.Task {
	if t.GetDecided().GetDesired() >= desired {
		return t
	}
	next := v.change(t, func(d *typesv1.TaskDecided) { d.Desired, d.Reason = desired, reason })
	if desired > running && v.w.lost(t) && !v.w.gone(t) && !abandoned(t) {
		return v.abandon(next, reason, false) // nobody there can do it, or say that it is done
	}
	return next
}

// stop lets a task go: one that never had a place is forgotten at once.
func (v *visit) stop(t *typesv1.Task, reason string) {
	if t.GetDecided().GetNodeId() == "" {
		v.drop(t)
		return
	}
	v.raise(t, shutdown, reason)
}

// drop deletes a task.
func (v *visit) drop(t *typesv1.Task) {
	v.w.dropTask(t)
	v.accounted(t, nil)
}

// bundle is a new task with all that it needs, in one piece of memory.
type bundle struct {
	put     storev1.Put
	object  typesv1.Object
	kind    typesv1.Object_Task
	task    typesv1.Task
	meta    typesv1.Meta
	decided typesv1.TaskDecided
}

// order is what a new task is to be.
type order struct {
	version    uint64
	startAfter time.Time
	held       string // what it waits for before it may run, in words
	failures   uint64 // of the slot in a row
}

// create makes a task in the slot, on the best node there is. It is desired READY while something holds it back.
func (v *visit) create(s *book.Slot, o order) {
	b := &bundle{}
	b.meta.Id = v.w.newID()
	d := &b.decided
	d.Desired, d.Slot, d.Iteration, d.ForNode = running, s.Key.Number, s.Key.Iteration, s.Key.Node
	d.Since, d.Failures = v.w.stamp, o.failures
	if o.held != "" {
		d.Desired = ready
	}
	if o.startAfter.After(v.w.now) {
		d.StartAfter = timestamppb.New(o.startAfter)
		v.at(o.startAfter)
	}
	b.task.Meta, b.task.ServiceId, b.task.SpecVersion, b.task.Decided = &b.meta, v.g.ID, o.version, d
	b.kind.Task, b.object.Kind, b.put.Object = &b.task, &b.kind, &b.object
	v.w.restOn(typesv1.Kind_KIND_SERVICE, v.g.ID)
	v.bind(&b.task, d, o.held)
	v.w.putTask(nil, &b.task, &b.object, &b.put)
	v.accounted(nil, &b.task)
}
