package decide

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
)

const (
	updating          = typesv1.UpdateState_UPDATE_STATE_UPDATING
	paused            = typesv1.UpdateState_UPDATE_STATE_PAUSED
	completed         = typesv1.UpdateState_UPDATE_STATE_COMPLETED
	rollbackStarted   = typesv1.UpdateState_UPDATE_STATE_ROLLBACK_STARTED
	rollbackPaused    = typesv1.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED
	rollbackCompleted = typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED
)

// heldByHand is the message of an update that a person holds: the words are how a later decision knows.
const heldByHand = "held by hand"

// rollout is how far the service's update is, and what it leads to.
type rollout struct {
	// target is the spec version that new tasks are of.
	target uint64
	// status is what is to be written, was what is there; equal while nothing has changed.
	status, was   *typesv1.UpdateStatus
	dirtyVersions map[uint64]bool
}

// begin finds out what the service's tasks should be of: the current spec, or, while a rollback by itself is in force, an
// earlier one. A spec that is newer than the status begins an update, and ends whatever was going on.
func (v *visit) begin() {
	v.was = v.svc.GetUpdateStatus()
	v.status, v.target = v.was, v.svc.GetSpecVersion()
	of := v.was.GetOfVersion()
	if of == 0 {
		of = v.was.GetSpecVersion()
	}
	if v.was.GetState() == typesv1.UpdateState_UPDATE_STATE_UNSPECIFIED || of != v.target {
		if len(v.svc.GetSpecHistory()) > 0 && !state.IsJob(v.svc) {
			v.startUpdate()
			if v.svc.GetSpec().GetHoldUpdate() {
				v.pause(heldByHand)
			}
		}
		return
	}
	if v.rollingBack() && state.SpecOf(v.svc, v.was.GetSpecVersion()) != nil {
		v.target = v.was.GetSpecVersion()
	}
	spec := v.svc.GetSpec()
	switch byHand := v.was.GetMessage() == heldByHand; {
	case v.active() && spec.GetHoldUpdate():
		v.pause(heldByHand)
	case v.paused() && byHand && !spec.GetHoldUpdate():
		v.proceed()
	case v.paused() && !byHand && spec.GetResumeUpdate() != v.was.GetResumed():
		v.proceed()
	case v.active():
		v.checkProgress()
	}
}

// checkProgress fails an update that has made no progress for too long. It comes first, for all that follows rests on what
// the service's tasks should be.
func (v *visit) checkProgress() {
	limit := v.config().GetProgressDeadline().AsDuration()
	if limit <= 0 || v.w.now.Before(timeOf(v.status.GetProgressAt()).Add(limit)) {
		return
	}
	left := v.left()
	if left == 0 || v.status.GetSlots()-min(left, v.status.GetSlots()) > v.status.GetDone() {
		return
	}
	v.edit().ProgressAt = v.w.stamp
	v.fail(fmt.Sprintf("no progress for %s%s", limit, v.firstReason()))
	v.disturb()
}

func (v *visit) startUpdate() {
	from := v.was.GetSpecVersion()
	if s := v.was.GetState(); s != completed && s != rollbackCompleted { // it was on its way: that version has not proved itself
		from = v.was.GetFromVersion()
	}
	if from == v.target || state.SpecOf(v.svc, from) == nil {
		from = v.svc.GetSpecHistory()[0].GetVersion()
	}
	v.status = &typesv1.UpdateStatus{State: updating, SpecVersion: v.target, OfVersion: v.target, FromVersion: from,
		StartedAt: v.w.stamp, ProgressAt: v.w.stamp, Message: "update in progress", Resumed: v.svc.GetSpec().GetResumeUpdate()}
	v.status.Slots = v.countDirty()
}

func (v *visit) countDirty() (n uint64) {
	for _, s := range v.g.Slots {
		for _, t := range s.Tasks {
			if wanted(t) && v.dirty(t) {
				n++
				break
			}
		}
	}
	return n
}

// edit is the status to be changed.
func (v *visit) edit() *typesv1.UpdateStatus {
	if v.status == v.was {
		v.status = proto.CloneOf(v.was)
	}
	return v.status
}

func (v *visit) active() bool {
	return v.status.GetState() == updating || v.status.GetState() == rollbackStarted
}

func (v *visit) paused() bool {
	return v.status.GetState() == paused || v.status.GetState() == rollbackPaused
}

func (v *visit) rollingBack() bool {
	s := v.status.GetState()
	return s == rollbackStarted || s == rollbackPaused || s == rollbackCompleted
}

// config is the update's, or the rollback's while one is going on.
func (v *visit) config() *typesv1.UpdateConfig {
	if r := v.svc.GetSpec().GetRollback(); r != nil && v.rollingBack() {
		return r
	}
	return v.svc.GetSpec().GetUpdate()
}

func (v *visit) pause(message string) {
	st := v.edit()
	if st.GetState() == rollbackStarted {
		st.State = rollbackPaused
	} else {
		st.State = paused
	}
	st.Message, st.Resumed = message, v.svc.GetSpec().GetResumeUpdate()
}

// proceed goes on after a pause, with a clean sheet.
func (v *visit) proceed() {
	st := v.edit()
	if st.GetState() == rollbackPaused {
		st.State, st.Message = rollbackStarted, "rollback in progress"
	} else {
		st.State, st.Message = updating, "update in progress"
	}
	st.Failures, st.ProgressAt, st.Resumed = 0, v.w.stamp, v.svc.GetSpec().GetResumeUpdate()
}

// versionFor is the spec version of the task that follows another in its slot: that of the update, but while the update is
// paused a slot stays what it is.
func (v *visit) versionFor(went *typesv1.Task) uint64 {
	if v.paused() && state.SpecOf(v.svc, went.GetSpecVersion()) != nil {
		return went.GetSpecVersion()
	}
	return v.target
}

// versionForNew is the spec version of a task in a new slot.
func (v *visit) versionForNew() uint64 {
	if from := v.status.GetFromVersion(); v.status.GetState() == paused && state.SpecOf(v.svc, from) != nil {
		return from
	}
	return v.target
}

// ofUpdate reports whether the update that is going on has made the task.
func (v *visit) ofUpdate(t *typesv1.Task) bool {
	return v.active() && t.GetSpecVersion() == v.target && v.status.GetSlots() > 0 &&
		(fresh(t) || !created(t).Before(timeOf(v.status.GetStartedAt())))
}

// paces reports whether the update has seen the task run.
func (v *visit) paces(t *typesv1.Task) bool {
	return v.ofUpdate(t) && t.GetDecided().GetRunningAt() != nil
}

// watched reports whether the end of the task would still count as a failure of the update.
func (v *visit) watched(t *typesv1.Task) bool {
	if !v.ofUpdate(t) {
		return false
	}
	since := t.GetDecided().GetRunningAt()
	if since == nil {
		return true
	}
	until := since.AsTime().Add(v.config().GetMonitor().AsDuration())
	if v.w.now.Before(until) {
		v.at(until)
		return true
	}
	return false
}

// observe notes when the update sees a task run for the first time, if anything depends on it.
func (v *visit) observe(t *typesv1.Task) {
	if c := v.config(); c.GetMonitor().AsDuration() <= 0 && c.GetDelay().AsDuration() <= 0 {
		return
	}
	if runs(t) && v.ofUpdate(t) && t.GetDecided().GetRunningAt() == nil {
		v.change(t, func(d *typesv1.TaskDecided) { d.RunningAt = v.w.stamp })
	}
}

// countFailure counts a task that has ended against the update that made it. A spec from before there was a monitor has
// none: there an update waits for its tasks, whatever they do.
func (v *visit) countFailure(t *typesv1.Task) {
	if t.GetObserved().GetState() == complete || v.config().GetMonitor() == nil || !v.ofUpdate(t) {
		return
	}
	if since := t.GetDecided().GetRunningAt(); since != nil && !v.w.now.Before(since.AsTime().Add(v.config().GetMonitor().AsDuration())) {
		return
	}
	st := v.edit()
	st.Failures++
	if float64(st.GetFailures())/float64(max(st.GetSlots(), 1)) > float64(v.config().GetMaxFailureRatio()) {
		v.fail(fmt.Sprintf("task %s: %s", t.GetMeta().GetId(), reason.Verdict(t)))
	}
}

// fail does what the update is to do when it fails. A rollback that fails is never rolled back.
func (v *visit) fail(why string) {
	c := v.config()
	switch action := c.GetFailureAction(); {
	case action == typesv1.FailureAction_FAILURE_ACTION_CONTINUE:
	case v.rollingBack():
		v.pause("rollback paused: " + why)
	case action == typesv1.FailureAction_FAILURE_ACTION_ROLLBACK && state.SpecOf(v.svc, v.status.GetFromVersion()) != nil:
		v.rollBack(why)
	default:
		v.pause("update paused: " + why)
	}
}

func (v *visit) rollBack(why string) {
	st := v.edit()
	st.State, st.SpecVersion, st.Message = rollbackStarted, st.GetFromVersion(), "rollback: "+why
	st.StartedAt, st.ProgressAt, st.Failures, st.Done, st.CompletedAt = v.w.stamp, v.w.stamp, 0, 0, nil
	v.target, v.dirtyVersions = st.GetSpecVersion(), nil
	v.disturb()
	st.Slots = v.countDirty()
}

// finish tells how far the update is. A service that was never updated has no status.
func (v *visit) finish() {
	if v.active() && !v.w.full() {
		v.advance()
	}
	if v.status == v.was || proto.Equal(v.was, v.status) {
		return
	}
	updated := proto.CloneOf(v.svc)
	updated.UpdateStatus = v.status
	v.w.restOn(typesv1.Kind_KIND_SERVICE, v.g.ID)
	v.w.putService(v.g, updated)
}

// left counts the slots that are still to be replaced, and those that are under way.
func (v *visit) left() (n uint64) {
	for _, s := range v.g.Slots {
		if s.Calm && s.Steady || !hasWanted(s) {
			continue
		}
		if m := v.moveOf(s); m.dirty || m.staying != nil && v.underWay(m) {
			n++
		}
	}
	return n
}

// advance notes progress, and ends an update that is done or makes none.
func (v *visit) advance() {
	left := v.left()
	if left == 0 {
		v.complete()
		return
	}
	if done := v.status.GetSlots() - min(left, v.status.GetSlots()); done > v.status.GetDone() && v.config().GetProgressDeadline() != nil {
		st := v.edit()
		st.Done, st.ProgressAt = done, v.w.stamp
	}
	if limit := v.config().GetProgressDeadline().AsDuration(); limit > 0 {
		v.at(timeOf(v.status.GetProgressAt()).Add(limit))
	}
}

// complete ends an update, once nothing is watched any more.
func (v *visit) complete() {
	for _, s := range v.g.Slots {
		for _, t := range s.Tasks {
			if wanted(t) && t.GetDecided().GetRunningAt() != nil && v.watched(t) {
				return
			}
		}
	}
	st := v.edit()
	st.CompletedAt = v.w.stamp
	if st.GetState() == rollbackStarted {
		st.State, st.Message = rollbackCompleted, "rollback completed"
		return
	}
	st.State, st.Message = completed, "update completed"
}

// firstReason is why the first task that does not run does not.
func (v *visit) firstReason() string {
	for _, s := range v.g.Slots {
		for _, t := range s.Tasks {
			if wanted(t) && !runs(t) && t.GetDecided().GetReason() != "" {
				return ": " + t.GetDecided().GetReason()
			}
		}
	}
	return ""
}
