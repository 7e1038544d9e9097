package rollout

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

const (
	// evened is the reason of a task that leaves to even out the load.
	evened = "moved to even out the load"
	// moveDeadline is how long a task may take to take over. Then it goes, and the one before stays.
	moveDeadline = 10 * time.Minute
	// rest is how long a task stays where it is before it is moved without a request, and how long after a failure none is.
	rest = 10 * time.Minute
)

const (
	rebalancing   = typesv1.RebalanceState_REBALANCE_STATE_RUNNING
	rebalanced    = typesv1.RebalanceState_REBALANCE_STATE_COMPLETED
	notRebalanced = typesv1.RebalanceState_REBALANCE_STATE_FAILED
)

// takesOver reports whether the task that another was to take over from is still there.
func (r *Rollout) takesOver(t *typesv1.Task) bool {
	before := r.Book.Task(t.GetDecided().GetMovedFrom())
	return before != nil && task.Wanted(before)
}

// handsOver is the task of a slot that leaves to even out the load: another was made for that, and may be where it is.
func (r *Rollout) handsOver(s *book.Slot) string {
	for _, t := range s.Tasks {
		if t.GetDecided().GetMovedFrom() == "" || !task.Wanted(t) || task.Dead(t) || !r.takesOver(t) {
			continue
		}
		if !r.Lost(t) && !r.Dirty(t) && r.Misplaced(t) == "" {
			return t.GetDecided().GetMovedFrom()
		}
	}
	return ""
}

// rebalance moves running tasks from where there are too many, if a person has asked for it once or for always. It begins
// only while nothing else is to be done, always starts the new task first, and has no more on their way than an update would.
func (r *Rollout) rebalance(now survey) {
	wish, was := r.Service.GetSpec().GetRebalance(), r.Service.GetRebalanceStatus()
	asked := wish.GetRequest() != 0 && wish.GetRequest() != was.GetRequest()
	if asked {
		r.failed = "" // that was of before
	}
	once := asked || was.GetState() == rebalancing
	switch {
	case once || wish.GetAlways():
		r.AwaitPlace() // whatever changes anywhere may call for a move
	case len(now.moving) == 0 && r.failed == "":
		return
	}
	st := r.nextStatus(was, asked)
	for _, m := range now.moving {
		r.hurry(m)
	}
	switch waits := r.unrest(now); {
	case r.failed != "":
		st.FailedAt, st.Message = r.Stamp, "a move failed: "+r.failed
		if once {
			st.State, st.CompletedAt, st.Message = notRebalanced, r.Stamp, "stopped: "+r.failed
		}
	case waits != "":
		if once {
			st.Message = waits
		}
	case once || wish.GetAlways() && r.rested(st):
		begun := r.beginMoves(now, wish, once)
		if once {
			r.tell(st, begun, len(now.moving)+begun > 0)
		}
	}
	if was != nil || !proto.Equal(st, &typesv1.RebalanceStatus{}) {
		r.EditService(func(s *typesv1.Service) { s.RebalanceStatus = st })
	}
}

// nextStatus is the status to be changed: a new one if a person has asked anew.
func (r *Rollout) nextStatus(was *typesv1.RebalanceStatus, asked bool) *typesv1.RebalanceStatus {
	switch {
	case asked:
		return &typesv1.RebalanceStatus{Request: r.Service.GetSpec().GetRebalance().GetRequest(), State: rebalancing, StartedAt: r.Stamp,
			FailedAt: was.GetFailedAt()}
	case was != nil:
		return proto.CloneOf(was)
	}
	return &typesv1.RebalanceStatus{}
}

// tell says how far a request is.
func (r *Rollout) tell(st *typesv1.RebalanceStatus, begun int, underWay bool) {
	st.Moved += uint64(begun)
	st.Message = fmt.Sprintf("moves tasks: %d so far", st.GetMoved())
	if r.Request(r.Target).Packs() {
		st.State, st.CompletedAt, st.Message = rebalanced, r.Stamp, "nothing moved: the strategy is binpack"
		return
	}
	if r.Request(r.Target).Fixed {
		st.State, st.CompletedAt, st.Message = rebalanced, r.Stamp, "nothing moved: tasks keep the addresses of their slots"
		return
	}
	if len(r.Request(r.Target).Volumes) > 0 {
		st.State, st.CompletedAt, st.Message = rebalanced, r.Stamp, "nothing moved: tasks stay where the volumes of their slots are"
		return
	}
	if !underWay && !r.Full() {
		st.State, st.CompletedAt, st.Message = rebalanced, r.Stamp, fmt.Sprintf("%d moved; no further move would make it more even", st.GetMoved())
	}
}

// hurry gives up a move whose new task does not come to take over.
func (r *Rollout) hurry(m move) {
	limit := task.Created(m.staying).Add(moveDeadline)
	if task.Fresh(m.staying) || r.Now.Before(limit) {
		r.At(limit)
		return
	}
	r.failed = fmt.Sprintf("task %s did not take over within %s", m.staying.GetMeta().GetId(), moveDeadline)
	r.Stop(m.staying, r.failed)
}

// rested reports whether no move has failed lately.
func (r *Rollout) rested(st *typesv1.RebalanceStatus) bool {
	if st.GetFailedAt() == nil {
		return true
	}
	until := task.TimeOf(st.GetFailedAt()).Add(rest)
	r.At(until)
	return !r.Now.Before(until)
}

// unrest says what has to come to an end before tasks are moved.
func (r *Rollout) unrest(now survey) string {
	switch {
	case r.active() || r.paused():
		return "waits for the update to end"
	case len(now.todo) > 0 || now.busy > len(now.moving) || now.missing > 0:
		return "waits until all tasks run where they may"
	}
	return ""
}
