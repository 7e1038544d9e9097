package decide

import (
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// reconcileGlobal brings a service that has one task on each node nearer to its spec. Its slots are the nodes.
func (v *visit) reconcileGlobal() {
	// Step 1: what is there is mended, or stopped where it may not be any more.
	v.eachSlot(v.tendOnNode)
	// Step 2: nodes that have come, or may have a task again.
	v.fillNodes(0)
	// Step 3: slots of an older spec, a few at a time.
	v.roll()
}

// fillNodes makes a task on each node that should have one and has none.
func (v *visit) fillNodes(iteration uint64) {
	for _, n := range v.w.book.Nodes {
		if v.w.full() {
			return
		}
		if !v.belongsOn(n) {
			continue
		}
		key := book.SlotKey{Iteration: iteration, Node: n.ID()}
		if s := v.g.Slot(key); s == nil || !slices.ContainsFunc(s.Tasks, book.Wanted) {
			s = v.g.MakeSlot(key)
			v.create(s, order{version: v.versionForNew(), startAfter: v.w.now, held: v.predecessor(s)})
		}
	}
}

// belongsOn reports whether a node should have a task of the service: it takes tasks and is one of those that the spec
// means. Whether there is room is another question: if not, the task waits.
func (v *visit) belongsOn(n *place.Node) bool {
	return n.Active() && v.request(v.target).Eligible(n) == place.None
}

// stays reports whether a slot is to have a task at all.
func (v *visit) stays(s *book.Slot) bool {
	if s.Key.Node == "" {
		return true
	}
	n := v.w.book.Node(s.Key.Node)
	return n != nil && v.belongsOn(n)
}

// tendOnNode sees to the slot of one node.
func (v *visit) tendOnNode(s *book.Slot) {
	n := v.w.book.Node(s.Key.Node)
	switch {
	case n == nil:
		v.removeSlot(s, "its node was removed")
		return
	case n.Drains() || n.Active() && !v.belongsOn(n):
		for _, t := range slices.Clone(s.Tasks) {
			switch {
			case !book.Wanted(t):
			case n.Drains():
				v.stop(t, "node "+n.Name()+" is drained")
			case t.GetDecided().GetNodeId() == "":
				v.drop(t)
			case v.mayStayOn(n) != place.None || dead(t):
				v.raise(t, shutdown, "node "+n.Name()+" "+v.request(v.target).Unmet(n))
			}
		}
		v.reap(s)
		return
	}
	v.tend(s)
}

// mayStayOn is the filter that a task which runs on the node does not pass any more.
func (v *visit) mayStayOn(n *place.Node) place.Cause { return v.request(v.target).MayStay(n) }

// alive reports whether a slot has a task that is wanted and has not ended.
func alive(s *book.Slot) bool {
	return slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return wanted(t) && !dead(t) })
}
