package authztest

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// stub serves any service: it counts and answers with nothing.
type stub struct {
	reached atomic.Int64
}

// describe makes what a server registers. Messages are empty ones: the bytes of any request fit, as unknown fields.
func (s *stub) describe(d protoreflect.ServiceDescriptor) *grpc.ServiceDesc {
	out := &grpc.ServiceDesc{ServiceName: string(d.FullName()), HandlerType: (*any)(nil), Metadata: d.ParentFile().Path()}
	for i := range d.Methods().Len() {
		m := d.Methods().Get(i)
		if m.IsStreamingClient() || m.IsStreamingServer() {
			out.Streams = append(out.Streams, grpc.StreamDesc{
				StreamName: string(m.Name()), Handler: s.stream, ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient(),
			})
			continue
		}
		full := "/" + string(d.FullName()) + "/" + string(m.Name())
		out.Methods = append(out.Methods, grpc.MethodDesc{MethodName: string(m.Name()), Handler: s.unary(full)})
	}
	return out
}

func (s *stub) unary(method string) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := &emptypb.Empty{}
		if err := decode(in); err != nil {
			return nil, err
		}
		handle := func(context.Context, any) (any, error) {
			s.reached.Add(1)
			return &emptypb.Empty{}, nil
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: method}, handle)
	}
}

func (s *stub) stream(_ any, ss grpc.ServerStream) error {
	s.reached.Add(1)
	return ss.SendMsg(&emptypb.Empty{})
}
