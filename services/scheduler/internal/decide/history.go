package decide

import (
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// defaultHistory is how many tasks that have ended a slot keeps.
	defaultHistory = 5
	// neverStarted is how long a task that is to be removed may go without any report before it is forgotten: its agent
	// may have begun with it, but has said nothing.
	neverStarted = 10 * time.Second
)

// reap forgets the oldest tasks of a slot that have ended, and those that never came to be.
func (w *work) reap(svc *typesv1.Service, s *slot) {
	var ended []*typesv1.Task
	for _, t := range slices.Clone(s.tasks) {
		switch {
		case wanted(t):
		case t.GetDecided().GetDesired() == remove:
			w.remove(s, t, "")
		case dead(t):
			ended = append(ended, t)
		case w.over(t):
			w.drop(s, t) // never placed, or out of reach for too long: there is nothing to remember
		default:
			w.awaitOrphan(s, t)
		}
	}
	if keep := w.historyLimit(svc); keep >= 0 {
		for _, t := range oldestFirst(ended, keep) {
			w.drop(s, t)
		}
	}
}

// historyLimit is the cluster's, but enough to count the attempts of the restart policy. Negative keeps all.
func (w *work) historyLimit(svc *typesv1.Service) int {
	limit := int(w.old.Cluster().GetSpec().GetTaskHistoryLimit())
	if limit == 0 {
		limit = defaultHistory
	}
	attempts := state.SpecOf(svc, svc.GetSpecVersion()).GetRestart().GetMaxAttempts()
	if attempts > 0 && limit >= 0 {
		limit = max(limit, int(min(attempts, 100))+1)
	}
	return limit
}

// awaitOrphan sees to it that a task that was told to stop on a node that is down now does not wait for ever.
func (w *work) awaitOrphan(s *slot, t *typesv1.Task) {
	if !w.lost(t) {
		return
	}
	if t.GetDecided().GetOrphanAfter() == nil {
		w.abandon(s, t, t.GetDecided().GetDesired(), "")
	} else {
		w.at(timeOf(t.GetDecided().GetOrphanAfter()))
	}
}

// remove stops a task and forgets it once nothing of it can run any more.
func (w *work) remove(s *slot, t *typesv1.Task, reason string) {
	if w.over(t) {
		w.drop(s, t)
		return
	}
	if t.GetDecided().GetDesired() != remove {
		t = w.raise(s, t, remove, reason)
	}
	if t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_UNSPECIFIED && !w.lost(t) {
		forget := timeOf(t.GetDecided().GetSince()).Add(neverStarted)
		if !w.now.Before(forget) {
			w.drop(s, t)
			return
		}
		w.at(forget)
	}
	w.awaitOrphan(s, t)
}
