package rollout

import (
	"maps"
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/balance"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// evening is one search for moves.
type evening struct {
	r    *Rollout
	view balance.View
	// hasty says that a person has asked: what has just come may move, and nodes that have just come may be used.
	hasty bool
	// movable are the slots on each node whose task may move.
	movable map[*place.Node][]*book.Slot
	// full are the nodes that have turned out to have no address left.
	full map[*place.Node]bool
}

// beginMoves begins as many moves as may be on their way beside those that are, and says how many those were.
func (r *Rollout) beginMoves(now survey, wish *typesv1.Rebalance, once bool) (begun int) {
	moves := r.bounds().moves
	free := min(moves.underWay, moves.missing) - len(now.moving)
	if req := r.Request(r.Target); free <= 0 || req.Packs() || len(req.Volumes) > 0 || req.Fixed || req.Newer {
		return 0
	}
	e := r.evening(now, once)
	if once && wish.GetRequestNodeId() != "" {
		if e.view.Only = r.Book.Node(wish.GetRequestNodeId()); e.view.Only == nil {
			return 0 // it has been removed
		}
	}
	for begun < free && !r.Full() {
		e.view.Targets = e.targets()
		m := e.view.Next()
		if m == nil {
			break
		}
		if e.move(m) {
			begun++
		}
	}
	return begun
}

func (r *Rollout) evening(now survey, hasty bool) *evening {
	e := &evening{r: r, hasty: hasty, movable: map[*place.Node][]*book.Slot{}, full: map[*place.Node]bool{}}
	e.view = balance.View{Request: r.Request(r.Target), Count: maps.Clone(r.Group.OnNode), Unsettled: map[*place.Node]bool{},
		Gives: func(n *place.Node) bool { return len(e.movable[n]) > 0 }}
	for _, m := range now.moving {
		for _, t := range m.leaving {
			from := r.Book.Node(t.GetDecided().GetNodeId())
			e.view.Count[from]--
			e.view.Unsettled[from] = true
		}
		e.view.Unsettled[r.Book.Node(m.staying.GetDecided().GetNodeId())] = true
	}
	for _, s := range r.Group.Slots {
		if t := e.only(s); t != nil {
			n := r.Book.Node(t.GetDecided().GetNodeId())
			e.movable[n] = append(e.movable[n], s)
		}
	}
	return e
}

// only is the task of a slot, if it has just one and that may be moved: it runs and takes traffic, on a node that is in order.
func (e *evening) only(s *book.Slot) (only *typesv1.Task) {
	for _, t := range s.Tasks {
		switch {
		case !book.Wanted(t):
		case only != nil:
			return nil
		default:
			only = t
		}
	}
	if only == nil || !task.Runs(only) || task.Abandoned(only) || !only.GetObserved().GetReady() || !e.r.Book.Node(only.GetDecided().GetNodeId()).Active() {
		return nil
	}
	if until := task.Created(only).Add(rest); !e.hasty && e.r.Now.Before(until) {
		e.r.AtAny(until)
		return nil
	}
	return only
}

// targets are the nodes that take one more task. Where all that counts is the number of tasks and the load, the best is
// enough.
func (e *evening) targets() []*place.Node {
	p := e.r.Picker(e.r.Target)
	if len(e.view.Request.Preferences) == 0 && e.view.Only == nil && len(e.full) == 0 {
		if n, _ := p.Best(); n != nil && p.Welcome(n) && e.steady(n) {
			return []*place.Node{n}
		}
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.r.Book.Nodes), func(n *place.Node) bool { return e.full[n] || !p.Welcome(n) || !e.steady(n) })
}

// steady reports whether a node has been there for so long that it counts on.
func (e *evening) steady(n *place.Node) bool {
	since := n.Object.GetStatus().GetSince()
	if e.hasty || since == nil {
		return true
	}
	until := since.AsTime().Add(e.r.FlapWindow())
	e.r.AtAny(until)
	return !e.r.Now.Before(until)
}

// move begins one: of the tasks on the source the one with the highest slot number goes.
func (e *evening) move(m *balance.Move) bool {
	slots := e.movable[m.From]
	s := slots[len(slots)-1]
	if !e.r.Visit.Move(s, e.only(s), e.r.Target, m.To) {
		e.full[m.To] = true
		return false
	}
	e.movable[m.From] = slots[:len(slots)-1]
	e.view.Count[m.From]--
	e.view.Count[m.To]++
	e.view.Unsettled[m.From], e.view.Unsettled[m.To] = true, true
	return true
}
