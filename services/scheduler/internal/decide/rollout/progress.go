package rollout

import (
	"fmt"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// checkProgress fails an update that has made no progress for too long. It comes first, for all that follows rests on what
// the service's tasks should be.
func (r *Rollout) checkProgress() {
	limit := r.config().GetProgressDeadline().AsDuration()
	if limit <= 0 || r.Now.Before(task.TimeOf(r.status.GetProgressAt()).Add(limit)) {
		return
	}
	if r.noteProgress(r.left()) {
		return
	}
	r.edit().ProgressAt = r.Stamp
	r.fail(fmt.Sprintf("no progress for %s%s", limit, r.firstReason()))
	r.Disturb()
}

// noteProgress notes that more slots are done than ever before, or all, and when. It is noted as soon as it is seen: a node
// that comes the next moment adds a slot that is not done.
func (r *Rollout) noteProgress(left uint64) bool {
	done := r.status.GetSlots() - min(left, r.status.GetSlots())
	if left > 0 && done <= r.status.GetDone() {
		return false
	}
	st := r.edit()
	st.Done, st.ProgressAt = done, r.Stamp
	return true
}

func (r *Rollout) pause(message string) {
	st := r.edit()
	if st.GetState() == rollbackStarted {
		st.State = rollbackPaused
	} else {
		st.State = paused
	}
	st.Message, st.Resumed = message, r.Service.GetSpec().GetResumeUpdate()
}

// proceed goes on after a pause, with a clean sheet.
func (r *Rollout) proceed() {
	st := r.edit()
	if st.GetState() == rollbackPaused {
		st.State, st.Message = rollbackStarted, "rollback in progress"
	} else {
		st.State, st.Message = updating, "update in progress"
	}
	st.Failures, st.ProgressAt, st.Resumed = 0, r.Stamp, r.Service.GetSpec().GetResumeUpdate()
}

// ofUpdate reports whether the update that is going on has made the task.
func (r *Rollout) ofUpdate(t *typesv1.Task) bool {
	return r.active() && t.GetSpecVersion() == r.Target && r.status.GetSlots() > 0 &&
		(task.Fresh(t) || !task.Created(t).Before(task.TimeOf(r.status.GetStartedAt())))
}

// paces reports whether the update has seen the task run.
func (r *Rollout) paces(t *typesv1.Task) bool {
	return r.ofUpdate(t) && t.GetDecided().GetRunningAt() != nil
}

// watched reports whether the end of the task would still count as a failure of the update.
func (r *Rollout) watched(t *typesv1.Task) bool {
	if !r.ofUpdate(t) {
		return false
	}
	since := t.GetDecided().GetRunningAt()
	if since == nil {
		return true
	}
	until := since.AsTime().Add(r.config().GetMonitor().AsDuration())
	if r.Now.Before(until) {
		r.At(until)
		return true
	}
	return false
}

// Observe notes when the update sees a task run for the first time, if anything depends on it.
func (r *Rollout) Observe(t *typesv1.Task) {
	if c := r.config(); c.GetMonitor().AsDuration() <= 0 && c.GetDelay().AsDuration() <= 0 {
		return
	}
	if task.Runs(t) && r.ofUpdate(t) && t.GetDecided().GetRunningAt() == nil {
		r.Change(t, func(d *typesv1.TaskDecided) { d.RunningAt = r.Stamp })
	}
}

// CountFailure counts a task that has ended against the update that made it. A spec from before there was a monitor has
// none: there an update waits for its tasks, whatever they do.
func (r *Rollout) CountFailure(t *typesv1.Task) {
	if t.GetDecided().GetMovedFrom() != "" && r.takesOver(t) {
		r.failed = fmt.Sprintf("task %s: %s", t.GetMeta().GetId(), reason.Verdict(t))
	}
	if r.mayEnd(t) || r.config().GetMonitor() == nil || !r.ofUpdate(t) {
		return
	}
	if since := t.GetDecided().GetRunningAt(); since != nil && !r.Now.Before(since.AsTime().Add(r.config().GetMonitor().AsDuration())) {
		return
	}
	st := r.edit()
	st.Failures++
	if float64(st.GetFailures())/float64(max(st.GetSlots(), 1)) > float64(r.config().GetMaxFailureRatio()) {
		r.fail(fmt.Sprintf("task %s: %s", t.GetMeta().GetId(), reason.Verdict(t)))
	}
}

// mayEnd reports whether a task has come to the end that it was made for. A service that is to go on has none, whatever the exit
// code.
func (r *Rollout) mayEnd(t *typesv1.Task) bool {
	policy := state.SpecOf(r.Service, t.GetSpecVersion()).GetRestart().GetCondition()
	return t.GetObserved().GetState() == task.Complete &&
		(policy == typesv1.RestartCondition_RESTART_CONDITION_NONE || policy == typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE)
}

// fail does what the update is to do when it fails. A rollback that fails is never rolled back.
func (r *Rollout) fail(why string) {
	c := r.config()
	switch action := c.GetFailureAction(); {
	case action == typesv1.FailureAction_FAILURE_ACTION_CONTINUE:
	case r.rollingBack():
		r.pause("rollback paused: " + why)
	case action == typesv1.FailureAction_FAILURE_ACTION_ROLLBACK && state.SpecOf(r.Service, r.status.GetFromVersion()) != nil:
		r.rollBack(why)
	default:
		r.pause("update paused: " + why)
	}
}

func (r *Rollout) rollBack(why string) {
	st := r.edit()
	st.State, st.SpecVersion, st.Message = rollbackStarted, st.GetFromVersion(), "rollback: "+why
	st.StartedAt, st.ProgressAt, st.Failures, st.Done, st.CompletedAt = r.Stamp, r.Stamp, 0, 0, nil
	r.Target, r.dirtyVersions = st.GetSpecVersion(), nil
	r.Disturb()
	st.Slots = r.countDirty()
}

// left counts the slots that are still to be replaced, and those that are under way.
func (r *Rollout) left() (n uint64) {
	for _, s := range r.Group.Slots {
		if s.Calm && s.Steady || !task.AnyWanted(s) {
			continue
		}
		if m := r.moveOf(s); m.dirty || m.staying != nil && r.underWay(m) {
			n++
		}
	}
	return n
}

// advance notes progress, and ends an update that is done or makes none.
func (r *Rollout) advance() {
	left := r.left()
	switch {
	case left == 0 && r.complete():
		return
	case left > 0 && r.config().GetProgressDeadline() != nil:
		r.noteProgress(left)
	}
	if limit := r.config().GetProgressDeadline().AsDuration(); limit > 0 {
		r.At(task.TimeOf(r.status.GetProgressAt()).Add(limit))
	}
}

// complete ends an update, once nothing is watched any more. It reports whether it did.
func (r *Rollout) complete() bool {
	for _, s := range r.Group.Slots {
		for _, t := range s.Tasks {
			if task.Wanted(t) && t.GetDecided().GetRunningAt() != nil && r.watched(t) {
				return false
			}
		}
	}
	st := r.edit()
	st.CompletedAt = r.Stamp
	if st.GetState() == rollbackStarted {
		st.State, st.Message = rollbackCompleted, "rollback completed"
		return true
	}
	st.State, st.Message = completed, "update completed"
	return true
}

// firstReason is why the first task that does not run does not.
func (r *Rollout) firstReason() string {
	for _, s := range r.Group.Slots {
		for _, t := range s.Tasks {
			if task.Wanted(t) && !task.Runs(t) && t.GetDecided().GetReason() != "" {
				return ": " + t.GetDecided().GetReason()
			}
		}
	}
	return ""
}
