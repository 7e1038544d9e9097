package preempt

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// Search finds rooms for one task after another of a spec version, each time the one that a look at all nodes would find. What
// it has found on a node holds until the node changes, so that only the first task costs a look at all.
type Search struct {
	*Ask
	began bool
	rooms []*candidate // the best first; some are out of date
	looks map[*place.Node]*candidate
}

// candidate is a node with room on it, and the price.
type candidate struct {
	room  Room
	price cost
}

// Find is the best of the nodes that are open and have changed since the last time (the first time: of all) and of those found
// before: where the victims' highest class is lowest, then where they are fewest, then where they are newest, then the first.
func (s *Search) Find(changed []*place.Node, open func(n *place.Node) bool) (best Room, ok bool) {
	for _, n := range changed {
		delete(s.looks, n)
		if !open(n) {
			continue
		}
		if room, price, fits := s.on(n); fits {
			s.add(&candidate{room, price})
		}
	}
	if !s.began {
		slices.SortFunc(s.rooms, (*candidate).compare)
		s.began = true
	}
	for len(s.rooms) > 0 {
		c := s.rooms[0]
		if n := c.room.Node; s.looks[n] == c && !n.Full {
			best = c.room
			s.without(n, slices.Concat(best.Leaving, best.Victims), func() { best.Reserved = s.Request.Reserved(n) })
			return best, true
		}
		s.rooms = s.rooms[1:]
	}
	return Room{}, false
}

func (s *Search) add(c *candidate) {
	if s.looks == nil {
		s.looks = map[*place.Node]*candidate{}
	}
	s.looks[c.room.Node] = c
	if !s.began { // sorted in the end
		s.rooms = append(s.rooms, c)
		return
	}
	at, _ := slices.BinarySearchFunc(s.rooms, c, (*candidate).compare)
	s.rooms = slices.Insert(s.rooms, at, c)
}

func (c *candidate) compare(o *candidate) int {
	return cmp.Or(c.price.compare(o.price), cmp.Compare(c.room.Node.Ord, o.room.Node.Ord))
}

// cost is what a room costs others.
type cost struct {
	victims int
	class   int32 // the highest
	oldest  time.Time
}

func costOf(victims []victim) cost {
	c := cost{victims: len(victims)}
	for i, t := range victims {
		if i == 0 || t.class > c.class {
			c.class = t.class
		}
		if i == 0 || t.created.Before(c.oldest) {
			c.oldest = t.created
		}
	}
	return c
}

func (c cost) compare(o cost) int {
	if c.victims == 0 || o.victims == 0 {
		return cmp.Compare(c.victims, o.victims)
	}
	return cmp.Or(cmp.Compare(c.class, o.class), cmp.Compare(c.victims, o.victims), o.oldest.Compare(c.oldest))
}
