package place

import (
	"slices"

	"github.com/shoalproject/shoal/internal/constraint"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const preferNoSchedule = typesv1.TaintEffect_TAINT_EFFECT_PREFER_NO_SCHEDULE

func isBinpack(r *Request) bool {
	return r.Strategy == typesv1.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK
}

// branch is the part of the nodes that have the same values of the labels that preferences name. The innermost, and the
// root when there are no preferences, hold nodes: a heap with the best on top.
type branch struct {
	value   string
	tasks   int // of the service
	below   []*branch
	entries []entry
	heaped  bool // else the entries are in no order
	asked   bool
}

// descend is the branch of a node one level down; it is made when it is not there. A label that is not there has a branch
// of its own.
func (b *branch) descend(preference string, n *Node) *branch {
	value, _ := constraint.Value(n.Object, preference)
	i, found := slices.BinarySearchFunc(b.below, value, func(x *branch, v string) int {
		switch {
		case x.value < v:
			return -1
		case x.value > v:
			return 1
		}
		return 0
	})
	if !found {
		b.below = slices.Insert(b.below, i, &branch{value: value})
	}
	return b.below[i]
}

func (b *branch) leaf(preferences []string, n *Node) *branch {
	for _, p := range preferences {
		b = b.descend(p, n)
	}
	return b
}

func (b *branch) count(preferences []string, n *Node, tasks int) {
	for _, p := range preferences {
		b = b.descend(p, n)
		b.tasks += tasks
	}
}

// best is the best node of the branch: of the branches below that have one that fits, the one with fewest tasks, and of
// equals the one with the better node. A branch that is full so hands its share to the others.
func (b *branch) best(p *Picker) (best entry, ok bool) {
	if len(b.below) == 0 {
		return b.top(p)
	}
	fewest := 0
	for _, x := range b.below {
		if ok && x.tasks > fewest {
			continue
		}
		if e, fits := x.best(p); fits && (!ok || x.tasks < fewest || e.less(best)) {
			best, fewest, ok = e, x.tasks, true
		}
	}
	return best, ok
}

// top is the best node of the heap, whose entries may be out of date.
func (b *branch) top(p *Picker) (entry, bool) {
	b.order()
	for len(b.entries) > 0 {
		if b.settle(p) {
			return b.entries[0], true
		}
		b.order()
	}
	return entry{}, false
}

// settle brings the top entry up to date. It reports whether the top was as it should be; else another may be on top now.
func (b *branch) settle(p *Picker) bool {
	n := b.entries[0].node
	if p.Refuses(n) != None {
		last := len(b.entries) - 1
		b.entries[0] = b.entries[last]
		b.entries = b.entries[:last]
		b.sink()
		return false
	}
	now := p.key(n)
	if now == b.entries[0] {
		return true
	}
	b.entries[0] = now
	b.sink()
	return false
}

// sink gives the top entry its place after a change; without a heap the next question looks for the best again.
func (b *branch) sink() {
	if b.heaped {
		b.down(0)
	}
}

// order puts the best on top: the first time by looking for it, for often only one is asked for; then by making a heap.
func (b *branch) order() {
	if b.heaped || len(b.entries) == 0 {
		return
	}
	if b.asked {
		b.heapify()
		return
	}
	b.asked = true
	least := 0
	for i := range b.entries {
		if b.entries[i].less(b.entries[least]) {
			least = i
		}
	}
	b.entries[0], b.entries[least] = b.entries[least], b.entries[0]
}

func (b *branch) heapify() {
	if b.heaped {
		return
	}
	b.heaped = true
	for i := len(b.entries)/2 - 1; i >= 0; i-- {
		b.down(i)
	}
}

func (b *branch) push(e entry) {
	b.entries = append(b.entries, e)
	if !b.heaped {
		b.heapify() // rare: a node that was not on top has changed
		return
	}
	for i := len(b.entries) - 1; i > 0; {
		up := (i - 1) / 2
		if !b.entries[i].less(b.entries[up]) {
			return
		}
		b.entries[i], b.entries[up] = b.entries[up], b.entries[i]
		i = up
	}
}

func (b *branch) down(i int) {
	for {
		least, l := i, 2*i+1
		for c := l; c < l+2 && c < len(b.entries); c++ {
			if b.entries[c].less(b.entries[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		b.entries[i], b.entries[least] = b.entries[least], b.entries[i]
		i = least
	}
}

// neighbourhood is one affinity with the tasks that it counts.
type neighbourhood struct {
	anti, preferred bool
	own             bool // its own service's tasks count too
	topology        string
	tasks           map[string]int // by value of the topology
	total           int
}

func newNeighbourhood(a *typesv1.Affinity, tasks map[*Node]int) neighbourhood {
	h := neighbourhood{anti: a.GetAnti(), preferred: a.GetPreferred(), topology: a.GetTopology(), tasks: map[string]int{}}
	for n, count := range tasks {
		if n == nil { // the caller's sign that the service itself is among those that count
			h.own = true
			continue
		}
		h.count(n, count)
	}
	return h
}

func (h *neighbourhood) domain(n *Node) string {
	if h.topology == "" {
		return n.ID()
	}
	v, _ := constraint.Value(n.Object, h.topology)
	return v
}

func (h *neighbourhood) count(n *Node, tasks int) {
	h.tasks[h.domain(n)] += tasks
	h.total += tasks
}

// add counts tasks of the service itself.
func (h *neighbourhood) add(n *Node, tasks int) {
	if h.own {
		h.count(n, tasks)
	}
}

// holds reports whether the node is where the affinity wants it. The first task of a service that wants to be near itself
// may go anywhere.
func (h *neighbourhood) holds(n *Node) bool {
	if h.anti {
		return h.tasks[h.domain(n)] == 0
	}
	return h.tasks[h.domain(n)] > 0 || h.own && h.total == 0
}
