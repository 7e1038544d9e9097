package place

import (
	"maps"
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// pieces are the generic resources of one kind on a node: an amount, or named ones.
type pieces struct {
	have  int64
	used  int64
	names map[string]int // those there are, and how often each is held
}

// offer sets what the machine has; what is held stays held.
func (n *Node) offer(list []*typesv1.GenericResource) {
	for _, p := range n.pieces {
		p.have = 0
		maps.DeleteFunc(p.names, func(_ string, held int) bool { return held == 0 })
	}
	for _, g := range list {
		p := n.kind(g.GetKind())
		if g.GetNamed() == "" {
			p.have += g.GetDiscrete()
			continue
		}
		p.have++
		if p.names == nil {
			p.names = map[string]int{}
		}
		p.names[g.GetNamed()] += 0
	}
}

func (n *Node) kind(k string) *pieces {
	if n.pieces == nil {
		n.pieces = map[string]*pieces{}
	}
	if n.pieces[k] == nil {
		n.pieces[k] = &pieces{}
	}
	return n.pieces[k]
}

// take holds one entry of a task, or gives it back.
func (n *Node) take(g *typesv1.GenericResource, sign int64) {
	p := n.kind(g.GetKind())
	if g.GetNamed() == "" {
		p.used += sign * g.GetDiscrete()
		return
	}
	p.used += sign
	if p.names == nil {
		p.names = map[string]int{}
	}
	p.names[g.GetNamed()] += int(sign)
}

// lacks is the first kind of which the node has too little free, "" if none.
func (n *Node) lacks(need []*typesv1.GenericResource) string {
	for _, g := range need {
		p := n.pieces[g.GetKind()]
		if g.GetNamed() != "" {
			if p == nil {
				return g.GetKind()
			}
			if held, there := p.names[g.GetNamed()]; !there || held > 0 {
				return g.GetKind()
			}
			continue
		}
		if p == nil || p.have-p.used < g.GetDiscrete() {
			return g.GetKind()
		}
	}
	return ""
}

// assign picks the named pieces for an amount, the first free ones in the order of names; where a node has no names the
// amount stays.
func (n *Node) assign(need []*typesv1.GenericResource) (out []*typesv1.GenericResource) {
	for _, g := range need {
		p := n.pieces[g.GetKind()]
		if g.GetNamed() != "" || p == nil || len(p.names) == 0 {
			out = append(out, g)
			continue
		}
		left := g.GetDiscrete()
		for _, name := range slices.Sorted(maps.Keys(p.names)) {
			if left > 0 && p.names[name] == 0 {
				out = append(out, &typesv1.GenericResource{Kind: g.GetKind(), Named: name})
				left--
			}
		}
	}
	return out
}
