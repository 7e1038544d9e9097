// Package rest serves the control API as REST and JSON, by the HTTP rules of the protos.
//
// It owns what HTTP adds: the size of a body, the form of an error, and the OpenAPI document. Authorization is the same as
// for gRPC: the registry's rule of the method that a path leads to. Safe for concurrent use.
package rest

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/proto/openapi"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
)

// New makes the handler; conn passes calls on, maxBody bounds a request in bytes, and streams answers what is answered in this process.
func New(ctx context.Context, conn grpc.ClientConnInterface, rules *authz.Registry, maxBody int64, streams Streams) (http.Handler, error) {
	mux := runtime.NewServeMux(
		// No header of a client becomes metadata of a call: who the caller is says the certificate alone.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{EmitDefaultValues: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}),
	)
	client := &checked{conn: conn, rules: rules}
	for _, register := range handlers(ctx, mux, client, &volumes{server: streams.Volumes(), rules: rules}) {
		if err := register(); err != nil {
			return nil, fmt.Errorf("register rest handlers: %w", err)
		}
	}
	root := http.NewServeMux()
	root.Handle("GET /v1/logs", identify(&logStream{server: streams.Logs(), rules: rules}))
	root.Handle("/v1/", identify(bounded(mux, maxBody)))
	root.HandleFunc("GET /openapi.json", document)
	return root, nil
}

// handlers register the services that are offered.
func handlers(ctx context.Context, mux *runtime.ServeMux, client grpc.ClientConnInterface, v *volumes) []func() error {
	return []func() error{
		func() error {
			return controlv1.RegisterServiceServiceHandlerClient(ctx, mux, controlv1.NewServiceServiceClient(client))
		},
		func() error {
			return controlv1.RegisterTaskServiceHandlerClient(ctx, mux, controlv1.NewTaskServiceClient(client))
		},
		func() error {
			return controlv1.RegisterNodeServiceHandlerClient(ctx, mux, controlv1.NewNodeServiceClient(client))
		},
		func() error {
			return controlv1.RegisterNetworkServiceHandlerClient(ctx, mux, controlv1.NewNetworkServiceClient(client))
		},
		func() error {
			return controlv1.RegisterClusterServiceHandlerClient(ctx, mux, controlv1.NewClusterServiceClient(client))
		},
		func() error {
			return controlv1.RegisterMemberServiceHandlerClient(ctx, mux, controlv1.NewMemberServiceClient(client))
		},
		func() error {
			return controlv1.RegisterPreviewServiceHandlerClient(ctx, mux, controlv1.NewPreviewServiceClient(client))
		},
		func() error {
			return controlv1.RegisterSecretServiceHandlerClient(ctx, mux, controlv1.NewSecretServiceClient(client))
		},
		func() error {
			return controlv1.RegisterConfigServiceHandlerClient(ctx, mux, controlv1.NewConfigServiceClient(client))
		},
		func() error {
			return controlv1.RegisterSlotVolumeServiceHandlerClient(ctx, mux, controlv1.NewSlotVolumeServiceClient(client))
		},
		func() error {
			return logsv1.RegisterVolumeServiceHandlerClient(ctx, mux, v)
		},
		func() error {
			return controlv1.RegisterRegistryServiceHandlerClient(ctx, mux, controlv1.NewRegistryServiceClient(client))
		},
		func() error {
			return schedulerv1.RegisterExplainServiceHandlerClient(ctx, mux, schedulerv1.NewExplainServiceClient(client))
		},
		func() error {
			return schedulerv1.RegisterPlanServiceHandlerClient(ctx, mux, schedulerv1.NewPlanServiceClient(client))
		},
		func() error {
			return cav1.RegisterTokenServiceHandlerClient(ctx, mux, cav1.NewTokenServiceClient(client))
		},
	}
}

func document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// The client is gone if this fails; there is nobody left to tell.
	_, _ = w.Write(openapi.Document)
}

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 30 * time.Second

// bounded limits a body in size and time. One that says that it is larger is refused before it is read; one that does not
// say is cut, and the call is then refused as malformed.
func bounded(next http.Handler, maxBody int64) http.Handler {
	limited := http.MaxBytesHandler(next, maxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBody {
			http.Error(w, fmt.Sprintf("the body has %d bytes, at most %d are taken", r.ContentLength, maxBody),
				http.StatusRequestEntityTooLarge)
			return
		}
		// A writer that can't set deadlines is a test's.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		limited.ServeHTTP(w, r)
	})
}

// identify puts the client's identity where a gRPC call would have it.
func identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := rpc.Caller{Principal: identity.ID{Role: authzv1.Role_ROLE_ANONYMOUS}}
		if peer, ok := rpc.PeerOfRequest(r); ok {
			caller.Principal = peer.ID
		}
		next.ServeHTTP(w, r.WithContext(rpc.WithCaller(r.Context(), caller)))
	})
}

// checked authorizes before it passes on, and gives errors the form that grpc-gateway turns into HTTP.
type checked struct {
	conn  grpc.ClientConnInterface
	rules *authz.Registry
}

func (c *checked) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	caller, _ := rpc.CallerOf(ctx)
	if err := c.rules.Check(method, caller, authz.Peer{ID: caller.Principal}); err != nil {
		return errs.ToStatus(err)
	}
	if err := c.conn.Invoke(ctx, method, in, out, opts...); err != nil {
		return errs.ToStatus(err)
	}
	return nil
}

func (c *checked) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.conn.NewStream(ctx, d, method, opts...)
}
