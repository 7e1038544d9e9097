// Package idpool gives each container that asks for it a range of user and group ids that no other container has.
//
// It owns who has which. It must never give one range to two: what containers are found to have counts, whether or not this machine
// would give it now. It keeps nothing over its own end, since each container carries its range. One goroutine uses a Pool.
package idpool

import (
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Pool is the machine's ranges.
type Pool struct {
	first  uint32
	ranges int
	next   int // the one after that which was given last, so that one that was given back rests
	held   map[string]container.IDs
	taken  map[container.IDs]int
}

// New has ranges from the id first on.
func New(first uint32, ranges int) *Pool {
	return &Pool{first: first, ranges: ranges, held: map[string]container.IDs{}, taken: map[container.IDs]int{}}
}

// Take is a container's range: the one that it has, else a free one. Unavailable: there is none.
func (p *Pool) Take(id string) (container.IDs, error) {
	if has, ok := p.held[id]; ok {
		return has, nil
	}
	for i := range p.ranges {
		n := (p.next + i) % p.ranges
		ids := container.IDs{First: p.first + uint32(n)*container.IDCount}
		if p.taken[ids] == 0 {
			p.next = n + 1
			p.Hold(id, ids)
			return ids, nil
		}
	}
	return container.IDs{}, errs.New(errs.Unavailable, "waits for user ids: all %d ranges of this node are in use", p.ranges)
}

// Hold says that a container has been found to have a range.
func (p *Pool) Hold(id string, ids container.IDs) {
	if !ids.Mapped() {
		return
	}
	p.Free(id)
	p.held[id] = ids
	p.taken[ids]++
}

// Free gives back what a container has, if it has one: nothing of it is left.
func (p *Pool) Free(id string) {
	ids, ok := p.held[id]
	if !ok {
		return
	}
	delete(p.held, id)
	if p.taken[ids]--; p.taken[ids] == 0 {
		delete(p.taken, ids)
	}
}
