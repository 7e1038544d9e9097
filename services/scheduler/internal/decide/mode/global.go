package mode

import (
	"cmp"
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

// fillNodes makes a task on each node that should have one and has none. Once all were looked at, only those that have
// changed are, and those whose slot has.
func (m *mode) fillNodes(iteration uint64) {
	g, at := m.Group, m.Book.Placement
	nodes := m.Book.Nodes
	if g.Filled > 0 && g.FilledRun == iteration && g.FilledBy == m.Target {
		nodes = m.unsettled(g.Filled)
	}
	g.Filled = 0
	for _, n := range nodes {
		if m.Full() {
			return
		}
		key := book.SlotKey{Iteration: iteration, Node: n.ID()}
		s := g.Slot(key)
		if s != nil {
			s.Filled = true // what is made below takes that back, until it is committed
		}
		if m.BelongsOn(n) && (s == nil || !slices.ContainsFunc(s.Tasks, book.Wanted) && !m.completed(s)) {
			s = g.MakeSlot(key)
			m.Create(s, visit.Order{Version: m.VersionForNew(), StartAfter: m.Now, Held: m.Predecessor(s)})
		}
	}
	g.Filled, g.FilledRun, g.FilledBy = at, iteration, m.Target
}

// unsettled are the nodes that have changed since then, and those whose slot has, in the order of ids.
func (m *mode) unsettled(since uint64) (out []*place.Node) {
	for _, n := range m.Book.Nodes {
		if n.Changed > since {
			out = append(out, n)
		}
	}
	for _, s := range m.Group.Slots {
		if s.Filled {
			continue
		}
		if n := m.Book.Node(s.Key.Node); n != nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *place.Node) int { return cmp.Compare(a.Ord, b.Ord) })
	return slices.Compact(out)
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
		for _, t := range s.Now() {
			switch {
			case !book.Wanted(t) || m.done(s, t):
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
