package rpc

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	retryFirst = 20 * time.Millisecond
	retryMost  = 500 * time.Millisecond
	// tryFirst is the patience of a first try: a member that has vanished must not use up the whole deadline. Each later
	// try has twice as much, so that a slow answer is not cut for ever.
	tryFirst = time.Second
)

// clientCalls is what every call of a client goes through.
type clientCalls struct {
	env  run.Env
	keep *identity.Keeper // nil for a client without an identity
	wait bool             // wait for a connection, for as long as the deadline allows
}

func (c clientCalls) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callLimit)
		defer cancel()
	}
	if !c.wait {
		return c.hint(invoke(ctx, method, req, reply, cc, opts...))
	}
	if !repeatable(method, req) {
		// It may be sent once. Waiting for a connection is no risk: nothing has been sent yet.
		return c.hint(invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(true))...))
	}
	patience, spare := tryFirst, spareOf(ctx)
	var told error
	for delay := retryFirst; ; delay = min(2*delay, retryMost) {
		err := try(ctx, patience, func(ctx context.Context) error { return invoke(ctx, method, req, reply, cc, opts...) })
		again := worthAnother(ctx, err)
		if isTimeUp(err) || again {
			told = moreTelling(told, err)
			err = told
		}
		if !again || says(err) && left(ctx) < spare {
			return c.hint(err)
		}
		if run.Sleep(ctx, min(c.env.Rand.Jitter(delay, 0.5), max(left(ctx)-spare, retryFirst))) != nil {
			return c.hint(err)
		}
		patience *= 2
	}
}

// spareOf is the part of a deadline in which a refusal in words is passed on instead of being tried again: whoever set the
// deadline stops listening at its end, and "deadline exceeded" tells a person nothing.
func spareOf(ctx context.Context) time.Duration { return min(left(ctx)/5, time.Second) }

func left(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline() // there is one: unary sees to it
	return time.Until(deadline)
}

// moreTelling keeps the latest of the best: what a server said, then why none was reached, then that the time was up.
func moreTelling(before, now error) error {
	switch {
	case before == nil, says(now), !says(before) && !isTimeUp(now):
		return now
	}
	return before
}

// says reports whether a server of ours gave the reason.
func says(err error) bool { return len(status.Convert(err).Details()) > 0 }

func isTimeUp(err error) bool { return status.Code(err) == codes.DeadlineExceeded }

func try(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f(ctx)
}

// worthAnother: nobody was there, or the try's own time was up while the caller's is not.
func worthAnother(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// repeatable says that a call may reach two members: it only reads, its proto says it is idempotent, or the request
// carries an id by which the store knows it again.
func repeatable(method string, req any) bool {
	full := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	name := method[strings.LastIndex(method, "/")+1:]
	if strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") {
		return true
	}
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(full)); err == nil {
		if o, ok := d.Options().(*descriptorpb.MethodOptions); ok && o.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
			return true
		}
	}
	m, ok := req.(proto.Message)
	return ok && hasRequestID(m.ProtoReflect())
}

func hasRequestID(m protoreflect.Message) bool {
	fields := m.Descriptor().Fields()
	if f := fields.ByName("request_id"); f != nil && f.Kind() == protoreflect.StringKind {
		return m.Get(f).String() != ""
	}
	if f := fields.ByName("transaction"); f != nil && f.Kind() == protoreflect.MessageKind && m.Has(f) {
		return hasRequestID(m.Get(f).Message())
	}
	return false
}

func (c clientCalls) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	return s, c.hint(err)
}

// hint adds to a failed connection what a server can't say in a TLS alert: that our own certificate is not valid now.
func (c clientCalls) hint(err error) error {
	if c.keep == nil || status.Code(err) != codes.Unavailable {
		return err
	}
	cert, now := c.keep.Certificate(), c.env.Now()
	if !now.Before(cert.NotBefore) && !now.After(cert.NotAfter) {
		return err
	}
	return status.Errorf(codes.Unavailable, "%s (this side's certificate is valid from %s to %s, and it is %s on this machine's clock)",
		status.Convert(err).Message(), cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
}
