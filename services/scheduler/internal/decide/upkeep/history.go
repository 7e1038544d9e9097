package upkeep

import (
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

const (
	// defaultHistory is how many tasks that have ended a slot keeps.
	defaultHistory = 5
	// neverStarted is how long a task that is to be removed may go without any report before it is forgotten: its agent
	// may have begun with it, but has said nothing.
	neverStarted = 10 * time.Second
)

// Reap forgets the oldest tasks of a slot that have ended, and those that never came to be.
func (k *Keeper) Reap(s *book.Slot) {
	var ended []*typesv1.Task
	for _, t := range s.Now() {
		switch {
		case book.Wanted(t):
		case t.GetDecided().GetDesired() == task.Remove:
			k.remove(t, "")
		case task.Dead(t):
			ended = append(ended, t)
		case k.Gone(t):
			k.Drop(t) // never placed, or out of reach for too long: there is nothing to remember
		default:
			k.awaitOrphan(t)
		}
	}
	if keep := k.HistoryLimit(); keep >= 0 {
		for _, t := range ended[:max(len(ended)-keep, 0)] {
			k.Drop(t)
		}
	}
}

// Roll goes on with the update. What it lets go may have ended long ago, and be one too many to be remembered.
func (k *Keeper) Roll() {
	for _, key := range k.Rollout.Roll() {
		if s := k.Group.Slot(key); s != nil {
			k.Reap(s)
		}
	}
}

// HistoryLimit is the job's or the cluster's, but enough to count the attempts of the restart policy. Negative keeps all.
func (k *Keeper) HistoryLimit() int {
	limit := int(k.Snapshot().Cluster().GetSpec().GetTaskHistoryLimit())
	if limit == 0 {
		limit = defaultHistory
	}
	if j := k.Service.GetSpec().GetJob(); j != nil && j.HistoryLimit != nil {
		limit = int(min(j.GetHistoryLimit(), 1000))
	}
	attempts := state.SpecOf(k.Service, k.Service.GetSpecVersion()).GetRestart().GetMaxAttempts()
	if attempts > 0 && limit >= 0 {
		limit = max(limit, int(min(attempts, 100))+1)
	}
	return limit
}

// awaitOrphan sees to it that a task that was told to stop on a node that is down now does not wait for ever.
func (k *Keeper) awaitOrphan(t *typesv1.Task) {
	if !k.Lost(t) {
		return
	}
	if t.GetDecided().GetOrphanAfter() == nil {
		k.Abandon(t, "", false)
	} else {
		k.At(task.TimeOf(t.GetDecided().GetOrphanAfter()))
	}
}

// remove stops a task and forgets it once nothing of it can run any more.
func (k *Keeper) remove(t *typesv1.Task, reason string) {
	if k.Gone(t) {
		k.Drop(t)
		return
	}
	t = k.Raise(t, task.Remove, reason)
	if t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_UNSPECIFIED && !k.Lost(t) {
		forget := task.TimeOf(t.GetDecided().GetSince()).Add(neverStarted)
		if !k.Now.Before(forget) {
			k.Drop(t)
			return
		}
		k.At(forget)
	}
	k.awaitOrphan(t)
}

// RemoveSlot stops and forgets all tasks of a slot.
func (k *Keeper) RemoveSlot(s *book.Slot, reason string) {
	for _, t := range s.Now() {
		k.remove(t, reason)
	}
}

// RemoveAll stops and forgets all tasks of a service.
func (k *Keeper) RemoveAll(reason string) {
	k.EachSlot(func(s *book.Slot) { k.RemoveSlot(s, reason) })
}
