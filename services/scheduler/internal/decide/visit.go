package decide

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// visit is the look at one service within a decision.
type visit struct {
	w   *work
	g   *book.Group
	svc *typesv1.Service
	// again says that this decision has looked at the service before.
	again bool
	rollout
	// pickers choose nodes, one for each spec version that is asked for.
	pickers map[uint64]*place.Picker
	// exhausted says of a spec version for which network there is no address left.
	exhausted map[uint64]string

	slotWake time.Time // of the slot that is being looked at
	wake     time.Time // of all that concerns no single slot
	restless bool      // something was left undone for a reason that lies elsewhere
	waits    bool      // some task waits for a place
	uneasy   bool      // either of them, in this slot
}

// visit brings one service nearer to its spec. What it finds to be at rest it does not look at again until it changes. Again
// says that this decision has looked at it before.
func (w *work) visit(g *book.Group, again bool) {
	v := &visit{w: w, g: g, svc: g.Service, again: again}
	before, placement := len(w.changes), w.book.Placement
	if v.svc == nil {
		v.removeAll("its service was removed")
	} else {
		v.begin()
		switch {
		case state.IsJob(v.svc):
			v.reconcileJob()
		case g.PerNode():
			v.reconcileGlobal()
		default:
			v.reconcile()
		}
		v.finish()
	}
	g.Dirty = again && g.Dirty || w.full() || len(w.changes) > before
	g.Restless, g.Waits, g.Placement = v.restless, v.waits, placement
	g.Wake = v.wake
	for _, s := range g.Slots {
		g.Wake = w.earlier(g.Wake, s.Wake)
	}
}

// at asks for another look at that cluster time, if it is to come.
func (v *visit) at(t time.Time) {
	v.slotWake = v.w.earlier(v.slotWake, t)
	v.wake = v.w.earlier(v.wake, t)
}

// askAgain says that something was left undone for a reason that lies outside the service.
func (v *visit) askAgain() { v.restless, v.uneasy = true, true }

// awaitPlace says that something was left undone for want of a place.
func (v *visit) awaitPlace() { v.waits, v.uneasy = true, true }

// eachSlot looks at every slot that may have something to do. Again is asked whether the batch is full.
func (v *visit) eachSlot(f func(s *book.Slot)) {
	for _, s := range slices.Clone(v.g.Slots) {
		if v.w.full() {
			return
		}
		if s.Calm && (s.Wake.IsZero() || v.w.now.Before(s.Wake)) {
			continue
		}
		before, wake := len(v.w.changes), v.wake
		s.Calm, s.Steady, v.uneasy, v.slotWake = true, false, false, time.Time{} // a change takes the calm away again
		f(s)
		s.Wake, v.wake = v.slotWake, wake
		s.Calm = s.Calm && !v.uneasy && len(v.w.changes) == before
		if !s.Calm {
			v.wake = v.w.earlier(v.wake, v.slotWake)
			s.Wake = time.Time{}
		}
	}
}

// reconcile brings a replicated service nearer to its spec.
func (v *visit) reconcile() {
	want := state.Replicas(v.svc)
	// Step 1: too many go first, so that nothing is mended that is not wanted.
	v.scaleDown(want)
	// Step 2: in each slot what is lost or dead is replaced, and what waits goes on.
	v.eachSlot(v.tend)
	// Step 3: missing slots, the lowest free numbers first.
	v.scaleUp(want)
	// Step 4: slots of an older spec, or on the wrong node, a few at a time.
	v.roll()
	// Step 5: slots that nobody needs any more.
	for _, s := range slices.Clone(v.g.Slots) {
		if !(s.Calm && s.Steady) && !v.w.full() && !hasWanted(s) {
			v.removeSlot(s, "")
		}
	}
}

// tend is what is done in any slot of a service.
func (v *visit) tend(s *book.Slot) {
	v.mend(s)
	v.reap(s) // before what follows, which asks whether a predecessor is still there
	v.place(s)
	v.release(s)
	for _, t := range slices.Clone(s.Tasks) {
		v.observe(t)
	}
}

// hasWanted reports whether a slot has a task that is wanted.
func hasWanted(s *book.Slot) bool { return slices.ContainsFunc(s.Tasks, wanted) }

// runnable counts the slots that have a task that is wanted.
func (v *visit) runnable() (n uint64) {
	for _, s := range v.g.Slots {
		if s.Calm && s.Steady || hasWanted(s) {
			n++
		}
	}
	return n
}

// manyPlaces is the number of tasks from which it pays to look at all nodes at once.
const manyPlaces = 8

func (v *visit) scaleUp(want uint64) {
	have := v.runnable()
	if have >= want {
		return
	}
	if want-have > manyPlaces {
		v.picker(v.versionForNew()).Many()
	}
	next := uint64(1)
	for ; have < want && !v.w.full(); next++ {
		// The slots are in order and mostly without gaps: this is found at once.
		s := v.g.MakeSlot(book.SlotKey{Number: next})
		if !hasWanted(s) {
			v.create(s, order{version: v.versionForNew(), startAfter: v.w.now, held: v.predecessor(s)})
			have++
		}
	}
}

// scaleDown keeps the best slots: running before others, then so that the fullest nodes lose their surplus, then the low
// slot numbers.
func (v *visit) scaleDown(want uint64) {
	if uint64(len(v.g.Slots)) <= want {
		return
	}
	var slots []*book.Slot
	for _, s := range v.g.Slots {
		if hasWanted(s) {
			slots = append(slots, s)
		}
	}
	if uint64(len(slots)) <= want {
		return
	}
	v.w.restOn(typesv1.Kind_KIND_SERVICE, v.g.ID)
	surplus := v.rank(slots)[want:]
	slices.SortFunc(surplus, func(a, b *book.Slot) int { return cmp.Compare(a.Key.Number, b.Key.Number) })
	for _, s := range surplus {
		if v.w.full() {
			return
		}
		v.removeSlot(s, "scaled down")
	}
}

// rank orders slots by how much they are worth keeping. Every comparison ends at the slot number, so that equal states
// give equal choices.
func (v *visit) rank(slots []*book.Slot) []*book.Slot {
	idle := map[*book.Slot]int{}
	for _, s := range slots {
		idle[s] = v.idle(s)
	}
	slots = slices.Clone(slots)
	slices.SortStableFunc(slots, func(a, b *book.Slot) int {
		return cmp.Or(cmp.Compare(idle[a], idle[b]), cmp.Compare(a.Key.Number, b.Key.Number))
	})
	copies, nth := map[string]int{}, map[*book.Slot]int{}
	for _, s := range slots {
		node, one := v.onlyNode(s)
		if !one {
			nth[s] = int(^uint(0) >> 1) // ambiguous or without a place: last
			continue
		}
		copies[node]++
		nth[s] = copies[node]
	}
	slices.SortStableFunc(slots, func(a, b *book.Slot) int { return cmp.Compare(nth[a], nth[b]) })
	return slots
}

// onlyNode is the node of a slot's only wanted task.
func (v *visit) onlyNode(s *book.Slot) (node string, ok bool) {
	n := 0
	for _, t := range s.Tasks {
		if wanted(t) {
			n++
			node = t.GetDecided().GetNodeId()
			ok = node != "" && !v.w.lost(t)
		}
	}
	return node, ok && n == 1
}

// idle is 0 for a slot with a running task, else 1.
func (v *visit) idle(s *book.Slot) int {
	for _, t := range s.Tasks {
		if wanted(t) && runs(t) && !v.w.lost(t) {
			return 0
		}
	}
	return 1
}

// removeAll stops and forgets all tasks of a service.
func (v *visit) removeAll(reason string) {
	v.eachSlot(func(s *book.Slot) { v.removeSlot(s, reason) })
}

func (v *visit) removeSlot(s *book.Slot, reason string) {
	for _, t := range slices.Clone(s.Tasks) {
		v.remove(t, reason)
	}
}
