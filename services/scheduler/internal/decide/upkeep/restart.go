package upkeep

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// restart replaces a task that has ended by itself, as its restart policy says.
func (k *Keeper) restart(s *book.Slot, t *typesv1.Task) {
	d := t.GetDecided()
	if after := task.TimeOf(d.GetStartAfter()); after.After(k.Now) {
		// It failed while its own delay was pending (a bad image does so at once): wait for that delay, or the next one
		// would be made without any.
		k.At(after)
		return
	}
	if strings.HasPrefix(d.GetReason(), task.NotRestarted) {
		return
	}
	policy := state.SpecOf(k.Service, t.GetSpecVersion()).GetRestart()
	if why := k.refusesRestart(policy, s, t); why != "" {
		k.CountFailure(t)
		k.Change(t, func(d *typesv1.TaskDecided) { d.Reason = task.NotRestarted + why })
		return
	}
	failures := d.GetFailures()
	switch {
	case t.GetObserved().GetState() == task.Complete:
		failures = 0
	case k.Now.Sub(task.Created(t)) > steadyRun: // it was well for a while
		failures = 1
	default:
		failures++
	}
	delay := restartDelay(policy, failures)
	if k.Book.Node(d.GetNodeId()).Drains() {
		delay = 0
	}
	why := reason.Ending(t)
	if failures >= crashLoop {
		why = fmt.Sprintf("%s, crash loop: %d failures in a row", why, failures)
	}
	k.CountFailure(t)
	went := k.Raise(t, task.Shutdown, reason.Verdict(t))
	if k.Stays(s) {
		k.Replace(s, went, visit.Order{StartAfter: k.Now.Add(delay), Failures: failures}, why)
	}
}

// restartDelay is the wait before the next attempt: the policy's, doubled with each failure in a row after the first if the
// policy lets it grow.
func restartDelay(policy *typesv1.RestartPolicy, failures uint64) time.Duration {
	delay := defaultDelay
	if policy.GetDelay() != nil {
		delay = policy.GetDelay().AsDuration()
	}
	limit := policy.GetMaxDelay().AsDuration()
	for range min(max(failures, 1)-1, 40) {
		if delay >= limit {
			break
		}
		delay = min(2*delay, limit)
	}
	return delay
}

// refusesRestart says why a task that has ended is not replaced; nothing if it is.
func (k *Keeper) refusesRestart(policy *typesv1.RestartPolicy, s *book.Slot, t *typesv1.Task) string {
	completed := t.GetObserved().GetState() == task.Complete
	switch policy.GetCondition() {
	case typesv1.RestartCondition_RESTART_CONDITION_NONE:
		return "restart condition none"
	case typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		if completed {
			return "it completed, restart condition on-failure"
		}
	case typesv1.RestartCondition_RESTART_CONDITION_ANY, typesv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED:
		if completed && state.IsJob(k.Service) {
			return "it completed"
		}
	}
	if limit := policy.GetMaxAttempts(); limit > 0 && k.attempts(s, t, policy.GetWindow().AsDuration()) >= limit {
		return fmt.Sprintf("all %d attempts are used", limit)
	}
	return ""
}

// attempts counts the restarts in the slot's history for the task's spec version, within the window if there is one.
// Since is when a task was replaced. Tasks that were told to stop, and those on lost nodes, are no attempts.
func (k *Keeper) attempts(s *book.Slot, t *typesv1.Task, window time.Duration) (n uint64) {
	for _, p := range s.Tasks {
		ended := task.Dead(p) && p.GetObserved().GetState() != task.Shutdown && !task.Abandoned(p)
		recent := window <= 0 || k.Now.Sub(task.TimeOf(p.GetDecided().GetSince())) < window
		if p != t && !book.Wanted(p) && ended && recent && p.GetSpecVersion() == t.GetSpecVersion() {
			n++
		}
	}
	return n
}
