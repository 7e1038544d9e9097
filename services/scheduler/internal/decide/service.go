package decide

import (
	"cmp"
	"slices"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// reconcile brings one service nearer to its spec.
func (w *work) reconcile(svc *typesv1.Service) {
	g := w.group(svc.GetMeta().GetId())
	want := state.Replicas(svc)
	// Step 1: too many go first, so that nothing is mended that is not wanted.
	w.scaleDown(svc, g, want)
	// Step 2: in each slot what is lost, drained or dead is replaced, and what waits goes on.
	for _, s := range g.inOrder() {
		if w.full() {
			return
		}
		w.mend(svc, s)
		w.reap(svc, s) // before what follows, which asks whether a predecessor is still there
		w.place(svc, s)
		w.release(s)
	}
	// Step 3: missing slots, the lowest free numbers first.
	w.scaleUp(svc, g, want)
	// Step 4: slots of an older spec, a few at a time.
	w.update(svc, g)
	// Step 5: what nobody needs any more.
	for _, s := range g.inOrder() {
		if w.full() {
			return
		}
		if len(s.wantedTasks()) == 0 {
			w.removeSlot(s, "")
		} else {
			w.reap(svc, s)
		}
	}
}

// runnable lists the slots that have a task that is wanted, by number.
func (g *group) runnable() []*slot {
	return slices.DeleteFunc(g.inOrder(), func(s *slot) bool { return len(s.wantedTasks()) == 0 })
}

func (w *work) scaleUp(svc *typesv1.Service, g *group, want uint64) {
	have := uint64(len(g.runnable()))
	for n := uint64(1); have < want && !w.full(); n++ {
		s := g.slots[n]
		if s == nil {
			s = &slot{number: n}
			g.slots[n] = s
		}
		if len(s.wantedTasks()) == 0 {
			w.create(svc, s, w.now, w.predecessor(s))
			have++
		}
	}
}

// scaleDown keeps the best slots: running before others, then so that the fullest nodes lose their surplus, then the low
// slot numbers.
func (w *work) scaleDown(svc *typesv1.Service, g *group, want uint64) {
	slots := g.runnable()
	if uint64(len(slots)) <= want {
		return
	}
	w.restOn(typesv1.Kind_KIND_SERVICE, svc.GetMeta().GetId())
	for _, s := range w.rank(slots)[want:] {
		if w.full() {
			return
		}
		w.removeSlot(s, "scaled down")
	}
}

// rank orders slots by how much they are worth keeping. Every comparison ends at the slot number, so that equal states
// give equal choices.
func (w *work) rank(slots []*slot) []*slot {
	slots = slices.Clone(slots)
	slices.SortStableFunc(slots, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(w.idle(a), w.idle(b)), cmp.Compare(a.number, b.number))
	})
	copies, nth := map[string]int{}, map[*slot]int{}
	for _, s := range slots {
		tasks := s.wantedTasks()
		if len(tasks) != 1 || tasks[0].GetDecided().GetNodeId() == "" || w.lost(tasks[0]) {
			nth[s] = int(^uint(0) >> 1) // ambiguous or without a place: last
			continue
		}
		node := tasks[0].GetDecided().GetNodeId()
		copies[node]++
		nth[s] = copies[node]
	}
	slices.SortStableFunc(slots, func(a, b *slot) int { return cmp.Compare(nth[a], nth[b]) })
	return slots
}

// idle is 0 for a slot with a running task, else 1.
func (w *work) idle(s *slot) int {
	for _, t := range s.tasks {
		if runs(t) && !w.lost(t) {
			return 0
		}
	}
	return 1
}

// removeAll stops and forgets all tasks of a service.
func (w *work) removeAll(g *group, reason string) {
	for _, s := range g.inOrder() {
		if w.full() {
			return
		}
		w.removeSlot(s, reason)
	}
}

func (w *work) removeSlot(s *slot, reason string) {
	for _, t := range slices.Clone(s.tasks) {
		w.remove(s, t, reason)
	}
}
