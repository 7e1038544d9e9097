package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	ready    = typesv1.TaskState_TASK_STATE_READY
	running  = typesv1.TaskState_TASK_STATE_RUNNING
	complete = typesv1.TaskState_TASK_STATE_COMPLETE
	shutdown = typesv1.TaskState_TASK_STATE_SHUTDOWN
	remove   = typesv1.TaskState_TASK_STATE_REMOVE
)

// group is all tasks of one service.
type group struct {
	service string
	slots   map[uint64]*slot
}

// slot is the lasting identity of one replica: its tasks, oldest first.
type slot struct {
	number uint64
	tasks  []*typesv1.Task
}

func (g *group) add(t *typesv1.Task) {
	n := t.GetDecided().GetSlot()
	if g.slots[n] == nil {
		g.slots[n] = &slot{number: n}
	}
	g.slots[n].tasks = append(g.slots[n].tasks, t)
}

func (g *group) sort() {
	for _, s := range g.slots {
		slices.SortFunc(s.tasks, func(a, b *typesv1.Task) int {
			return cmp.Or(created(a).Compare(created(b)), cmp.Compare(a.GetMeta().GetId(), b.GetMeta().GetId()))
		})
	}
}

// inOrder lists the slots by number.
func (g *group) inOrder() []*slot {
	var out []*slot
	for _, s := range g.slots {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *slot) int { return cmp.Compare(a.number, b.number) })
	return out
}

// created is the cluster time of a task's creation, zero for one made in this plan.
func created(t *typesv1.Task) time.Time { return timeOf(t.GetMeta().GetCreatedAt()) }

func timeOf(ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	return ts.AsTime()
}

// wanted reports whether a task is to be there: desired not beyond RUNNING.
func wanted(t *typesv1.Task) bool { return t.GetDecided().GetDesired() <= running }

// dead reports whether a task has ended for good, as observed.
func dead(t *typesv1.Task) bool { return state.Terminal(t.GetObserved().GetState()) }

// runs reports whether a task was seen running and is wanted.
func runs(t *typesv1.Task) bool { return wanted(t) && t.GetObserved().GetState() == running }

// wantedTasks lists the tasks of the slot that are wanted.
func (s *slot) wantedTasks() []*typesv1.Task {
	var out []*typesv1.Task
	for _, t := range s.tasks {
		if wanted(t) {
			out = append(out, t)
		}
	}
	return out
}

// lost reports whether a task's node is down or no longer in the cluster.
func (w *work) lost(t *typesv1.Task) bool {
	id := t.GetDecided().GetNodeId()
	if id == "" {
		return false
	}
	n := w.nodes[id]
	return n == nil || n.node.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN
}

// over reports whether nothing of a task can run any more, or nobody can ever say so.
func (w *work) over(t *typesv1.Task) bool {
	id := t.GetDecided().GetNodeId()
	if dead(t) || id == "" || w.nodes[id] == nil {
		return true
	}
	after := timeOf(t.GetDecided().GetOrphanAfter())
	return !after.IsZero() && w.lost(t) && !w.now.Before(after)
}

// change makes a changed copy of a task in its slot. It is no change when f leaves everything as it was.
func (w *work) change(s *slot, t *typesv1.Task, f func(d *typesv1.TaskDecided)) *typesv1.Task {
	next := proto.CloneOf(t)
	if next.GetDecided() == nil {
		next.Decided = &typesv1.TaskDecided{}
	}
	f(next.GetDecided())
	if next.GetDecided().GetReason() != t.GetDecided().GetReason() {
		next.Decided.Since = timestamppb.New(w.now)
	}
	if proto.Equal(next, t) {
		return t
	}
	w.account(t, -1)
	w.account(next, 1)
	w.put(state.Wrap(next))
	for i := range s.tasks {
		if s.tasks[i] == t {
			s.tasks[i] = next
		}
	}
	return next
}

// raise lifts a task's desired state, never lowers it.
func (w *work) raise(s *slot, t *typesv1.Task, desired typesv1.TaskState, reason string) *typesv1.Task {
	return w.change(s, t, func(d *typesv1.TaskDecided) {
		if d.GetDesired() < desired {
			d.Desired, d.Reason = desired, reason
		}
	})
}

// drop deletes a task.
func (w *work) drop(s *slot, t *typesv1.Task) {
	w.account(t, -1)
	key := state.Key{Kind: typesv1.Kind_KIND_TASK, ID: t.GetMeta().GetId()}
	w.txn.Delete(key)
	w.changed[key] = struct{}{}
	s.tasks = slices.DeleteFunc(s.tasks, func(x *typesv1.Task) bool { return x == t })
}

// create makes a task of the service's current spec in the slot, on the best node there is. It is desired READY while
// something holds it back: the words say what.
func (w *work) create(svc *typesv1.Service, s *slot, startAfter time.Time, held string) {
	t := &typesv1.Task{
		Meta: &typesv1.Meta{Id: w.newID()}, ServiceId: svc.GetMeta().GetId(), SpecVersion: svc.GetSpecVersion(),
		Decided: &typesv1.TaskDecided{Desired: running, Slot: s.number, Since: timestamppb.New(w.now)},
	}
	if held != "" {
		t.Decided.Desired = ready
	}
	if startAfter.After(w.now) {
		t.Decided.StartAfter = timestamppb.New(startAfter)
		w.at(startAfter)
	}
	w.restOn(typesv1.Kind_KIND_SERVICE, svc.GetMeta().GetId())
	w.bind(svc, t.GetSpecVersion(), t.GetDecided(), held)
	w.account(t, 1)
	w.put(state.Wrap(t))
	s.tasks = append(s.tasks, t)
}

// ending says in a few words how a task ended.
func ending(t *typesv1.Task) string {
	o := t.GetObserved()
	switch {
	case o.ExitCode != nil:
		return fmt.Sprintf("exit %d", o.GetExitCode())
	case o.GetMessage() != "":
		return o.GetMessage()
	}
	return strings.ToLower(strings.TrimPrefix(o.GetState().String(), "TASK_STATE_"))
}

// verdict is ending with the state before it: "failed: exit 137".
func verdict(t *typesv1.Task) string {
	name := strings.ToLower(strings.TrimPrefix(t.GetObserved().GetState().String(), "TASK_STATE_"))
	if e := ending(t); e != name {
		return name + ": " + e
	}
	return name
}
