// Package forward passes people's calls on to the process that answers them, with the person's identity beside the
// gateway's own.
//
// It owns the list of services that a gateway offers. It never looks into a message: a call is passed on whole, and the
// receiver checks the method against the person's role. Safe for concurrent use.
package forward

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
)

// Offered are the services that people may call through a gateway, by the role of the process that answers.
func Offered() map[authzv1.Role][]grpc.ServiceDesc {
	return map[authzv1.Role][]grpc.ServiceDesc{
		authzv1.Role_ROLE_STORE: {
			controlv1.ServiceService_ServiceDesc, controlv1.TaskService_ServiceDesc, controlv1.NodeService_ServiceDesc,
			controlv1.NetworkService_ServiceDesc, controlv1.ClusterService_ServiceDesc, controlv1.MemberService_ServiceDesc,
			controlv1.PreviewService_ServiceDesc, controlv1.SecretService_ServiceDesc, controlv1.ConfigService_ServiceDesc,
			controlv1.SlotVolumeService_ServiceDesc, controlv1.RegistryService_ServiceDesc,
		},
		authzv1.Role_ROLE_SCHEDULER: {schedulerv1.ExplainService_ServiceDesc, schedulerv1.PlanService_ServiceDesc},
		authzv1.Role_ROLE_CA:        {cav1.TokenService_ServiceDesc},
	}
}

// Forwarder passes calls on. It is a grpc.ClientConnInterface for unary calls: the REST side uses it as its client.
type Forwarder struct {
	self  identity.ID
	conns map[string]grpc.ClientConnInterface // by service name
}

// New makes one; conns has a connection a role of Offered.
func New(self identity.ID, conns map[authzv1.Role]grpc.ClientConnInterface) *Forwarder {
	f := &Forwarder{self: self, conns: map[string]grpc.ClientConnInterface{}}
	for role, services := range Offered() {
		for _, s := range services {
			f.conns[s.ServiceName] = conns[role]
		}
	}
	return f
}

// Invoke passes one call on. The caller is the context's.
func (f *Forwarder) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return errs.New(errs.Denied, "a call needs a client certificate")
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	conn := f.conns[service]
	if conn == nil {
		return errs.New(errs.NotFound, "this gateway does not offer %s", method)
	}
	return conn.Invoke(rpc.Forward(ctx, caller, f.self), method, in, out, opts...)
}

// NewStream refuses: no service that is offered has streams.
func (f *Forwarder) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errs.New(errs.NotFound, "this gateway offers no streams")
}

// Register offers all services on a gRPC server.
func (f *Forwarder) Register(server grpc.ServiceRegistrar) error {
	for _, services := range Offered() {
		for _, s := range services {
			desc, err := f.describe(s)
			if err != nil {
				return err
			}
			server.RegisterService(desc, f)
		}
	}
	return nil
}

// describe makes a service of the same shape whose methods pass on.
func (f *Forwarder) describe(of grpc.ServiceDesc) (*grpc.ServiceDesc, error) {
	desc := &grpc.ServiceDesc{ServiceName: of.ServiceName, HandlerType: (*any)(nil), Metadata: of.Metadata}
	for _, m := range of.Methods {
		in, out, err := messagesOf(of.ServiceName, m.MethodName)
		if err != nil {
			return nil, err
		}
		full := "/" + of.ServiceName + "/" + m.MethodName
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: m.MethodName, Handler: f.handler(full, in, out)})
	}
	return desc, nil
}

func (f *Forwarder) handler(full string, in, out protoreflect.MessageType) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		req := in.New().Interface()
		if err := dec(req); err != nil {
			return nil, err
		}
		pass := func(ctx context.Context, req any) (any, error) {
			resp := out.New().Interface()
			if err := f.Invoke(ctx, full, req, resp); err != nil {
				return nil, err
			}
			return resp, nil
		}
		if intercept == nil {
			return pass(ctx, req)
		}
		return intercept(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, pass)
	}
}

func messagesOf(service, method string) (in, out protoreflect.MessageType, err error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, nil, fmt.Errorf("find service %s: %w", service, err)
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, nil, errs.New(errs.Internal, "%s is no service", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(method))
	if in, err = protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName()); err != nil {
		return nil, nil, fmt.Errorf("find request of %s: %w", method, err)
	}
	if out, err = protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName()); err != nil {
		return nil, nil, fmt.Errorf("find response of %s: %w", method, err)
	}
	return in, out, nil
}
