package visit

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// OrphanTime is how long a task on a node that is down may run still.
const OrphanTime = 24 * time.Hour

// Change makes a changed copy of a task. It is no change when f leaves everything as it was.
func (v *Visit) Change(t *typesv1.Task, f func(d *typesv1.TaskDecided)) *typesv1.Task {
	next := task.Copy(t)
	d := next.GetDecided()
	f(d)
	if d.GetReason() != t.GetDecided().GetReason() {
		d.Since = v.Stamp
	}
	if task.Same(d, t.GetDecided()) {
		return t
	}
	v.PutTask(t, next)
	v.changed(t, next)
	return next
}

// Raise lifts a task's desired state, never lowers it.
func (v *Visit) Raise(t *typesv1.Task, desired typesv1.TaskState, reason string) *typesv1.Task {
	if t.GetDecided().GetDesired() >= desired {
		return t
	}
	next := v.Change(t, func(d *typesv1.TaskDecided) { d.Desired, d.Reason = desired, reason })
	if desired > task.Running && v.Lost(t) && !v.Gone(t) && !task.Abandoned(t) {
		return v.Abandon(next, reason, false) // nobody there can do it, or say that it is done
	}
	return next
}

// Stop lets a task go: one that never had a place is forgotten at once.
func (v *Visit) Stop(t *typesv1.Task, reason string) {
	if t.GetDecided().GetNodeId() == "" {
		v.Drop(t)
		return
	}
	v.Raise(t, task.Shutdown, reason)
}

// Drop deletes a task.
func (v *Visit) Drop(t *typesv1.Task) {
	v.DropTask(t)
	v.changed(t, nil)
}

// Abandon gives up a task on a lost node. It may be running still, and its record says so: what was observed stays. A node
// that has come back meanwhile wins, so the commit rests on the node.
func (v *Visit) Abandon(t *typesv1.Task, reason string, keep bool) *typesv1.Task {
	v.restOnNodeOf(t)
	return v.Change(t, func(d *typesv1.TaskDecided) {
		if d.GetDesired() <= task.Running {
			d.Reason = reason
		}
		if !keep && d.GetDesired() < task.Shutdown {
			d.Desired = task.Shutdown
		}
		if !d.GetAbandoned() {
			d.Abandoned, d.OrphanAfter = true, timestamppb.New(v.Now.Add(OrphanTime))
		}
	})
}

// restOnNodeOf rests on the node of a task, or on its being gone.
func (v *Visit) restOnNodeOf(t *typesv1.Task) {
	if n := v.Book.Node(t.GetDecided().GetNodeId()); n != nil {
		v.RestOnNode(n)
	} else {
		v.RestOn(typesv1.Kind_KIND_NODE, t.GetDecided().GetNodeId())
	}
}

// Order is what a new task is to be.
type Order struct {
	Version    uint64
	StartAfter time.Time
	Held       string // what it waits for before it may run, in words
	Failures   uint64 // of the slot in a row
	movedFrom  string // see Move
}

// Create makes a task in the slot, on the best node there is. It is desired READY while something holds it back.
func (v *Visit) Create(s *book.Slot, o Order) { v.create(s, o, nil) }

// Move makes a task on that very node, which is to take over from another of its slot. It reports whether there was an address
// left.
func (v *Visit) Move(s *book.Slot, from *typesv1.Task, version uint64, to *place.Node) bool {
	f, room, why := v.claim(to, version, from.GetDecided().GetSlot(), from.GetMeta().GetId()) // another than that of the task before, if it is any
	if !room || why != "" {
		return false
	}
	v.create(s, Order{Version: version, movedFrom: from.GetMeta().GetId()}, &f)
	return true
}

// create makes a task, on the place that is given or the best there is.
func (v *Visit) create(s *book.Slot, o Order, on *found) {
	b := v.Blank(v.Group.ID, o.Version)
	d := &b.Decided
	d.Desired, d.Slot, d.Iteration, d.ForNode = task.Running, s.Key.Number, s.Key.Iteration, s.Key.Node
	d.Since, d.Failures, d.MovedFrom = v.Stamp, o.Failures, o.movedFrom
	o.Held = cmp.Or(o.Held, v.InUse(s, o.Version), v.Gate(s.Key.Iteration))
	if o.Held != "" {
		d.Desired = task.Ready
	}
	if o.StartAfter.After(v.Now) {
		d.StartAfter = timestamppb.New(o.StartAfter)
		v.At(o.StartAfter)
	}
	v.RestOnService(v.Group)
	var n *place.Node
	if on != nil {
		n = on.node
		v.settle(*on, &b.Task, d)
		d.Reason = o.Held
	} else {
		n = v.bind(&b.Task, d, o.Held)
	}
	v.NewTask(b, v.Group, n)
	v.accounted(nil, n, weighing{}, weight(&b.Task))
}
