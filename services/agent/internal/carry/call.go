package carry

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

type carrying = grpc.BidiStreamingClient[dispatcherv1.CarryRequest, dispatcherv1.CarryResponse]

// call is a carried call as a handler sees it: a grpc.ServerStream. One goroutine may send while another receives.
type call struct {
	ctx    context.Context //nolint:containedctx // a stream is its context: grpc.ServerStream has it as a method
	stream carrying
	in     chan []byte // requests; closed at their end
}

func newCall(ctx context.Context, stream carrying) *call {
	return &call{ctx: ctx, stream: stream, in: make(chan []byte, 1)}
}

// listen reads requests until the stream ends. A handler that does not take them holds it up, and so the caller.
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
			case <-c.ctx.Done():
				return c.ctx.Err()
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
	if err := c.stream.Send(&dispatcherv1.CarryRequest{Message: &dispatcherv1.CarryRequest_Response{Response: raw}}); err != nil {
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
