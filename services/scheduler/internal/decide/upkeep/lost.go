package upkeep

import (
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// returnTime is how long a node that is back is given to tell what still runs on it.
const returnTime = 3 * time.Second

// mendLost sees to a task on a node that is lost. It is replaced at once, but kept for a while as it is: if the node comes
// back soon, it is taken back.
func (k *Keeper) mendLost(s *book.Slot, t *typesv1.Task) {
	node := k.Book.Node(t.GetDecided().GetNodeId())
	switch {
	case node == nil:
		k.Drop(t)
		if !task.Abandoned(t) && k.Stays(s) {
			k.Replace(k.Group.MakeSlot(s.Key), t, visit.Order{StartAfter: task.TimeOf(t.GetDecided().GetStartAfter())}, "")
		}
		return
	case task.Abandoned(t):
		if until := task.TimeOf(t.GetDecided().GetOrphanAfter()).Add(k.FlapWindow() - visit.OrphanTime); k.Now.Before(until) {
			k.At(until)
			return
		}
		k.Raise(t, task.Shutdown, "node "+node.Name()+" is down")
		return
	case k.Group.PerNode():
		return // nobody else can take it; its state says that its node is down
	}
	follows := k.VersionFor(t)
	if why := k.Homeless(follows, s.Key.Number); why != "" {
		// Giving it up would help nobody: when the node comes back it may be running still.
		if k.Tethered(follows, s.Key.Number) != nil && t.GetDecided().GetDesired() == task.Running { // else it says what else it waits for
			k.Change(t, func(d *typesv1.TaskDecided) { d.Reason = why })
		}
		return
	}
	if until, why := k.Guard(node); until.After(k.Now) {
		k.Change(t, func(d *typesv1.TaskDecided) { d.Reason = why })
		k.At(until)
		k.AskAgain()
		return
	}
	k.Abandon(t, "node "+node.Name()+" is down", k.FlapWindow() > 0 && !k.Dirty(t) && task.Runs(t) && len(t.GetDecided().GetVolumes()) == 0)
	k.Replace(s, t, visit.Order{StartAfter: task.TimeOf(t.GetDecided().GetStartAfter())}, "")
}

// takeBack decides between a task whose node was lost and is back, and the one that replaced it: the older stays if it
// runs as it should, on a machine that can be relied on.
func (k *Keeper) takeBack(s *book.Slot, t *typesv1.Task) {
	node := k.Book.Node(t.GetDecided().GetNodeId())
	if told := task.TimeOf(node.Object.GetStatus().GetSince()).Add(returnTime); k.Now.Before(told) {
		k.At(told)
		return
	}
	if !task.Runs(t) || k.Dirty(t) || k.Misplaced(t) != "" || !node.Active() || node.Hold.After(k.Now) || !task.AnyWanted(s) {
		if node.Active() || node.Drains() || task.Dead(t) {
			k.Raise(t, task.Shutdown, "was replaced while node "+node.Name()+" was down")
		}
		return
	}
	for _, other := range s.Now() {
		if task.Wanted(other) {
			k.Stop(other, "node "+node.Name()+" is back, and with it the task before")
		}
	}
	k.Change(t, func(d *typesv1.TaskDecided) { d.Abandoned, d.OrphanAfter, d.Reason = false, nil, "" })
}

// leave takes a task that is tied to its node by the volumes of its slot off one that is drained, as one of a service that has
// one on each node: nobody else can take it, so there is nothing to wait for. Its slot waits until the node is active again.
func (k *Keeper) leave(s *book.Slot, t *typesv1.Task) bool {
	n := k.Book.Node(t.GetDecided().GetNodeId())
	if !n.Drains() || k.Tethered(k.VersionFor(t), s.Key.Number) != n {
		return false
	}
	went := k.Raise(t, task.Shutdown, "node "+n.Name()+" is drained")
	if k.Stays(s) {
		k.Replace(s, went, visit.Order{StartAfter: k.Now}, "")
	}
	return true
}
