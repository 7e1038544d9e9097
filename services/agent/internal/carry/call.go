package carry

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

type carrying = grpc.BidiStreamingClient[dispatcherv1.CarryRequest, dispatcherv1.CarryResponse]

// window is how many requests the dispatcher sends beyond those that the handler has taken. So there is room for all that
// comes, and the stream's end is heard behind them, whatever the handler does.
const window = 4

// call is a carried call as a handler sees it: a grpc.ServerStream. One goroutine may send while another receives.
type call struct {
	ctx    context.Context //nolint:containedctx // a stream is its context: grpc.ServerStream has it as a method
	stream carrying
	in     chan []byte // requests; closed at their end

	mu   sync.Mutex // guards sending on the stream
	over bool       // nothing more may be sent
}

func newCall(ctx context.Context, stream carrying) *call {
	return &call{ctx: ctx, stream: stream, in: make(chan []byte, window)}
}

func (c *call) send(m *dispatcherv1.CarryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return io.EOF
	}
	return c.stream.Send(m)
}

// finish says how the call has ended. A fault is that the stream has ended, which its reader hears.
func (c *call) finish(err error) {
	_ = c.send(&dispatcherv1.CarryRequest{Message: &dispatcherv1.CarryRequest_End{End: errs.Encode(err)}})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	_ = c.stream.CloseSend()
}

// listen reads requests until the stream ends. A caller whose requests are not taken is held up by the dispatcher.
func (c *call) listen() error {
	open := true
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *dispatcherv1.CarryResponse_Request:
			if !open {
				return errs.New(errs.Invalid, "a request after the last")
			}
			select {
			case c.in <- m.Request:
			default:
				return errs.New(errs.Invalid, "more than %d requests that nobody has taken", window)
			}
		case *dispatcherv1.CarryResponse_End:
			if open {
				close(c.in)
			}
			open = false
		}
	}
}

// Context ends with the call.
func (c *call) Context() context.Context { return c.ctx }

// RecvMsg takes the next request; io.EOF after the last.
func (c *call) RecvMsg(m any) error {
	select {
	case raw, more := <-c.in:
		if !more {
			return io.EOF
		}
		_ = c.send(&dispatcherv1.CarryRequest{Message: &dispatcherv1.CarryRequest_Taken{Taken: 1}}) // the reader hears of a fault
		msg, ok := m.(proto.Message)
		if !ok {
			return errs.New(errs.Internal, "%T is no message", m)
		}
		if err := proto.Unmarshal(raw, msg); err != nil {
			return errs.New(errs.Invalid, "the request can't be read: %w", err)
		}
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// SendMsg sends a response. A caller that reads slowly holds it up.
func (c *call) SendMsg(m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return errs.New(errs.Internal, "%T is no message", m)
	}
	raw, err := proto.Marshal(msg)
	if err != nil {
		return err
	}
	if err := c.send(&dispatcherv1.CarryRequest{Message: &dispatcherv1.CarryRequest_Response{Response: raw}}); err != nil {
		return errs.New(errs.Unavailable, "the caller has gone")
	}
	return nil
}

// SetHeader, SendHeader and SetTrailer are for metadata, which is not carried.
func (c *call) SetHeader(metadata.MD) error { return nil }

// SendHeader is as SetHeader.
func (c *call) SendHeader(metadata.MD) error { return nil }

// SetTrailer is as SetHeader.
func (c *call) SetTrailer(metadata.MD) {}
