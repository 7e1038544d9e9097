// Package shards has maps by id that are never changed once made: the next one shares with the last all but what has changed.
//
// It owns the structure alone, and must never look into what is kept. It is pure. A Map is safe for concurrent use.
package shards

import (
	"iter"
	"maps"
	"slices"
)

// count is how many pieces a map is in. A change copies the list of them and one piece: with 5,000 ids about 256 pointers and 20
// values instead of 5,000.
const count = 256

// Map leads from ids to values. Its zero value is empty. The zero value of V says that an id is not there.
type Map[V comparable] struct {
	pieces *[count]*piece[V]
	len    int
}

// piece is never changed once it is in a Map: another pointer is another content.
type piece[V comparable] struct{ of map[string]V }

// at is the piece that an id is in, by FNV-1a: the same in all maps, so that two of them can be compared piece by piece.
func at(id string) int {
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return int((h ^ h>>16) % count)
}

// Get is the value of an id, or the zero value.
func (m Map[V]) Get(id string) (v V) {
	if m.pieces == nil {
		return v
	}
	if p := m.pieces[at(id)]; p != nil {
		return p.of[id]
	}
	return v
}

// Len counts the ids.
func (m Map[V]) Len() int { return m.len }

// All walks all of it, in no order.
func (m Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if m.pieces == nil {
			return
		}
		for _, p := range m.pieces {
			if p == nil {
				continue
			}
			for id, v := range p.of {
				if !yield(id, v) {
					return
				}
			}
		}
	}
}

// InOrder walks the values in the order of ids.
func (m Map[V]) InOrder() iter.Seq[V] {
	return func(yield func(V) bool) {
		ids := make([]string, 0, m.len)
		for id := range m.All() {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			if !yield(m.Get(id)) {
				return
			}
		}
	}
}

// With is the map after these have been put; what has the zero value is taken away. Changed is not kept.
func (m Map[V]) With(changed map[string]V) Map[V] {
	if len(changed) == 0 {
		return m
	}
	next := Map[V]{pieces: new([count]*piece[V]), len: m.len}
	if m.pieces != nil {
		*next.pieces = *m.pieces
	}
	var zero V
	var mine [count]bool
	for id, v := range changed {
		i := at(id)
		if !mine[i] {
			mine[i] = true
			next.pieces[i] = next.pieces[i].copy()
		}
		of := next.pieces[i].of
		before := len(of)
		if v == zero {
			delete(of, id)
		} else {
			of[id] = v
		}
		next.len += len(of) - before
	}
	return next
}

func (p *piece[V]) copy() *piece[V] {
	if p == nil {
		return &piece[V]{of: map[string]V{}}
	}
	return &piece[V]{of: maps.Clone(p.of)}
}

// Differing walks the ids that have another value in o than here, or are in one of the two alone, in no order. Between a map and
// one that was made from it the cost is that of the change.
func (m Map[V]) Differing(o Map[V]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range count {
			a, b := m.piece(i), o.piece(i)
			if a == b {
				continue
			}
			for id, v := range a.all() {
				if b.get(id) != v && !yield(id) {
					return
				}
			}
			for id := range b.all() {
				if _, both := a.all()[id]; !both && !yield(id) {
					return
				}
			}
		}
	}
}

// Equal says that nothing differs.
func (m Map[V]) Equal(o Map[V]) bool {
	for range m.Differing(o) {
		return false
	}
	return true
}

func (m Map[V]) piece(i int) *piece[V] {
	if m.pieces == nil {
		return nil
	}
	return m.pieces[i]
}

func (p *piece[V]) all() map[string]V {
	if p == nil {
		return nil
	}
	return p.of
}

func (p *piece[V]) get(id string) V { return p.all()[id] }
