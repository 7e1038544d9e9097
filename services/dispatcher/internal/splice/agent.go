package splice

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

type carry = grpc.BidiStreamingServer[dispatcherv1.CarryRequest, dispatcherv1.CarryResponse]

// Carry is an agent's end of a call.
func (s *Server) Carry(stream carry) error {
	ctx := stream.Context()
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return errs.New(errs.Denied, "a data stream needs a certificate")
	}
	var first *dispatcherv1.CarryRequest
	err := whileIn(ctx, func() (err error) {
		first, err = stream.Recv()
		return err
	})
	if errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "the first message of a data stream must join one")
	}
	if err != nil {
		return err
	}
	l := s.take(string(first.GetJoin()), caller.Principal.Name)
	if l == nil {
		return errs.New(errs.NotFound, "nobody waits for this stream, or no more")
	}
	close(l.joined)
	run.Async(ctx, func(context.Context) (struct{}, error) {
		err := listen(stream, l)
		l.finish(err)
		return struct{}{}, nil
	})
	// The end of the call is the end of this stream, also while a request waits to be sent.
	sent := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, l.pass(stream.Send) })
	for {
		select {
		case r := <-sent:
			if r.Err != nil {
				return r.Err
			}
			sent = nil
		case <-l.ended:
			return nil
		case <-ctx.Done():
			return over(ctx)
		}
	}
}

// finish is the agent's end of the call: what it has said is still passed on.
func (l *link) finish(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.up)
		close(l.ended)
	})
}

// listen reads the agent's responses to the call's end, and returns how it ended.
func listen(stream carry, l *link) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return errs.New(errs.Unavailable, "the task's machine has broken off")
		}
		switch m := m.GetMessage().(type) {
		case *dispatcherv1.CarryRequest_Response:
			if err := l.put(l.up, m.Response); err != nil {
				return err
			}
		case *dispatcherv1.CarryRequest_Taken:
			if err := l.taken(m.Taken); err != nil {
				return err
			}
		case *dispatcherv1.CarryRequest_End:
			return errs.Decode(m.End)
		default:
			return errs.New(errs.Invalid, "a data stream has no message of this kind")
		}
	}
}
