// Package gate bounds how much is done at once, and is fair between those who wait.
//
// It owns the places and the order of who is next: of each kind (the agent's: a service) one after another, so that a thousand of one
// kind keep nobody of another waiting for more than his turn. It must never hold a place for somebody who has given up. Everything
// is safe for concurrent use.
package gate

import (
	"context"
	"slices"
	"sync"
)

// Gate lets so many pass at once.
type Gate struct {
	mu      sync.Mutex                 // guards all
	free    int                        // places
	waiting map[string][]chan struct{} // by kind, in the order in which they came
	order   []string                   // kinds of which somebody waits, the next one first
}

// New has so many places.
func New(places int) *Gate {
	return &Gate{free: max(places, 1), waiting: map[string][]chan struct{}{}}
}

// Pass waits for a place, and gives it back when leave is called, once. The error is the context's.
func (g *Gate) Pass(ctx context.Context, kind string) (leave func(), err error) {
	turn := g.queue(kind)
	select {
	case <-turn:
		return g.leave, nil
	case <-ctx.Done():
		g.giveUp(kind, turn)
		return nil, ctx.Err()
	}
}

// queue takes a place, or the last one in the queue of its kind.
func (g *Gate) queue(kind string) chan struct{} {
	turn := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free > 0 {
		g.free--
		close(turn)
		return turn
	}
	if len(g.waiting[kind]) == 0 {
		g.order = append(g.order, kind)
	}
	g.waiting[kind] = append(g.waiting[kind], turn)
	return turn
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next()
}

// next gives a place to whose turn it is. It needs the lock.
func (g *Gate) next() {
	if len(g.order) == 0 {
		g.free++
		return
	}
	kind := g.order[0]
	g.order = g.order[1:]
	close(g.waiting[kind][0])
	if g.waiting[kind] = g.waiting[kind][1:]; len(g.waiting[kind]) > 0 {
		g.order = append(g.order, kind)
	} else {
		delete(g.waiting, kind)
	}
}

func (g *Gate) giveUp(kind string, turn chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting[kind], turn)
	if i < 0 {
		g.next() // its turn has just come
		return
	}
	if g.waiting[kind] = slices.Delete(g.waiting[kind], i, i+1); len(g.waiting[kind]) == 0 {
		delete(g.waiting, kind)
		g.order = slices.DeleteFunc(g.order, func(k string) bool { return k == kind })
	}
}
