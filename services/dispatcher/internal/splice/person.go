package splice

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

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// Carried are the services whose calls are carried to agents. The first request of each call names a task, or a node.
func Carried() []grpc.ServiceDesc {
	return []grpc.ServiceDesc{logsv1.TaskReadService_ServiceDesc, logsv1.ExecService_ServiceDesc, logsv1.NodeVolumeService_ServiceDesc, logsv1.NodeNetworkService_ServiceDesc}
}

// Register offers the carried services.
func (s *Server) Register(server grpc.ServiceRegistrar) error {
	for _, of := range Carried() {
		desc := &grpc.ServiceDesc{ServiceName: of.ServiceName, HandlerType: (*any)(nil), Metadata: of.Metadata}
		for _, m := range of.Streams {
			h, err := s.handler("/" + of.ServiceName + "/" + m.StreamName)
			if err != nil {
				return err
			}
			desc.Streams = append(desc.Streams, grpc.StreamDesc{
				StreamName: m.StreamName, Handler: h, ServerStreams: true, ClientStreams: m.ClientStreams,
			})
		}
		server.RegisterService(desc, s)
	}
	return nil
}

// call is one kind of call.
type call struct {
	method  string
	in, out protoreflect.MessageType
}

func (s *Server) handler(method string) (grpc.StreamHandler, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method[1:], "/", ".")))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", method, err)
	}
	md, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, errs.New(errs.Internal, "%s is no method", method)
	}
	c := call{method: method}
	if c.in, err = protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName()); err != nil {
		return nil, fmt.Errorf("find the request of %s: %w", method, err)
	}
	if c.out, err = protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName()); err != nil {
		return nil, fmt.Errorf("find the response of %s: %w", method, err)
	}
	return func(_ any, stream grpc.ServerStream) error { return s.serve(stream, c) }, nil
}

// serve is a person's end of a call.
func (s *Server) serve(stream grpc.ServerStream, c call) error {
	ctx := stream.Context()
	// Step 1: the first request says which task or node is meant.
	first := c.in.New().Interface()
	if err := whileIn(ctx, func() error { return stream.RecvMsg(first) }); err != nil {
		if errors.Is(err, io.EOF) {
			return unnamed()
		}
		return err
	}
	t, err := s.locate(ctx, first)
	if err != nil {
		return err
	}
	// Step 2: its machine comes.
	l, leave, err := s.connect(ctx, t, c.method)
	if err != nil {
		return err
	}
	defer leave()
	// Step 3: what the person says goes down, what the agent answers goes up. The agent's end is the call's.
	if t.task != "" { // the agent knows its tasks by id
		m := first.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("task"), protoreflect.ValueOfString(t.task))
	}
	message, err := proto.Marshal(first)
	if err != nil {
		return err
	}
	if err := l.put(l.down, message); err != nil {
		return err
	}
	heard := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, hear(stream, c, l) })
	err = whileIn(ctx, func() error { return s.answer(stream, c, l, heard) })
	l.end(errs.New(errs.Unavailable, "the caller has gone"))
	return err
}

// hear reads the person's requests to their end.
func hear(stream grpc.ServerStream, c call, l *link) error {
	for {
		m := c.in.New().Interface()
		if err := stream.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				close(l.down)
				return nil
			}
			return err
		}
		raw, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		if err := l.put(l.down, raw); err != nil {
			return nil //nolint:nilerr // the other side has said why
		}
	}
}

// answer sends the agent's responses until the call ends.
func (s *Server) answer(stream grpc.ServerStream, c call, l *link, heard <-chan run.Result[struct{}]) error {
	send := func(raw []byte) error {
		m := c.out.New().Interface()
		if err := proto.Unmarshal(raw, m); err != nil {
			return errs.New(errs.Internal, "the machine's answer can't be read: %w", err)
		}
		return stream.SendMsg(m)
	}
	for {
		select {
		case raw, more := <-l.up:
			if !more {
				return l.err // set before up is closed
			}
			if err := send(raw); err != nil {
				return err
			}
		case r := <-heard:
			if r.Err != nil {
				return r.Err
			}
			heard = nil
		case <-s.draining:
			return stops()
		}
	}
}
