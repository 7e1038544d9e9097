package splice

import (
	"context"
	"sync"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// depth is how many messages wait between the two ends of a link. A reader that is slow holds up the writer by HTTP/2's
// windows, so this is all that a call ever costs here beside those.
const depth = 4

// window is how many requests an agent is sent beyond those that were taken there: it has room for no more.
const window = 4

// link joins a person's call and an agent's stream. Each end has one handler, which alone sends on its own stream.
type link struct {
	node   string
	joined chan struct{} // closed when the agent has come
	down   chan []byte   // requests, to the agent; closed by the person's reader at their end
	up     chan []byte   // responses, to the person; closed by the agent's reader at their end
	room   chan struct{} // a token for each request on its way to the agent that nobody there has taken

	once  sync.Once
	ended chan struct{} // closed when either side is over
	err   error         // why; set before ended is closed
}

func newLink(node string) *link {
	return &link{
		node: node, joined: make(chan struct{}), ended: make(chan struct{}),
		down: make(chan []byte, depth), up: make(chan []byte, depth),
		room: make(chan struct{}, window),
	}
}

// end ends both sides; the first reason counts.
func (l *link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.ended)
	})
}

// put hands a message to the other side, or waits until there is room. After the end there is nobody, whatever room there is.
func (l *link) put(to chan<- []byte, m []byte) error {
	select {
	case <-l.ended:
		return l.err
	default:
	}
	select {
	case to <- m:
		return nil
	case <-l.ended:
		return l.err
	}
}

// pass sends the requests, as far as the agent has room, until there are no more, or the link ends.
func (l *link) pass(send func(*dispatcherv1.CarryResponse) error) error {
	for {
		select {
		case l.room <- struct{}{}:
		case <-l.ended:
			return nil
		}
		select {
		case m, more := <-l.down:
			if !more {
				return send(&dispatcherv1.CarryResponse{Message: &dispatcherv1.CarryResponse_End{End: true}})
			}
			if err := send(&dispatcherv1.CarryResponse{Message: &dispatcherv1.CarryResponse_Request{Request: m}}); err != nil {
				return err
			}
		case <-l.ended:
			return nil
		}
	}
}

// taken makes room for more requests.
func (l *link) taken(n uint32) error {
	for range n {
		select {
		case <-l.room:
		default:
			return errs.New(errs.Invalid, "more requests were taken than sent")
		}
	}
	return nil
}

// whileIn calls f beside ctx: a Send that waits for a slow reader does not hold up the end of the caller's rights.
func whileIn(ctx context.Context, f func() error) error {
	done := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, f() })
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return over(ctx)
	}
}

// over is why ctx has ended.
func over(ctx context.Context) error {
	if cause := context.Cause(ctx); errs.KindOf(cause) != errs.None {
		return cause
	}
	return ctx.Err()
}
