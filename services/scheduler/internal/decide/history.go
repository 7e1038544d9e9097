package decide

import (
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

const (
	// defaultHistory is how many tasks that have ended a slot keeps.
	defaultHistory = 5
	// neverStarted is how long a task that is to be removed may go without any report before it is forgotten: its agent
	// may have begun with it, but has said nothing.
	neverStarted = 10 * time.Second
)

// reap forgets the oldest tasks of a slot that have ended, and those that never came to be.
func (v *visit) reap(s *book.Slot) {
	var ended []*typesv1.Task
	for _, t := range slices.Clone(s.Tasks) {
		switch {
		case book.Wanted(t):
		case t.GetDecided().GetDesired() == remove:
			v.remove(t, "")
		case dead(t):
			ended = append(ended, t)
		case v.w.gone(t):
			v.drop(t) // never placed, or out of reach for too long: there is nothing to remember
		default:
			v.awaitOrphan(t)
		}
	}
	if keep := v.historyLimit(); keep >= 0 {
		for _, t := range ended[:max(len(ended)-keep, 0)] {
			v.drop(t)
		}
	}
}

// historyLimit is the job's or the cluster's, but enough to count the attempts of the restart policy. Negative keeps all.
func (v *visit) historyLimit() int {
	limit := int(v.w.s.Cluster().GetSpec().GetTaskHistoryLimit())
	if limit == 0 {
		limit = defaultHistory
	}
	if j := v.svc.GetSpec().GetJob(); j != nil && j.HistoryLimit != nil {
		limit = int(min(j.GetHistoryLimit(), 1000))
	}
	attempts := state.SpecOf(v.svc, v.svc.GetSpecVersion()).GetRestart().GetMaxAttempts()
	if attempts > 0 && limit >= 0 {
		limit = max(limit, int(min(attempts, 100))+1)
	}
	return limit
}

// awaitOrphan sees to it that a task that was told to stop on a node that is down now does not wait for ever.
func (v *visit) awaitOrphan(t *typesv1.Task) {
	if !v.w.lost(t) {
		return
	}
	if t.GetDecided().GetOrphanAfter() == nil {
		v.abandon(t, "", false)
	} else {
		v.at(timeOf(t.GetDecided().GetOrphanAfter()))
	}
}

// remove stops a task and forgets it once nothing of it can run any more.
func (v *visit) remove(t *typesv1.Task, reason string) {
	if v.w.gone(t) {
		v.drop(t)
		return
	}
	t = v.raise(t, remove, reason)
	if t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_UNSPECIFIED && !v.w.lost(t) {
		forget := timeOf(t.GetDecided().GetSince()).Add(neverStarted)
		if !v.w.now.Before(forget) {
			v.drop(t)
			return
		}
		v.at(forget)
	}
	v.awaitOrphan(t)
}
