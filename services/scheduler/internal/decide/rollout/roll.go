package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// survey is how the slots are before anything is begun.
type survey struct {
	todo    []move
	busy    int    // slots under way
	missing int    // slots that had a running task and have none
	moving  []move // under way to even out the load; they are busy too
}

// survey looks at the slots that are not as they should be, and ends what is under way where it can.
func (r *Rollout) survey() (out survey) {
	for _, s := range r.Group.Slots {
		if s.Calm && s.Steady || !task.AnyWanted(s) {
			continue
		}
		m := r.moveOf(s)
		if len(m.leaving) > 0 && m.staying != nil {
			r.retire(&m)
		}
		switch {
		case m.staying == nil && len(m.leaving) == 0:
		case m.staying == nil:
			if m.begun = begun(m); m.begun {
				out.busy++
			}
			out.todo = append(out.todo, m)
		case r.underWay(m):
			out.busy++
			if m.why == evened {
				out.moving = append(out.moving, m)
			}
		default:
			s.Steady = r.Idle(s) == 0 && !r.watched(m.staying)
		}
		if r.Idle(s) == 1 && !task.NeverPlaced(s) {
			out.missing++
		}
	}
	// Slots in which nothing runs go first: nobody loses anything by it. Then those that have to leave their node.
	slices.SortStableFunc(out.todo, func(a, b move) int {
		return cmp.Or(cmp.Compare(1-r.Idle(a.slot), 1-r.Idle(b.slot)), cmp.Compare(count(a.why == ""), count(b.why == "")))
	})
	return out
}

// Roll replaces the tasks of older specs, and those that may not stay where they are, as many slots at a time as the spec
// allows. It keeps no list of what it has begun: a slot with a new task that does not run yet is under way. It returns the
// slots in which it has let a task go.
func (r *Rollout) Roll() (letGo []book.SlotKey) {
	again := !r.Request(r.Target).Newer // or what follows has no place: what runs goes on until a newer scheduler leads
	for again && !r.Full() {
		again = r.roll()
	}
	return r.letGo
}

// roll reports whether it has stopped something, and left something for want of a place: what was stopped may make room.
func (r *Rollout) roll() bool {
	begun, left := false, false
	now := r.survey()
	bounds := r.bounds()
	for _, m := range now.todo {
		if r.Full() {
			return false
		}
		serves := r.Idle(m.slot) == 0
		version := r.next(m)
		takes := serves && !r.startFirst(version)
		bound := bounds.of(m)
		switch {
		case m.why == "" && r.paused():
			continue
		case now.busy >= bound.underWay && !m.begun && !task.PendingOnly(m.leaving):
			continue
		case takes && now.missing >= bound.missing:
			continue
		case m.why != "" && serves && !r.Group.PerNode() && !r.HasPlace(version, m.slot.Key.Number): // nobody is helped by stopping it
			left = true
			continue
		}
		begun = true
		r.renew(m)
		if s := r.Group.Slot(m.slot.Key); !m.begun && r.underWay(r.moveOf(s)) { // a slot that still waits for its first place is not
			now.busy++
		}
		if takes {
			now.missing++
		}
	}
	r.seen = &now
	return begun && left
}

// begun reports whether a slot is under way to something that is out of date: beside the task that runs stands one that was
// to follow it and must leave too. It keeps its place in the parallelism and begins anew in it.
func begun(m move) bool {
	return slices.ContainsFunc(m.leaving, task.Runs) && slices.ContainsFunc(m.leaving, func(t *typesv1.Task) bool {
		return !task.Runs(t) && !task.Dead(t) && t.GetDecided().GetNodeId() != ""
	})
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// startFirst reports whether a new task starts before the one that it replaces goes. Two tasks with the same host port can't be
// on one node, two of one slot must not write to its volume at once, nor have its address: there the old one goes first.
func (r *Rollout) startFirst(version uint64) bool {
	if req := r.Request(version); len(req.Ports) > 0 || len(req.Volumes) > 0 || req.Fixed {
		return false
	}
	return r.config().GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
}

// underWay reports whether a slot's new task keeps a place in the update's parallelism.
func (r *Rollout) underWay(m move) bool {
	others := slices.ContainsFunc(m.slot.Tasks, func(t *typesv1.Task) bool {
		return t != m.staying && !task.Abandoned(t) && (r.Dirty(t) || !task.Dead(t))
	})
	switch {
	case len(m.leaving) > 0 || r.Lost(m.staying):
		return true
	case task.Dead(m.staying): // ended and not to be restarted, or about to be
		return !task.FilledForGood(m.staying)
	case !task.Runs(m.staying):
		// A task without a node in a slot that had none before is no part of the update: it must not block it.
		return m.staying.GetDecided().GetNodeId() != "" || others
	case r.paces(m.staying):
		pause := task.TimeOf(m.staying.GetDecided().GetRunningAt()).Add(r.config().GetDelay().AsDuration())
		r.At(pause)
		return r.Now.Before(pause)
	}
	return false
}

// next is the spec version of the task that follows in a slot.
func (r *Rollout) next(m move) uint64 {
	if m.why != "" {
		return r.VersionFor(m.leaving[len(m.leaving)-1])
	}
	return r.Target
}

// renew begins the replacement in one slot.
func (r *Rollout) renew(m move) {
	var kept *typesv1.Task // takes traffic until the new one does: the oldest, for it is in all tables
	version := r.next(m)
	for _, t := range m.leaving {
		switch {
		case r.startFirst(version) && kept == nil && task.Runs(t):
			kept = t
		default:
			r.stop(m, t)
		}
	}
	held := ""
	if kept == nil {
		held = r.Predecessor(m.slot)
	}
	// The slot may have gone with its last task.
	r.Create(r.Group.MakeSlot(m.slot.Key), visit.Order{Version: version, StartAfter: r.Now, Held: held})
}

func (r *Rollout) stop(m move, t *typesv1.Task) {
	r.Stop(t, r.reasonFor(m))
	r.letGo = append(r.letGo, m.slot.Key)
}

func (r *Rollout) reasonFor(m move) string {
	if m.why != "" {
		return m.why
	}
	if r.rollingBack() {
		return fmt.Sprintf("rolled back to version %d of the service", cmp.Or(r.Service.GetRolledBackTo(), r.Target))
	}
	return fmt.Sprintf("replaced by version %d of the service", r.Target)
}

// retire stops the leaving tasks of a slot once the new one takes traffic, and at once those that do not run.
func (r *Rollout) retire(m *move) {
	serves := task.Runs(m.staying) && m.staying.GetObserved().GetReady() && r.inTables(m.staying)
	m.leaving = slices.DeleteFunc(m.leaving, func(t *typesv1.Task) bool {
		if task.Runs(t) && !serves {
			return false
		}
		r.stop(*m, t)
		return true
	})
	m.dirty = len(m.leaving) > 0 && m.dirty
}

// tablePatience bounds the wait until the machines' tables have a new task, as the agent bounds the other half.
const tablePatience = 5 * time.Second

// inTables reports whether every machine in session sends connections to the task: each dispatcher that has nodes tells
// the lowest revision that they have applied. A machine that hangs must not hold the update, so the wait is bounded.
func (r *Rollout) inTables(t *typesv1.Task) bool {
	limit := task.TimeOf(t.GetMeta().GetUpdatedAt()).Add(tablePatience)
	if !r.Now.Before(limit) || r.Tables() >= t.GetMeta().GetRevision() {
		return true
	}
	r.AskAgain()
	r.At(limit)
	return false
}
