// Package local serves the machine's own agent on a unix socket: a task that died is taken out before the cluster knows, and
// connections are counted for it.
//
// The socket's mode is the authorization: root and the group of its folder may open it, nobody else. A Service is safe for concurrent use.
package local

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// Service implements meshv1.LocalServiceServer.
type Service struct {
	meshv1.UnimplementedLocalServiceServer
	// Out takes a task out.
	Out func(task string)
	// Count tells what was led to services that scale by it.
	Count func() (*meshv1.ConnectionsResponse, error)
	// Plane is what carries the machine's published ports and what encrypts, with a channel that is closed when that changes.
	Plane func() (*meshv1.DataplaneResponse, <-chan struct{})
	// Network shows people what the machine's network is like.
	Network logsv1.NodeNetworkServiceServer
}

// Connections counts what this machine's mesh has led to services that scale by it.
func (s *Service) Connections(context.Context, *meshv1.ConnectionsRequest) (*meshv1.ConnectionsResponse, error) {
	return s.Count()
}

// Dataplane says what carries this machine's published ports, and what encrypts. It waits for another answer than the caller has.
func (s *Service) Dataplane(ctx context.Context, r *meshv1.DataplaneRequest) (*meshv1.DataplaneResponse, error) {
	for {
		plane, changed := s.Plane()
		if plane.GetSerial() != r.GetSeen() {
			return plane, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Withdraw takes a dead task out of this machine's tables before the cluster knows.
func (s *Service) Withdraw(_ context.Context, r *meshv1.WithdrawRequest) (*meshv1.WithdrawResponse, error) {
	if r.GetTaskId() == "" {
		return nil, errs.Faults("withdraw", errs.Fault{Field: "task_id", Reason: "name the task"})
	}
	s.Out(r.GetTaskId())
	return &meshv1.WithdrawResponse{}, nil
}

// Serve answers on the socket until ctx ends.
func (s *Service) Serve(ctx context.Context, env run.Env, socket string) error {
	l, err := env.Net.Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(errs.UnaryServer()), grpc.StreamInterceptor(errs.StreamServer()), grpc.WaitForHandlers(true))
	meshv1.RegisterLocalServiceServer(server, s)
	logsv1.RegisterNodeNetworkServiceServer(server, s.Network)
	stopped := context.AfterFunc(ctx, server.Stop) // a withdrawal takes no time: there is nothing to wait for
	defer stopped()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve on %s: %w", socket, err)
	}
	return nil
}
