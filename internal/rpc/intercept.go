package rpc

import (
	"context"
	"errors"
	"runtime/debug"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// allow answers who the caller is, or refuses. It looks at the trust of this moment: the connection may be older.
func (s *Server) allow(ctx context.Context, method string) (Caller, error) {
	p, _ := PeerOf(ctx)
	caller, err := callerOf(ctx, p)
	if err == nil {
		err = s.rules.Check(method, caller, authz.Peer{ID: p.ID, Expired: p.Expired})
	}
	if err == nil {
		err = s.notDenied(caller, p)
	}
	if err != nil {
		s.env.Log.Warn("call refused", "method", method, "peer", p.ID.Member(), "reason", err.Error())
		return Caller{}, err
	}
	return caller, nil
}

func (s *Server) notDenied(caller Caller, p identity.Peer) error {
	for _, entry := range []string{caller.Principal.Member(), p.ID.Member(), p.Serial} {
		if entry != "" && s.keep.Denied(entry) {
			return errs.New(errs.Denied, "%s has been removed from the cluster", entry)
		}
	}
	return nil
}

func (s *Server) allowUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	caller, err := s.allow(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	ctx, done := s.ledger.open(WithCaller(ctx, caller), caller, false)
	defer done()
	return handler(ctx, req)
}

// allowStream does little itself: its stack is there for as long as the stream, and so are those of thousands. What is deep, to
// let the stream in, is done beside it.
func (s *Server) allowStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	r := <-run.Async(ss.Context(), func(ctx context.Context) (served, error) { return s.begin(ctx, info.FullMethod) })
	if r.Err != nil {
		return r.Err
	}
	defer r.Value.done()
	return why(r.Value.ctx, ss.Context(), handler(srv, endingStream{ss, r.Value.ctx}))
}

// served is a stream that is being served.
type served struct {
	ctx  context.Context //nolint:containedctx // as in endingStream
	done func()
}

// begin lets a stream in, and notes it.
func (s *Server) begin(ctx context.Context, method string) (served, error) {
	caller, err := s.allow(ctx, method)
	if err != nil {
		return served{}, err
	}
	ctx, done := s.ledger.open(WithCaller(ctx, caller), caller, true)
	// Rights that ended between allow and open were not seen by a sweep: look once more, now that one would see it.
	if s.keep.Denied(caller.Principal.Member()) {
		done()
		return served{}, errs.New(errs.Denied, "%s has been removed from the cluster", caller.Principal)
	}
	return served{ctx, done}, nil
}

// why is why a stream ends: why we ended it says more than what its handler made of that.
func why(ctx, peers context.Context, err error) error {
	if cause := context.Cause(ctx); ctx.Err() != nil && peers.Err() == nil && errs.KindOf(cause) != errs.None {
		return cause
	}
	return err
}

// endingStream has a context that ends with the caller's rights, and does not outlive it in Recv and Send.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream is its context: grpc.ServerStream has it as a method
}

func (s endingStream) Context() context.Context { return s.ctx }

func (s endingStream) SendMsg(m any) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg beside the context would need a goroutine a message; handlers that wait in Recv end with their connection.
func (s endingStream) RecvMsg(m any) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return s.ServerStream.RecvMsg(m)
}

func (s *Server) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = s.caught(recover(), info.FullMethod, err) }()
	return handler(ctx, req)
}

func (s *Server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() { err = s.caught(recover(), info.FullMethod, err) }()
	return handler(srv, ss)
}

// caught makes an error of a handler's panic, also of one beside it that it returns. The peer is told that it is our fault, and
// no more.
func (s *Server) caught(v any, method string, err error) error {
	panicked := &run.PanicError{Value: v}
	if v != nil {
		panicked.Stack = debug.Stack()
	} else if !errors.As(err, &panicked) {
		return err
	}
	s.env.Log.Error("handler panicked", "method", method, "panic", panicked.Value, "stack", string(panicked.Stack))
	return errs.New(errs.Internal, "%s failed by a fault of the server; its log has more", method)
}
