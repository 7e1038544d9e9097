package hollow

import (
	"sync"
	"time"
)

const (
	// backAtOnce is how many machines that have lost their sessions come back at the same time: some more than are about to connect,
	// so that none waits for a place there in vain. backLimit is how long one of them may hold up the next.
	backAtOnce = 96
	backLimit  = 5 * time.Second
)

// turns lets machines that have lost their sessions come back a few at a time. An agent that finds no place to connect gives up after a
// second and tries again a second later; each try costs a client. Real machines have a processor each for that. Here thousands of tries a
// second would take those that the others' sessions need.
type turns struct {
	places chan struct{}
	over   chan struct{}
	end    func() // nobody waits any more
}

func newTurns() *turns {
	over := make(chan struct{})
	return &turns{places: make(chan struct{}, backAtOnce), over: over, end: sync.OnceFunc(func() { close(over) })}
}

// wait waits for a turn, in the order in which machines come. The turn ends with back, or after the limit.
func (t *turns) wait(limit time.Duration) (back func()) {
	select {
	case t.places <- struct{}{}:
	case <-t.over:
		return func() {}
	}
	leave := sync.OnceFunc(func() { <-t.places })
	late := time.AfterFunc(limit, leave)
	return func() { late.Stop(); leave() }
}
