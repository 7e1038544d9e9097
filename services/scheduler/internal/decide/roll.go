package decide

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/version"
)

// tablePatience bounds the wait until the machines' tables have a new task, as the agent bounds the other half.
const tablePatience = 5 * time.Second

// dirty reports whether a task is not of the spec that the service's tasks should be of. Another version is clean when it
// has the same hash, or differs only in where tasks may run: whether it may stay where it is is another question.
func (v *visit) dirty(t *typesv1.Task) bool {
	of := t.GetSpecVersion()
	if of == v.target {
		return false
	}
	d, known := v.dirtyVersions[of]
	if !known {
		d = !version.Same(v.svc, of, v.target)
		if v.dirtyVersions == nil {
			v.dirtyVersions = map[uint64]bool{}
		}
		v.dirtyVersions[of] = d
	}
	return d
}

// misplaced says why a task may not stay on its node; nothing if it may.
func (v *visit) misplaced(t *typesv1.Task) string {
	n := v.w.book.Node(t.GetDecided().GetNodeId())
	req := v.request(v.versionFor(t)) // of what would follow it: or it would be moved for ever
	switch {
	case n == nil || n.Down() || dead(t) || v.g.PerNode():
		return ""
	case n.Drains():
		return "moved: node " + n.Name() + " is drained"
	case !n.Active():
		return "" // rules are enforced only where tasks could be placed
	case req.MayStay(n) != place.None:
		return "moved: node " + n.Name() + " " + req.Unmet(n)
	case v.w.tooSmall(n, t):
		return "moved: node " + n.Name() + " has become too small"
	}
	return ""
}

// move is one slot with what is to leave it.
type move struct {
	slot    *book.Slot
	leaving []*typesv1.Task // wanted, but of an older spec or on the wrong node
	staying *typesv1.Task   // the other
	why     string          // the leaving are on the wrong node
	dirty   bool            // some are of an older spec
}

func (v *visit) moveOf(s *book.Slot) move {
	m := move{slot: s}
	if v.g.PerNode() && !v.stays(s) {
		return m // what is there may stay, but nothing new may come
	}
	for _, t := range s.Tasks {
		if !wanted(t) || v.g.PerNode() && v.w.lost(t) { // who cannot be reached cannot be replaced there
			continue
		}
		dirty, why := v.dirty(t) && !v.paused(), v.misplaced(t) // while it is paused every version may stay
		if (dirty || why != "") && v.w.lost(t) {
			continue // it is given up as soon as somebody else can take it
		}
		if dirty || why != "" {
			m.leaving = append(m.leaving, t)
			m.dirty, m.why = m.dirty || dirty, cmp.Or(m.why, why)
			continue
		}
		// Two of one kind are left when what one of them was to leave for is no more: the one that runs stays, else the older.
		extra := t
		if m.staying == nil || runs(t) && !runs(m.staying) {
			m.staying, extra = t, m.staying
		}
		if extra != nil {
			m.leaving = append(m.leaving, extra)
			m.why = cmp.Or(m.why, "one too many in its slot")
		}
	}
	return m
}

// survey is how the slots are before anything is begun.
type survey struct {
	todo    []move
	busy    int // slots under way
	missing int // slots that had a running task and have none
}

// survey looks at the slots that are not as they should be, and ends what is under way where it can.
func (v *visit) survey() (out survey) {
	for _, s := range v.g.Slots {
		if s.Calm && s.Steady || !hasWanted(s) {
			continue
		}
		m := v.moveOf(s)
		if len(m.leaving) > 0 && m.staying != nil {
			v.retire(&m)
		}
		switch {
		case m.staying == nil && len(m.leaving) == 0:
		case m.staying == nil:
			out.todo = append(out.todo, m)
		case v.underWay(m):
			out.busy++
		default:
			s.Steady = v.idle(s) == 0 && !v.watched(m.staying)
		}
		if v.idle(s) == 1 && !neverPlaced(s) {
			out.missing++
		}
	}
	// Slots in which nothing runs go first: nobody loses anything by it. Then those that have to leave their node.
	slices.SortStableFunc(out.todo, func(a, b move) int {
		return cmp.Or(cmp.Compare(1-v.idle(a.slot), 1-v.idle(b.slot)), cmp.Compare(count(a.why == ""), count(b.why == "")))
	})
	return out
}

// roll replaces the tasks of older specs, and those that may not stay where they are, as many slots at a time as the spec
// allows. It keeps no list of what it has begun: a slot with a new task that does not run yet is under way.
func (v *visit) roll() {
	if v.w.full() {
		return
	}
	now := v.survey()
	limit := v.parallelism()
	spare := v.floor(limit) - now.missing
	for _, m := range now.todo {
		if v.w.full() {
			return
		}
		serves := v.idle(m.slot) == 0
		takes := serves && !v.startFirst()
		switch {
		case m.why == "" && v.paused():
			continue
		case limit > 0 && now.busy >= limit && !pendingOnly(m.leaving):
			continue
		case takes && spare <= 0:
			continue
		case m.why != "" && serves && !v.hasPlace(): // nobody is helped by stopping it
			continue
		}
		v.renew(m)
		if s := v.g.Slot(m.slot.Key); v.underWay(v.moveOf(s)) { // a slot that still waits for its first place is not
			now.busy++
		}
		if takes {
			spare--
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// parallelism is the number of slots that may be under way; 0 is any number.
func (v *visit) parallelism() int {
	if c := v.config(); c != nil && c.Parallelism != nil {
		return int(min(c.GetParallelism(), 1<<30))
	}
	return 1
}

// floor is the number of slots that may be without a running task because of us: one rule for updates, drains and
// enforcement.
func (v *visit) floor(parallelism int) int {
	if m := v.svc.GetSpec().MaxUnavailable; m != nil {
		return int(min(*m, 1<<30))
	}
	if parallelism == 0 {
		return 1 << 30
	}
	return parallelism
}

func (v *visit) startFirst() bool {
	return v.config().GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
}

// neverPlaced reports whether all that a slot has ever had is a task that waits for a place: it cannot be missed.
func neverPlaced(s *book.Slot) bool {
	return !slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return t.GetDecided().GetNodeId() != "" })
}

// pendingOnly reports whether none of the tasks has a node: a replacement takes nothing away.
func pendingOnly(tasks []*typesv1.Task) bool {
	return !slices.ContainsFunc(tasks, func(t *typesv1.Task) bool { return t.GetDecided().GetNodeId() != "" })
}

// underWay reports whether a slot's new task keeps a place in the update's parallelism.
func (v *visit) underWay(m move) bool {
	others := slices.ContainsFunc(m.slot.Tasks, func(t *typesv1.Task) bool {
		return t != m.staying && !abandoned(t) && (v.dirty(t) || !dead(t))
	})
	switch {
	case len(m.leaving) > 0 || v.w.lost(m.staying):
		return true
	case dead(m.staying): // ended and not to be restarted, or about to be
		return !filledForGood(m.staying)
	case !runs(m.staying):
		// A task without a node in a slot that had none before is no part of the update: it must not block it.
		return m.staying.GetDecided().GetNodeId() != "" || others
	case v.paces(m.staying):
		pause := timeOf(m.staying.GetDecided().GetRunningAt()).Add(v.config().GetDelay().AsDuration())
		v.at(pause)
		return v.w.now.Before(pause)
	}
	return false
}

// renew begins the replacement in one slot.
func (v *visit) renew(m move) {
	var kept *typesv1.Task // takes traffic until the new one does: the oldest, for it is in all tables
	version := v.target
	for _, t := range m.leaving {
		if m.why != "" {
			version = v.versionFor(t)
		}
		switch {
		case v.startFirst() && kept == nil && runs(t):
			kept = t
		default:
			v.stop(t, v.reasonFor(m))
		}
	}
	held := ""
	if kept == nil {
		held = v.predecessor(m.slot)
	}
	// The slot may have gone with its last task.
	v.create(v.g.MakeSlot(m.slot.Key), order{version: version, startAfter: v.w.now, held: held})
}

func (v *visit) reasonFor(m move) string {
	if m.why != "" {
		return m.why
	}
	if v.rollingBack() {
		return fmt.Sprintf("rolled back to version %d of the service", v.target)
	}
	return fmt.Sprintf("replaced by version %d of the service", v.target)
}

// retire stops the leaving tasks of a slot once the new one takes traffic, and at once those that do not run.
func (v *visit) retire(m *move) {
	serves := runs(m.staying) && m.staying.GetObserved().GetReady() && v.inTables(m.staying)
	m.leaving = slices.DeleteFunc(m.leaving, func(t *typesv1.Task) bool {
		if runs(t) && !serves {
			return false
		}
		v.stop(t, v.reasonFor(*m))
		return true
	})
	m.dirty = len(m.leaving) > 0 && m.dirty
}

// inTables reports whether every machine in session sends connections to the task: each dispatcher that has nodes tells
// the lowest revision that they have applied. A machine that hangs must not hold the update, so the wait is bounded.
func (v *visit) inTables(t *typesv1.Task) bool {
	limit := timeOf(t.GetMeta().GetUpdatedAt()).Add(tablePatience)
	if !v.w.now.Before(limit) || v.w.tables() >= t.GetMeta().GetRevision() {
		return true
	}
	v.askAgain()
	v.at(limit)
	return false
}
