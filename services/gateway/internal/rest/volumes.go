package rest

import (
	"context"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// Streams are the services that this process answers itself, by asking nodes.
type Streams interface {
	Logs() logsv1.LogServiceServer
	Volumes() logsv1.VolumeServiceServer
}

// volumes is VolumeService as a client that is answered in this process, authorized as a call over the network is.
type volumes struct {
	server logsv1.VolumeServiceServer
	rules  *authz.Registry
}

func local[Req, Resp any](ctx context.Context, v *volumes, method string, req Req, serve func(context.Context, Req) (Resp, error)) (out Resp, err error) {
	caller, _ := rpc.CallerOf(ctx)
	if err := v.rules.Check(method, caller, authz.Peer{ID: caller.Principal}); err != nil {
		return out, errs.ToStatus(err)
	}
	if out, err = serve(ctx, req); err != nil {
		err = errs.ToStatus(err)
	}
	return out, err
}

func (v *volumes) ListVolumes(ctx context.Context, req *logsv1.ListVolumesRequest, _ ...grpc.CallOption) (*logsv1.ListVolumesResponse, error) {
	return local(ctx, v, logsv1.VolumeService_ListVolumes_FullMethodName, req, v.server.ListVolumes)
}

func (v *volumes) CreateVolume(ctx context.Context, req *logsv1.CreateVolumeRequest, _ ...grpc.CallOption) (*logsv1.CreateVolumeResponse, error) {
	return local(ctx, v, logsv1.VolumeService_CreateVolume_FullMethodName, req, v.server.CreateVolume)
}

func (v *volumes) RemoveVolume(ctx context.Context, req *logsv1.RemoveVolumeRequest, _ ...grpc.CallOption) (*logsv1.RemoveVolumeResponse, error) {
	return local(ctx, v, logsv1.VolumeService_RemoveVolume_FullMethodName, req, v.server.RemoveVolume)
}
