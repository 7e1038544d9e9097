package book

import (
	"cmp"
	"math"
	"slices"

	"github.com/tidwall/btree"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// ladders are the nodes in the order of their load, so that the best one for a task is found without looking at all. There
// is one for each class of requests that is asked for again and again, with the nodes that such requests may use: else a
// walk would pass all others each time.
type ladders struct {
	all []*ladder
	// moved are the nodes whose load or machine has changed, each ladder has followed them up to a place of its own.
	moved []*place.Node
	// followed is the farthest of these places.
	followed int
	uses     uint64
}

const (
	// maxLadders bounds the classes that are remembered; of more, the one that was not used for longest goes.
	maxLadders = 16
	// worthIt is from which use on a class has a ladder of its own.
	worthIt = 2
	// anyClass is that of the ladder that leaves no node out.
	anyClass = "any"
)

// ladder is the nodes that one class of requests may use.
type ladder struct {
	class    string
	asked    int
	lastUse  uint64
	rungs    *btree.Set[uint64] // nil: not asked for often enough
	at       []perch            // by the node's seat
	followed int                // of ladders.moved
	numbered uint64             // as the book was when the rungs were made
}

// perch is where a node stands on a ladder.
type perch struct {
	rung   uint64
	object *typesv1.Node // for which out was found; nil: the node is not known
	out    bool          // the class may not use it
}

// rungOf is a node's load and its place in the order of ids, in one number: what is compared most lies in the tree itself.
func rungOf(load uint64, n *place.Node) uint64 { return load<<32 | uint64(n.Ord) }

// build puts all nodes on the ladder.
func (l *ladder) build(nodes []*place.Node, seats int, usable func(*place.Node) bool) {
	l.at = make([]perch, seats)
	for _, n := range nodes {
		l.at[n.Seat] = perch{rungOf(n.Load(), n), n.Object, !usable(n)}
	}
	l.load(nodes)
}

// renumber follows the order of ids after nodes have come or gone.
func (l *ladder) renumber(nodes []*place.Node) {
	for _, n := range nodes {
		if n.Seat < len(l.at) {
			l.at[n.Seat].rung = rungOf(l.at[n.Seat].rung>>32, n)
		}
	}
	l.load(nodes)
}

func (l *ladder) load(nodes []*place.Node) {
	rungs := make([]uint64, 0, len(nodes))
	for _, n := range nodes {
		if n.Seat < len(l.at) && l.at[n.Seat].object != nil && !l.at[n.Seat].out {
			rungs = append(rungs, l.at[n.Seat].rung)
		}
	}
	slices.Sort(rungs)
	l.rungs = new(btree.Set[uint64])
	for _, r := range rungs {
		l.rungs.Load(r)
	}
}

// set brings one node to its place.
func (l *ladder) set(n *place.Node, usable func(*place.Node) bool) {
	if n.Seat >= len(l.at) {
		l.at = append(l.at, make([]perch, n.Seat+1-len(l.at))...)
	}
	was := l.at[n.Seat]
	is := perch{rungOf(n.Load(), n), n.Object, was.out}
	if was.object != n.Object {
		is.out = !usable(n)
	}
	if is == was {
		return
	}
	l.drop(n.Seat)
	l.at[n.Seat] = is
	if !is.out {
		l.rungs.Insert(is.rung)
	}
}

func (l *ladder) drop(seat int) {
	if seat >= len(l.at) {
		return
	}
	if was := l.at[seat]; was.object != nil && !was.out {
		l.rungs.Delete(was.rung)
	}
	l.at[seat] = perch{}
}

// noteMoved notes that the load of a node, or the machine itself, has changed.
func (b *Book) noteMoved(n *place.Node) {
	l := &b.ladders
	if n == nil || n.Moved > l.followed { // nobody has seen the last time yet
		return
	}
	l.moved = append(l.moved, n)
	n.Moved = len(l.moved)
}

// Moved are the nodes that something has come to or gone from since a mark of this decision, and the next mark.
func (b *Book) Moved(mark int) (nodes []*place.Node, next int) {
	l := &b.ladders
	l.followed = len(l.moved)
	return l.moved[mark:], len(l.moved)
}

// dropFromLadders takes a node away that is about to be forgotten.
func (b *Book) dropFromLadders(n *place.Node) {
	for _, l := range b.ladders.all {
		l.drop(n.Seat)
	}
}

// ByLoad walks the nodes that a request may use by what they are, the least loaded first, and of equals in the order of ids.
// It may pass others too, never leave one out. Nothing may change meanwhile.
func (b *Book) ByLoad(req *place.Request, yield func(*place.Node) bool) {
	usable := func(n *place.Node) bool { return req.Eligible(n) == place.None }
	l := b.ladder(req.Class())
	if l.asked++; l.asked < worthIt && l.rungs == nil {
		l, usable = b.ladder(anyClass), func(*place.Node) bool { return true }
	}
	b.climb(l, usable)
	l.rungs.Scan(func(rung uint64) bool { return yield(b.Nodes[rung&math.MaxUint32]) })
}

// climb brings a ladder up to date.
func (b *Book) climb(l *ladder, usable func(*place.Node) bool) {
	ls := &b.ladders
	switch {
	case l.rungs == nil:
		l.build(b.Nodes, b.seats, usable)
	case l.numbered != b.numbered:
		l.renumber(b.Nodes)
		fallthrough
	default:
		for _, n := range ls.moved[l.followed:] {
			if n.Seat != nowhere {
				l.set(n, usable)
			}
		}
	}
	l.followed, l.numbered = len(ls.moved), b.numbered
	ls.followed = max(ls.followed, l.followed)
}

// ladder is that of a class; it is made without nodes when it is not there.
func (b *Book) ladder(class string) *ladder {
	ls := &b.ladders
	ls.uses++
	at := slices.IndexFunc(ls.all, func(l *ladder) bool { return l.class == class })
	if at < 0 {
		if at = len(ls.all); at == maxLadders {
			oldest := slices.MinFunc(ls.all, func(a, b *ladder) int { return cmp.Compare(a.lastUse, b.lastUse) })
			at = slices.Index(ls.all, oldest)
			ls.all = slices.Delete(ls.all, at, at+1)
			at = len(ls.all)
		}
		ls.all = append(ls.all, &ladder{class: class})
	}
	ls.all[at].lastUse = ls.uses
	return ls.all[at]
}

// tidyLadders forgets what all ladders have followed, once that has become much. A ladder that lags far behind is made anew
// when it is asked for.
func (b *Book) tidyLadders() {
	ls := &b.ladders
	if len(ls.moved) <= 2*len(b.Nodes) {
		return
	}
	for _, l := range ls.all {
		if l.rungs != nil && l.followed < len(ls.moved) {
			l.rungs, l.at = nil, nil
		}
		l.followed = 0
	}
	for _, n := range ls.moved {
		n.Moved = 0
	}
	ls.moved, ls.followed = ls.moved[:0], 0
}
