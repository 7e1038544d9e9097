package liveness

import (
	"iter"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// changed are the machines whose objects the store has changed since the tick before.
type changed struct {
	all bool // it may be any
	ids map[string]struct{}
}

// changed looks at what is new in s. It moves on: what it told of is not told again.
func (m *Monitor) changed(s *state.Snapshot) changed {
	keys, known := s.ChangedSince(m.looked)
	m.looked = s.Version()
	if !known {
		return changed{all: true}
	}
	c := changed{ids: map[string]struct{}{}}
	for _, k := range keys {
		if k.Kind == typesv1.Kind_KIND_NODE {
			c.ids[k.ID] = struct{}{}
		}
	}
	return c
}

func (c changed) has(id string) bool {
	_, ok := c.ids[id]
	return ok || c.all
}

// nodes are those of them that exist.
func (c changed) nodes(s *state.Snapshot) iter.Seq[*typesv1.Node] {
	if c.all {
		return s.Nodes()
	}
	return func(yield func(*typesv1.Node) bool) {
		for id := range c.ids {
			if n := s.Node(id); n != nil && !yield(n) {
				return
			}
		}
	}
}
