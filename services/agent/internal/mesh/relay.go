package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// relay passes calls about the machine's network on to the meshproxy, which alone may look at it.
type relay struct {
	logsv1.UnimplementedNodeNetworkServiceServer

	client logsv1.NodeNetworkServiceClient
}

// Relay answers them.
func (p *Proxy) Relay() logsv1.NodeNetworkServiceServer {
	return relay{client: logsv1.NewNodeNetworkServiceClient(p.conn)}
}

// ExamineNetwork implements NodeNetworkService.
func (r relay) ExamineNetwork(req *logsv1.ExamineNetworkRequest, out grpc.ServerStreamingServer[logsv1.ExamineNetworkResponse]) error {
	return pass(out, func(ctx context.Context) (grpc.ServerStreamingClient[logsv1.ExamineNetworkResponse], error) {
		return r.client.ExamineNetwork(ctx, req)
	})
}

// TraceService implements NodeNetworkService.
func (r relay) TraceService(req *logsv1.TraceServiceRequest, out grpc.ServerStreamingServer[logsv1.TraceServiceResponse]) error {
	return pass(out, func(ctx context.Context) (grpc.ServerStreamingClient[logsv1.TraceServiceResponse], error) {
		return r.client.TraceService(ctx, req)
	})
}

// ListConnections implements NodeNetworkService.
func (r relay) ListConnections(req *logsv1.ListConnectionsRequest, out grpc.ServerStreamingServer[logsv1.ListConnectionsResponse]) error {
	return pass(out, func(ctx context.Context) (grpc.ServerStreamingClient[logsv1.ListConnectionsResponse], error) {
		return r.client.ListConnections(ctx, req)
	})
}

// pass hands on what the meshproxy answers.
func pass[T any](out grpc.ServerStreamingServer[T], call func(context.Context) (grpc.ServerStreamingClient[T], error)) error {
	in, err := call(out.Context())
	if err != nil {
		return fmt.Errorf("ask the machine's meshproxy: %w", err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask the machine's meshproxy: %w", err)
		}
		if err := out.Send(m); err != nil {
			return err
		}
	}
}
