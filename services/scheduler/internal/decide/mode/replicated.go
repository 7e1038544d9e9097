package mode

import (
	"cmp"
	"slices"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/autoscale"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// reconcile brings a replicated service nearer to its spec.
func (m *mode) reconcile() {
	m.autoscale()
	want := state.Replicas(m.Service)
	// Step 1: too many go first, so that nothing is mended that is not wanted.
	m.scaleDown(want)
	// Step 2: in each slot what is lost or dead is replaced, and what waits goes on.
	m.EachSlot(m.Tend)
	// Step 3: missing slots, the lowest free numbers first.
	m.scaleUp(want)
	// Step 4: slots of an older spec, or on the wrong node, a few at a time.
	m.Roll()
	// Step 5: slots that nobody needs any more.
	for _, s := range m.Group.Now() {
		if !(s.Calm && s.Steady) && !m.Full() && !task.AnyWanted(s) {
			m.RemoveSlot(s, "")
		}
	}
}

// autoscale notes how many tasks the load calls for.
func (m *mode) autoscale() {
	if m.Service.GetSpec().GetAutoscale() == nil && m.Service.GetScale() == nil {
		return
	}
	scale, wake := autoscale.Next(m.Snapshot(), m.Service, len(m.Book.Ready), m.Now)
	m.EditService(func(s *typesv1.Service) { s.Scale = scale })
	m.AtAny(wake)
}

// runnable counts the slots that have a task that is wanted.
func (m *mode) runnable() (n uint64) {
	for _, s := range m.Group.Slots {
		if s.Calm && s.Steady || task.AnyWanted(s) {
			n++
		}
	}
	return n
}

func (m *mode) scaleUp(want uint64) {
	have := m.runnable()
	if have >= want {
		return
	}
	next := uint64(1)
	for ; have < want && !m.Full(); next++ {
		// The slots are in order and mostly without gaps: this is found at once.
		s := m.Group.MakeSlot(book.SlotKey{Number: next})
		if !task.AnyWanted(s) {
			m.Create(s, visit.Order{Version: m.VersionForNew(), StartAfter: m.Now, Held: m.Predecessor(s)})
			have++
		}
	}
}

// scaleDown keeps the best slots: running before others, then so that the fullest nodes lose their surplus, then the low
// slot numbers.
func (m *mode) scaleDown(want uint64) {
	if uint64(len(m.Group.Slots)) <= want {
		return
	}
	var slots []*book.Slot
	for _, s := range m.Group.Slots {
		if task.AnyWanted(s) {
			slots = append(slots, s)
		}
	}
	if uint64(len(slots)) <= want {
		return
	}
	m.RestOnService(m.Group)
	surplus := m.rank(slots)[want:]
	slices.SortFunc(surplus, func(a, b *book.Slot) int { return cmp.Compare(a.Key.Number, b.Key.Number) })
	for _, s := range surplus {
		if m.Full() {
			return
		}
		m.RemoveSlot(s, "scaled down")
	}
}

// rank orders slots by how much they are worth keeping. Every comparison ends at the slot number, so that equal states
// give equal choices.
func (m *mode) rank(slots []*book.Slot) []*book.Slot {
	idle := map[*book.Slot]int{}
	for _, s := range slots {
		idle[s] = m.Idle(s)
	}
	slots = slices.Clone(slots)
	slices.SortStableFunc(slots, func(a, b *book.Slot) int {
		return cmp.Or(cmp.Compare(idle[a], idle[b]), cmp.Compare(a.Key.Number, b.Key.Number))
	})
	copies, nth := map[string]int{}, map[*book.Slot]int{}
	for _, s := range slots {
		node, one := m.onlyNode(s)
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
func (m *mode) onlyNode(s *book.Slot) (node string, ok bool) {
	n := 0
	for _, t := range s.Tasks {
		if task.Wanted(t) {
			n++
			node = t.GetDecided().GetNodeId()
			ok = node != "" && !m.Lost(t)
		}
	}
	return node, ok && n == 1
}
