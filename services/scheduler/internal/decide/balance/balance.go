// Package balance says which task of a service should move to make its tasks more even, if any.
//
// It owns the rule, and with it the promise that nothing goes back and forth. It is pure, and knows neither when to ask nor
// how a task is moved.
//
// The rule compares level by level: the values of the first label that placement is spread over, those of the next, and so on,
// then the nodes themselves. At the first level at which source and target differ by two tasks or more, the move is made; by
// one, the levels below decide; less, and it is not made. Where all levels are even the load of the machines decides: the
// source must stay fuller than the target becomes, by Threshold.
//
// Why it ends: at the level that decides, a move takes away from the sum of the squares of the counts, and leaves those of the
// levels above as they are. Where the load decides, it leaves all of them, and both machines end up less full than the source
// was. What is moved back would have to do the same the other way.
package balance

import (
	"strings"

	"github.com/shoalproject/shoal/internal/constraint"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// Threshold is how much fuller, in thousandths of a machine, a source must be than the target becomes, where all else is even.
const Threshold = 100

// even is the difference of two counts that no move can make smaller.
const even = 1

// View is what a service has where.
type View struct {
	Request *place.Request
	// Count is the number of its tasks on a node, without those that are about to leave it.
	Count map[*place.Node]int
	// Targets are the nodes that take one more task, those that are best first.
	Targets []*place.Node
	// Gives reports whether a node has a task that may be moved.
	Gives func(*place.Node) bool
	// Unsettled are nodes whose load is changing: there it does not count.
	Unsettled map[*place.Node]bool
	// Only is a node that must be source or target; nil: any.
	Only *place.Node
}

// Move is one task's way.
type Move struct {
	From, To *place.Node
	// level is the one that decides; gain is how much: tasks, or thousandths of a machine.
	level int
	gain  int64
}

// better orders moves: what is most uneven first, then the order of ids, so that equal states give equal moves.
func (m *Move) better(o *Move) bool {
	switch {
	case o == nil || m.level != o.level:
		return o == nil || m.level < o.level
	case m.gain != o.gain:
		return m.gain > o.gain
	case m.From != o.From:
		return m.From.Ord < o.From.Ord
	}
	return m.To.Ord < o.To.Ord
}

// Next is the move that makes most more even; nil when there is none.
func (v View) Next() *Move {
	sums := v.sums()
	from, to := v.sources(), v.targets()
	var best *Move
	for _, f := range from {
		for _, t := range to {
			if m := v.judge(f, t, sums); m != nil && m.better(best) {
				best = m
			}
		}
	}
	return best
}

// sums counts the tasks by the path of labels, for each level of preferences.
func (v View) sums() map[string]int {
	out := map[string]int{}
	for n, count := range v.Count {
		if n.Down() {
			continue
		}
		for i := range v.Request.Preferences {
			out[v.path(n, i+1)] += count
		}
	}
	return out
}

// path is the values of the first labels of a node.
func (v View) path(n *place.Node, levels int) string {
	var b strings.Builder
	for _, p := range v.Request.Preferences[:levels] {
		value, _ := constraint.Value(n.Object, p)
		b.WriteString(value)
		b.WriteByte(0)
	}
	return b.String()
}

// sources are the nodes that come into question: of each path the one with most tasks, and of equals the fullest; and the one
// that it is all about.
func (v View) sources() map[string]*place.Node {
	out := map[string]*place.Node{}
	for n, count := range v.Count {
		if count == 0 || !v.Gives(n) {
			continue
		}
		path := v.path(n, len(v.Request.Preferences))
		if o := out[path]; o == nil || n != v.Only && v.fuller(n, o) && o != v.Only || n == v.Only {
			out[path] = n
		}
	}
	return out
}

func (v View) fuller(a, b *place.Node) bool {
	switch x, y := v.Count[a], v.Count[b]; {
	case x != y:
		return x > y
	case a.Load() != b.Load():
		return a.Load() > b.Load()
	}
	return a.Ord < b.Ord
}

// targets are the nodes that come into question: of each path the emptiest, and the one that it is all about.
func (v View) targets() map[string]*place.Node {
	out := map[string]*place.Node{}
	for _, n := range v.Targets {
		path := v.path(n, len(v.Request.Preferences))
		if o := out[path]; o == nil || n != v.Only && v.fuller(o, n) && o != v.Only || n == v.Only {
			out[path] = n
		}
	}
	return out
}

// judge is the move if the rule makes it.
func (v View) judge(from, to *place.Node, sums map[string]int) *Move {
	if from == to || v.Only != nil && from != v.Only && to != v.Only {
		return nil
	}
	levels := len(v.Request.Preferences)
	for level := range levels + 1 {
		have, gets := v.Count[from], v.Count[to]
		if level < levels {
			a, b := v.path(from, level+1), v.path(to, level+1)
			if a == b {
				continue
			}
			have, gets = sums[a], sums[b]
		}
		switch d := have - gets; {
		case d > even:
			return &Move{From: from, To: to, level: level, gain: int64(d)}
		case d < even:
			return nil
		}
	}
	if v.Unsettled[from] || v.Unsettled[to] {
		return nil
	}
	gain := int64(from.Load()) - int64(to.Load()+v.Request.Weight(to))
	if gain < Threshold {
		return nil
	}
	return &Move{From: from, To: to, level: levels + 1, gain: gain}
}
