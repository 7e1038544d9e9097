package mode

import (
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// reconcileGlobal brings a service that has one task on each node nearer to its spec. Its slots are the nodes.
func (m *mode) reconcileGlobal() {
	// Step 1: what is there is mended, or stopped where it may not be any more.
	m.EachSlot(m.tendOnNode)
	// Step 2: nodes that have come, or may have a task again.
	m.fillNodes(0)
	// Step 3: slots of an older spec, a few at a time.
	m.Roll()
}

// fillNodes makes a task on each node that should have one and has none.
func (m *mode) fillNodes(iteration uint64) {
	for _, n := range m.Book.Nodes {
		if m.Full() {
			return
		}
		if !m.BelongsOn(n) {
			continue
		}
		key := book.SlotKey{Iteration: iteration, Node: n.ID()}
		if s := m.Group.Slot(key); s == nil || !slices.ContainsFunc(s.Tasks, book.Wanted) && !m.completed(s) {
			s = m.Group.MakeSlot(key)
			m.Create(s, visit.Order{Version: m.VersionForNew(), StartAfter: m.Now, Held: m.Predecessor(s)})
		}
	}
}

// completed reports whether a job has run to its end on a slot: it never runs there again, though its node may have left and
// come back to those that are meant.
func (m *mode) completed(s *book.Slot) bool {
	return s.Key.Iteration > 0 && slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return t.GetObserved().GetState() == task.Complete })
}

// tendOnNode sees to the slot of one node.
func (m *mode) tendOnNode(s *book.Slot) {
	n := m.Book.Node(s.Key.Node)
	switch {
	case n == nil:
		m.RemoveSlot(s, "its node was removed")
		return
	case n.Drains() || n.Active() && !m.BelongsOn(n):
		for _, t := range slices.Clone(s.Tasks) {
			switch {
			case !book.Wanted(t):
			case n.Drains():
				m.Stop(t, "node "+n.Name()+" is drained")
			case t.GetDecided().GetNodeId() == "":
				m.Drop(t)
			case m.Request(m.Target).MayStay(n) != place.None || task.Dead(t):
				m.Raise(t, task.Shutdown, "node "+n.Name()+" "+m.Request(m.Target).Unmet(n))
			}
		}
		m.Reap(s)
		return
	}
	m.Tend(s)
}
