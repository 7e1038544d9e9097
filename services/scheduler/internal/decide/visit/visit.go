// Package visit is the look at one service within a decision: its slots one after another, and what may be done with a task.
//
// It owns the acts (make a task, place it, change it, stop it) and the memory of what was found to be at rest and need not be
// looked at again. When to do what is the rules' business: packages rollout, upkeep and mode, each built on the one before.
// A Visit belongs to one decision.
package visit

import (
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/fleet"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// waitsForStop is the reason of a new task whose predecessor has not stopped.
const waitsForStop = "waits for the task before it to stop"

// Visit is the look at one service.
type Visit struct {
	*fleet.Fleet
	Group   *book.Group
	Service *typesv1.Service
	// Again says that this decision has looked at the service before.
	Again bool
	// pickers choose nodes, one for each spec version that is asked for, in order.
	pickers []picker
	order   order
	// exhausted says of a spec version for which network there is no address left.
	exhausted map[uint64]string
	// roomless are the spec versions for which displacing others makes no room.
	roomless map[uint64]bool
	// rooms look for whom to displace, one for each spec version that has to.
	rooms map[uint64]*rooms

	// began says that there were slots before, passed what the gate has said. See Gate.
	began  bool
	passed *passage

	slotWake time.Time // of the slot that is being looked at
	wake     time.Time // of all that concerns no single slot
	restless bool      // something was left undone for a reason that lies elsewhere
	waits    bool      // some task waits for a place
	uneasy   bool      // either of them, in this slot
}

// Visitor makes the visits of one decision, one after the other, in the same memory.
type Visitor struct {
	*fleet.Fleet
	visit Visit
}

// Look looks at one service, and lets act bring it nearer to its spec. What is found to be at rest is not looked at again
// until it changes. Again says that this decision has looked at the service before. Nobody may keep the visit.
func (x *Visitor) Look(g *book.Group, again bool, act func(v *Visit)) {
	f, v := x.Fleet, &x.visit
	*v = Visit{Fleet: f, Group: g, Service: g.Service, Again: again, began: len(g.Slots) > 0, pickers: v.pickers[:0], order: order{f.Book, g}}
	delete(f.Disturbed, g)
	before, placement := f.Changes(), f.Book.Placement
	act(v)
	wake := v.wake
	for _, s := range g.Slots {
		wake = f.Earlier(wake, s.Wake)
	}
	f.Book.Looked(g, book.Outcome{
		Dirty: again && g.Dirty || f.Full() || f.Changes() > before, Restless: v.restless, Waits: v.waits, Wake: wake, Placement: placement,
	})
}

// At asks for another look at that cluster time, if it is to come.
func (v *Visit) At(t time.Time) {
	v.slotWake = v.Earlier(v.slotWake, t)
	v.wake = v.Earlier(v.wake, t)
}

// AtAny asks for another look at the service as a whole, whichever slot is being looked at.
func (v *Visit) AtAny(t time.Time) { v.wake = v.Earlier(v.wake, t) }

// AskAgain says that something was left undone for a reason that lies outside the service.
func (v *Visit) AskAgain() { v.restless, v.uneasy = true, true }

// AwaitPlace says that something was left undone for want of a place: the service is looked at again once anything has changed that
// places rest on, also within this decision.
func (v *Visit) AwaitPlace() { v.waits, v.uneasy = true, true }

// Disturb lets every slot be looked at: what holds for all of them has changed with time.
func (v *Visit) Disturb() {
	for _, s := range v.Group.Slots {
		s.Calm, s.Steady = false, false
	}
}

// EachSlot looks at every slot that may have something to do. Again is asked whether the batch is full.
func (v *Visit) EachSlot(f func(s *book.Slot)) {
	for _, s := range v.Group.Now() {
		if v.Full() {
			return
		}
		if s.Calm && (s.Wake.IsZero() || v.Now.Before(s.Wake)) {
			continue
		}
		before, wake := v.Changes(), v.wake
		s.Calm, s.Steady, v.uneasy, v.slotWake = true, false, false, time.Time{} // a change takes the calm away again
		f(s)
		s.Wake, v.wake = v.slotWake, wake
		s.Calm = s.Calm && !v.uneasy && v.Changes() == before
		if !s.Calm {
			v.wake = v.Earlier(v.wake, v.slotWake)
			s.Wake = time.Time{}
		}
	}
}

// Predecessor says what a new task of the slot has to wait for; nothing when all before it are over or out of reach.
func (v *Visit) Predecessor(s *book.Slot) string {
	for _, t := range s.Tasks {
		if !book.Wanted(t) && !v.Gone(t) && !v.Lost(t) {
			return waitsForStop
		}
	}
	return ""
}

// Idle is 0 for a slot with a running task, else 1.
func (v *Visit) Idle(s *book.Slot) int {
	for _, t := range s.Tasks {
		if task.Wanted(t) && task.Runs(t) && !v.Lost(t) {
			return 0
		}
	}
	return 1
}
