// Package rollout is a service's update: which spec its tasks should be of, and how they become so a few at a time.
//
// It owns the update's status, its pauses and rollbacks, and the one floor: how many slots may be without a running task
// because of us, whatever the cause of a move. It keeps no list of what it has begun; what is under way is read off the
// tasks. A Rollout belongs to one decision.
package rollout

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
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

// Rollout is how far the service's update is, and what it leads to.
type Rollout struct {
	*visit.Visit
	// Target is the spec version that new tasks are of.
	Target uint64
	// status is what is to be written, was what is there; equal while nothing has changed.
	status, was   *typesv1.UpdateStatus
	dirtyVersions map[uint64]bool
	letGo         []book.SlotKey // slots in which a task was stopped
	// seen is how the slots were when the visit had moved what had to move.
	seen *survey
	// failed is why a task that was to take over from another did not, in this visit.
	failed string
}

// New finds out what the service's tasks should be of: the current spec, or, while a rollback by itself is in force, an
// earlier one. A spec that is newer than the status begins an update, and ends whatever was going on.
func New(v *visit.Visit) *Rollout {
	was := v.Service.GetUpdateStatus()
	r := &Rollout{Visit: v, Target: v.Service.GetSpecVersion(), status: was, was: was}
	r.begin()
	return r
}

func (r *Rollout) begin() {
	of := r.was.GetOfVersion()
	if of == 0 {
		of = r.was.GetSpecVersion()
	}
	if r.was.GetState() == typesv1.UpdateState_UPDATE_STATE_UNSPECIFIED || of != r.Target {
		if len(r.Service.GetSpecHistory()) > 0 && !state.IsJob(r.Service) {
			r.startUpdate()
			if r.Service.GetSpec().GetHoldUpdate() {
				r.pause(heldByHand)
			}
		}
		return
	}
	if r.rollingBack() && state.SpecOf(r.Service, r.was.GetSpecVersion()) != nil {
		r.Target = r.was.GetSpecVersion()
	}
	spec := r.Service.GetSpec()
	switch byHand := r.was.GetMessage() == heldByHand; {
	case r.active() && spec.GetHoldUpdate():
		r.pause(heldByHand)
	case r.paused() && byHand && !spec.GetHoldUpdate():
		r.proceed()
	case r.paused() && !byHand && spec.GetResumeUpdate() != r.was.GetResumed():
		r.proceed()
	case r.active():
		r.checkProgress()
	}
}

func (r *Rollout) startUpdate() {
	r.status = &typesv1.UpdateStatus{State: updating, SpecVersion: r.Target, OfVersion: r.Target, FromVersion: state.VersionBefore(r.Service),
		StartedAt: r.Stamp, ProgressAt: r.Stamp, Message: "update in progress", Resumed: r.Service.GetSpec().GetResumeUpdate()}
	if back := r.Service.GetRolledBackTo(); back != 0 {
		r.status.State, r.status.Message = rollbackStarted, fmt.Sprintf("rollback: asked for by hand, to version %d", back)
	}
	r.status.Slots = r.countDirty()
}

func (r *Rollout) countDirty() (n uint64) {
	for _, s := range r.Group.Slots {
		for _, t := range s.Tasks {
			if task.Wanted(t) && r.Dirty(t) {
				n++
				break
			}
		}
	}
	return n
}

// edit is the status to be changed.
func (r *Rollout) edit() *typesv1.UpdateStatus {
	if r.status == r.was {
		r.status = proto.CloneOf(r.was)
	}
	return r.status
}

func (r *Rollout) active() bool { return goesOn(r.status) }

// UnderWay reports whether a service is being updated or rolled back.
func UnderWay(svc *typesv1.Service) bool { return goesOn(svc.GetUpdateStatus()) }

func goesOn(s *typesv1.UpdateStatus) bool {
	return s.GetState() == updating || s.GetState() == rollbackStarted
}

func (r *Rollout) paused() bool {
	return r.status.GetState() == paused || r.status.GetState() == rollbackPaused
}

func (r *Rollout) rollingBack() bool {
	s := r.status.GetState()
	return s == rollbackStarted || s == rollbackPaused || s == rollbackCompleted
}

// config is the update's, or the rollback's while one is going on.
func (r *Rollout) config() *typesv1.UpdateConfig {
	if c := r.Service.GetSpec().GetRollback(); c != nil && r.rollingBack() {
		return c
	}
	return r.Service.GetSpec().GetUpdate()
}

// VersionFor is the spec version of the task that follows another in its slot: that of the update, but while the update is
// paused a slot stays what it is.
func (r *Rollout) VersionFor(went *typesv1.Task) uint64 {
	if r.paused() && state.SpecOf(r.Service, went.GetSpecVersion()) != nil {
		return went.GetSpecVersion()
	}
	return r.Target
}

// VersionForNew is the spec version of a task in a new slot.
func (r *Rollout) VersionForNew() uint64 {
	if from := r.status.GetFromVersion(); r.status.GetState() == paused && state.SpecOf(r.Service, from) != nil {
		return from
	}
	return r.Target
}

// Finish tells how far the update is, and then, when nothing else is to be done, evens out the load. A service that was never
// updated has no status.
func (r *Rollout) Finish() {
	if r.active() && !r.Full() {
		r.advance()
	}
	if r.status != r.was {
		r.EditService(func(s *typesv1.Service) { s.UpdateStatus = r.status })
	}
	if r.seen != nil && !r.Group.PerNode() {
		r.rebalance(*r.seen)
	}
}
