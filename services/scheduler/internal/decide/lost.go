package decide

import (
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/loss"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// returnTime is how long a node that is back is given to tell what still runs on it.
const returnTime = 3 * time.Second

// mendLost sees to a task on a node that is lost. It is replaced at once, but kept for a while as it is: if the node comes
// back soon, it is taken back.
func (v *visit) mendLost(s *book.Slot, t *typesv1.Task) {
	node := v.w.book.Node(t.GetDecided().GetNodeId())
	switch {
	case node == nil:
		v.drop(t)
		if !abandoned(t) && v.stays(s) {
			v.replace(v.g.MakeSlot(s.Key), t, order{startAfter: timeOf(t.GetDecided().GetStartAfter())}, "")
		}
		return
	case abandoned(t):
		if until := timeOf(t.GetDecided().GetOrphanAfter()).Add(v.w.flapWindow() - orphanTime); v.w.now.Before(until) {
			v.at(until)
			return
		}
		v.raise(t, shutdown, "node "+node.Name()+" is down")
		return
	case v.g.PerNode():
		return // nobody else can take it; its state says that its node is down
	case !v.hasPlace():
		return // giving it up would help nobody: when the node comes back it may be running still
	}
	if until, why := v.w.guard(node); until.After(v.w.now) {
		v.change(t, func(d *typesv1.TaskDecided) { d.Reason = why })
		v.at(until)
		v.askAgain()
		return
	}
	v.abandon(t, "node "+node.Name()+" is down", v.w.flapWindow() > 0 && !v.dirty(t) && runs(t))
	v.replace(s, t, order{startAfter: timeOf(t.GetDecided().GetStartAfter())}, "")
}

// abandon gives up a task on a lost node. It may be running still, and its record says so: what was observed stays. A node
// that has come back meanwhile wins, so the commit rests on the node.
func (v *visit) abandon(t *typesv1.Task, reason string, keep bool) *typesv1.Task {
	v.w.restOn(typesv1.Kind_KIND_NODE, t.GetDecided().GetNodeId())
	return v.change(t, func(d *typesv1.TaskDecided) {
		if d.GetDesired() <= running {
			d.Reason = reason
		}
		if !keep && d.GetDesired() < shutdown {
			d.Desired = shutdown
		}
		if !d.GetAbandoned() {
			d.Abandoned, d.OrphanAfter = true, deadline(v.w.now.Add(orphanTime))
		}
	})
}

// takeBack decides between a task whose node was lost and is back, and the one that replaced it: the older stays if it
// runs as it should, on a machine that can be relied on.
func (v *visit) takeBack(s *book.Slot, t *typesv1.Task) {
	node := v.w.book.Node(t.GetDecided().GetNodeId())
	if told := timeOf(node.Object.GetStatus().GetSince()).Add(returnTime); v.w.now.Before(told) {
		v.at(told)
		return
	}
	if !runs(t) || v.dirty(t) || v.misplaced(t) != "" || !node.Active() || node.Hold.After(v.w.now) || !hasWanted(s) {
		if node.Active() || node.Drains() || dead(t) {
			v.raise(t, shutdown, "was replaced while node "+node.Name()+" was down")
		}
		return
	}
	for _, other := range slices.Clone(s.Tasks) {
		if wanted(other) {
			v.stop(other, "node "+node.Name()+" is back, and with it the task before")
		}
	}
	v.change(t, func(d *typesv1.TaskDecided) { d.Abandoned, d.OrphanAfter, d.Reason = false, nil, "" })
}

// guard says until when the tasks of a lost node are not replaced, and why.
func (w *work) guard(n *place.Node) (until time.Time, why string) {
	if w.losses == nil {
		w.losses = loss.Find(w.s.Cluster().GetSpec().GetScheduling(), w.book.Nodes)
	}
	return w.losses.Until(n)
}
