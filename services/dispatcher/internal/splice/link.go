package splice

import (
	"context"
	"sync"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// depth is how many messages wait between the two ends of a link. A reader that is slow holds up the writer by HTTP/2's
// windows, so this is all that a call ever costs here beside those.
const depth = 4

// link joins a person's call and an agent's stream. Each end has one handler, which alone sends on its own stream.
type link struct {
	node   string
	joined chan struct{} // closed when the agent has come
	down   chan []byte   // requests, to the agent; closed by the person's reader at their end
	up     chan []byte   // responses, to the person; closed by the agent's reader at their end

	once  sync.Once
	ended chan struct{} // closed when either side is over
	err   error         // why; set before ended is closed
}

func newLink(node string) *link {
	return &link{
		node: node, joined: make(chan struct{}), ended: make(chan struct{}),
		down: make(chan []byte, depth), up: make(chan []byte, depth),
	}
}

// end ends both sides; the first reason counts.
func (l *link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.ended)
	})
}

// put hands a message to the other side, or waits until there is room.
func (l *link) put(to chan<- []byte, m []byte) error {
	select {
	case to <- m:
		return nil
	case <-l.ended:
		return l.err
	}
}

// pass sends what comes until there is no more; over says whether the other side ended before.
func (l *link) pass(from <-chan []byte, send func([]byte) error) (over bool, err error) {
	for {
		select {
		case m, more := <-from:
			if !more {
				return false, nil
			}
			if err := send(m); err != nil {
				return false, err
			}
		case <-l.ended:
			return true, l.err
		}
	}
}

// whileIn calls f beside ctx: a Send that waits for a slow reader does not hold up the end of the caller's rights.
func whileIn(ctx context.Context, f func() error) error {
	done := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, f() })
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		if cause := context.Cause(ctx); errs.KindOf(cause) != errs.None {
			return cause
		}
		return ctx.Err()
	}
}
