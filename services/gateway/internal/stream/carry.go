package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// maxHops bounds how often a call is sent on to another dispatcher: a machine that moves meanwhile is followed, two
// dispatchers that disagree are not.
const maxHops = 4

// method is a call about one task or node, which is passed on as it is.
type method struct {
	desc    grpc.StreamDesc
	full    string
	in, out protoreflect.MessageType
}

// registerCarried offers the services whose calls are about one task or node.
func (s *Server) registerCarried(server grpc.ServiceRegistrar) error {
	for _, of := range []grpc.ServiceDesc{
		logsv1.TaskReadService_ServiceDesc, logsv1.ExecService_ServiceDesc, logsv1.NodeVolumeService_ServiceDesc, logsv1.NodeNetworkService_ServiceDesc,
	} {
		desc := &grpc.ServiceDesc{ServiceName: of.ServiceName, HandlerType: (*any)(nil), Metadata: of.Metadata}
		for _, m := range of.Streams {
			one, err := describe(of.ServiceName, m)
			if err != nil {
				return err
			}
			desc.Streams = append(desc.Streams, grpc.StreamDesc{
				StreamName: m.StreamName, ServerStreams: true, ClientStreams: m.ClientStreams,
				Handler: func(_ any, stream grpc.ServerStream) error { return s.carry(stream, one) },
			})
		}
		server.RegisterService(desc, s)
	}
	return nil
}

func describe(service string, of grpc.StreamDesc) (m method, err error) {
	m = method{desc: grpc.StreamDesc{StreamName: of.StreamName, ServerStreams: true, ClientStreams: of.ClientStreams}, full: "/" + service + "/" + of.StreamName}
	name := protoreflect.FullName(strings.ReplaceAll(m.full[1:], "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return m, fmt.Errorf("find %s: %w", name, err)
	}
	md, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return m, errs.New(errs.Internal, "%s is no method", name)
	}
	if m.in, err = protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName()); err != nil {
		return m, fmt.Errorf("find the request of %s: %w", name, err)
	}
	if m.out, err = protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName()); err != nil {
		return m, fmt.Errorf("find the response of %s: %w", name, err)
	}
	return m, nil
}

// carry passes one call on.
func (s *Server) carry(stream grpc.ServerStream, m method) error {
	ctx, err := s.as(stream.Context())
	if err != nil {
		return err
	}
	first := m.in.New().Interface()
	if err := whileIn(ctx, func() error { return stream.RecvMsg(first) }); err != nil {
		if errors.Is(err, io.EOF) {
			return errs.New(errs.Invalid, "the first request must name a task or a node")
		}
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Its machine answers every call at once, before it hears more. So nothing but the first request has to be said again.
	down, answer, err := s.find(ctx, m, first)
	if err != nil {
		return err
	}
	heard := run.Async(ctx, func(context.Context) (struct{}, error) {
		if !m.desc.ClientStreams {
			return struct{}{}, nil
		}
		return struct{}{}, pass(stream, down, m)
	})
	return whileIn(ctx, func() error {
		for {
			if err := stream.SendMsg(answer); err != nil {
				return err
			}
			answer = m.out.New().Interface()
			if err := down.RecvMsg(answer); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				select {
				case r := <-heard:
					return errors.Join(r.Err, err)
				default:
					return err
				}
			}
		}
	})
}

// find asks dispatchers until one has the task's machine, and returns the call with its first answer.
func (s *Server) find(ctx context.Context, m method, first proto.Message) (grpc.ClientStream, proto.Message, error) {
	to := ""
	for range maxHops {
		conn, err := s.dispatchers.at(to)
		if err != nil {
			return nil, nil, err
		}
		down, answer, err := begin(ctx, conn, m, first)
		if err == nil {
			return down, answer, nil
		}
		if to = directory.MovedTo(err); to == "" {
			return nil, nil, err
		}
	}
	return nil, nil, errs.New(errs.Unavailable, "the task's machine changes its dispatcher; try again")
}

func begin(ctx context.Context, conn grpc.ClientConnInterface, m method, first proto.Message) (grpc.ClientStream, proto.Message, error) {
	own, cancel := context.WithCancel(ctx)
	down, err := conn.NewStream(own, &m.desc, m.full)
	answer := m.out.New().Interface()
	if err == nil {
		if err = down.SendMsg(first); err == nil && !m.desc.ClientStreams {
			err = down.CloseSend() // a server waits for the end of a single request
		}
		if err == nil || errors.Is(err, io.EOF) { // the answer says why
			err = down.RecvMsg(answer)
		}
	}
	if err != nil {
		cancel()
		if errors.Is(err, io.EOF) {
			err = errs.New(errs.Unavailable, "the task's machine has said nothing")
		}
		return nil, nil, err
	}
	context.AfterFunc(ctx, cancel)
	return down, answer, nil
}

// pass sends on what the person says, to its end.
func pass(stream grpc.ServerStream, down grpc.ClientStream, m method) error {
	for {
		req := m.in.New().Interface()
		if err := stream.RecvMsg(req); err != nil {
			if errors.Is(err, io.EOF) {
				return down.CloseSend()
			}
			return err
		}
		if err := down.SendMsg(req); err != nil {
			return nil //nolint:nilerr // grpc tells why to the reader only
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
		return context.Cause(ctx)
	}
}
