package book

import (
	"iter"

	"github.com/tidwall/btree"

	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// ladder is the nodes in the order of their load, so that the best one for a single task is found without looking at all.
// While a decision is under way the ladder stays as the snapshot has it, and the nodes that the decision has changed stand
// on a second one.
type ladder struct {
	tree *btree.BTreeG[rung]
	at   map[*place.Node]rung
}

type rung struct {
	load uint64
	node *place.Node
}

func newLadder() *ladder {
	return &ladder{at: map[*place.Node]rung{}, tree: btree.NewBTreeGOptions(before, btree.Options{NoLocks: true})}
}

func before(a, b rung) bool {
	return a.load < b.load || a.load == b.load && a.node.ID() < b.node.ID()
}

func (l *ladder) has(n *place.Node) bool {
	_, ok := l.at[n]
	return ok
}

func (l *ladder) set(n *place.Node) {
	r := rung{n.Load(), n}
	if was, ok := l.at[n]; ok {
		if was == r {
			return
		}
		l.tree.Delete(was)
	}
	l.at[n] = r
	l.tree.Set(r)
}

func (l *ladder) drop(n *place.Node) {
	if was, ok := l.at[n]; ok {
		l.tree.Delete(was)
		delete(l.at, n)
	}
}

// moved notes that the load of a node has changed.
func (b *Book) moved(n *place.Node) {
	if n != nil && !n.Moved {
		n.Moved = true
		b.unsorted = append(b.unsorted, n)
	}
}

// sort brings the ladder up to date with what has changed since it was used last.
func (b *Book) sort() {
	l := b.ladder
	if l == nil {
		l = newLadder()
		b.ladder, b.brief = l, b.deciding // made amid a decision it holds what is taken back: it lives no longer
		for _, n := range b.Nodes {
			l.set(n)
		}
	} else if b.deciding && !b.brief {
		if b.shifted == nil {
			b.shifted = newLadder()
		}
		l = b.shifted
	}
	for _, n := range b.unsorted {
		n.Moved = false
		if b.nodes[n.ID()] == n {
			l.set(n)
		}
	}
	b.unsorted = b.unsorted[:0]
}

// Begin starts a decision: what changes from now on is taken back by End.
func (b *Book) Begin() {
	if b.asked {
		b.sort()
	}
	b.deciding = true
}

// End tells that all changes since Begin were taken back.
func (b *Book) End() {
	for _, n := range b.unsorted {
		n.Moved = false
	}
	b.unsorted, b.shifted, b.deciding = b.unsorted[:0], nil, false
	if b.brief {
		b.ladder, b.brief = nil, false
	}
}

// ByLoad walks the nodes, the least loaded first, and of equals in the order of ids. Nothing may change meanwhile.
func (b *Book) ByLoad() iter.Seq[*place.Node] {
	b.asked = true
	b.sort()
	base, over := b.ladder, b.shifted
	if over == nil {
		return func(yield func(*place.Node) bool) {
			base.tree.Scan(func(r rung) bool { return yield(r.node) })
		}
	}
	return func(yield func(*place.Node) bool) {
		it, ot := base.tree.Iter(), over.tree.Iter()
		defer it.Release()
		defer ot.Release()
		more, extra := it.First(), ot.First()
		for more || extra {
			switch {
			case more && over.has(it.Item().node): // it stands on the other one
				more = it.Next()
			case !extra || more && before(it.Item(), ot.Item()):
				if !yield(it.Item().node) {
					return
				}
				more = it.Next()
			default:
				if !yield(ot.Item().node) {
					return
				}
				extra = ot.Next()
			}
		}
	}
}
